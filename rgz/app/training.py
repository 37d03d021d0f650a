"""What ``rgz train`` runs: train a network on the training set, and save it with its provenance."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rgz import artifacts
from rgz.app import cli_data
from rgz.data import loader
from rgz.errors import BadInput
from rgz.models import checkpoint, train
from rgz.models.vdvae import PRESETS, VDVAE
from rgz.progress import progress
from rgz.transforms.prepare import Recipe, prepare

PRIOR = 1 << 14  # pairs of images from which the correlations of the prior are measured


def network(preset: str, start: Path | None, seed: int) -> tuple[VDVAE, dict[str, Any]]:
    """A new network of a preset or, from the file ``start``, a trained one whose codes are kept; and what it is."""
    if start:
        model, _, about = checkpoint.load(start)
        model.train().keep_codes()
        return model, {"start": about | {"sha256": artifacts.sha256(start)}}
    if preset not in PRESETS:
        raise BadInput(f"no preset is called {preset!r}: known are {', '.join(PRESETS)}")
    torch.manual_seed(seed)
    return VDVAE(PRESETS[preset]), {"preset": preset}


def run(
    model: Any, origin: dict[str, Any], path: Path, weights: Path, schedule: train.Schedule, device: str = "cpu"
) -> float:
    """Train a network, or resume a run, on the training set ``path``.

    The folder of ``weights`` gets the checkpoint and the log, too. ``origin`` says which network it is, and is recorded
    with the weights. Returns the bits per dimension of the validation images.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("this machine has no CUDA device: omit --device")
    seen, held_out = cli_data.splits(path)
    known = int((seen.table["rgz_name"] != "").sum()) if "rgz_name" in seen.table.colnames else 0
    counts = {"sources": len(seen), "radio_galaxy_zoo": known, "validation_sources": len(held_out)}
    # recorded now, so that later edits of the code do not count
    about = artifacts.describe(**origin, **counts, training_set_sha256=artifacts.sha256(path))
    recipe = Recipe(model.config.size)
    pixels = torch.from_numpy(prepare(held_out.images, held_out.pixel, recipe)[0][:, None])
    batch = loader.batches(seen, recipe, schedule.batch, schedule.seed, device)
    inputs = {"training_set_sha256": about["training_set_sha256"], "recipe": asdict(recipe)} | origin
    model = train.fit(model, batch, schedule, weights.parent, validation=pixels, device=device, inputs=inputs)
    if isinstance(model, VDVAE):
        further = range(schedule.steps, schedule.steps + min(schedule.steps, math.ceil(PRIOR / schedule.batch)))
        torch.manual_seed(schedule.seed)  # the noise is the same if the run was killed and resumed after its last step
        model.correlate(map(batch, progress(further, desc="measuring the prior", unit="batch")))
    validation = train.describe(model.to("cpu"), pixels)
    about |= {"steps": schedule.steps, "schedule": asdict(schedule), "validation": validation}
    checkpoint.save(weights, model, recipe, about)
    return float(validation["bits_per_dimension"])

"""What ``rgz train`` runs: train a network on the training set, and save it with its provenance."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from rgz import artifacts
from rgz.app import cli_data
from rgz.data import datasets, fetch, loader, sample
from rgz.data import training_set as training_sets
from rgz.errors import BadInput
from rgz.models import checkpoint, train, vae, vdvae
from rgz.progress import progress
from rgz.transforms.prepare import Recipe, prepare

__all__ = ["PRESETS", "run"]

PRIOR = 1 << 14  # pairs of images from which the correlations of the prior are measured
PRESETS: dict[str, vdvae.Config | vae.Config] = {**vdvae.PRESETS, "plain": vae.Config()}


def run(
    preset: str, path: Path, folder: Path, schedule: train.Schedule, device: str = "cpu", start: Path | None = None
) -> tuple[Path, float]:
    """Train a network, or resume a run, and write its weights.

    Parameters
    ----------
    path
        The training set, built if missing.
    folder
        Gets the checkpoint, the log and the weights.
    start
        Weights of a VDVAE whose codes are kept (:meth:`rgz.models.vdvae.VDVAE.keep_codes`).

    Returns
    -------
    weights, bits
        The file, and the bits per dimension of the validation images.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("this machine has no CUDA device: omit --device")
    seen, held_out = _splits(path)
    # recorded now, so that later edits of the code do not count
    about = artifacts.describe(preset=preset, **_inputs(path, seen, held_out))
    torch.manual_seed(schedule.seed)
    model, recipe, origin = _model(preset, start)
    pixels = torch.from_numpy(prepare(held_out.images, held_out.pixel, recipe)[0][:, None])
    batch = loader.batches(seen, recipe, schedule.batch, schedule.seed, device)
    inputs = {"training_set_sha256": about["training_set_sha256"], "recipe": asdict(recipe)} | origin
    model = train.fit(model, batch, schedule, folder, validation=pixels, device=device, inputs=inputs)
    if isinstance(model, vdvae.VDVAE):
        further = range(schedule.steps, schedule.steps + min(schedule.steps, math.ceil(PRIOR / schedule.batch)))
        model.correlate(map(batch, progress(further, desc="measuring the prior", unit="batch")))
    weights = folder / ("plain.safetensors" if preset == "plain" else "vdvae.safetensors")
    validation = train.describe(model.to("cpu"), pixels)
    about |= {"steps": schedule.steps, "schedule": asdict(schedule), "validation": validation} | origin
    checkpoint.save(weights, model, recipe, about)
    return weights, validation["bits_per_dimension"]


def _model(preset: str, start: Path | None) -> tuple[Any, Recipe, dict[str, Any]]:
    """A new network of a preset, or a trained one whose codes are kept; its preparation; and where it comes from."""
    if start:
        model, recipe, about = checkpoint.load(start)
        if not isinstance(model, vdvae.VDVAE):
            raise BadInput(f"{start} is a plain VAE; only a VDVAE has codes that can be kept")
        model.train().keep_codes()
        return model, recipe, {"start": about | {"sha256": artifacts.sha256(start)}}
    if preset not in PRESETS:
        raise BadInput(f"no preset is called {preset!r}: known are {', '.join(PRESETS)}")
    config = PRESETS[preset]
    return checkpoint.MODELS[type(config)](config), Recipe(config.size), {}


def _splits(path: Path) -> tuple[sample.Sample, sample.Sample]:
    """Training and validation sources."""
    known = cli_data.sources(path)
    seen, held_out = (known[known.table["split"] == split] for split in ("train", "valid"))
    if not len(seen) or not len(held_out):
        raise BadInput(
            f"{path} has {len(seen)} train and {len(held_out)} valid rows; training needs both: rgz data build"
        )
    return seen, held_out


def _inputs(path: Path, seen: sample.Sample, held_out: sample.Sample) -> dict[str, Any]:
    """What a network was trained on: counts and hashes."""
    names = {name: datasets.SAMPLES[name][0] for name in ("mirabest", "rgd")}
    names |= {name: name for name in (training_sets.FITS_FIELDS, training_sets.ZOO)}
    return {
        "sources": len(seen),
        "radio_galaxy_zoo": int((seen.table["rgz_name"] != "").sum()) if "rgz_name" in seen.table.colnames else 0,
        "validation_sources": len(held_out),
        "training_set_sha256": artifacts.sha256(path),
        "data": {name: fetch.REGISTRY[archive].sha256 for name, archive in names.items()},
    }

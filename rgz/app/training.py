"""The command ``rgz train``, and the training set."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rgz import artifacts
from rgz.errors import BadInput

if TYPE_CHECKING:
    from rgz.data.sample import Sample
    from rgz.models.train import Schedule

__all__ = ["TRAINING_SET", "run", "splits", "train"]

TRAINING_SET = Path("runs/train.h5")
PRIOR = 1 << 14  # pairs of images from which the correlations of the prior are measured


def train(
    preset: Annotated[str, typer.Option(help="deep (the network of the book) or tiny (for tests).")] = "deep",
    steps: Annotated[int, typer.Option(min=1, help="Number of optimizer steps of the whole schedule.")] = 6000,
    batch: Annotated[int, typer.Option(min=2, help="Images in a batch, an even number.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of initial weights, batches and noise.")] = 0,
    path: Annotated[
        Path, typer.Option("--data", help="Training set, as written by rgz.data.sample.write.")
    ] = TRAINING_SET,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; by default runs/PRESET, with --start runs/finer.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    start: Annotated[
        Path | None, typer.Option(help="VDVAE whose codes are kept: only the decoder finer than 8 × 8 is trained on.")
    ] = None,
) -> None:
    """Train a VDVAE on unlabelled images; the same command resumes an interrupted run. Minutes on a GPU, a day on
    two cores.

    Example: rgz train --device cuda --batch 256 --steps 5823
    """
    import torch

    from rgz.models import checkpoint, vdvae
    from rgz.models.train import Schedule

    if start:
        model, _, about = checkpoint.load(start)
        model.train().keep_codes()
        origin: dict[str, Any] = {"start": about | {"sha256": artifacts.sha256(start)}}
    elif preset in vdvae.PRESETS:
        torch.manual_seed(seed)
        model, origin = vdvae.VDVAE(vdvae.PRESETS[preset]), {"preset": preset}
    else:
        raise BadInput(f"no preset is called {preset!r}: known are {', '.join(vdvae.PRESETS)}")
    weights = (out or Path("runs") / ("finer" if start else preset)) / "vdvae.safetensors"
    bits = run(model, origin, path, weights, Schedule(steps=steps, batch=batch, seed=seed), device)
    typer.echo(f"{weights}: {steps} steps, {bits} bits/dim on validation images")


def splits(path: Path) -> tuple["Sample", "Sample"]:
    """Training and validation sources of a training set.

    Raises :class:`rgz.errors.BadInput` if the file is missing or damaged, or has no sources of one of them.
    """
    from rgz.data import sample

    if not path.exists():
        raise BadInput(
            f"{path} is missing: rgz study training-set makes it in a clone; or give another one with --data"
        )
    known = sample.read(path)
    seen, held_out = (known[known.table["split"] == split] for split in ("train", "valid"))
    if not len(seen) or not len(held_out):
        raise BadInput(f"{path} has {len(seen)} train and {len(held_out)} valid rows: give a file with both")
    return seen, held_out


def run(
    model: Any, origin: dict[str, Any], path: Path, weights: Path, schedule: "Schedule", device: str = "cpu"
) -> float:
    """Train a network, or resume a run, on the training set ``path``.

    The folder of ``weights`` gets the checkpoint and the log, too. ``origin`` says which network it is, and is recorded
    with the weights. Returns the bits per dimension of the validation images.
    """
    import torch

    from rgz.data import loader
    from rgz.models import checkpoint, vdvae
    from rgz.models import train as trainer
    from rgz.progress import progress
    from rgz.transforms.prepare import Recipe, prepare

    if device == "cuda" and not torch.cuda.is_available():
        raise BadInput("this machine has no CUDA device: omit --device")
    seen, held_out = splits(path)
    known = int((seen.table["rgz_name"] != "").sum()) if "rgz_name" in seen.table.colnames else 0
    counts = {"sources": len(seen), "radio_galaxy_zoo": known, "validation_sources": len(held_out)}
    # recorded now, so that later edits of the code do not count
    about = artifacts.describe(**origin, **counts, training_set_sha256=artifacts.sha256(path))
    recipe = Recipe(model.config.size)
    pixels = torch.from_numpy(prepare(held_out.images, held_out.pixel, recipe)[0][:, None])
    batch = loader.batches(seen, recipe, schedule.batch, schedule.seed, device)
    inputs = {"training_set_sha256": about["training_set_sha256"], "recipe": asdict(recipe)} | origin
    model = trainer.fit(model, batch, schedule, weights.parent, validation=pixels, device=device, inputs=inputs)
    if isinstance(model, vdvae.VDVAE):
        further = range(schedule.steps, schedule.steps + min(schedule.steps, math.ceil(PRIOR / schedule.batch)))
        torch.manual_seed(schedule.seed)  # the noise is the same if the run was killed and resumed after its last step
        model.correlate(map(batch, progress(further, desc="measuring the prior", unit="batch")))
    validation = trainer.describe(model.to("cpu"), pixels)
    about |= {"steps": schedule.steps, "schedule": asdict(schedule), "validation": validation}
    checkpoint.save(weights, model, recipe, about)
    return float(validation["bits_per_dimension"])

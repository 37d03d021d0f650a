"""Ablations: a network with latents at three resolutions, trained repeatedly with one setting changed each time.

Each run is evaluated by its bits per dimension on held-out sources and by an SVM probe: the accuracy of a support
vector machine on its codes, for FRI against FRII. The accuracy is cross-validated on the official training images
alone, so that it can be used to choose a network. The first run is repeated with another seed, and differences as small
as that between the two are not interpreted. A run takes four minutes on two cores, and the last three take longer: they
are networks similar to that of the book, or of a similar size. An interrupted run continues.

    python -m studies.ablations train                  # all of them
    python -m studies.ablations train "full width"     # those named
    python -m studies.ablations probe runs/small/vdvae.safetensors --note "4 latents fewer"
"""

import argparse
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from joblib import parallel_config
from numpy.typing import NDArray
from torch import Tensor, nn

from rgz import artifacts
from rgz.data import datasets, loader, sample
from rgz.errors import BadInput
from rgz.features import embed
from rgz.models import checkpoint, train
from rgz.models.vdvae import PRESETS, VDVAE, Config
from rgz.tasks.classify import confident, folds, groups, is_frii
from rgz.transforms import prepare
from studies import classification, inputs, results
from studies.classifiers import Features, predict

THREE = replace(PRESETS["small"], decoder=((1, 2), (4, 6), (8, 8), (16, 4)), latents=(1, 4, 8), channels=16, beta=1.0)
HALF = replace(THREE, width=96)
FINER = replace(HALF, decoder=((1, 2), (4, 4), (8, 6), (16, 6)), latents=(1, 4, 8, 16))
LARGER = replace(HALF, patch=4)  # 64 × 64 pixels: the same resolutions inside, four times as many pixels


class Reweighted(nn.Module):
    """A VDVAE with a weight for the rate of each resolution, or with free bits, ``free`` nats a block."""

    weights: Tensor

    def __init__(self, model: VDVAE, weights: dict[int, float], free: float):
        super().__init__()
        self.model, self.levels, self.free = model, model.levels, free
        self.register_buffer("weights", torch.tensor([float(weights.get(r, model.config.beta)) for r in model.levels]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The model's output with another ``loss``."""
        out: dict[str, Tensor] = self.model(images)
        rate = (self.weights * out["rate"].mean(0)).clamp(min=self.free)
        loss = (out["distortion"].mean() + rate.sum()) / (images[0].numel() * math.log(2))
        return out | {"loss": loss}


def unrotated(image: NDArray[Any], radius: float, find: Any = prepare.find_orientation) -> prepare.Orientation:
    """Only the length of a source, so that it keeps its orientation on the sky."""
    return prepare.Orientation(length=find(image, radius).length)


def stretched(curve: Callable[[NDArray[Any]], NDArray[Any]]) -> Callable[[NDArray[Any]], NDArray[np.uint8]]:
    """A stretch to 256 grey levels with another function of brightness over peak."""
    return lambda image: np.rint(255 * curve(np.clip(image, 0, None) / image.max())).astype(np.uint8)


@dataclass(frozen=True)
class Ablation:
    """The changed setting: architecture, image recipe, loss, schedule, or a function of the preparation."""

    config: Config = HALF
    recipe: prepare.Recipe = field(default_factory=prepare.Recipe)
    schedule: train.Schedule = field(default_factory=lambda: train.Schedule(steps=500))
    weights: dict[int, float] = field(default_factory=dict)
    free: float = 0.0
    functions: dict[str, Callable[..., Any]] = field(default_factory=dict)


ABLATIONS = {
    "half width": Ablation(),
    "half width, another seed": Ablation(schedule=train.Schedule(steps=500, seed=1)),
    "latents at 1 × 1, 4 × 4": Ablation(replace(HALF, latents=(1, 4))),
    "latents at 4 × 4, 8 × 8": Ablation(replace(HALF, latents=(4, 8))),
    "latents at 1 × 1, 4 × 4, 8 × 8, 16 × 16": Ablation(FINER),
    "4 latent channels instead of 16": Ablation(replace(HALF, channels=4)),
    "free bits, ½ nat per block": Ablation(free=0.5),
    "β = ¼ at 1 × 1 and 4 × 4": Ablation(weights={1: 0.25, 4: 0.25}),
    "β = ¼ at all resolutions": Ablation(weights=dict.fromkeys((1, 4, 8), 0.25)),
    "fixed crop of 115″": Ablation(recipe=prepare.Recipe(narrowest=115.2, widest=115.2)),
    "64 × 64 pixels": Ablation(LARGER, prepare.Recipe(64)),
    "no alignment": Ablation(functions={"find_orientation": unrotated}),
    "no stretch": Ablation(functions={"stretch": stretched(lambda x: x)}),
    "logarithmic stretch": Ablation(functions={"stretch": stretched(lambda x: np.log1p(100 * x) / np.log(101))}),
    "full width": Ablation(THREE),
    "three times as many steps": Ablation(schedule=train.Schedule(steps=1500)),
    "latents at 1 × 1, 4 × 4, 8 × 8, full width, longer schedule": Ablation(THREE, schedule=train.Schedule(steps=4000)),
    "128 latents at 4 × 4, β = 0.1, half width": Ablation(
        replace(PRESETS["small"], width=96), schedule=train.Schedule(steps=1500)
    ),
    "128 latents at 4 × 4, β = 0.1, full width, shorter schedule": Ablation(
        PRESETS["small"], schedule=train.Schedule(steps=2500)
    ),
}


def probe(weights: Path, training: sample.Sample, dimensions: int = 64, repeats: int = 3) -> results.Row:
    """One row for a run: steps, held-out bits per dimension, rates, and accuracy and ROC-AUC of the SVM probe.

    ``training`` are the sources over which the ``dimensions`` latents of largest variance are chosen.

    Raises
    ------
    BadInput
        The model has fewer latents.
    """
    model, recipe, about = checkpoint.load(weights)
    if dimensions > model.dimensions:
        raise BadInput(f"this model has {model.dimensions} latents: {dimensions} is more")
    means, _ = embed.full_codes(model, sample.prepared(training, recipe))
    galaxies = datasets.load_dataset("mirabest")
    galaxies = galaxies[confident(galaxies.table) & (galaxies.table["split"] != "test")]
    galaxies = galaxies[sample.usable(galaxies, recipe)]
    views = embed.of_views(model, recipe, galaxies, embed.rank(means)[:dimensions], prepare.MIRRORED)
    labels = is_frii(galaxies.table)
    rounds = list(folds(labels, groups(galaxies.table), repeats))
    row = {"step": about["steps"], "bits_per_dimension": about["validation"]["bits_per_dimension"]}
    row |= {f"rate_{r}": rate for r, rate in about["validation"]["rate_nats"].items()} | {"latents": dimensions}
    for name, values in {"code": views[0], "code_views": prepare.pool(views)}.items():
        with parallel_config(n_jobs=-1):
            ((_, found),) = predict(Features(name, values), labels, rounds, classification.SVM).items()
        reached = classification.over_folds(labels, rounds, found)
        row |= {f"{name}_{metric}": reached[metric][0] for metric in ("accuracy", "roc_auc")}
    return row


def run(name: str, folder: Path) -> results.Row:
    """Train one ablation, or continue it, and probe it."""
    one, (seen, held_out) = ABLATIONS[name], inputs.training_set()
    with ExitStack() as changed:
        for function, other in one.functions.items():
            changed.enter_context(patch.object(prepare, function, other))
        pixels = torch.from_numpy(sample.prepared(held_out, one.recipe)[:, None])
        torch.manual_seed(one.schedule.seed)
        model, done = train.fit(
            Reweighted(VDVAE(one.config), one.weights, one.free),
            loader.batches(seen, one.recipe, one.schedule.batch, one.schedule.seed),
            one.schedule,
            folder,
            validation=pixels,
            inputs={"training_set_sha256": artifacts.sha256(inputs.TRAINING_SET), "ablation": name},
        )
        about = artifacts.describe(preset=name, steps=done, validation=train.describe(model.model, pixels))
        checkpoint.save(folder / "vdvae.safetensors", model.model, one.recipe, about)
        return probe(folder / "vdvae.safetensors", seen, dimensions=128) | {"note": name}


def main() -> None:
    """Train ablations, or probe the weights of a run; each adds a row to ``results/ablations.csv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    training = verbs.add_parser("train", help="train ablations and probe them")
    training.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(ABLATIONS)}; by default all")
    probing = verbs.add_parser("probe", help="probe the weights of a run")
    probing.add_argument("weights", type=Path)
    probing.add_argument("--note", required=True, help="label of this run")
    probing.add_argument("--dimensions", type=int, default=64, help="number of latents in the code")
    asked = parser.parse_args()
    if asked.verb == "probe":
        rows = iter([probe(asked.weights, inputs.training_set()[0], asked.dimensions) | {"note": asked.note}])
    else:
        if unknown := set(asked.names) - set(ABLATIONS):
            parser.error(f"no ablation is called {', '.join(map(repr, unknown))}")
        chosen = [(number, name) for number, name in enumerate(ABLATIONS) if name in (asked.names or ABLATIONS)]
        rows = (run(name, Path("runs/ablations") / f"{number:02}") for number, name in chosen)
    for row in rows:
        results.append("ablations", row)
        print(row, flush=True)


if __name__ == "__main__":
    results.run(main)

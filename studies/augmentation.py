"""Do generated galaxies help if labels are scarce? A CNN trained with 50, 100 and 200 labels, with and without them.

For each seed, labelled galaxies are drawn from the official training split of MiraBest Confident, in the proportion of
the classes. Smaller sets are subsets of larger ones. The CNN is tested on all remaining confident galaxies, including
the official test split, but not on other images of a drawn source. The test galaxies of a seed are the same for all
arms and numbers of labels. Five arms have the same number of optimiser steps and the same initial weights:

real
    the labelled images alone,
turned
    these, and four more views of each, rotated by a few degrees, scaled by a few per cent and shifted by up to a pixel,
redrawn after 4, 3, 1
    these, and four generated images of each with its label. The VDVAE keeps the latents of the first 4, 3 or 1 of its 8
    blocks and resamples the later ones (:func:`rgz.tasks.generate.resample_fine_latents`): one, two or three of the
    four active blocks are resampled. Whether the class stays the same is part of the question.

The network is that of :mod:`studies.cnn`, reduced to prepared images of 32 pixels, because the VDVAE generates only
these. They are aligned with the rows, so in all arms they are mirrored along and across but not rotated further. A
predicted probability is the mean over the four mirrored views.

The VDVAE was trained without labels on thousands of FIRST sources. These include the training galaxies and the test
galaxies outside the official test split. With 50 labels, a generated image therefore contains information from far more
than 50 galaxies; a code of the same VDVAE would, too.

Ten minutes on one thread. Rows in ``results/augmentation.csv`` are kept, so an interrupted run continues.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from torch import Tensor, nn

from rgz import metrics
from rgz.data import datasets, sample
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.tasks import classify, generate
from rgz.transforms import prepare
from studies import cnn, inputs, results

LABELS = (50, 100, 200)
KEPT = (4, 3, 1)  # blocks
ARMS = ("real", "turned", *(f"redrawn after {kept}" for kept in KEPT))
TIMES = 4  # additional images of each labelled galaxy
SEEDS, STEPS = 5, 600


def train(pixels: NDArray[Any], labels: NDArray[Any], steps: int, seed: int) -> nn.Sequential:
    """Fit a CNN to prepared images (N, 32, 32) and labels (N,), 1 for FRII."""
    torch.manual_seed(seed)
    model = cnn.network(32, kernel=5, pool=False)
    epochs = -(-steps * cnn.BATCH // len(pixels))
    walk = torch.cat([torch.randperm(len(pixels)) for _ in range(epochs)])[: steps * cnn.BATCH]

    def mirrored(part: Tensor) -> Tensor:
        for axis in (2, 3):
            part = torch.where(torch.randint(2, (len(part), 1, 1, 1)) > 0, part.flip(axis), part)
        return part

    return cnn.fit(model, cnn.scaled(pixels), labels, torch.split(walk, cnn.BATCH), steps, mirrored)


@torch.no_grad()
def predict(model: nn.Sequential, views: NDArray[Any]) -> NDArray[Any]:
    """Probability of FRII (N,) of prepared images (views, N, 32, 32): the mean over views."""
    return np.asarray(np.mean([torch.sigmoid(model(cnn.scaled(view))).numpy() for view in views], axis=0))


def draw(table: Table, seed: int) -> tuple[dict[int, NDArray[Any]], NDArray[Any]]:
    """Rows of the labelled galaxies, for each number in ``LABELS``, and rows of the test galaxies."""
    rng, labels, group = np.random.default_rng(seed), classify.is_frii(table), classify.groups(table)
    seen = np.asarray(table["split"]) != "test"
    share = labels[seen].mean()
    one, two = (rng.permutation(np.flatnonzero(seen & (labels == kind))) for kind in (0, 1))
    drawn = {n: np.concatenate([one[: n - round(n * share)], two[: round(n * share)]]) for n in LABELS}
    return drawn, np.flatnonzero(~np.isin(group, group[drawn[max(LABELS)]]))


def turned(galaxies: sample.Sample, recipe: prepare.Recipe, seed: int) -> NDArray[Any]:
    """Each galaxy ``TIMES`` times, augmented as in training but without reflections: (TIMES, N, 32, 32)."""
    rng, found = np.random.default_rng(seed), []
    for image in galaxies.images:
        orientations = [
            prepare.Orientation(
                rng.normal(0, np.radians(6)),
                length=float(np.exp(rng.normal(0, 0.05))),
                shift=tuple(rng.uniform(-1, 1, 2)),
            )
            for _ in range(TIMES)
        ]
        found.append(prepare.views(image, galaxies.pixel, recipe, orientations))
    return np.stack(found, axis=1)


def arms(
    model: VDVAE, recipe: prepare.Recipe, galaxies: sample.Sample, pixels: NDArray[Any], seed: int
) -> Iterator[Any]:
    """Name of each arm and its additional images (TIMES, N, 32, 32) of galaxies prepared as ``pixels`` (N, 32, 32)."""
    yield "real", pixels[None, :0]
    yield "turned", turned(galaxies, recipe, seed)
    for kept in KEPT:
        yield f"redrawn after {kept}", generate.resample_fine_latents(model, pixels, kept, TIMES, seed)


def main() -> None:
    """Train what is missing in ``results/augmentation.csv``, and print means over seeds."""
    found = results.read("augmentation") if (results.FOLDER / "augmentation.csv").exists() else None
    done = set() if found is None else set(found[["labels", "seed", "arm"]].itertuples(index=False, name=None))
    missing = [one for one in product(range(SEEDS), ARMS, LABELS) if (one[2], one[0], one[1]) not in done]
    model, recipe = inputs.network()
    galaxies = datasets.load_dataset("mirabest")
    galaxies = galaxies[classify.confident(galaxies.table)]
    galaxies = galaxies[sample.usable(galaxies, recipe)]
    labels = classify.is_frii(galaxies.table)
    views = np.stack([sample.prepared(galaxies, recipe, view) for view in prepare.MIRRORED])
    for seed in progress(sorted({one[0] for one in missing}), desc="training CNNs", unit="seed"):
        drawn, judged = draw(galaxies.table, seed)
        rows = np.unique(np.concatenate(list(drawn.values())))
        pixels = views[0, rows]
        for arm, further in arms(model, recipe, galaxies[rows], pixels, seed):
            for number in (n for n in LABELS if (seed, arm, n) in missing):
                chosen = np.isin(rows, drawn[number])
                shown = np.concatenate([pixels[chosen], *further[:, chosen]]) if arm != "real" else pixels[chosen]
                fitted = train(shown, np.resize(labels[rows][chosen], len(shown)), STEPS, seed)
                reached = metrics.scores(labels[judged], predict(fitted, views[:, judged]))
                about = {"labels": number, "seed": seed, "arm": arm}
                results.append("augmentation", about | {name: reached[name] for name in ("accuracy", "roc_auc")})
    print(results.read("augmentation").groupby(["labels", "arm"])[["accuracy", "roc_auc"]].agg(["mean", "std"]))


if __name__ == "__main__":
    results.run(main)

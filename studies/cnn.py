"""A supervised CNN, for comparison with codes that were learned without labels.

Five convolutions and three dense layers on the whole image, similar to the network with which Tang, Scaife & Leahy 2019
(arXiv:1903.11921) classified FR-DEEP. Its training galaxies are randomly rotated and mirrored, since the sky has no
preferred direction, and its probability for a galaxy is the mean over eight such views.

Run as a program, this module trains it on the same folds as the codes: one round of 5-fold cross-validation and the
official split of three samples. These are 18 networks and take half an hour on two cores. The probabilities of all
held-out galaxies are written to ``results/cnn.csv``, which :mod:`studies.classification` reads. With the argument
``catalogues``, it trains four networks for :mod:`studies.validity` on all catalogues but the one that is tested, and
writes ``results/cnn_catalogues.csv``. Rounds in a file are not run again.
"""

import math
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rgz import artifacts
from rgz.data import datasets, fetch
from rgz.data.sample import usable
from rgz.progress import progress
from rgz.tasks import classify
from rgz.transforms import fields
from studies import labelled, metrics, results, validity
from studies.encode import FIRST

SAMPLES = ("frdeep-nvss", "mirabest", "frdeep-first")
SIZE = 150  # pixels along a side
BATCH = 32
STEPS = 700  # of the training on several catalogues


def network() -> nn.Sequential:
    """(N, 1, 150, 150) in 0 … 1 to (N,) logits of FRII.

    >>> network()(torch.zeros(2, 1, 150, 150)).shape
    torch.Size([2])
    """

    def block(before: int, after: int, kernel: int, stride: int = 1, pool: bool = True) -> list[nn.Module]:
        layers = [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.BatchNorm2d(after)]
        return [*layers, *[nn.MaxPool2d(2)] * pool, nn.ReLU()]  # in this order a quarter of the pixels are rectified

    model: Any = nn.Sequential(
        *block(1, 6, 11, stride=2, pool=False),
        *block(6, 16, 5),
        *block(16, 24, 3),
        *block(24, 24, 3, pool=False),
        *block(24, 16, 3),
        nn.Flatten(),
        nn.Linear(16 * (SIZE // 16) ** 2, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 1),
        nn.Flatten(0),
    )
    return cast(nn.Sequential, model.to(memory_format=torch.channels_last))


def turned(pixels: Tensor, angle: Tensor, mirror: Tensor) -> Tensor:
    """Images (N, 1, H, W) mirrored by ±1 (N,) and rotated by angles (N,) in radians, in one linear interpolation."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(cos)
    matrix = torch.stack([cos * mirror, -sin, zero, sin * mirror, cos, zero], dim=1).reshape(-1, 2, 3)
    return F.grid_sample(pixels, F.affine_grid(matrix, list(pixels.shape), align_corners=False), align_corners=False)


def scaled(images: NDArray[Any]) -> Tensor:
    """Grey levels (N, H, W) as (N, 1, H, W) in 0 … 1."""
    return torch.from_numpy(np.ascontiguousarray(images[:, None])).float() / 255


def train(images: NDArray[Any], labels: NDArray[Any], epochs: int = 60, seed: int = 0) -> nn.Sequential:
    """Train a :func:`network` on images (N, 150, 150) uint8 and labels (N,), 1 for FRII.

    AdamW, with a learning rate that falls from 10⁻³ to zero along a cosine; the weights of the last step are used.
    """
    torch.manual_seed(seed)
    model, pixels = network(), scaled(images)
    target = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(images) / BATCH))
    for _ in progress(range(epochs), desc="training the CNN", unit="epoch", leave=False, disable=None):
        for rows in torch.split(torch.randperm(len(images)), BATCH):
            if len(rows) == 1:  # too few for batch norm
                continue
            angle, mirror = 2 * math.pi * torch.rand(len(rows)), 2.0 * torch.randint(2, (len(rows),)) - 1
            loss = F.binary_cross_entropy_with_logits(model(turned(pixels[rows], angle, mirror)), target[rows])
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def predict(model: nn.Sequential, images: NDArray[Any]) -> NDArray[Any]:
    """Probability of FRII of images (N, 150, 150) uint8: the mean over four quarter turns, each also mirrored."""
    found = []
    for part in torch.split(scaled(images), 4 * BATCH):
        views = [
            turned(part, torch.full((len(part),), quarter * math.pi / 2), torch.full((len(part),), mirror))
            for quarter in range(4)
            for mirror in (1.0, -1.0)
        ]
        found.append(torch.stack([torch.sigmoid(model(view)) for view in views]).mean(0))
    return np.asarray(torch.cat(found))


class Round(NamedTuple):
    """Galaxies on which one network is trained, and those that are held out."""

    sample: str  # of those that are held out
    part: str
    seen: NDArray[np.uint8]  # images (N, 150, 150)
    labels: NDArray[np.int64]  # (N,)
    names: list[str]  # of held-out galaxies, (M,)
    held_out: NDArray[np.uint8]  # images (M, 150, 150)
    options: dict[str, int]  # of the training


def of_samples() -> Iterator[Round]:
    """The folds and the official split of each sample."""
    for name in SAMPLES:
        sample = datasets.load_dataset(name)
        sample = sample[usable(sample) & labelled.confident(sample.table)]  # same rows and order as for the codes
        table, labels = sample.table, metrics.is_frii(sample.table)
        test = np.asarray(table["split"]) == "test"
        rounds = {f"fold {k}": rows for k, rows in enumerate(labelled.folds(labels, labelled.groups(table), repeats=1))}
        rounds["official"] = np.flatnonzero(~test), np.flatnonzero(test)
        for seed, (part, (seen, held_out)) in enumerate(rounds.items()):
            asked = list(table["name"][held_out]), sample.images[held_out]
            yield Round(name, part, sample.images[seen], labels[seen], *asked, {"seed": seed})


def of_catalogues() -> Iterator[Round]:
    """Each catalogue of FIRST, and the strangers: the FRI and FRII of the others are trained on."""
    known = labelled.labelled(FIRST)
    table, names = known.table, np.asarray(known.table["name"])
    of_class = np.isin(table["label"], classify.CLASSES[:2])
    loaded = [datasets.load_dataset(name).named(names[table["sample"] == name]) for name in FIRST]
    images = np.concatenate([fields.crop(sample.images, SIZE) for sample in loaded])  # in the order of the rows
    others = validity.strangers()
    others = others[np.isin(others.table["label"], classify.CLASSES[:2])]
    rounds = {}
    for name in FIRST:
        train, test = validity.split(name, known)
        rounds[name] = train, names[test], images[test]
    rounds[validity.STRANGERS] = np.full(len(names), True), np.asarray(others.table["name"]), others.images
    for name, (train, asked, shown) in rounds.items():
        seen = train & of_class
        options = {"epochs": round(STEPS * BATCH / seen.sum())}
        yield Round(name, validity.OTHERS, images[seen], metrics.is_frii(table[seen]), list(asked), shown, options)


def complete(name: str, rounds: Iterable[Round], inputs: list[Path]) -> None:
    """Train what is missing in ``results/NAME.csv``."""
    columns = ["sample", "round", "name", "probability"]
    found = results.read(name) if (results.FOLDER / f"{name}.csv").exists() else pd.DataFrame(columns=columns)
    for one in rounds:
        old = (found["sample"] == one.sample) & (found["round"] == one.part)
        if list(found["name"][old]) == one.names:
            continue
        probability = predict(train(one.seen, one.labels, **one.options), one.held_out)
        values = {"sample": one.sample, "round": one.part, "name": one.names, "probability": probability}
        found = pd.concat([found[~old], pd.DataFrame(values)])
        results.write(name, found, inputs)


def main() -> None:
    """Train what is missing in ``results/cnn.csv`` or, with the argument ``catalogues``, for the other table."""
    if sys.argv[1:] == ["catalogues"]:
        inputs = [fetch.fetch(datasets.SAMPLES[name][0]) for name in FIRST]
        inputs += [fetch.fetch(validity.ARCHIVE), artifacts.artifact("codes.h5")]
        complete("cnn_catalogues", of_catalogues(), inputs)
    else:
        complete("cnn", of_samples(), [fetch.fetch(datasets.SAMPLES[name][0]) for name in SAMPLES])


if __name__ == "__main__":
    results.run(main)

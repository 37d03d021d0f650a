"""Do generated galaxies help where labels are few? A CNN taught with 50, 100 and 200 labels, with and without them.

Each seed draws its labelled galaxies from the official training part of MiraBest Confident, as many of each class as there are in
it, and the fewer are among the more. The CNN is judged on all confident galaxies that are left, the official test split among
them; a source that was drawn has no other image there, and the test galaxies of a seed are the same for all arms and numbers of
labels. Five arms, the same number of optimiser steps and the same first weights in each:

real
    the labelled images alone,
turned
    these, and four more views of each, turned by a few degrees, scaled by a few per cent and shifted by up to a pixel,
redrawn after 4, 3, 1
    these, and four more images of each with its label, for which the VDVAE kept the latents of so many of its 8 blocks and drew
    the later ones anew (``rgz.tasks.generate.redrawn``): of the four blocks that say anything one, two and three are drawn. That the
    class stays is what is on trial.

The network is that of ``studies.cnn``, five convolutions and three dense layers with the same optimiser, made smaller for prepared
images of 32 pixels, for the VDVAE generates no others. These lie along the rows already, so that in all arms they are mirrored
along and across and not turned further, and a probability is the mean over the four mirrored views.

The VDVAE was trained without labels, on thousands of FIRST sources, these training galaxies among them and with them those that
are judged here outside the official test split. What it adds is what it knows of galaxies without labels: with 50 labels, a
generated image has seen far more than 50 galaxies, and a code of the same VDVAE would have too.

Ten minutes on one thread. Lines that are in the table stay, so a run that was interrupted goes on.

    python benchmarks/augmentation.py
"""

import argparse
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from astropy.table import Table
from torch import Tensor, nn

from rgz import artifacts
from rgz.data import datasets, sample
from rgz.models import checkpoint
from rgz.progress import progress
from rgz.tasks import classify, generate
from rgz.transforms import prepare
from studies import classification

LABELS = (50, 100, 200)
KEPT = (4, 3, 1)  # blocks
ARMS = ("real", "turned", *(f"redrawn after {kept}" for kept in KEPT))
TIMES = 4  # further images of each labelled galaxy
BATCH = 32


def network() -> nn.Sequential:
    """(N, 1, 32, 32) in 0 … 1 to (N,) logits of FRII."""

    def block(before, after, kernel, *, stride=1, pool=True):
        layers = [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.BatchNorm2d(after), nn.ReLU()]
        return [*layers, nn.MaxPool2d(2)] if pool else layers

    model = nn.Sequential(
        *block(1, 6, 5, stride=2, pool=False),
        *block(6, 16, 5),
        *block(16, 24, 3),
        *block(24, 24, 3, pool=False),
        *block(24, 16, 3, pool=False),
        nn.Flatten(),
        nn.Linear(16 * 4**2, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 1),
        nn.Flatten(0),
    )
    return model.to(memory_format=torch.channels_last)


def _scaled(pixels: np.ndarray) -> Tensor:
    """Grey levels (N, 32, 32) as (N, 1, 32, 32) in 0 … 1."""
    return torch.from_numpy(np.ascontiguousarray(pixels[:, None])).float() / 255


def train(pixels: np.ndarray, labels: np.ndarray, steps: int, seed: int) -> nn.Sequential:
    """Fit a :func:`network` to prepared images (N, 32, 32) and labels (N,), 1 for FRII, as :func:`studies.cnn.train` does."""
    torch.manual_seed(seed)
    model, shown = network(), _scaled(pixels)
    target = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    epochs = -(-steps * BATCH // len(shown))
    walk = torch.cat([torch.randperm(len(shown)) for _ in range(epochs)])[: steps * BATCH]
    for rows in walk.split(BATCH):
        batch = shown[rows]
        for axis in (2, 3):
            batch = torch.where(torch.randint(2, (len(rows), 1, 1, 1)) > 0, batch.flip(axis), batch)
        loss = F.binary_cross_entropy_with_logits(model(batch), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def predict(model: nn.Sequential, views: np.ndarray) -> np.ndarray:
    """Probability of FRII (N,) of prepared images (views, N, 32, 32): the mean over views."""
    return np.mean([torch.sigmoid(model(_scaled(view))).numpy() for view in views], axis=0)


def draw(table: Table, seed: int) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Rows of as many labelled galaxies as each of ``LABELS`` says, and rows of the galaxies to judge by."""
    rng, labels, group = np.random.default_rng(seed), classify.is_frii(table), classify.groups(table)
    seen = np.asarray(table["split"]) != "test"
    share = labels[seen].mean()
    one, two = (rng.permutation(np.flatnonzero(seen & (labels == kind))) for kind in (0, 1))
    drawn = {n: np.concatenate([one[: n - round(n * share)], two[: round(n * share)]]) for n in LABELS}
    return drawn, np.flatnonzero(~np.isin(group, group[drawn[max(LABELS)]]))


def turned(galaxies: sample.Sample, recipe: prepare.Recipe, seed: int) -> np.ndarray:
    """Each galaxy ``TIMES`` times as :func:`rgz.data.loader.batches` shows it, but for mirroring: (TIMES, N, 32, 32)."""
    rng, found = np.random.default_rng(seed), []
    for image in galaxies.images:
        turns = [
            prepare.Orientation(
                rng.normal(0, np.radians(6)),
                length=float(np.exp(rng.normal(0, 0.05))),
                shift=tuple(rng.uniform(-1, 1, 2)),
            )
            for _ in range(TIMES)
        ]
        found.append(prepare.views(image, galaxies.pixel, recipe, turns))
    return np.stack(found, axis=1)


def summary(table: Table) -> str:
    """Mean and standard deviation over seeds of each arm, and how far it is above the real images alone, seed by seed."""
    lines = [f"{'labels':>6}  {'arm':18}{'accuracy':>16}{'ROC-AUC':>16}{'Δ accuracy':>18}{'Δ ROC-AUC':>18}"]
    for labels, arm in product(LABELS, ARMS):
        rows = {
            one: {line["seed"]: line for line in table[(table["labels"] == labels) & (table["arm"] == one)]}
            for one in ("real", arm)
        }
        both = sorted(rows["real"].keys() & rows[arm].keys())
        if not both:
            continue
        line = f"{labels:6}  {arm:18}"
        values = {one: np.array([[rows[one][s][m] for m in ("accuracy", "roc_auc")] for s in both]) for one in rows}
        for mean, std in zip(values[arm].mean(0), values[arm].std(0), strict=True):
            line += f"{mean:9.3f} ±{std:.3f}"
        ahead = values[arm] - values["real"]
        for mean, std in zip(ahead.mean(0), ahead.std(0), strict=True):
            line += f"{mean:+11.3f} ±{std:.3f}" if arm != "real" else ""
        lines.append(line)
    return "\n".join(lines)


def main(out: Path, seeds: int, steps: int):
    """Train what is missing in ``out``, and show the means."""
    done = Table.read(out, format="ascii.csv") if out.exists() else ()
    done = {(int(line["labels"]), int(line["seed"]), str(line["arm"])) for line in done}
    missing = [one for one in product(LABELS, range(seeds), ARMS) if one not in done]
    model, recipe, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    galaxies = datasets.load_dataset("mirabest")
    galaxies = galaxies[classify.confident(galaxies.table)]
    galaxies = galaxies[sample.usable(galaxies, recipe)]
    labels = classify.is_frii(galaxies.table)
    views = np.stack([sample.prepared(galaxies, recipe, view) for view in prepare.MIRRORED])
    bar = progress(total=len(missing), desc="training CNNs", unit="network")
    for seed in range(seeds):
        mine = [one for one in missing if one[1] == seed]
        if not mine:
            continue
        drawn, judged = draw(galaxies.table, seed)
        rows = np.unique(np.concatenate(list(drawn.values())))
        pixels = views[0, rows]
        further = {
            "real": pixels[:0][None],
            "turned": turned(galaxies[rows], recipe, seed),
        } | {f"redrawn after {kept}": generate.redrawn(model, pixels, kept, TIMES, seed) for kept in KEPT}
        for number, _, arm in mine:
            chosen = np.isin(rows, drawn[number])
            shown, told = pixels[chosen], labels[rows][chosen]
            if arm != "real":
                shown = np.concatenate([shown, *further[arm][:, chosen]])
            fitted = train(shown, np.resize(told, len(shown)), steps, seed)
            found = classify.scores(labels[judged], predict(fitted, views[:, judged]))
            line = {"labels": number, "seed": seed, "arm": arm}
            classification.add_line(line | {name: round(found[name], 4) for name in ("accuracy", "roc_auc")}, out)
            bar.update()
    bar.close()
    print(summary(Table.read(out, format="ascii.csv")))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("artifacts/augmentation.csv"), help="table to complete")
    parser.add_argument("--seeds", type=int, default=5, help="random draws of labelled galaxies")
    parser.add_argument("--steps", type=int, default=600, help="optimiser steps of each network")
    asked = parser.parse_args()
    main(asked.out, asked.seeds, asked.steps)

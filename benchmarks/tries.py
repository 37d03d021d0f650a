"""What changes the codes? One network with latents at three resolutions, trained again and again with one thing changed.

Each try is judged by what held-out sources cost and by how well a support vector machine on its codes tells FRI from FRII,
cross-validated on the official training images alone (``rgz probe``). The first try is repeated with another seed: a difference
as small as theirs says nothing. Four minutes a try on two cores, the last three longer: other networks, of the committed one's
kind and one nearly as large to compare it with. A run that was interrupted goes on.

    python benchmarks/tries.py                # all of them
    python benchmarks/tries.py "full width"   # those named
"""

import argparse
import math
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from rgz import augment, checkpoints, fetch, images, provenance, report, sample, train
from rgz.vdvae import PRESETS, VDVAE, Config

THREE = replace(PRESETS["small"], decoder=((1, 2), (4, 6), (8, 8), (16, 4)), latents=(1, 4, 8), channels=16, beta=1.0)
HALF = replace(THREE, width=96)
FINER = replace(HALF, decoder=((1, 2), (4, 4), (8, 6), (16, 6)), latents=(1, 4, 8, 16))
LARGER = replace(HALF, patch=4)  # 64 × 64 pixels: the same work inside, four times the pixels outside


class Reweighed(nn.Module):
    """A VDVAE whose loss weighs the rate of each resolution, or forgives each block its first nats."""

    def __init__(self, model: VDVAE, weights: dict[int, float], free: float):
        super().__init__()
        self.model, self.levels, self.free = model, model.levels, free
        self.register_buffer("weights", torch.tensor([float(weights.get(r, model.config.beta)) for r in model.levels]))

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """The model's answer with another ``loss``."""
        out = self.model(images)
        rate = (self.weights * out["rate"].mean(0)).clamp(min=self.free)
        loss = (out["distortion"].mean() + rate.sum()) / (images[0].numel() * math.log(2))
        return out | {"loss": loss}


def on_the_sky(image: np.ndarray, radius: float, find=images.find_pose) -> images.Pose:
    """The length of a source alone: it stays as it lies on the sky."""
    return images.Pose(length=find(image, radius).length)


def stretched(curve) -> callable:
    """A stretch to 256 grey levels along another curve of brightness over peak."""
    return lambda image: np.rint(255 * curve(np.clip(image, 0, None) / image.max())).astype(np.uint8)


@dataclass(frozen=True)
class Try:
    """One thing changed: the shape, the images' recipe, the loss, the schedule, or a step of the preparation."""

    config: Config = HALF
    recipe: images.Recipe = field(default_factory=images.Recipe)
    schedule: train.Schedule = field(default_factory=lambda: train.Schedule(steps=500))
    weights: dict[int, float] = field(default_factory=dict)
    free: float = 0.0
    steps: dict[str, callable] = field(default_factory=dict)


TRIES = {
    "half width": Try(),
    "half width, another seed": Try(schedule=train.Schedule(steps=500, seed=1)),
    "latents at 1, 4": Try(replace(HALF, latents=(1, 4))),
    "latents at 4, 8": Try(replace(HALF, latents=(4, 8))),
    "latents at 1, 4, 8, 16": Try(FINER),
    "4 latent channels for 16": Try(replace(HALF, channels=4)),
    "free bits: ½ nat a block": Try(free=0.5),
    "rate at 1 and 4 weighs ¼": Try(weights={1: 0.25, 4: 0.25}),
    "rate weighs ¼ everywhere": Try(weights=dict.fromkeys((1, 4, 8), 0.25)),
    "all at 115″": Try(recipe=images.Recipe(narrowest=115.2, widest=115.2)),
    "64 × 64 pixels": Try(LARGER, images.Recipe(64)),
    "as they lie on the sky": Try(steps={"find_pose": on_the_sky}),
    "no stretch": Try(steps={"stretch": stretched(lambda x: x)}),
    "logarithmic stretch": Try(steps={"stretch": stretched(lambda x: np.log1p(100 * x) / np.log(101))}),
    "full width": Try(THREE),
    "three times as long": Try(schedule=train.Schedule(steps=1500)),
    "latents at 1, 4, 8, full width, to the end of its schedule": Try(THREE, schedule=train.Schedule(steps=4000)),
    "128 latents at 4, rate weighs 1/10, half width": Try(
        replace(PRESETS["small"], width=96), schedule=train.Schedule(steps=1500)
    ),
    "128 latents at 4, rate weighs 1/10, full width, shorter": Try(
        PRESETS["small"], schedule=train.Schedule(steps=2500)
    ),
}


def run(name: str, one: Try, sources: sample.Sample, digest: str, folder: Path, out: Path):
    """Train one try, or go on with it, and add its line to the table."""
    with ExitStack() as changed:
        for step, function in one.steps.items():
            changed.enter_context(patch.object(images, step, function))
        seen, held_out = (sources[sources.table["split"] == split] for split in ("train", "valid"))
        pixels = torch.from_numpy(sample.prepared(held_out, one.recipe)[:, None])
        torch.manual_seed(one.schedule.seed)
        model, done = train.fit(
            Reweighed(VDVAE(one.config), one.weights, one.free),
            augment.batches(seen, one.recipe, one.schedule.batch, one.schedule.seed),
            one.schedule,
            folder,
            validation=pixels,
            inputs={"training_set_sha256": digest, "try": name},
        )
        about = provenance.describe(preset=name, steps=done, validation=train.describe(model.model, pixels))
        checkpoints.save(folder / "vdvae.safetensors", model.model, one.recipe, about)
        line = report.probe(folder / "vdvae.safetensors", sources, dimensions=128)
    report.add_line(line | {"note": name}, out)
    print(name, line, flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="TRY", help=f"one of: {', '.join(TRIES)}")
    parser.add_argument("--data", type=Path, default=Path("runs/train.h5"), help="made by rgz data build")
    parser.add_argument("--out", type=Path, default=Path("artifacts/tries.csv"), help="table to add lines to")
    asked = parser.parse_args()
    if unknown := set(asked.names) - set(TRIES):
        parser.error(f"no try is called {', '.join(map(repr, unknown))}")
    sources, digest = sample.read(asked.data), fetch.sha256(asked.data)
    for number, (name, one) in enumerate(TRIES.items()):
        if not asked.names or name in asked.names:
            run(name, one, sources, digest, Path("runs/tries") / f"{number:02}", asked.out)

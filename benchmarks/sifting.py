"""How hard should drawn galaxies be sifted? Settled on training sources, so that the validation sources can judge.

A fifth of the training sources is held out from the forest that sifts (from neither the autoencoder nor its flow: they have seen
all). For each power to which the forest's odds are raised, the sifted galaxies are held against images of that fifth: the
Kolmogorov-Smirnov distance of each property, their mean, and the power at scales between two beams and half the image. Five
minutes on one core, most of them for properties of images.

    python benchmarks/sifting.py
"""

import argparse
from pathlib import Path

import numpy as np
from scipy import stats

from rgz import augment, checkpoints, density, emulation, fields, generate, paths, realism
from rgz.cli_data import sources

RIGOURS = (0, 0.25, 0.5, 0.75, 1, 1.25, 1.5)


def run(data: Path, count: int):
    """Print a line for each of ``RIGOURS``; ``count`` images of each kind."""
    weights = paths.artifact("vdvae.safetensors")
    model, recipe, _ = checkpoints.load(weights)
    flow = generate.load_prior(paths.artifact("prior.safetensors"), weights)
    everything = sources(data)
    seen = everything[everything.table["split"] == "train"]
    taught, asked = density.first_fold(fields.cells(seen.table))
    shown = augment.batches(seen[taught], recipe, count, 1)(1)[:, 0].numpy()
    real, _ = realism.shown(seen[asked], recipe, 0)
    drawn, more = (generate.new(model, count, seed=seed, flow=flow) for seed in (1, 2))
    inside = realism.scales(recipe.size)
    known, own = realism.properties(real), realism.properties(more)
    power, its_power = realism.power(real).mean(0), realism.power(more)
    odds = emulation.odds_of(shown, drawn, more)
    for rigour in RIGOURS:
        kept = emulation.keep(odds, rigour)
        distance = {name: stats.ks_2samp(known[name], own[name][kept]).statistic for name in known}
        off = (its_power[kept].mean(0) / power - 1)[inside]
        each = ", ".join(f"{name} {value:.3f}" for name, value in distance.items())
        mean = np.mean(list(distance.values()))
        print(
            f"{rigour:>5}  kept {kept.mean():.0%}  mean {mean:.3f} ({each})  power off by {np.abs(off).max():.0%}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/train.h5"), help="made by rgz data build")
    parser.add_argument("--count", type=int, default=8192, help="images of each kind")
    asked = parser.parse_args()
    run(asked.data, asked.count)

"""How smooth should the grain of a drawn galaxy be? Settled on training sources, without the flow that draws them.

Codes of training images are painted again with noise of several widths, and a forest, taught with four fifths of the sources, is
asked to tell them from images of the last fifth: ROC-AUC, 0.5 where it cannot. The first line is the mean image, without grain.
Five minutes on one core, most of them for properties of images.

    python benchmarks/grain.py
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from rgz import augment, checkpoints, density, fields, generate, latents, paths, realism
from rgz.cli_data import sources

WIDTHS = (None, 0.0, 0.6, 0.8, 0.9, 1.0, 1.2)  # pixels, σ


def run(data: Path, count: int):
    """Print a line for each of ``WIDTHS``; the forest is taught with ``count`` images of each kind, and asked of half that."""
    model, recipe, _ = checkpoints.load(paths.artifact("vdvae.safetensors"))
    everything = sources(data)
    seen = everything[everything.table["split"] == "train"]
    taught, asked = density.first_fold(fields.cells(seen.table))
    shown = augment.batches(seen[taught], recipe, count, 0)
    real, other = shown(0)[:, 0].numpy(), np.concatenate([shown(n)[:, 0].numpy() for n in (1, 2)])[: count + count // 2]
    unseen, _ = realism.shown(seen[asked], recipe, 0)
    torch.manual_seed(0)
    codes, _ = latents.full_codes(model, other, drawn=True)
    mean = np.rint(latents.decode(model, codes, np.arange(model.dimensions)))
    for width in WIDTHS:
        made = generate.full_peak(mean if width is None else generate.painted(model, codes, width))
        said = realism.by_forest(real, made[:count], np.concatenate([unseen, made[count:]]))
        print(
            f"{'mean' if width is None else width:>5}  {realism.auc(said[: len(unseen)], said[len(unseen) :]):.3f}",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/train.h5"), help="made by rgz data build")
    parser.add_argument("--count", type=int, default=2048, help="images that the forest is taught with")
    asked = parser.parse_args()
    run(asked.data, asked.count)

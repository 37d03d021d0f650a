"""Data augmentation: batches of prepared images with random flips, rotations, scales and shifts.

The class of a radio galaxy does not depend on its position angle or on its position on the pixel grid. Each batch
therefore contains aligned sources that are randomly flipped, rotated by small angles and shifted by fractions of a
pixel. Batch ``n`` depends only on the seed and on ``n``, so a resumed run ends with the same weights as an
uninterrupted one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from rgz.data.sample import Sample
from rgz.transforms import prepare
from rgz.transforms.perturb import BEAM

__all__ = ["EXTENDED", "REPEATS", "batches"]

EXTENDED = 6.0  # arcsec, length; an unresolved source has about 4
REPEATS = 4  # times that a longer source occurs in an epoch; unresolved sources, which look alike, occur once


def batches(sample: Sample, recipe: prepare.Recipe, size: int, seed: int) -> Callable[[int], Tensor]:
    """Batch ``n`` of endless shuffled and augmented epochs over a sample, as a function of ``n``.

    Each source is aligned, mirrored along and across its axis at random, rotated by a few degrees (σ = 6°), scaled by a
    few per cent (σ = 5 %) and shifted by up to a pixel. This takes one interpolation, which also crops the image. If
    the table has the ``rms`` of an image, noise of that rms, correlated by the beam, is added first.

    Returns
    -------
    callable
        Step number to grey levels, (size, 1, H, W) uint8.
    """
    aligned = [prepare.align(image, sample.pixel, recipe) for image in sample.images]
    fields, found = [field.astype(np.float32) for field, _ in aligned], [orientation for _, orientation in aligned]
    lengths = [orientation.length * sample.pixel for orientation in found]
    scales = [recipe.pixel(length, sample.pixel) / sample.pixel for length in lengths]
    rms = np.nan_to_num(sample.table["rms"]) if "rms" in sample.table.colnames else np.zeros(len(sample))
    rows = np.repeat(np.arange(len(fields)), np.where(np.array(lengths) > EXTENDED, REPEATS, 1))

    def augmented(row: int, rng: np.random.Generator) -> NDArray[np.uint8]:
        turn = prepare.Orientation(
            rng.normal(0, np.radians(6)),
            int(rng.choice((-1, 1))),
            int(rng.choice((-1, 1))),
            float(np.exp(rng.normal(0, 0.05))),
            tuple(rng.uniform(-1, 1, 2)),
        )
        orientation, scale = found[row].then(turn), scales[row] * turn.length
        for field in (_observe(fields[row], rms[row], rng), fields[row]):
            square = prepare.render(prepare.smooth(field, scale), orientation, recipe.size, scale)
            if square.any():  # else the noise clipped the source away: use it without noise
                break
        return prepare.stretch(square)

    def batch(step: int) -> Tensor:
        rng = np.random.default_rng((seed, step))
        epoch, start = divmod(step * size, len(rows))
        epochs = range(epoch, epoch + 1 + (start + size - 1) // len(rows))
        order = np.concatenate([np.random.default_rng((seed, 1 << 40, k)).permutation(rows) for k in epochs])
        return torch.from_numpy(np.stack([augmented(row, rng) for row in order[start : start + size]])[:, None])

    return batch


def _observe(field: NDArray[Any], rms: float, rng: np.random.Generator) -> NDArray[Any]:
    """The field with noise of this rms added to its nonzero pixels, clipped at zero."""
    if rms == 0:
        return field
    noise = ndimage.gaussian_filter(rng.standard_normal(field.shape, dtype=np.float32), BEAM)
    return np.asarray(np.maximum(field + noise * (rms / noise.std()) * (field > 0), 0))

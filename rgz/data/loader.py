"""What the network is shown in training: each source many times, never twice the same.

A radio galaxy is the same object whichever way it lies on the sky, and a repeated observation would place it differently on
the pixels. So each batch shows posed sources mirrored, turned a little and shifted by fractions of a pixel. Batch ``n``
depends on the seed and on ``n`` alone, which is what makes a run that was interrupted end where it would have ended.
"""

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from rgz.data.sample import Sample
from rgz.transforms import prepare
from rgz.transforms.perturb import BEAM

__all__ = ["batches"]

RESOLVED = 6.0  # arcsec, length; an unresolved source has about 4
OFTEN = 4  # times as often as an unresolved source a resolved one is shown: one point looks like another


def batches(sample: Sample, recipe: prepare.Recipe, size: int, seed: int) -> Callable[[int], Tensor]:
    """Batch ``n`` of an endless, shuffled, augmented walk through a sample, as a function of ``n``.

    Each source is posed, then mirrored along and across its axis at random, turned by a few degrees (σ = 6°), scaled by a few per
    cent (σ = 5 %) and shifted by up to a pixel, in the one interpolation that also crops it. Where the table knows the ``rms``
    of an image, noise like its own is added first, as strong and as smooth as the beam.

    Returns
    -------
    callable
        Step number to grey levels, (size, 1, H, W) uint8.
    """
    fields, poses = zip(*(prepare.align(image, sample.pixel, recipe) for image in sample.images), strict=True)
    scales = [recipe.pixel(pose.length * sample.pixel, sample.pixel) / sample.pixel for pose in poses]
    fields = [field.astype(np.float32) for field in fields]
    rms = np.nan_to_num(sample.table["rms"]) if "rms" in sample.table.colnames else np.zeros(len(sample))
    resolved = np.array([pose.length * sample.pixel > RESOLVED for pose in poses])
    shown = np.repeat(np.arange(len(fields)), np.where(resolved, OFTEN, 1))

    def batch(step: int) -> Tensor:
        rng = np.random.default_rng((seed, step))
        epoch, place = divmod(step * size, len(shown))
        order = np.concatenate(
            [
                np.random.default_rng((seed, 1 << 40, epoch + k)).permutation(shown)
                for k in range(1 + (place + size - 1) // len(shown))
            ]
        )[place : place + size]
        pixels = []
        for row in order:
            turn = prepare.Orientation(
                rng.normal(0, np.radians(6)),
                int(rng.choice((-1, 1))),
                int(rng.choice((-1, 1))),
                float(np.exp(rng.normal(0, 0.05))),
                tuple(rng.uniform(-1, 1, 2)),
            )
            pose, scale = poses[row].then(turn), scales[row] * turn.length
            square = _square(_observe(fields[row], rms[row], rng), pose, recipe.size, scale)
            if not square.any():  # the noise has swallowed a faint source
                square = _square(fields[row], pose, recipe.size, scale)
            pixels.append(prepare.stretch(square))
        return torch.from_numpy(np.stack(pixels)[:, None])

    return batch


def _square(field: np.ndarray, pose: prepare.Orientation, size: int, scale: float) -> np.ndarray:
    return prepare.render(prepare.smooth(field, scale), pose, size, scale)


def _observe(field: np.ndarray, rms: float, rng: np.random.Generator) -> np.ndarray:
    """The field with as much noise again as it has, where there is emission; what falls below the threshold, at zero, goes."""
    if rms == 0:
        return field
    noise = ndimage.gaussian_filter(rng.standard_normal(field.shape, dtype=np.float32), BEAM)
    return np.maximum(field + noise * (rms / noise.std()) * (field > 0), 0)

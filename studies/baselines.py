"""Baseline features that need no network: principal components of the pixels, and the radial profile of Fourier
amplitudes.

They are computed from the survey images, either raw or prepared as for the network, and evaluated on the same folds as
the codes. Principal components are fitted on training folds alone.
"""

from collections.abc import Callable, Iterable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from torch import Tensor, nn

from rgz.data.sample import Sample
from rgz.features.embed import Encoder
from rgz.transforms import fields
from rgz.transforms.prepare import Recipe, prepare
from studies.classifiers import Features
from studies.labelled import SEED


class Pixels(nn.Module):
    """Takes the place of the network in an encoder: the code of a prepared image is its grey levels, 0 … 255."""

    coded = 0

    def means(self, images: Tensor, _blocks: int) -> Tensor:
        """Images (N, 1, H, W) to grey levels (N, H W)."""
        return images.flatten(1)


def _raw(sample: Sample, size: int = 128) -> NDArray[Any]:
    """Centre crop averaged by two, neither aligned nor stretched: (N, 4096)."""
    pixels = fields.crop(sample.images, size).astype(np.float32)
    return np.asarray(pixels.reshape(len(pixels), size // 2, 2, size // 2, 2).mean((2, 4)).reshape(len(pixels), -1))


def canonical(sample: Sample) -> NDArray[Any]:
    """Images prepared about the middle of the field, (N, size²)."""
    return np.asarray(prepare(sample.images, sample.pixel, Recipe())[0].reshape(len(sample), -1).astype(np.float32))


def _averaged(sample: Sample) -> NDArray[Any]:
    """Means and standard deviations of prepared images over mirrored views, about both centres, (N, 4 size²).

    Views and weights are those of the codes, with grey levels in place of latents.
    """
    recipe = Recipe()
    return Encoder(cast(Any, Pixels()), recipe, np.arange(recipe.size**2)).transform(sample)


def _fourier(sample: Sample) -> NDArray[Any]:
    """Radial mean and standard deviation of the log Fourier amplitude in rings one frequency wide, (N, 64)."""
    pixels = _raw(sample).reshape(-1, 64, 64)
    amplitude = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(pixels), axes=(1, 2)))).reshape(len(pixels), -1)
    y, x = np.mgrid[-32:32, -32:32]
    ring = np.minimum(np.hypot(x, y).astype(int), 31).ravel()
    count = np.bincount(ring)
    mean, square = (
        np.stack([np.bincount(ring, row) / count for row in values]) for values in (amplitude, amplitude**2)
    )
    return np.hstack([mean, np.sqrt(np.maximum(square - mean**2, 0))])


def peak_over_threshold(sample: Sample) -> NDArray[Any]:
    """Natural logarithm of the peak of the source over the faintest pixel of its clipped field, (N, 1).

    It measures how far a source is above the noise, and says nothing about its shape.
    """
    images = np.asarray(sample.images, dtype=float)
    peak = fields.crop(images, 2 * round(fields.RADIUS / sample.pixel)).max((1, 2))
    return np.asarray(np.log(peak / np.where(images > 0, images, np.inf).min((1, 2))))[:, None]


def _components(count: int) -> PCA:
    return PCA(count, svd_solver="randomized", random_state=SEED)


BEST = "PCA, averaged views"
BASELINES: dict[str, tuple[Callable[[Sample], NDArray[Any]], object | None]] = {
    "Fourier amplitudes": (_fourier, None),
    "PCA, raw pixels": (_raw, _components(32)),
    "PCA, canonical images": (canonical, _components(32)),
    BEST: (_averaged, _components(64)),
}
"""Name to a function of a sample and a transform fitted on training rows."""


def _isometric(values: NDArray[Any]) -> NDArray[np.float64]:
    """Rows (N, D) rotated to rows (N, N) at the same distances: any of them have the same principal components."""
    centred = values - values.mean(axis=0, dtype=float)
    square, directions = np.linalg.eigh(centred @ centred.T)
    return np.asarray(directions * np.sqrt(np.maximum(square, 0)))


def describe(sample: Sample, names: Iterable[str] = tuple(BASELINES)) -> list[Features]:
    """The features of these names for a sample.

    Where principal components follow, grey levels are scaled to 0 … 1, and the images are rotated to as many numbers
    as there are images, whose components take a tenth of the time.
    """
    found = []
    for name in names:
        function, transform = BASELINES[name]
        values = function(sample)
        found.append(Features(name, values if transform is None else _isometric(values / 255), transform))
    return found

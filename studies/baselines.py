"""Baseline features that need no network: principal components of the pixels, and the radial profile of Fourier
amplitudes.

They are computed from the survey images, either raw or prepared as for the network, and evaluated on the same folds as
the codes. Principal components are fitted on training folds alone.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import PCA

from rgz.data.sample import Sample, prepared
from rgz.tasks.classify import SEED
from rgz.transforms import prepare
from studies.classifiers import Features


class PooledPCA(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Principal components of several views (N, views, pixels), pooled as the codes are: (N, 2 × components)."""

    def __init__(self, components: int = 32):
        self.components = components

    def fit(self, values: NDArray[Any], _labels: None = None) -> "PooledPCA":
        """Fit the components to all views of the rows given."""
        pca = PCA(self.components, svd_solver="randomized", random_state=SEED)
        self.pca_ = pca.fit(values.reshape(-1, values.shape[-1]))
        return self

    def transform(self, values: NDArray[Any]) -> NDArray[Any]:
        """Project each view, then pool."""
        return prepare.pool(np.stack([self.pca_.transform(values[:, view]) for view in range(values.shape[1])]))

    @property
    def n_components(self) -> int:
        """Number of features of a galaxy."""
        return 2 * self.components


def _raw(sample: Sample, size: int = 128) -> NDArray[Any]:
    """Centre crop averaged by two, neither aligned nor stretched: (N, 4096)."""
    pixels = prepare.crop(sample.images, size).astype(np.float32)
    return np.asarray(pixels.reshape(len(pixels), size // 2, 2, size // 2, 2).mean((2, 4)).reshape(len(pixels), -1))


def _aligned(sample: Sample, recipe: prepare.Recipe) -> NDArray[Any]:
    """Prepared images, (N, size²)."""
    return prepared(sample, recipe).reshape(len(sample), -1).astype(np.float32)


def _views(sample: Sample) -> NDArray[Any]:
    """Prepared images in their twelve views, (N, 12, size²)."""
    shown = np.stack([prepare.views(image, sample.pixel, prepare.Recipe()) for image in sample.images])
    return shown.reshape(*shown.shape[:2], -1).astype(np.float32)


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


BEST = "PCA, aligned, scaled, 12 views"
PCA_32 = PCA(32, svd_solver="randomized", random_state=SEED)
BASELINES: dict[str, tuple[Callable[[Sample], NDArray[Any]], object | None]] = {
    "Fourier amplitudes": (_fourier, None),
    "PCA, raw pixels": (_raw, PCA_32),
    "PCA, aligned, 115″": (lambda s: _aligned(s, prepare.Recipe(narrowest=115.2, widest=115.2)), PCA_32),
    "PCA, aligned, scaled": (lambda s: _aligned(s, prepare.Recipe()), PCA_32),
    BEST: (_views, PooledPCA(32)),
}
"""Name to a function of a sample and a transform fitted on training rows."""


def describe(sample: Sample, names: Iterable[str] = tuple(BASELINES)) -> list[Features]:
    """The features of these names for a sample; grey levels are scaled to 0 … 1 before principal components are
    computed."""
    found = []
    for name in names:
        function, transform = BASELINES[name]
        found.append(Features(name, function(sample) / (1 if transform is None else 255), transform))
    return found

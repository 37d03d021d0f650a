"""Label-preserving perturbations: changes of an image that do not change the galaxy in it.

Rotation, reflection, a small shift, more noise, a higher clipping threshold or a larger distance do not change the
class of a galaxy. Pairs of original and perturbed images show, without labels, which differences between codes are
irrelevant (:func:`rgz.features.metric.invariant`). They are also a test of the search: does a perturbed image find its
original? All functions take and return clipped fields (H, W), zero where there is no emission.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rgz.transforms import prepare

BEAM = 1.27  # pixels, σ: 5.4″ full width at half maximum
RESOLVED = 8.0  # arcsec; rotating or shifting a shorter source changes almost nothing


def _threshold(image: NDArray[Any]) -> float:
    """Brightness of the faintest nonzero pixel."""
    return float(image[image > 0].min(initial=np.inf))


def rotate(image: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Rotate with one cubic interpolation and keep the clipping threshold; pixels at least half covered stay above
    it."""
    image = np.asarray(image, dtype=float)
    if not degrees:
        return image
    lit = ndimage.rotate((image > 0).astype(float), degrees, reshape=False, order=1) >= 0.5
    return np.where(lit, np.maximum(ndimage.rotate(image, degrees, reshape=False, order=3), _threshold(image)), 0.0)


def rotate_randomly(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """:func:`rotate` by a random angle."""
    return rotate(image, rng.uniform(0, 360))


def mirror(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Mirror left to right."""
    return np.asarray(image, dtype=float)[:, ::-1]


def shift(image: NDArray[Any], rng: np.random.Generator, pixels: int = 2) -> NDArray[Any]:
    """Shift by whole pixels along a row or a column, in a random direction."""
    step = [(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)][rng.integers(4)]
    moved: NDArray[Any] = ndimage.shift(np.asarray(image, dtype=float), step, order=0)
    return moved


def add_noise(image: NDArray[Any], rng: np.random.Generator, snr: tuple[float, float] = (15, 150)) -> NDArray[Any]:
    """Add noise correlated by FIRST's beam, with a log-uniform ratio of peak to rms in ``snr``, and clip at 3 rms."""
    image = np.asarray(image, dtype=float)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), BEAM)
    rms = image.max() / np.exp(rng.uniform(*np.log(snr)))
    return prepare.clip(image + noise * (rms / noise.std()), measured=(0.0, rms))


def raise_threshold(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Clip at one to three times the brightness of the faintest nonzero pixel."""
    image = np.asarray(image, dtype=float)
    return np.where(image >= rng.uniform(1, 3) * _threshold(image), image, 0.0)


def simulate_distance(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Move the galaxy to one to two times its distance: smaller, with the same beam and the same clipping threshold."""
    image, times = np.asarray(image, dtype=float), rng.uniform(1, 2)
    small = prepare.render(prepare.smooth(image, times), prepare.Orientation(), len(image), times)
    seen = ndimage.gaussian_filter(small, BEAM * np.sqrt(1 - 1 / times**2))
    return np.where(seen >= _threshold(image), seen, 0.0)

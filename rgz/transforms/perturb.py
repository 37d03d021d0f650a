"""The same galaxy, altered on purpose.

Turned, mirrored, moved, observed again with more noise, clipped at a higher level, farther away: none of this makes another
galaxy of it. So such pairs of images say, without any label, which differences between codes mean nothing
(:func:`rgz.features.metric.invariant`), and they test a search: does an altered image find itself? Images here are clipped fields (H, W),
zero where nothing was seen.
"""

import numpy as np
from scipy import ndimage

from rgz.transforms import prepare

__all__ = ["BEAM", "add_noise", "mirror", "raise_threshold", "rotate", "rotate_randomly", "shift", "simulate_distance"]

BEAM = 1.27  # pixels, σ: 5.4″ full width at half maximum


def rotate(image: np.ndarray, degrees: float) -> np.ndarray:
    """Turned by an angle, in one cubic interpolation, and clipped at its old level; half a lit pixel stays lit."""
    image = np.asarray(image, dtype=float)
    if not degrees:
        return image
    lit = ndimage.rotate((image > 0).astype(float), degrees, reshape=False, order=1) >= 0.5
    values = ndimage.rotate(image, degrees, reshape=False, order=3)
    return np.where(lit, np.maximum(values, image[image > 0].min(initial=np.inf)), 0.0)


def rotate_randomly(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Turned by a random angle, as :func:`turn` does it."""
    return rotate(image, rng.uniform(0, 360))


def mirror(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrored left to right."""
    return np.asarray(image, dtype=float)[:, ::-1]


def shift(image: np.ndarray, rng: np.random.Generator, pixels: int = 2) -> np.ndarray:
    """Moved by whole pixels along a row or a column, either way."""
    step = [(pixels, 0), (-pixels, 0), (0, pixels), (0, -pixels)][rng.integers(4)]
    return ndimage.shift(np.asarray(image, dtype=float), step, order=0)


def add_noise(image: np.ndarray, rng: np.random.Generator, snr: tuple[float, float] = (15, 150)) -> np.ndarray:
    """With noise as smooth as FIRST's beam, its peak ``snr`` times as high (drawn between two limits), clipped at three rms."""
    image = np.asarray(image, dtype=float)
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), BEAM)
    rms = image.max() / np.exp(rng.uniform(*np.log(snr)))
    return prepare.clip(image + noise * (rms / noise.std()), measured=(0.0, rms))


def raise_threshold(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Clipped anew, at one to three times the level of its faintest lit pixel."""
    image = np.asarray(image, dtype=float)
    return np.where(image >= rng.uniform(1, 3) * image[image > 0].min(initial=np.inf), image, 0.0)


def simulate_distance(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One to two times as far away: smaller, its details lost in the same beam, and so fainter against the level of the clip."""
    image, times = np.asarray(image, dtype=float), rng.uniform(1, 2)
    small = prepare.render(prepare.smooth(image, times), prepare.Orientation(), len(image), times)
    seen = ndimage.gaussian_filter(small, BEAM * np.sqrt(1 - 1 / times**2))
    return np.where(seen >= image[image > 0].min(initial=np.inf), seen, 0.0)

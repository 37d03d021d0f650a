"""Injected anomalies: synthetic images to test detectors.

Some are simulated: rings, spiral jets, random point sources, unclipped noise. Others are real galaxies with an
artefact: stripes across the field, saturation with a bright row, one half replaced by the mirror image of the other, or
a second galaxy. Simulated sources are convolved with the beam of FIRST, noise is added, and they are clipped at 3 rms,
so that only their shape is anomalous. Images are clipped fields (H, W), zero where there is no emission.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rgz.transforms.fields import clip
from rgz.transforms.perturb import BEAM

Image = NDArray[Any]


def _grid(shape: tuple[int, ...]) -> Image:
    """Distances from the middle, y and x, in pixels."""
    return np.asarray(np.mgrid[: shape[0], : shape[1]] - (np.array(shape).reshape(2, 1, 1) - 1) / 2)


def rotate(image: Image, rng: np.random.Generator) -> Image:
    """Rotate by a random angle, with cubic interpolation, and keep the clipping threshold."""
    image, degrees = np.asarray(image, dtype=float), rng.uniform(0, 360)
    threshold = image[image > 0].min(initial=np.inf)
    lit = ndimage.rotate((image > 0).astype(float), degrees, reshape=False, order=1) >= 0.5
    return np.where(lit, np.maximum(ndimage.rotate(image, degrees, reshape=False, order=3), threshold), 0.0)


def add_noise(image: Image, rng: np.random.Generator, snr: float | None = None) -> Image:
    """Add noise correlated by the beam, and clip at 3 rms.

    The ratio of peak to rms is ``snr``, by default log-uniform from 15 to 150.
    """
    noise = ndimage.gaussian_filter(rng.standard_normal(image.shape), BEAM)
    rms = image.max() / (np.exp(rng.uniform(*np.log((15, 150)))) if snr is None else snr)
    return clip(image + noise * (rms / noise.std()), measured=(0.0, rms))


def _observed(sky: Image, rng: np.random.Generator) -> Image:
    """A simulated observation of a sky: beam, noise and clipping."""
    return add_noise(ndimage.gaussian_filter(sky, BEAM), rng)


def ring(host: Image, rng: np.random.Generator) -> Image:
    """A circle, brighter on one side."""
    y, x = _grid(host.shape)
    radius, side = rng.uniform(6, 16), rng.uniform(0, 2 * np.pi)
    light = 1 + rng.uniform(0, 0.6) * np.cos(np.arctan2(y, x) - side)
    return _observed(light * (np.abs(np.hypot(x, y) - radius) < 1), rng)


def spiral(host: Image, rng: np.random.Generator) -> Image:
    """Two jets that wind around their core, and fade."""
    sky = np.zeros(host.shape)
    turn = np.linspace(0, rng.uniform(1.0, 1.75) * 2 * np.pi, 400)
    radius = rng.uniform(2.0, 3.0) * turn
    start, hand = rng.uniform(0, 2 * np.pi), rng.choice((-1, 1))
    for half in (0, np.pi):
        place = [
            radius * f(start + half + hand * turn) + (n - 1) / 2
            for f, n in zip((np.sin, np.cos), host.shape, strict=True)
        ]
        rows, columns = np.rint(place).astype(int)
        sky[rows, columns] = np.exp(-radius / 20)
    return _observed(sky, rng)


def points(host: Image, rng: np.random.Generator) -> Image:
    """Ten to 24 unresolved sources within 40″."""
    sky, count = np.zeros(host.shape), rng.integers(10, 25)
    y, x = (rng.uniform(-22, 22, count) + (n - 1) / 2 for n in host.shape)
    sky[np.rint(y).astype(int), np.rint(x).astype(int)] = rng.uniform(0.3, 1, count)
    return _observed(sky, rng)


def noise(host: Image, rng: np.random.Generator) -> Image:
    """An empty field, clipped at 1 rms instead of 3."""
    return clip(ndimage.gaussian_filter(rng.standard_normal(host.shape), BEAM), sigmas=1.0)


def stripes(host: Image, rng: np.random.Generator) -> Image:
    """A galaxy with stripes, as from undetected radio-frequency interference."""
    y, x = _grid(host.shape)
    angle, period, phase = rng.uniform(0, np.pi), rng.uniform(6, 20), rng.uniform(0, 2 * np.pi)
    wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / period + phase)
    return add_noise(host + rng.uniform(0.2, 0.4) * host.max() * wave, rng)


def saturated(host: Image, rng: np.random.Generator) -> Image:
    """A galaxy cut off at a fraction of its peak, and a row through the peak filled to that level."""
    level = rng.uniform(0.2, 0.5) * host.max()
    row = np.unravel_index(host.argmax(), host.shape)[0]
    flat: Image = np.minimum(host, level)
    flat[row : row + 2] = level
    return flat if rng.random() < 0.5 else flat.T


def halved(host: Image, rng: np.random.Generator) -> Image:
    """A galaxy rotated at random, with one half the mirror image of the other."""
    half = rotate(host, rng)
    middle = half.shape[1] // 2
    half[:, -middle:] = half[:, :middle][:, ::-1]
    return half


def overlaid(host: Image, rng: np.random.Generator, other: Image) -> Image:
    """A galaxy and another one, about as bright, rotated at random and a few beams away."""
    shift = rng.uniform(6, 20) * np.array([np.cos(angle := rng.uniform(0, 2 * np.pi)), np.sin(angle)])
    second = ndimage.shift(rotate(other, rng), shift, order=1)
    both: Image = host / host.max() + rng.uniform(0.4, 1) * second / second.max()
    return both


KINDS: dict[str, Callable[..., Image]] = {
    "ring": ring,
    "spiral": spiral,
    "points": points,
    "noise": noise,
    "stripes": stripes,
    "saturated": saturated,
    "mirrored halves": halved,
    "two galaxies": overlaid,
}
"""Name to a function of a galaxy's image (H, W) and a random generator; ``two galaxies`` takes a second image."""


def inject(kind: str, hosts: Image, count: int, rng: np.random.Generator) -> Image:
    """``count`` anomalies of a kind, (count, H, W) float, from images of galaxies (N, H, W) drawn with replacement."""
    made = []
    for row in rng.integers(len(hosts), size=count):
        host = np.asarray(hosts[row], dtype=float)
        more = [np.asarray(hosts[rng.integers(len(hosts))], dtype=float)] if kind == "two galaxies" else []
        made.append(KINDS[kind](host, rng, *more))
    return np.stack(made)

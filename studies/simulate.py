"""Simulated FRI and FRII sources, for tests and for machines without the survey images.

The model follows the definition of Fanaroff & Riley (1974): an FRI is brightest near its core and fades outwards, an
FRII is brightest at the far ends of its lobes. Each source has a random position angle and size, and is convolved with
a circular Gaussian beam of 5.4″ (that of FIRST). Gaussian noise is added, and samples are clipped at 3σ as the archives
are.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rgz.data.sample import Sample, source_table
from rgz.transforms import fields

PIXEL = 1.8  # arcsec
BEAM = 5.4  # arcsec, full width at half maximum


def source(kind: str, rng: np.random.Generator, size: int = 150, snr: float = 50.0) -> NDArray[Any]:
    """One unclipped field (size, size) with an ``"FRI"`` or ``"FRII"`` in its middle, noise rms 1, peak ``snr``."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    angle, bend = rng.uniform(0, 2 * np.pi), rng.normal(0, 0.15)
    sky = np.zeros((size, size))
    length = rng.uniform(8, 22)  # from the core to a lobe's end, pixels
    for side, gain in ((0.0, 1.0), (np.pi + bend, rng.uniform(0.5, 1.0))):
        cos, sin = np.cos(angle + side), np.sin(angle + side)
        along, across = x * cos + y * sin, y * cos - x * sin
        if kind == "FRII":
            spot = np.exp(-((along - length) ** 2 + across**2) / 4)
            lobe = np.exp(-(((along - 0.75 * length) / (0.25 * length)) ** 2) - (across / 3) ** 2)
            sky += gain * (spot + 0.3 * lobe)
        else:
            width = 1.5 + 0.15 * np.clip(along, 0, None)
            sky += gain * np.where(along >= 0, np.exp(-along / (0.4 * length) - (across / width) ** 2), 0)
    sky += (0.15 if kind == "FRII" else 0.8) * np.exp(-(x**2 + y**2) / 2)
    sigma = BEAM / PIXEL / np.sqrt(8 * np.log(2))
    sky = ndimage.gaussian_filter(sky, sigma)
    noise = ndimage.gaussian_filter(rng.normal(size=sky.shape), sigma)
    return np.asarray(snr * sky / sky.max() + noise / noise.std())


def sources(count: int, seed: int = 0) -> Sample:
    """A sample of ``count`` clipped simulated sources, FRI and FRII in turn, uint8 with peak 255."""
    rng, unknown = np.random.default_rng(seed), np.full(count, np.nan)
    kinds = [("FRI", "FRII")[i % 2] for i in range(count)]
    clipped = [fields.clip(source(kind, rng, snr=rng.uniform(20, 200))) for kind in kinds]
    pixels = np.stack([np.rint(255 * field / field.max()).astype(np.uint8) for field in clipped])
    names = [f"sim-{i:04d}" for i in range(count)]
    return Sample(pixels, source_table(names, unknown, unknown, kinds, np.ones(count), ["train"] * count), PIXEL)

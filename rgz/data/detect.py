"""Find sources in a clipped field: islands of emission, and the field around one."""

from typing import Any

import numpy as np
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

PEAK = 5.0  # rms
FIELD = 150  # pixels, as MiraBest's images have


def north_up(shape: tuple[int, ...], pixel: float, ra: float, dec: float) -> WCS:
    """WCS of an image (H, W) with north up and east left: pixels of ``pixel`` arcsec, ``ra``, ``dec`` in the middle."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ("RA---TAN", "DEC--TAN"), (ra, dec)
    wcs.wcs.crpix, wcs.wcs.cdelt = [(n + 1) / 2 for n in shape[::-1]], (-pixel / 3600, pixel / 3600)
    return wcs


def islands(pixels: NDArray[Any], rms: float) -> tuple[Table, NDArray[Any]]:
    """Islands of emission that peak above 5 rms (all islands if the rms is NaN), and the label image (H, W).

    The table has brightness-weighted ``y`` and ``x`` (pixels), ``peak``, ``number`` (in the label image) and ``flux``.
    """
    labels, count = ndimage.label(pixels > 0, structure=np.ones((3, 3)))
    y, x = np.nonzero(labels)
    number, light = labels[y, x], np.asarray(pixels[y, x], float)
    flux, of_y, of_x = (np.bincount(number, weights, count + 1) for weights in (light, light * y, light * x))
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, number, light)
    numbers = 1 + np.flatnonzero(~(peaks[1:] < PEAK * rms))
    columns = of_y[numbers] / flux[numbers], of_x[numbers] / flux[numbers], peaks[numbers], numbers, flux[numbers]
    return Table(columns, names=("y", "x", "peak", "number", "flux")), labels


def cut(pixels: NDArray[Any], x: float, y: float) -> NDArray[Any]:
    """(FIELD, FIELD) pixels around pixel (x, y), zero beyond the edge."""
    left, bottom = (round(float(v) - (FIELD - 1) / 2) + FIELD // 2 for v in (x, y))
    return np.pad(pixels, FIELD // 2)[bottom : bottom + FIELD, left : left + FIELD]

"""Find sources in a clipped field: detect islands of emission, and group those that belong to one source."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS
from numpy.typing import NDArray
from scipy import ndimage

from rgz.data.datasets import FIRST_PIXEL
from rgz.data.sample import connected, positions
from rgz.transforms import fields

LINK = 30.0  # arcsec between islands of one uncatalogued source; 2 in 100 unrelated islands are that close
PEAK = 5.0  # rms
NEIGHBOURHOOD = 0.3  # degrees, more than the width of a field and the largest reach of a source beside it
FIELD = 150  # pixels, as MiraBest's images have
EDGE = 32  # pixels between a source and the field's edge, half of the narrowest prepared square


@dataclass(frozen=True)
class Field:
    """A despeckled piece of sky: pixels (H, W), zero below 3 rms, their rms (NaN if unknown) and their WCS."""

    name: str
    pixels: NDArray[Any]
    rms: float
    wcs: WCS


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


def find(field: Field, known: Table) -> Table:
    """The sources of a clipped field; catalogued ones at their catalogued position.

    Sources closer than 32 pixels to the edge are left out. So are sources with less than half of the emission within
    the radius in which the orientation is measured, because a brighter neighbour would dominate it. ``known`` has
    ``ra``, ``dec`` (deg) and ``reach`` (arcsec) of catalogued sources. The result has ``ra``, ``dec`` (deg), ``peak``
    (the field's units) and ``snr`` (NaN if the rms is unknown), one row per source.
    """
    lit, labels = islands(field.pixels, field.rms)
    rows = []
    if len(lit):
        owners = _owners(field.wcs.pixel_to_world(lit["x"], lit["y"]), known)
        sources = np.array(list(dict.fromkeys(owners)))
        pixels, sky = _places(lit, owners, sources, field.wcs, known)
        down, across = np.nonzero(labels)
        light, owner_of = field.pixels[down, across], np.full(labels.max() + 1, -1)
        owner_of[lit["number"]] = owners
        owner = owner_of[labels[down, across]]
        last = np.array(field.pixels.shape)[::-1] - 1
        for source, (x, y), place in zip(sources, pixels.T, sky.T, strict=True):
            near = np.hypot(across - x, down - y) <= fields.RADIUS / FIRST_PIXEL
            inside = min(x, y, *(last - (x, y))) >= EDGE
            if inside and light[near & (owner == source)].sum() > 0.5 * light[near].sum():
                rows.append((*place, lit["peak"][owners == source].max()))
    table = Table(rows=rows or None, names=("ra", "dec", "peak"), dtype=(float, float, float))
    table["snr"] = table["peak"] / field.rms
    return table


def _places(
    lit: Table, owners: NDArray[Any], sources: NDArray[Any], wcs: WCS, known: Table
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Pixels and degrees, (2, N) each, of sources (N,): catalogued positions, else flux-weighted means of islands."""
    parts = [lit[owners == source] for source in sources]
    middle = [[np.average(part[axis], weights=part["flux"]) for part in parts] for axis in ("x", "y")]
    found, listed = wcs.pixel_to_world(*middle), sources < len(known)
    pixels, sky = np.stack(wcs.world_to_pixel(found)), np.stack([found.ra.deg, found.dec.deg])
    if listed.any():
        catalogued = known[sources[listed]]
        pixels[:, listed] = wcs.world_to_pixel(positions(catalogued))
        sky[:, listed] = catalogued["ra"], catalogued["dec"]
    return pixels, sky


def _owners(sky: SkyCoord, known: Table) -> NDArray[Any]:
    """For each island the row of its catalogued source, or a number beyond the rows, shared by linked islands."""
    owners = np.full(len(sky), -1)
    ra, dec = sky[0].ra.deg, sky[0].dec.deg
    east = ((np.asarray(known["ra"]) - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
    near = np.flatnonzero((np.abs(known["dec"] - dec) < NEIGHBOURHOOD) & (np.abs(east) < NEIGHBOURHOOD))
    if len(near):
        away = sky[:, None].separation(positions(known[near])[None]).to_value(u.arcsec)
        share = away / np.asarray(known["reach"][near])
        owners = np.where(share.min(1) <= 1, near[share.argmin(1)], -1)
    free = np.flatnonzero(owners < 0)
    if len(free):
        offset = sky[free].transform_to(sky[0].skyoffset_frame())
        flat = np.stack([offset.lon.to_value(u.arcsec), offset.lat.to_value(u.arcsec)], axis=1)
        owners[free] = len(known) + linked(flat)
    return owners


def linked(places: NDArray[Any], arcsec: float = LINK) -> NDArray[Any]:
    """Friends of friends: for each position (N, 2), in arcsec, the first row of its group.

    Positions at most ``arcsec`` apart, directly or through a chain of others, are one group.

    >>> linked(np.array([[0.0, 0.0], [99.0, 0.0], [50.0, 0.0], [25.0, 0.0]]))
    array([0, 1, 0, 0])
    """
    from scipy.spatial import KDTree  # its import takes a tenth of a second

    return connected(tuple(KDTree(places).query_pairs(arcsec, output_type="ndarray").T), len(places))


def cut(pixels: NDArray[Any], x: float, y: float) -> NDArray[Any]:
    """(FIELD, FIELD) pixels around pixel (x, y), zero beyond the edge."""
    left, bottom = (round(float(v) - (FIELD - 1) / 2) + FIELD // 2 for v in (x, y))
    return np.pad(pixels, FIELD // 2)[bottom : bottom + FIELD, left : left + FIELD]

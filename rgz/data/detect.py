"""Sources in a field: islands of emission, and which of them belong together."""

from dataclasses import dataclass

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS
from scipy import ndimage

from rgz.data import datasets
from rgz.transforms import prepare

__all__ = ["Field", "cut", "find", "islands", "linked", "positions"]

LINK = 30.0  # arcsec between islands of one source that no catalogue knows; 2 in 100 strangers stand that close


PEAK = 5.0  # rms


ACROSS = 0.3  # degrees, more than a field and the reach of a source beside it


FIELD = 150  # pixels, as MiraBest's images have


EDGE = 32  # pixels between a source and the field's edge, half of the narrowest square


@dataclass(frozen=True)
class Field:
    """A piece of sky: pixels (H, W) with speckles and everything below 3 rms zero, their rms (NaN: unknown), their WCS."""

    name: str
    pixels: np.ndarray
    rms: float
    wcs: WCS


def positions(table: Table) -> SkyCoord:
    return SkyCoord(table["ra"], table["dec"], unit="deg")


def islands(pixels: np.ndarray, rms: float) -> tuple[Table, np.ndarray]:
    """Islands that peak above 5 rms: ``y``, ``x`` (brightness-weighted, pixels), ``peak`` and ``number`` in the map of labels.

    Where the rms is not known the area has to do: see ``rgz.transforms.prepare.SMALLEST_ISLAND``.
    """
    labels, count = ndimage.label(pixels > 0, structure=np.ones((3, 3)))
    numbers = np.arange(1, count + 1)
    if not count:
        return Table({key: np.empty(0) for key in ("y", "x", "peak", "number", "flux")}), labels
    lit = labels > 0
    peaks = np.asarray(ndimage.maximum(pixels[lit], labels[lit], numbers), dtype=float)
    numbers = numbers[~(peaks < PEAK * rms)]
    centres = np.array(ndimage.center_of_mass(pixels, labels, numbers)).reshape(-1, 2)
    found = Table({"y": centres[:, 0], "x": centres[:, 1], "peak": peaks[numbers - 1], "number": numbers})
    found["flux"] = ndimage.sum_labels(pixels[lit], labels[lit], numbers)
    return found, labels


def find(field: Field, known: Table) -> Table:
    """The sources of a field, known ones under their catalogued position.

    Left out are sources nearer than 32 pixels to the edge, and those outshone by what stands beside them: less than half of
    the emission within the radius of a pose is theirs.

    Parameters
    ----------
    field
        Clipped at 3 rms, without speckles.
    known
        ``ra``, ``dec`` (deg) and ``reach`` (arcsec) of catalogued sources.

    Returns
    -------
    Table
        ``ra``, ``dec`` (deg), ``peak`` (the field's units) and ``snr`` (NaN where the rms is unknown), one row a source.
    """
    lit, labels = islands(field.pixels, field.rms)
    if not len(lit):
        return _sources([], field)
    owners = _owners(field.wcs.pixel_to_world(lit["x"], lit["y"]), known)
    own = np.array(list(dict.fromkeys(owners)))
    (x, y), sky = _places(lit, owners, own, field.wcs, known)
    down, across = np.nonzero(labels)
    light, owner_of = field.pixels[down, across], np.full(labels.max() + 1, -1)
    owner_of[lit["number"]] = owners
    owner = owner_of[labels[down, across]]
    (height, width), rows = field.pixels.shape, []
    for row, one in enumerate(own):
        near = np.hypot(across - x[row], down - y[row]) <= prepare.Recipe().radius / datasets.FIRST_PIXEL
        inside = min(x[row], y[row], width - 1 - x[row], height - 1 - y[row]) >= EDGE
        if inside and light[near & (owner == one)].sum() > 0.5 * light[near].sum():
            rows.append((*sky[:, row], lit["peak"][owners == one].max()))
    return _sources(rows, field)


def _sources(rows: list[tuple], field: Field) -> Table:
    table = Table(rows=rows or None, names=("ra", "dec", "peak"), dtype=(float, float, float))
    table["snr"] = table["peak"] / field.rms
    return table


def _places(lit: Table, owners: np.ndarray, own: np.ndarray, wcs: WCS, known: Table) -> tuple[np.ndarray, np.ndarray]:
    """Pixels and degrees, (2, N) each, of sources ``own`` (N,): known ones as catalogued, others in the middle of their flux.

    Of a whole field at once: astropy takes as long for one place as for many.
    """
    rows = [owners == one for one in own]
    middle = [[np.average(lit[axis][mine], weights=lit["flux"][mine]) for mine in rows] for axis in ("x", "y")]
    found, listed = wcs.pixel_to_world(*middle), own < len(known)
    pixels, sky = np.stack(wcs.world_to_pixel(found)), np.stack([found.ra.deg, found.dec.deg])
    if listed.any():
        catalogued = known[own[listed]]
        pixels[:, listed] = wcs.world_to_pixel(positions(catalogued))
        sky[:, listed] = catalogued["ra"], catalogued["dec"]
    return pixels, sky


def _owners(sky: SkyCoord, known: Table) -> np.ndarray:
    """For each island the row of the known source that it belongs to, or a number beyond them, shared by linked islands."""
    owners = np.full(len(sky), -1)
    ra, dec = sky[0].ra.deg, sky[0].dec.deg
    east = (np.asarray(known["ra"]) - ra + 180) % 360 - 180
    near = np.flatnonzero((np.abs(known["dec"] - dec) < ACROSS) & (np.abs(east) * np.cos(np.radians(dec)) < ACROSS))
    if len(near):
        share = sky[:, None].separation(positions(known[near])[None]).to_value(u.arcsec) / np.asarray(
            known["reach"][near]
        )
        owners = np.where(share.min(1) <= 1, near[share.argmin(1)], -1)
    free = np.flatnonzero(owners < 0)
    if len(free):
        place = sky[free].transform_to(sky[0].skyoffset_frame())
        flat = np.stack([place.lon.to_value(u.arcsec), place.lat.to_value(u.arcsec)], axis=1)
        owners[free] = len(known) + linked(flat)
    return owners


def linked(places: np.ndarray, arcsec: float = LINK) -> np.ndarray:
    """Row of the first place of the group of each place (N, 2), in arcsec: a chain of places at most ``arcsec`` apart is a group.

    >>> linked(np.array([[0.0, 0.0], [99.0, 0.0], [50.0, 0.0], [25.0, 0.0]]))
    array([0, 1, 0, 0])
    """
    group = np.full(len(places), -1)  # scipy.cluster does this too, but rgz look would wait long for its import
    for first in range(len(places)):
        reached = np.array([first])[group[first : first + 1] < 0]
        while len(reached):
            group[reached] = first
            away = np.linalg.norm(places[:, None] - places[reached], axis=-1).min(axis=1)
            reached = np.flatnonzero((away <= arcsec) & (group < 0))
    return group


def cut(pixels: np.ndarray, x: float, y: float) -> np.ndarray:
    """(FIELD, FIELD) pixels around one of them, zero beyond the edge."""
    left, bottom = (round(float(v) - (FIELD - 1) / 2) + FIELD // 2 for v in (x, y))
    return np.pad(pixels, FIELD // 2)[bottom : bottom + FIELD, left : left + FIELD]

"""What a model may be trained on: FIRST sources, each once, and none that it will be tested on.

The images of MiraBest and of the Radio Galaxy Dataset are 9′ fields around one galaxy, and most fields hold others. Here they
are found: connected *islands* of emission above three times the noise, with a peak above five times, or six pixels large where the
noise is not known, which comes to the same for a point. Islands belong
together when a catalogue says so (they lie within the angular size that MiraBest or Radio Galaxy Zoo gives for a source),
otherwise when their centres stand within 30″ of each other. What belongs to one source is one row.

The same patch of sky appears in several archives. Training and evaluation therefore meet here, on the sky and not by file
name: no training image shows a source of an evaluation test split or comes within 30″ of one, whatever archive it comes from,
and sources within 10″ of each other count as one. FR-DEEP gives no positions, so its galaxies cannot be kept apart.
"""

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table, vstack
from astropy.wcs import WCS
from scipy import ndimage

from rgz import cutouts, fetch, images, readers, sample
from rgz.errors import BadInput
from rgz.progress import progress

__all__ = [
    "KEEP_AWAY",
    "SAME_SOURCE",
    "Field",
    "apart",
    "cells",
    "cut",
    "find",
    "islands",
    "known_sources",
    "linked",
    "once_each",
    "radio_galaxy_zoo",
    "training_sample",
]

FITS_FIELDS, ZOO = "MiraBest_FIRST_FITS.tar", "rgz_dr1_sources.csv.gz"
KEEP_AWAY = 30.0  # arcsec, from any source of a test split
SAME_SOURCE = 10.0  # arcsec
LINK = 30.0  # arcsec between islands of one source that no catalogue knows; 2 in 100 strangers stand that close
MARGIN = 20.0  # arcsec added to half of a catalogued size: sizes end where the catalogue's threshold did
UNKNOWN_REACH = 90.0  # arcsec, for catalogued sources without a size
PEAK = 5.0  # rms
ACROSS = 0.3  # degrees, more than a field and the reach of a source beside it
FIELD = 150  # pixels, as MiraBest's images have
EDGE = 32  # pixels between a source and the field's edge, half of the narrowest square
VALIDATION = 0.05


@dataclass(frozen=True)
class Field:
    """A piece of sky: pixels (H, W) with speckles and everything below 3 rms zero, their rms (NaN: unknown), their WCS."""

    name: str
    pixels: np.ndarray
    rms: float
    wcs: WCS


def once_each(table: Table, arcsec: float) -> np.ndarray:
    """Mask of the rows that come first among those within ``arcsec`` of each other."""
    return sample.same_source(table, arcsec) == np.arange(len(table))


def radio_galaxy_zoo() -> Table:
    """Radio Galaxy Zoo DR1: ``rgz_name``, ``ra``, ``dec`` (deg) and ``reach`` (arcsec), each source once."""
    table = cutouts.read_catalogue(fetch.fetch(ZOO))
    table["reach"] = np.asarray(table["las"]) / 2 + MARGIN
    return table["rgz_name", "ra", "dec", "reach"][once_each(table, SAME_SOURCE)]


def _sky(table: Table) -> SkyCoord:
    return SkyCoord(table["ra"], table["dec"], unit="deg")


def _reach(table: Table) -> np.ndarray:
    """Distance from a source's position within which emission is taken for its own, in arcsec."""
    return np.asarray(table["size"]) / 2 + MARGIN if "size" in table.colnames else np.full(len(table), UNKNOWN_REACH)


def known_sources(samples: list[sample.Sample]) -> Table:
    """``ra``, ``dec`` (deg), ``reach`` (arcsec) and ``split`` of every source of some samples."""
    tables = [s.table for s in samples]
    whole = [Table({"ra": t["ra"], "dec": t["dec"], "reach": _reach(t), "split": t["split"]}) for t in tables]
    return vstack(whole, metadata_conflicts="silent")


def apart(table: Table, others: Table) -> np.ndarray:
    """Mask of the rows of a table whose images come within 30″ of none of the others, nor within the ``reach`` of one."""
    clear = np.ones(len(table), bool)
    here, there = (_sky(t) for t in (table, others))
    limit = FIELD / 2 * np.sqrt(2) * readers.FIRST_PIXEL + np.maximum(KEEP_AWAY, others["reach"])
    other, row, separation, _ = here.search_around_sky(there, limit.max() * u.arcsec)
    clear[row[separation.to_value(u.arcsec) <= limit[other]]] = False
    return clear


def _clipped(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """A field clipped at 3 rms, without speckles, float32, and that rms."""
    median, rms = images.noise(pixels)
    return images.despeckle(images.clip(pixels, measured=(median, rms))).astype(np.float32), rms


def _fits_fields() -> Iterator[Field]:
    for name, data in readers.members(fetch.fetch(FITS_FIELDS)):
        pixels, wcs = readers.read_fits(data)
        if wcs is None:
            raise BadInput(f"{name} has no celestial WCS: a FITS field needs one to say where its sources are")
        pixels = images.fill(pixels)
        stem = PurePosixPath(name).name.removesuffix(".fits.fz")
        clipped, rms = _clipped(pixels)
        yield Field(stem, clipped, rms, wcs)


def _rgd_fields(rgd: sample.Sample) -> Iterator[Field]:
    """The Radio Galaxy Dataset's images: clipped at 3 rms by its authors, north up, centred on the position they give."""
    for row, pixels in zip(rgd.table, rgd.images, strict=True):
        wcs = WCS(naxis=2)
        wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
        wcs.wcs.crval = row["ra"], row["dec"]
        wcs.wcs.crpix = (pixels.shape[1] + 1) / 2, (pixels.shape[0] + 1) / 2
        wcs.wcs.cdelt = -rgd.pixel / 3600, rgd.pixel / 3600
        yield Field(str(row["name"]), images.despeckle(pixels).astype(np.float32), np.nan, wcs)


def islands(pixels: np.ndarray, rms: float) -> tuple[Table, np.ndarray]:
    """Islands that peak above 5 rms: ``y``, ``x`` (brightness-weighted, pixels), ``peak`` and ``number`` in the map of labels.

    Where the rms is not known the area has to do: see ``rgz.images.SMALLEST_ISLAND``.
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
        near = np.hypot(across - x[row], down - y[row]) <= images.Recipe().radius / readers.FIRST_PIXEL
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
        pixels[:, listed] = wcs.world_to_pixel(_sky(catalogued))
        sky[:, listed] = catalogued["ra"], catalogued["dec"]
    return pixels, sky


def _owners(sky: SkyCoord, known: Table) -> np.ndarray:
    """For each island the row of the known source that it belongs to, or a number beyond them, shared by linked islands."""
    owners = np.full(len(sky), -1)
    ra, dec = sky[0].ra.deg, sky[0].dec.deg
    east = (np.asarray(known["ra"]) - ra + 180) % 360 - 180
    near = np.flatnonzero((np.abs(known["dec"] - dec) < ACROSS) & (np.abs(east) * np.cos(np.radians(dec)) < ACROSS))
    if len(near):
        share = sky[:, None].separation(_sky(known[near])[None]).to_value(u.arcsec) / np.asarray(known["reach"][near])
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


def cells(table: Table) -> np.ndarray:
    """For each row its square degree, (N,), so that a part can be held out without its neighbours."""
    return np.array([_cell(row["ra"], row["dec"]) for row in table])


def _cell(ra: float, dec: float) -> str:
    """Name of the square degree, more or less, that a place in degrees lies in: neighbours may share an image."""
    return f"{math.floor(ra * math.cos(math.radians(dec)))} {math.floor(dec)}"


def _split(ra: float, dec: float) -> str:
    """``valid`` for one square degree in twenty, the same ones on every machine: neighbours share an image, and so a split."""
    digest = hashlib.sha256(_cell(ra, dec).encode()).hexdigest()
    return "valid" if int(digest[:8], 16) < VALIDATION * 2**32 else "train"


def _central(samples: list[sample.Sample]) -> tuple[Table, np.ndarray]:
    """The galaxies that MiraBest and the Radio Galaxy Dataset were made for, as their authors cut them."""
    table = vstack([Table({key: s.table[key] for key in ("name", "ra", "dec")}) for s in samples])
    table["origin"], table["peak"], table["snr"], table["rms"] = table["name"], np.nan, np.nan, np.nan
    pixels = np.concatenate([images.crop(s.images, FIELD) for s in samples]).astype(np.float32)
    return table, pixels / np.maximum(pixels.max((1, 2), keepdims=True), 1)


def _found(mirabest: sample.Sample, rgd: sample.Sample, known: Table) -> Iterator[tuple[Table, np.ndarray]]:
    """The sources of each field of both archives."""
    fields, count = chain(_fits_fields(), _rgd_fields(rgd)), len(mirabest) + len(rgd)
    for field in progress(fields, "finding sources", count, unit="field"):
        found = find(field, known)
        if len(found):
            places = _sky(found)
            found["name"] = [f"J{place.replace(' ', '')}" for place in places.to_string("hmsdms", sep="", precision=1)]
            found["origin"] = field.name
            if np.isnan(field.rms):
                found["peak"] = np.nan  # grey levels, no flux density
            cuts = np.stack([cut(field.pixels, x, y) for x, y in zip(*field.wcs.world_to_pixel(places), strict=True)])
            brightest = cuts.max((1, 2))
            found["rms"] = field.rms / brightest
            yield found, cuts / brightest[:, None, None]


def _cut_out(fields: sample.Sample) -> Iterator[tuple[Table, np.ndarray]]:
    """Cut-outs that show a source in their middle, clipped and in units of the brightest pixel."""
    if not math.isclose(fields.pixel, readers.FIRST_PIXEL, rel_tol=1e-3):
        raise BadInput(f"the cut-outs have pixels of {fields.pixel:g}″: FIRST's are {readers.FIRST_PIXEL}″ wide")
    for row, pixels in zip(fields.table, fields.images, strict=True):
        clipped, rms = _clipped(pixels)
        middle = images.crop(clipped, 2 * EDGE)
        if (brightest := middle.max()) > PEAK * rms:
            place = {"name": [row["name"]], "ra": [row["ra"]], "dec": [row["dec"]], "origin": ["cut-out"]}
            yield (
                Table(place | {"peak": [brightest], "snr": [brightest / rms], "rms": [rms / clipped.max()]}),
                images.crop(clipped, FIELD)[None] / clipped.max(),
            )


def training_sample(more: sample.Sample | None = None) -> sample.Sample:
    """Every FIRST source in the images of MiraBest and the Radio Galaxy Dataset, once each, away from all test splits.

    ``more`` is taken in too: fields of one source each, in Jy/beam, unclipped (:func:`rgz.cutouts.collect`).

    150×150 pixels of 1.8″, float32, in units of the brightest pixel. Beside the columns of :mod:`rgz.sample` the table has
    ``rgz_name`` (empty where no source of Radio Galaxy Zoo DR1 lies within 10″), ``origin`` (the field) and, NaN where
    only a clipped image is at hand, ``peak`` (Jy/beam), ``snr`` and ``rms`` (in the image's units). The ``split`` column marks
    some square degrees for validation. Labels are not carried along.
    """
    archives, zoo = [readers.load("mirabest"), readers.load("rgd")], radio_galaxy_zoo()
    catalogue = known_sources(archives)
    known = vstack([zoo["ra", "dec", "reach"], catalogue], metadata_conflicts="silent")
    found = _found(*archives, known[once_each(known, SAME_SOURCE)])
    parts = [_central(archives), *found, *(_cut_out(more) if more else ())]
    tables, cuts = zip(*parts, strict=True)
    table, pixels = vstack(tables, metadata_conflicts="silent"), np.concatenate(cuts)
    first = sample.same_source(table, SAME_SOURCE)
    for row in np.flatnonzero(np.isfinite(table["snr"]) & np.isnan(table["snr"][first])):
        for column in ("peak", "snr", "rms"):  # what one archive does not say of a source another may
            table[column][first[row]] = table[column][row]
    recipe = images.Recipe()
    keep = (first == np.arange(len(table))) & apart(table, catalogue[catalogue["split"] == "test"])
    keep[keep] = [images.has_source(images.despeckle(image), readers.FIRST_PIXEL, recipe) for image in pixels[keep]]
    table, pixels = table[keep], pixels[keep]
    match, separation, _ = _sky(table).match_to_catalog_sky(_sky(zoo))
    table["rgz_name"] = np.where(separation.to_value(u.arcsec) <= SAME_SOURCE, zoo["rgz_name"][match], "")
    table["label"], table["confident"] = "", False
    table["split"] = [_split(row["ra"], row["dec"]) for row in table]
    return sample.Sample(pixels, table, readers.FIRST_PIXEL)

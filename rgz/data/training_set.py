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
from itertools import chain
from pathlib import PurePosixPath

import numpy as np
from astropy import units as u
from astropy.table import Table, vstack
from astropy.wcs import WCS

from rgz.data import archives as archives_
from rgz.data import datasets, download, fetch, sample
from rgz.data.detect import EDGE, FIELD, PEAK, Field, cut, find
from rgz.data.detect import positions as _sky
from rgz.errors import BadInput
from rgz.progress import progress
from rgz.transforms import prepare

__all__ = [
    "KEEP_AWAY",
    "SAME_SOURCE",
    "apart",
    "cells",
    "known_sources",
    "once_each",
    "radio_galaxy_zoo",
    "training_sample",
]

FITS_FIELDS, ZOO = "MiraBest_FIRST_FITS.tar", "rgz_dr1_sources.csv.gz"
KEEP_AWAY = 30.0  # arcsec, from any source of a test split
SAME_SOURCE = 10.0  # arcsec
MARGIN = 20.0  # arcsec added to half of a catalogued size: sizes end where the catalogue's threshold did
UNKNOWN_REACH = 90.0  # arcsec, for catalogued sources without a size
VALIDATION = 0.05


def once_each(table: Table, arcsec: float) -> np.ndarray:
    """Mask of the rows that come first among those within ``arcsec`` of each other."""
    return sample.same_source(table, arcsec) == np.arange(len(table))


def radio_galaxy_zoo() -> Table:
    """Radio Galaxy Zoo DR1: ``rgz_name``, ``ra``, ``dec`` (deg) and ``reach`` (arcsec), each source once."""
    table = download.read_catalogue(fetch.fetch(ZOO))
    table["reach"] = np.asarray(table["las"]) / 2 + MARGIN
    return table["rgz_name", "ra", "dec", "reach"][once_each(table, SAME_SOURCE)]


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
    limit = FIELD / 2 * np.sqrt(2) * datasets.FIRST_PIXEL + np.maximum(KEEP_AWAY, others["reach"])
    other, row, separation, _ = here.search_around_sky(there, limit.max() * u.arcsec)
    clear[row[separation.to_value(u.arcsec) <= limit[other]]] = False
    return clear


def _clipped(pixels: np.ndarray) -> tuple[np.ndarray, float]:
    """A field clipped at 3 rms, without speckles, float32, and that rms."""
    median, rms = prepare.noise(pixels)
    return prepare.despeckle(prepare.clip(pixels, measured=(median, rms))).astype(np.float32), rms


def _fits_fields() -> Iterator[Field]:
    for name, data in archives_.members(fetch.fetch(FITS_FIELDS)):
        pixels, wcs = archives_.read_fits(data)
        if wcs is None:
            raise BadInput(f"{name} has no celestial WCS: a FITS field needs one to say where its sources are")
        pixels = prepare.fill(pixels)
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
        yield Field(str(row["name"]), prepare.despeckle(pixels).astype(np.float32), np.nan, wcs)


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
    pixels = np.concatenate([prepare.crop(s.images, FIELD) for s in samples]).astype(np.float32)
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
    if not math.isclose(fields.pixel, datasets.FIRST_PIXEL, rel_tol=1e-3):
        raise BadInput(f"the cut-outs have pixels of {fields.pixel:g}″: FIRST's are {datasets.FIRST_PIXEL}″ wide")
    for row, pixels in zip(fields.table, fields.images, strict=True):
        clipped, rms = _clipped(pixels)
        middle = prepare.crop(clipped, 2 * EDGE)
        if (brightest := middle.max()) > PEAK * rms:
            place = {"name": [row["name"]], "ra": [row["ra"]], "dec": [row["dec"]], "origin": ["cut-out"]}
            yield (
                Table(place | {"peak": [brightest], "snr": [brightest / rms], "rms": [rms / clipped.max()]}),
                prepare.crop(clipped, FIELD)[None] / clipped.max(),
            )


def training_sample(more: sample.Sample | None = None) -> sample.Sample:
    """Every FIRST source in the images of MiraBest and the Radio Galaxy Dataset, once each, away from all test splits.

    ``more`` is taken in too: fields of one source each, in Jy/beam, unclipped (:func:`rgz.data.download.collect`).

    150×150 pixels of 1.8″, float32, in units of the brightest pixel. Beside the columns of :mod:`rgz.data.sample` the table has
    ``rgz_name`` (empty where no source of Radio Galaxy Zoo DR1 lies within 10″), ``origin`` (the field) and, NaN where
    only a clipped image is at hand, ``peak`` (Jy/beam), ``snr`` and ``rms`` (in the image's units). The ``split`` column marks
    some square degrees for validation. Labels are not carried along.
    """
    archives, zoo = [datasets.load_dataset("mirabest"), datasets.load_dataset("rgd")], radio_galaxy_zoo()
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
    recipe = prepare.Recipe()
    keep = (first == np.arange(len(table))) & apart(table, catalogue[catalogue["split"] == "test"])
    keep[keep] = [prepare.has_source(prepare.despeckle(image), datasets.FIRST_PIXEL, recipe) for image in pixels[keep]]
    table, pixels = table[keep], pixels[keep]
    match, separation, _ = _sky(table).match_to_catalog_sky(_sky(zoo))
    table["rgz_name"] = np.where(separation.to_value(u.arcsec) <= SAME_SOURCE, zoo["rgz_name"][match], "")
    table["label"], table["confident"] = "", False
    table["split"] = [_split(row["ra"], row["dec"]) for row in table]
    return sample.Sample(pixels, table, datasets.FIRST_PIXEL)

"""The unlabelled training set: FIRST sources, without duplicates and without sources of a test split.

Images of MiraBest and of the Radio Galaxy Dataset are fields of several arcminutes around one galaxy, and most fields
contain other sources. These are detected as connected *islands* of emission above three times the rms with a peak above
five times the rms. If the rms is not known, an island must have at least six pixels, which is equivalent for a point
source. Islands belong together if they lie within the angular size that MiraBest or Radio Galaxy Zoo gives for a
source, otherwise if their centres are within 30″ of each other. The islands of one source form one row.

The same part of the sky appears in several archives. Training and test sources are therefore compared by position, not
by file name. No training image contains a source of a test split or comes within 30″ of one, in any archive. Sources
within 10″ of each other count as one. The galaxies of FR-DEEP's test splits are excluded where their position is known
(:data:`rgz.data.datasets.POSITIONS`), which is so for 97 of 100.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table, vstack
from astropy.wcs import WCS
from numpy.typing import NDArray

from rgz.app.training import TRAINING_SET
from rgz.data import archives, datasets, fetch
from rgz.data.datasets import FITS_FIELDS, ZOO
from rgz.data.detect import FIELD, cut, islands, north_up
from rgz.data.sample import SAME_SOURCE, Sample, cells, linked, positions, same_source, write
from rgz.errors import BadInput
from rgz.progress import progress
from rgz.transforms import fields
from studies import results

KEEP_AWAY = 30.0  # arcsec, from any source of a test split
MARGIN = 20.0  # arcsec added to half of a catalogued size: sizes end at the catalogue's threshold
UNKNOWN_REACH = 90.0  # arcsec, for catalogued sources without a size
VALIDATION = 0.05  # fraction of the square degrees
NEIGHBOURHOOD = 0.3  # degrees, more than the width of a field and the largest reach of a source beside it
LINK = 30.0  # arcsec between islands of one uncatalogued source; 2 in 100 unrelated islands are that close
EDGE = 32  # pixels between a source and the field's edge, half of the narrowest prepared square


@dataclass(frozen=True)
class Field:
    """A despeckled piece of sky: pixels (H, W), zero below 3 rms, their rms (NaN if unknown) and their WCS."""

    name: str
    pixels: NDArray[Any]
    rms: float
    wcs: WCS


def once_each(table: Table, arcsec: float) -> NDArray[np.bool_]:
    """Mask of the rows that come first among those within ``arcsec`` of each other."""
    return np.asarray(same_source(table, arcsec) == np.arange(len(table)))


def _radio_galaxy_zoo() -> Table:
    """Radio Galaxy Zoo DR1: ``rgz_name``, ``ra``, ``dec`` (deg) and ``reach`` (arcsec), each source once."""
    table = Table.read(fetch.fetch(ZOO), format="ascii.csv")
    table["reach"] = table["las_arcsec"] / 2 + MARGIN
    return table["rgz_name", "ra", "dec", "reach"][once_each(table, SAME_SOURCE)]


def _catalogued(sample: Sample, reach: float = UNKNOWN_REACH) -> Table:
    """``ra``, ``dec`` (deg), ``split`` and ``reach`` (arcsec) of the galaxies of a sample that have a position.

    Emission within ``reach`` belongs to the source; the one given is for samples without sizes.
    """
    table = sample.table["ra", "dec", "split"]
    table["reach"] = np.asarray(sample.table["size"]) / 2 + MARGIN if "size" in sample.table.colnames else reach
    return table[np.isfinite(table["ra"])]


def apart(table: Table, others: Table) -> NDArray[np.bool_]:
    """Mask of the rows whose images do not come within 30″ or the ``reach`` of any of the other sources."""
    clear = np.ones(len(table), bool)
    limit = FIELD / 2 * np.sqrt(2) * datasets.FIRST_PIXEL + np.maximum(KEEP_AWAY, others["reach"])
    other, row, away, _ = positions(table).search_around_sky(positions(others), limit.max() * u.arcsec)
    clear[row[away.to_value(u.arcsec) <= limit[other]]] = False
    return clear


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
            near = np.hypot(across - x, down - y) <= fields.RADIUS / datasets.FIRST_PIXEL
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
        owners[free] = len(known) + linked(flat, LINK)
    return owners


def _fits_fields() -> Iterator[Field]:
    """The FIRST fields behind MiraBest, clipped at 3 rms here."""
    for name, data in archives.members(fetch.fetch(FITS_FIELDS)):
        pixels, wcs, *_ = archives.read_plane(data, name)
        if wcs is None:
            raise BadInput(f"{name} has no celestial WCS: it is needed for the positions of its sources")
        filled = fields.fill(pixels)
        median, rms = fields.noise(filled)
        clipped = fields.despeckle(fields.clip(filled, measured=(median, rms))).astype(np.float32)
        yield Field(PurePosixPath(name).name.removesuffix(".fits.fz"), clipped, rms, wcs)


def _rgd_fields(rgd: Sample) -> Iterator[Field]:
    """The Radio Galaxy Dataset's images: clipped at 3 rms by its authors, north up, centred on the position given."""
    for row, pixels in zip(rgd.table, rgd.images, strict=True):
        wcs = north_up(pixels.shape, rgd.pixel, row["ra"], row["dec"])
        yield Field(str(row["name"]), fields.despeckle(pixels).astype(np.float32), np.nan, wcs)


def split(table: Table) -> list[str]:
    """``valid`` for one square degree in twenty, chosen by a hash, so that they are the same on every machine."""
    digests = [hashlib.sha256(cell.encode()).hexdigest() for cell in cells(table)]
    return ["valid" if int(digest[:8], 16) < VALIDATION * 2**32 else "train" for digest in digests]


def _central(samples: list[Sample]) -> tuple[Table, NDArray[np.float32]]:
    """The galaxies in the middle of the images of MiraBest and the Radio Galaxy Dataset."""
    table = vstack([s.table["name", "ra", "dec"] for s in samples], metadata_conflicts="silent")
    table["origin"], table["peak"], table["snr"], table["rms"] = table["name"], np.nan, np.nan, np.nan
    pixels = np.concatenate([fields.crop(s.images, FIELD) for s in samples]).astype(np.float32)
    return table, pixels / np.maximum(pixels.max((1, 2), keepdims=True), 1)


def _found(mirabest: Sample, rgd: Sample, known: Table) -> Iterator[tuple[Table, NDArray[np.float32]]]:
    """The sources of each field of both archives."""
    stream, count = chain(_fits_fields(), _rgd_fields(rgd)), len(mirabest) + len(rgd)
    for field in progress(stream, "finding sources", count, unit="field"):
        found = find(field, known)
        if len(found):
            sky = positions(found)
            found["name"] = [f"J{text.replace(' ', '')}" for text in sky.to_string("hmsdms", sep="", precision=1)]
            found["origin"] = field.name
            if np.isnan(field.rms):
                found["peak"] = np.nan  # grey levels, not a flux density
            cuts = np.stack([cut(field.pixels, x, y) for x, y in zip(*field.wcs.world_to_pixel(sky), strict=True)])
            brightest = cuts.max((1, 2))
            found["rms"] = field.rms / brightest
            yield found, cuts / brightest[:, None, None]


def training_sample() -> Sample:
    """All FIRST sources in the images of MiraBest and the Radio Galaxy Dataset, without duplicates and test sources.

    Images have 150×150 pixels of 1.8″, float32, in units of the brightest pixel. In addition to the columns of
    :mod:`rgz.data.sample` the table has ``rgz_name`` (empty if no source of Radio Galaxy Zoo DR1 lies within 10″) and
    ``origin`` (the field). The columns ``peak`` (Jy/beam), ``snr`` and ``rms`` (in the image's units) are NaN if only a
    clipped image is available. The ``split`` column marks some square degrees for validation. Labels are left empty.
    """
    mirabest, rgd, zoo = datasets.load_dataset("mirabest"), datasets.load_dataset("rgd"), _radio_galaxy_zoo()
    fetch.fetch(datasets.POSITIONS)
    frdeep = [_catalogued(datasets.load_dataset(name), KEEP_AWAY) for name in ("frdeep-first", "frdeep-nvss")]
    catalogue = vstack([_catalogued(mirabest), _catalogued(rgd)], metadata_conflicts="silent")
    known = vstack([zoo["ra", "dec", "reach"], catalogue], metadata_conflicts="silent")
    held_out = vstack([catalogue, *frdeep], metadata_conflicts="silent")
    found = _found(mirabest, rgd, known[once_each(known, SAME_SOURCE)])
    tables, cuts = zip(_central([mirabest, rgd]), *found, strict=True)
    table, pixels = vstack(tables, metadata_conflicts="silent"), np.concatenate(cuts)
    first = same_source(table, SAME_SOURCE)
    for row in np.flatnonzero(np.isfinite(table["snr"]) & np.isnan(table["snr"][first])):
        for column in ("peak", "snr", "rms"):  # the first row is from an archive without them
            table[column][first[row]] = table[column][row]
    keep = (first == np.arange(len(table))) & apart(table, held_out[held_out["split"] == "test"])
    clean = np.stack([*map(fields.despeckle, pixels[keep])])
    keep[keep] = fields.has_source(clean, datasets.FIRST_PIXEL)
    table, pixels = table[keep], pixels[keep]
    match, separation, _ = positions(table).match_to_catalog_sky(positions(zoo))
    table["rgz_name"] = np.where(separation.to_value(u.arcsec) <= SAME_SOURCE, zoo["rgz_name"][match], "")
    table["label"], table["confident"] = "", False
    table["split"] = split(table)
    return Sample(pixels, table, datasets.FIRST_PIXEL)


def main() -> None:
    """Build it, and write it where ``rgz train`` looks for it; about two minutes."""
    built = training_sample()
    write(TRAINING_SET, built)
    held_out, known = (int(rows.sum()) for rows in (built.table["split"] == "valid", built.table["rgz_name"] != ""))
    print(f"{TRAINING_SET}: {len(built)} sources, {known} in Radio Galaxy Zoo DR1; {held_out} for validation")


if __name__ == "__main__":
    results.run(main)

"""A sample: images and what is known of each source, row for row.

Everything that the library does to galaxies it does to a :class:`Sample`: a stack of images and an astropy table
with one row a source. The two never part, so a source's name travels with its pixels and later with its code.

Every table has these columns; a reader may add its own (redshift, angular size, …).

=============  =======  =========================================================================
column         unit     meaning
=============  =======  =========================================================================
``name``                unique in the sample
``ra dec``     deg      ICRS position, NaN where the archive gives none
``label``               ``FRI``, ``FRII``, ``hybrid``, ``compact``, ``bent``, or empty when unknown
``confident``           False where the classifier of the catalogue was in doubt
``split``               ``train``, ``valid`` or ``test`` as the authors of the archive drew it
=============  =======  =========================================================================
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from rgz import artifacts
from rgz.errors import BadInput, first_line
from rgz.transforms import prepare

__all__ = [
    "CHECKED",
    "Sample",
    "pixel_widths",
    "prepared",
    "read",
    "read_columns",
    "same_source",
    "separation",
    "unique",
    "usable",
    "write",
    "write_columns",
]

CHECKED = {
    "compression": "gzip",
    "compression_opts": 9,
    "shuffle": True,
    "fletcher32": True,
}  # small, and a flipped bit is noticed
COLUMNS = ("name", "ra", "dec", "label", "confident", "split")


@dataclass(frozen=True)
class Sample:
    """Images (N, H, W) and a table of N rows.

    Parameters
    ----------
    images
        uint8 grey levels, or float32 in Jy/beam, shape (N, H, W), one shape for all.
    table
        One row a source, with at least the columns above.
    pixel
        Width of a pixel in arcsec.

    Raises
    ------
    BadInput
        Rows and images differ in number, a column is missing, or names repeat.

    Examples
    --------
    >>> from rgz import synthetic
    >>> sample = synthetic.sources(4, seed=0)
    >>> sample.images.shape, len(sample), sample[sample.table["label"] == "FRII"].images.shape
    ((4, 150, 150), 4, (2, 150, 150))
    """

    images: np.ndarray
    table: Table
    pixel: float

    def __post_init__(self):
        if self.images.ndim != 3:
            raise BadInput(f"images have shape (N, H, W); these have {self.images.shape}")
        if len(self.images) != len(self.table):
            raise BadInput(f"{len(self.images)} images do not match {len(self.table)} table rows")
        if missing := [name for name in COLUMNS if name not in self.table.colnames]:
            raise BadInput(f"the table of a sample needs the columns {', '.join(missing)} too")
        if len(set(self.table["name"])) != len(self.table):
            raise BadInput("names in a sample are unique; these repeat")

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows) -> "Sample":
        """The rows of a mask, slice or list of integers, as a sample."""
        return Sample(self.images[rows], self.table[rows], self.pixel)

    def named(self, names: Iterable[str]) -> "Sample":
        """The rows of these names, in their order."""
        row = {name: number for number, name in enumerate(self.table["name"])}
        return self[[row[name] for name in names]]


def unique(names: Iterable[str]) -> list[str]:
    """Names made unique, in order.

    >>> unique(["a", "b", "a", "a-2", "a"])
    ['a', 'b', 'a-2', 'a-2-2', 'a-3']
    """
    given, found = {}, []
    for name in names:
        one = name
        while one in given:
            given[name] += 1
            one = f"{name}-{given[name]}"
        given[one] = 1
        found.append(one)
    return found


def separation(table: Table, other: Table) -> np.ndarray:
    """Angle from each row to the nearest row of another table, in arcsec; inf where a position is unknown."""
    nearest = np.full(len(table), np.inf)
    known, targets = (np.isfinite(np.asarray(t["ra"])) & np.isfinite(np.asarray(t["dec"])) for t in (table, other))
    if known.any() and targets.any():
        here, there = (
            SkyCoord(t["ra"][rows], t["dec"][rows], unit="deg") for t, rows in ((table, known), (other, targets))
        )
        nearest[known] = here.match_to_catalog_sky(there)[1].to_value(u.arcsec)
    return nearest


def same_source(table: Table, arcsec: float) -> np.ndarray:
    """For each row, the number of the first row that is the same source; its own where there is no other or no position.

    Rows within ``arcsec`` of each other are one source, and so are those that a chain of such rows connects.
    """
    from scipy.sparse import coo_array  # a tenth of a second that reading a sample need not wait
    from scipy.sparse.csgraph import connected_components

    first = np.arange(len(table))
    known = np.flatnonzero(np.isfinite(table["ra"]))
    if len(known):
        sky = SkyCoord(table["ra"][known], table["dec"][known], unit="deg")
        one, other, _, _ = sky.search_around_sky(sky, arcsec * u.arcsec)
        links = coo_array((np.ones(len(one)), (known[one], known[other])), shape=(len(table), len(table)))
        _, source = connected_components(links, directed=False)
        _, earliest = np.unique(source, return_index=True)
        first = earliest[source]
    return first


def prepared(sample: Sample, recipe: prepare.Recipe, view: prepare.Orientation = prepare.Orientation()) -> np.ndarray:
    """The images of a sample as the network sees them, (N, size, size) uint8; each must have a source in its middle."""
    return np.stack([prepare.prepare(image, sample.pixel, recipe, view) for image in sample.images])


def usable(sample: Sample, recipe: prepare.Recipe) -> np.ndarray:
    """Mask of the rows that can be prepared: those with emission in the middle of their image."""
    return np.array([prepare.has_source(image, sample.pixel, recipe) for image in sample.images])


def pixel_widths(sample: Sample, recipe: prepare.Recipe) -> np.ndarray:
    """Width of a pixel of each prepared image in arcsec, (N,): the recipe follows the length of each source."""
    return np.array(
        [recipe.pixel(prepare.length(image, sample.pixel, recipe), sample.pixel) for image in sample.images]
    )


def write_columns(group: h5py.Group, table: Table):
    """Write each column of a table as one dataset of an HDF5 group, text as UTF-8, units as attributes."""
    for name in table.colnames:
        column = table[name]
        values = np.asarray(column)
        if values.dtype.kind == "U":
            values = np.char.encode(values, "utf-8")
            values = values.astype(f"S{max(1, values.dtype.itemsize)}")  # HDF5 has no text of length zero
        group.create_dataset(name, data=values, **CHECKED)
        if column.unit is not None:
            group[name].attrs["unit"] = str(column.unit)


def read_columns(group: h5py.Group, names) -> Table:
    """The named datasets of an HDF5 group as a table."""
    table = Table()
    for name in names:
        data = group[name]
        table[name] = data.asstr()[()].astype(str) if h5py.check_string_dtype(data.dtype) else data[()]
        if "unit" in data.attrs:
            table[name].unit = data.attrs["unit"]
    return table


def write(path: Path, sample: Sample):
    """Write a sample to one HDF5 file: ``images`` (compressed), ``table/…``, and the pixel width as an attribute."""
    with artifacts.atomic(path) as partial, h5py.File(partial, "w") as file:
        file.create_dataset("images", data=sample.images, **CHECKED)
        file.attrs["pixel_arcsec"] = sample.pixel
        write_columns(file.create_group("table"), sample.table)


def read(path: Path) -> Sample:
    """Read a sample that :func:`write` wrote.

    Raises
    ------
    BadInput
        The file is missing, damaged or something else.
    """
    try:
        with h5py.File(path, "r") as file:
            images, pixel = file["images"][()], float(file.attrs["pixel_arcsec"])
            return Sample(images, read_columns(file["table"], file["table"]), pixel)
    except BadInput:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and more on damaged files
        raise BadInput(
            f"{path} is not a readable sample file ({first_line(error)}): write it anew with rgz.sample.write"
        ) from error

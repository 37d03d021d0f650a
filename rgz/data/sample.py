"""A sample: a stack of images and an astropy table with one row per source, in the same order.

Every table has these columns; a reader may add its own (redshift, angular size, …).

=============  =======  =========================================================================
column         unit     meaning
=============  =======  =========================================================================
``name``                unique in the sample
``ra dec``     deg      ICRS position, NaN where the archive gives none
``label``               ``FRI``, ``FRII``, ``hybrid``, ``compact``, ``bent``, or empty if unknown
``confident``           False where the authors of the catalogue were uncertain of the class
``split``               ``train``, ``valid`` or ``test``, as in the archive
=============  =======  =========================================================================
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import ArrayLike, NDArray

from rgz import artifacts
from rgz.errors import BadInput, as_bad_input
from rgz.transforms.fields import has_source

CHECKED: dict[str, Any] = {"compression": "gzip", "compression_opts": 9, "shuffle": True, "fletcher32": True}
"""Options of an HDF5 dataset that compress it and add a checksum to detect corruption."""
SAME_SOURCE = 10.0  # arcsec, between rows that are one source
LARGEST = 1 << 30  # bytes of the data sets of a file together
COLUMNS = ("name", "ra", "dec", "label", "confident", "split")


@dataclass(frozen=True, repr=False)
class Sample:
    """Images (N, H, W), uint8 grey levels or float32 in Jy/beam, a table of N rows, and the pixel width in arcsec.

    Raises :class:`BadInput` if rows and images differ in number, a column is missing, or names repeat.

    >>> table = source_table(["a", "b"], [10, 20], [0, 0], ["FRI", "FRII"], [True, True], ["train", "test"])
    >>> sample = Sample(np.zeros((2, 150, 150)), table, pixel=1.8)
    >>> len(sample), sample[sample.table["label"] == "FRII"].images.shape
    (2, (1, 150, 150))
    """

    images: NDArray[Any]
    table: Table
    pixel: float

    def __post_init__(self) -> None:
        if self.images.ndim != 3:
            raise BadInput(f"images have shape (N, H, W); these have {self.images.shape}")
        if len(self.images) != len(self.table):
            raise BadInput(f"{len(self.images)} images do not match {len(self.table)} table rows")
        if missing := [name for name in COLUMNS if name not in self.table.colnames]:
            raise BadInput(f"the table of a sample also needs the columns {', '.join(missing)}")
        if len(set(self.table["name"])) != len(self.table):
            raise BadInput("names in a sample must be unique; some of these repeat")

    def __repr__(self) -> str:
        height, width = self.images.shape[1:]
        return f"Sample of {len(self)} images, {height} × {width} pixels of {self.pixel:g}″"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Any) -> "Sample":
        """The rows of a mask, slice or list of integers, as a sample."""
        return Sample(self.images[rows], self.table[rows], self.pixel)

    def named(self, names: Iterable[str]) -> "Sample":
        """The rows of these names, in their order."""
        row = {name: number for number, name in enumerate(self.table["name"])}
        return self[[row[name] for name in names]]


def source_table(
    name: ArrayLike, ra: ArrayLike, dec: ArrayLike, label: ArrayLike, confident: ArrayLike, split: ArrayLike
) -> Table:
    """The table of a sample from its columns (N,), positions in deg."""
    columns = (name, np.asarray(ra, float), np.asarray(dec, float), label, np.asarray(confident, bool), split)
    return Table(columns, names=COLUMNS, units={"ra": "deg", "dec": "deg"})


def positions(table: Table) -> SkyCoord:
    """The columns ``ra`` and ``dec`` as sky coordinates."""
    return SkyCoord(table["ra"], table["dec"], unit="deg")


def linked(places: NDArray[Any], reach: float) -> NDArray[Any]:
    """Friends of friends: for each position (N, D) the first row that chains of steps of at most ``reach`` lead to.

    >>> linked(np.array([[0.0, 0.0], [99.0, 0.0], [50.0, 0.0], [25.0, 0.0]]), 30)
    array([0, 1, 0, 0])
    """
    from scipy.sparse import coo_array  # these imports take a tenth of a second each
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    pairs = KDTree(places).query_pairs(reach, output_type="ndarray").T  # (2, M)
    links = coo_array((np.ones(pairs.shape[1]), tuple(pairs)), shape=(len(places), len(places)))
    _, group = connected_components(links, directed=False)
    return np.asarray(np.unique(group, return_index=True)[1][group])


def same_source(table: Table, arcsec: float) -> NDArray[Any]:
    """For each row the first row of its source; rows within ``arcsec``, also in chains (:func:`linked`), are one.

    A row without a position is a source of its own.
    """
    source, known = np.arange(len(table)), np.flatnonzero(np.isfinite(table["ra"]))
    places = positions(table[known]).cartesian.xyz.value.T  # unit vectors
    source[known] = known[linked(places, 2 * np.sin(np.radians(arcsec / 3600) / 2))]
    return source


def disputed(table: Table, arcsec: float) -> NDArray[np.str_]:
    """For each row, the classes of its source (:func:`same_source`) if catalogues give different ones, else no text.

    >>> table = Table({"ra": [10, 10, 20], "dec": [0, 0, 0], "label": ["FRI", "bent", "FRI"]})
    >>> disputed(table, 10).tolist()
    ['FRI, bent', 'FRI, bent', '']
    """
    source, classes = same_source(table, arcsec), defaultdict[int, set[str]](set)
    for number, label in zip(source, map(str, table["label"]), strict=True):
        classes[number] |= {label} - {""}
    return np.array([", ".join(sorted(classes[one])) if len(classes[one]) > 1 else "" for one in source])


def cells(table: Table) -> NDArray[np.str_]:
    """For each row the name of its square degree, (N,); neighbours share one, so they are held out together."""
    north = np.asarray(table["dec"], float)
    east = np.asarray(table["ra"], float) * np.cos(np.radians(north))
    return np.array([f"{x} {y}" for x, y in np.floor([east, north]).astype(int).T])


def usable(sample: Sample) -> NDArray[np.bool_]:
    """Mask of the rows that can be prepared: those with emission in the middle of their image."""
    return has_source(sample.images, sample.pixel)


def write_columns(group: h5py.Group, table: Table) -> None:
    """Write each column of a table as one dataset of an HDF5 group: text as UTF-8 bytes, units as attributes."""
    table = table.copy()
    table.convert_unicode_to_bytestring()
    for name in table.colnames:
        group.create_dataset(name, data=np.asarray(table[name]), **CHECKED)
        if table[name].unit is not None:
            group[name].attrs["unit"] = str(table[name].unit)


def read_columns(group: h5py.Group, names: Iterable[str]) -> Table:
    """The named datasets of an HDF5 group as a table."""
    table = Table({name: group[name][()] for name in names})
    table.convert_bytestring_to_unicode()
    for name in table.colnames:
        table[name].unit = group[name].attrs.get("unit")
    return table


def check_size(file: h5py.File) -> None:
    """Raise ValueError if the data sets of an HDF5 file claim over a gigabyte, or lie in other files; few bytes can."""
    sizes = [0]

    def outside(name: str, one: h5py.HLObject) -> str | None:
        sizes.append(one.nbytes if isinstance(one, h5py.Dataset) else 0)
        return name if isinstance(one, h5py.Dataset) and (one.external or one.is_virtual) else None

    linked = file.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
    if elsewhere := linked or file.visititems(outside):
        raise ValueError(f"its {elsewhere} is a link or lies in another file, which is not read")
    if sum(sizes) > LARGEST:
        raise ValueError(f"it claims {sum(sizes)} bytes, over 1 GiB")


def write(path: Path, sample: Sample) -> None:
    """Write a sample to one HDF5 file: ``images`` (compressed), ``table/…``, and the pixel width as an attribute."""
    with artifacts.atomic(path) as partial, h5py.File(partial, "w", libver="latest") as file:  # has check sums
        file.create_dataset("images", data=sample.images, **CHECKED)
        file.attrs["pixel_arcsec"] = sample.pixel
        write_columns(file.create_group("table"), sample.table)


def read(path: Path) -> Sample:
    """Read a sample that :func:`write` wrote; raises :class:`BadInput` if the file is missing or damaged."""
    with as_bad_input(f"{path} is not a readable sample file", "make it again"), h5py.File(path, "r") as file:
        check_size(file)
        images, pixel = file["images"][()], float(file.attrs["pixel_arcsec"])
        return Sample(images, read_columns(file["table"], file["table"]), pixel)

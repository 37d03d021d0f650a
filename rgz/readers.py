"""From the archives of other people to a :class:`~rgz.sample.Sample`.

Three of the archives hold CIFAR-style batches, which are Python pickles: files that could run any command when
opened the usual way. :func:`unpickle` admits nothing but numpy arrays, numbers, strings, lists and dicts. Archives
are read in memory, member by member, and never unpacked to disk, so nothing in one can land outside its folder.
"""

import gzip
import io
import pickle
import re
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS, FITSFixedWarning

from rgz import fetch
from rgz.errors import BadInput, first_line
from rgz.images import crop
from rgz.sample import Sample, unique

__all__ = ["SAMPLES", "load", "members", "placed", "read_batches", "read_fits", "unpickle"]

FIRST_PIXEL = 1.8  # arcsec
NVSS_PIXEL = 15.0  # arcsec
IDENTICAL = 0.998  # cosine between images of one galaxy; those of different ones, points apart, hardly reach 0.99
MIDDLE, MOVED = 100, 8  # pixels: what of two images is compared, and how far apart their middles may be
LARGEST_MEMBER = 1 << 30  # bytes; the largest real one is 201 MB


class _NumpyOnly(pickle.Unpickler):
    """An unpickler to which only the constructors of plain numpy arrays and numbers exist."""

    def find_class(self, module, name):
        admitted = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _plain_dtype,
            ("_codecs", "encode"): _latin1,
        }
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            admitted[core, "_reconstruct"] = _empty_array
            admitted[core, "scalar"] = _scalar
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not data")
        return admitted[module, name]


def _plain_dtype(code, *_):
    # A copy, as numpy's own pickles ask for: what follows in the pickle sets its state, and must not set numpy's own dtype.
    dtype = np.dtype(code if isinstance(code, str) else code.decode("ascii"), copy=True)
    if dtype.kind not in "biufSU":
        raise pickle.UnpicklingError(f"dtype {dtype} is not a number or text")
    return dtype


def _empty_array(_subtype, _shape, _code):
    return np.ndarray.__new__(np.ndarray, (0,), np.uint8)


def _scalar(dtype, data):
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, dtype, count=1)[0]


def _latin1(text, encoding):
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoding {encoding!r} is not expected")
    return text.encode("latin1")


def unpickle(data: bytes, origin: str = "pickle") -> dict:
    """Read a pickled dict of arrays, numbers, strings and lists; refuse anything that could run code.

    Raises
    ------
    BadInput
        The pickle is damaged, is not a dict, or names a function or class other than numpy's arrays.
    """
    try:
        content = _NumpyOnly(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise anything, MemoryError and RecursionError included
        raise BadInput(
            f"{origin} is not a batch that can be trusted ({first_line(error)}): fetch the archive again"
        ) from error
    if not isinstance(content, dict):
        raise BadInput(f"{origin} holds a {type(content).__name__}, where a batch is a dict")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each regular file of a tar or zip archive, read in memory.

    Raises
    ------
    BadInput
        The archive is damaged, or has a member that points outside it, is a link or a device, or is over 1 GiB.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        _check_member(path, entry.filename, True, entry.file_size)
                        yield entry.filename, archive.read(entry)
        else:
            with _unzipped(path) as stream, tarfile.open(fileobj=stream) as archive:
                for entry in archive:
                    if not entry.isdir():
                        _check_member(path, entry.name, entry.isreg(), entry.size)
                        yield entry.name, archive.extractfile(entry).read()
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        raise BadInput(f"{path} is not a whole tar or zip archive ({first_line(error)}): fetch it again") from error


@contextmanager
def _unzipped(path: Path):
    """An archive opened, gunzipped to its very end if need be: tar stops reading before gzip's check sum."""
    with open(path, "rb") as stream:
        zipped = stream.read(2) == b"\x1f\x8b"
        stream.seek(0)
        if not zipped:
            yield stream
            return
        with gzip.open(stream) as content:
            data = content.read(LARGEST_MEMBER)
            if content.read(1):
                raise BadInput(f"{path} unpacks to over 1 GiB, more than any archive known here: do not use it")
    yield io.BytesIO(data)


def _check_member(path, name, regular, size):
    parts = PurePosixPath(name.replace("\\", "/"))
    if not regular or parts.is_absolute() or ".." in parts.parts:
        raise BadInput(f"{path} has a member {name!r} that is a link or lies outside the archive: do not use it")
    if size > LARGEST_MEMBER:
        raise BadInput(f"{path} has a member {name!r} of {size} bytes, over the 1 GiB expected at most")


def read_batches(path: Path) -> tuple[np.ndarray, list[int], list[str], list[str]]:
    """Images (N, 150, 150) uint8, classes, file names and splits of a CIFAR-style archive, train batches first."""
    batches = {PurePosixPath(name).name: data for name, data in members(path)}
    names = sorted((n for n in batches if n.startswith("data_batch")), key=lambda n: (len(n), n))
    if not names or "test_batch" not in batches:
        raise BadInput(f"{path} holds no data_batch_* and test_batch: it is not a batched data set")
    images, classes, files, splits = [], [], [], []
    for name in (*names, "test_batch"):
        batch = unpickle(batches[name], f"{path.name}/{name}")
        try:
            pixels = [np.asarray(image).reshape(150, 150) for image in batch["data"]]
            rows = [int(value) for value in batch["labels"]], [str(value) for value in batch["filenames"]]
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput(
                f"{path.name}/{name} lacks 150×150 images, labels or filenames ({first_line(error)})"
            ) from error
        if len(pixels) != len(rows[0]) or len(pixels) != len(rows[1]) or any(p.dtype != np.uint8 for p in pixels):
            raise BadInput(f"{path.name}/{name} does not hold one label and file name for each uint8 image")
        images += pixels
        classes += rows[0]
        files += [file.removeprefix("b'").removesuffix("'") for file in rows[1]]
        splits += ["test" if name == "test_batch" else "train"] * len(pixels)
    return np.stack(images), classes, files, splits


def _table(names, ra, dec, label, confident, split, **further) -> Table:
    table = Table(
        {
            "name": names,
            "ra": np.asarray(ra, float),
            "dec": np.asarray(dec, float),
            "label": label,
            "confident": np.asarray(confident, bool),
            "split": split,
            **further,
        }
    )
    table["ra"].unit = table["dec"].unit = "deg"
    return table


MIRABEST_NAME = re.compile(
    r"(?P<code>[123][01][0-4])_(?P<ra>\d{3}\.\d+)(?P<dec>[+-]\d+\.\d+)_(?P<z>[\d.]+)_(?P<size>[\d.]+)$"
)


def _mirabest(path: Path) -> Sample:
    """MiraBest. A file name reads ``code_RA±Dec_redshift_size``: degrees, degrees, largest angular size in arcsec.

    The first digit of the code is the class (1 FRI, 2 FRII, 3 hybrid), the second the confidence (0 yes, 1 no), the
    third the shape (0 standard, 1 double-double, 2 wide-angle tail, 3 diffuse, 4 head-tail). Porter & Scaife 2023,
    Table 1.
    """
    images, _, files, splits = read_batches(path)
    stems = [PurePosixPath(file).stem for file in files]
    found = [MIRABEST_NAME.match(stem) for stem in stems]
    if None in found:
        raise BadInput(f"{path.name}: {stems[found.index(None)]!r} does not read code_RA±Dec_redshift_size")
    table = _table(
        stems,
        [m["ra"] for m in found],
        [m["dec"] for m in found],
        [{"1": "FRI", "2": "FRII", "3": "hybrid"}[m["code"][0]] for m in found],
        [m["code"][1] == "0" for m in found],
        splits,
        redshift=[float(m["z"]) for m in found],
        size=[float(m["size"]) for m in found],
        morphology=[m["code"] for m in found],
    )
    table["size"].unit = "arcsec"
    return Sample(images, table, FIRST_PIXEL)


FRDEEP_TWICE = {  # the same sky twice, found by comparing the fields; by catalogue number
    "FRI CoNFIG 30": "FRI FRICAT 163",
    "FRI CoNFIG 44": "FRI FRICAT 154",
    "FRI CoNFIG 15": "FRI FRICAT 151",
    "FRI FRICAT 110": "FRI FRICAT 109",  # neighbours in one field
    "FRI FRICAT 169": "FRI FRICAT 168",
    "FRII CoNFIG 182": "FRII CoNFIG 134",
}


def _frdeep(path: Path, pixel: float) -> Sample:
    """FR-DEEP: class 0 is FRI, 1 is FRII; the archive gives no positions, and some FIRST file names repeat.

    Names differ between the two surveys. Their number, catalogue and class make the column ``object``, the same for what is
    one galaxy in both.
    """
    images, classes, files, splits = read_batches(path)
    stems = [PurePosixPath(file).stem.rstrip("_") for file in files]
    unknown, labels = np.full(len(stems), np.nan), [("FRI", "FRII")[c] for c in classes]
    objects = [
        f"{label} {'FRICAT' if 'FRICAT' in stem else 'CoNFIG'} {re.match('[0-9]*', stem)[0]}"
        for stem, label in zip(stems, labels, strict=True)
    ]
    table = _table(unique(stems), unknown, unknown, labels, np.ones(len(stems)), splits)
    table["object"] = [FRDEEP_TWICE.get(one, one) for one in objects]
    return Sample(images, table, pixel)


RADIO_GALAXY_LABELS = ("FRI", "FRII", "compact", "bent")


def _radio_galaxy_dataset(path: Path) -> Sample:
    """The Radio Galaxy Dataset: one HDF5 group a source, image and position inside."""
    (_, data), *_ = members(path)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            groups = [file[f"data_{i}"] for i in range(len(file))]
            images = np.stack([group["Img"][()] for group in groups])
            attributes = [dict(group["Img"].attrs) for group in groups]
            labels = [RADIO_GALAXY_LABELS[int(group["Label_literature"][()])] for group in groups]
            splits = [group["Split_literature"].asstr()[()] for group in groups]
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and more on damaged files
        raise BadInput(
            f"{path} does not hold the Radio Galaxy Dataset ({first_line(error)}): fetch it again"
        ) from error
    ra, dec = ([float(a[key]) for a in attributes] for key in ("RA", "DEC"))
    names = [f"rgd-{i:04d}" for i in range(len(groups))]
    return Sample(
        images,
        _table(names, ra, dec, labels, np.ones(len(names)), splits, catalogue=[str(a["Source"]) for a in attributes]),
        FIRST_PIXEL,
    )


SAMPLES = {
    "mirabest": ("MiraBest_F_batches.tar.gz", _mirabest),
    "frdeep-nvss": ("NVSS_PNG_dataset.tar.gz", lambda path: _frdeep(path, NVSS_PIXEL)),
    "frdeep-first": ("FIRST_PNG_dataset.tar.gz", lambda path: _frdeep(path, FIRST_PIXEL)),
    "rgd": ("galaxy_data_h5.zip", _radio_galaxy_dataset),
}


def load(name: str) -> Sample:
    """One of the samples ``mirabest``, ``frdeep-nvss``, ``frdeep-first``, ``rgd``, fetched if need be.

    Raises
    ------
    BadInput
        There is no such sample, or its archive cannot be found, fetched or read.
    """
    if name not in SAMPLES:
        raise BadInput(f"no sample is called {name!r}: known are {', '.join(SAMPLES)}")
    archive, reader = SAMPLES[name]
    return reader(fetch.fetch(archive))


def placed(sample: Sample, known: Sample) -> Sample:
    """A sample in which galaxies without a place have that of the galaxy of ``known`` whose image is theirs.

    Two images of one survey are the same where the cosine between their middles, one of them moved by up to ``MOVED`` pixels either
    way, is above ``IDENTICAL``: archives cut one galaxy out about slightly different places. So the place is as good as that.
    """
    size = MIDDLE + 2 * MOVED  # room to move without coming in again on the other side
    steps = np.r_[: MOVED + 1, -MOVED:0]

    def spectra(pictures: np.ndarray) -> np.ndarray:
        whole = crop(pictures, MIDDLE).astype(np.float32)
        length = np.sqrt((whole**2).sum(axis=(1, 2), keepdims=True))
        return np.fft.rfft2(whole / np.maximum(length, np.finfo(np.float32).tiny), (size, size)).astype(np.complex64)

    table = sample.table.copy()
    lost = np.flatnonzero(~np.isfinite(np.asarray(table["ra"], float)))
    own, others = spectra(sample.images[lost]), spectra(known.images)
    here, there = (np.abs(one).reshape(len(one), -1) for one in (own, others))  # which a move does not change
    twin = (here @ there.T).argmax(axis=1)
    moved = np.fft.irfft2(own * others[twin].conj(), (size, size))[:, steps][:, :, steps]
    found = moved.max(axis=(1, 2)) > IDENTICAL
    for column in ("ra", "dec"):
        table[column][lost[found]] = known.table[column][twin[found]]
    return replace(sample, table=table)


def read_fits(source: Path | bytes) -> tuple[np.ndarray, WCS | None]:
    """The first image of a FITS file, compressed or not: pixels (H, W) float32 and its celestial WCS, if any.

    Axes of length one (frequency, Stokes) are dropped. Pixels that the file blanks come as NaN.

    Raises
    ------
    BadInput
        The file is damaged or is not FITS, or has no image that is two-dimensional after dropping axes.
    """
    origin = "the FITS data" if isinstance(source, bytes) else str(source)
    try:
        data = source if isinstance(source, bytes) else Path(source).read_bytes()
        with warnings.catch_warnings(), fits.open(io.BytesIO(data), checksum=True) as units:
            warnings.filterwarnings("error", message=".*(Checksum|Datasum) verification failed")
            warnings.simplefilter("ignore", FITSFixedWarning)  # old dates in headers, set right by astropy
            for unit in units:
                if (
                    not isinstance(unit, fits.PrimaryHDU | fits.ImageHDU | fits.CompImageHDU)
                    or unit.header.get("NAXIS", 0) == 0
                ):
                    continue
                pixels = np.squeeze(np.asarray(unit.data, dtype=np.float32))
                if pixels.ndim != 2:
                    raise BadInput(
                        f"{origin} holds an image of shape {unit.shape}: one plane is needed, choose it first"
                    )
                wcs = WCS(unit.header).celestial
                return pixels, wcs if wcs.has_celestial else None
    except BadInput:
        raise
    except Exception as error:  # astropy raises OSError, TypeError, ValueError, VerifyError and more on damage
        raise BadInput(
            f"{origin} is not a readable FITS image ({first_line(error)}): fetch or export it again"
        ) from error
    raise BadInput(f"{origin} has no image in any of its units")

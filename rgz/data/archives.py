"""Archives and FITS files of other people, read in memory and never trusted."""

import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from rgz.errors import BadInput, first_line

__all__ = ["members", "read_batches", "read_fits", "unpickle"]

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

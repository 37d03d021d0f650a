"""Read archives and FITS files from the network safely: in memory, without running any code in them."""

import gzip
import io
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning
from numpy.typing import NDArray

from rgz.errors import BadInput, as_bad_input

__all__ = ["members", "read_batches", "read_fits", "unpickle"]

LARGEST = 1 << 30  # bytes of an archive or a member; the largest real one has 201 MB


class _NumpyOnly(pickle.Unpickler):
    """An unpickler that can construct only plain numpy arrays and numbers."""

    def find_class(self, module: str, name: str) -> Any:
        admitted = {
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): _plain_dtype,
            ("_codecs", "encode"): _latin1,
        }
        for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
            admitted[core, "_reconstruct"] = lambda *_: np.empty(0, np.uint8)
            admitted[core, "scalar"] = _scalar
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not data")
        return admitted[module, name]


def _plain_dtype(code: str | bytes, *_: Any) -> np.dtype[Any]:
    # A copy: the pickle then sets the state of this dtype, which must not change numpy's own.
    dtype = np.dtype(code if isinstance(code, str) else code.decode("ascii"), copy=True)
    if dtype.kind not in "biufSU":
        raise pickle.UnpicklingError(f"dtype {dtype} is not a number or text")
    return dtype


def _scalar(dtype: np.dtype[Any], data: str | bytes) -> Any:
    return np.frombuffer(data.encode("latin1") if isinstance(data, str) else data, dtype, count=1)[0]


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"text encoding {encoding!r} is not expected")
    return text.encode("latin1")


def unpickle(data: bytes, origin: str = "pickle") -> dict[str, Any]:
    """Read a pickled dict of arrays, numbers, strings and lists.

    Raises :class:`BadInput` if the pickle is damaged, is not a dict, or names a function or class other than numpy's
    arrays, which could run code.
    """
    with as_bad_input(f"{origin} is not a plain data batch", "fetch the archive again"):
        content = _NumpyOnly(io.BytesIO(data), encoding="bytes").load()
    if not isinstance(content, dict):
        raise BadInput(f"{origin} holds a {type(content).__name__}, but a batch is a dict")
    return {key.decode() if isinstance(key, bytes) else str(key): value for key, value in content.items()}


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each regular file of a tar or zip archive, read in memory.

    Raises :class:`BadInput` if the archive is damaged or over 1 GiB, or a member has a path outside it or is not a
    file.
    """
    with as_bad_input(f"{path} is not a complete tar or zip archive", "fetch it again"):
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.infolist():
                    if not entry.is_dir():
                        _check_member(path, entry.filename, True, entry.file_size)
                        yield entry.filename, archive.read(entry)
            return
        with open(path, "rb") as stream:
            zipped = stream.read(2) == b"\x1f\x8b"
        with gzip.open(path) if zipped else open(path, "rb") as stream:
            data = stream.read(LARGEST + 1)  # to the end: tar itself stops before gzip's check sum
        if len(data) > LARGEST:
            raise BadInput(f"{path} unpacks to over 1 GiB, more than any archive known here: do not use it")
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for item in tar:
                if not item.isdir():
                    _check_member(path, item.name, item.isreg(), item.size)
                    content = tar.extractfile(item)
                    yield item.name, content.read() if content else b""


def _check_member(path: Path, name: str, regular: bool, size: int) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if not regular or parts.is_absolute() or ".." in parts.parts:
        raise BadInput(f"{path} has a member {name!r} that is a link or lies outside the archive: do not use it")
    if size > LARGEST:
        raise BadInput(f"{path} has a member {name!r} of {size} bytes, over the 1 GiB expected at most")


def read_batches(path: Path) -> tuple[NDArray[np.uint8], list[int], list[str], list[str]]:
    """Images (N, 150, 150) uint8, classes, file names and splits of a CIFAR-style archive, train batches first.

    Raises :class:`BadInput` if the archive is damaged, or lacks batches, images, labels or file names.
    """
    batches = {PurePosixPath(name).name: data for name, data in members(path)}
    names = sorted((n for n in batches if n.startswith("data_batch")), key=lambda n: (len(n), n))
    if not names or "test_batch" not in batches:
        raise BadInput(f"{path} holds no data_batch_* and test_batch: it is not a batched data set")
    images: list[NDArray[np.uint8]] = []
    classes, files, splits = [], [], []
    for name in (*names, "test_batch"):
        origin = f"{path.name}/{name}"
        batch = unpickle(batches[name], origin)
        with as_bad_input(f"{origin} lacks 150×150 images, labels or filenames", "fetch the archive again"):
            pixels = [np.asarray(image).reshape(150, 150) for image in batch["data"]]
            labels, stored = [int(value) for value in batch["labels"]], [str(value) for value in batch["filenames"]]
        if not len(pixels) == len(labels) == len(stored) or any(p.dtype != np.uint8 for p in pixels):
            raise BadInput(f"{origin} does not hold one label and file name for each uint8 image")
        images += pixels
        classes += labels
        files += [file.removeprefix("b'").removesuffix("'") for file in stored]
        splits += ["test" if name == "test_batch" else "train"] * len(pixels)
    return np.stack(images), classes, files, splits


def read_fits(source: Path | bytes, name: str = "the FITS data") -> tuple[NDArray[np.float32], WCS | None]:
    """The first image of a FITS file, compressed or not: pixels (H, W) float32 and its celestial WCS, if any.

    Axes of length one (frequency, Stokes) are dropped. Blank pixels are NaN. Raises :class:`BadInput`, which names the
    path or ``name``, if the file is damaged or is not FITS, or has no two-dimensional image.
    """
    origin = name if isinstance(source, bytes) else str(source)
    with as_bad_input(f"{origin} is not a readable FITS image", "fetch or export it again"), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*(Checksum|Datasum) verification failed")
        warnings.simplefilter("ignore", FITSFixedWarning)  # old dates in headers, corrected by astropy
        data = source if isinstance(source, bytes) else source.read_bytes()
        with fits.open(io.BytesIO(data), checksum=True) as units:
            for unit in units:
                if unit.is_image and unit.header.get("NAXIS", 0):
                    pixels = np.squeeze(np.asarray(unit.data, dtype=np.float32))
                    if pixels.ndim != 2:
                        raise BadInput(f"{origin} holds an image of shape {unit.shape}: extract one plane first")
                    wcs = WCS(unit.header).celestial
                    return pixels, wcs if wcs.has_celestial else None
        raise BadInput(f"{origin} has no image in any of its HDUs")

"""Read archives and FITS files from the network safely: in memory, without running any code in them.

Sizes are checked before memory is taken: of what a compressed file unpacks to, and of what a FITS header claims.
"""

import bz2
import gzip
import io
import math
import pickle
import tarfile
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from pathlib import Path, PurePosixPath
from stat import S_ISREG
from typing import IO, Any, NamedTuple

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from astropy.wcs.utils import wcs_to_celestial_frame
from numpy.typing import NDArray

from rgz.errors import BadInput, as_bad_input

LARGEST = 1 << 29  # bytes of an archive or a member; the largest real one has 201 MB
FRAMES = "", "ICRS", "FK5", "FK4", "FK4-NO-E"  # values of RADESYS


class _NumpyOnly(pickle.Unpickler):
    """An unpickler that constructs plain numpy arrays and numbers alone."""

    def find_class(self, module: str, name: str) -> Any:
        match module.replace("_core", "core"), name:  # since numpy 2
            case "numpy", "ndarray":
                return np.ndarray
            case "numpy", "dtype":
                return _plain_dtype
            case "numpy.core.multiarray", "_reconstruct":
                return lambda *_: np.empty(0, np.uint8)
            case "numpy.core.multiarray", "scalar":
                return lambda dtype, data: np.frombuffer(data, dtype, count=1)[0]
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not data")


def _plain_dtype(code: str, *_: Any) -> np.dtype[Any]:
    dtype = np.dtype(code, copy=True)  # the pickle sets its state, and must not change numpy's own
    if dtype.kind not in "biufSU":
        raise pickle.UnpicklingError(f"dtype {dtype} is not a number or text")
    return dtype


def unpickle(data: bytes, origin: str = "pickle") -> dict[str, Any]:
    """Read a pickled dict of arrays, numbers, strings and lists, of protocol 3.

    Raises :class:`BadInput` if the pickle is damaged, is not a dict, or names a function or class other than numpy's
    arrays, which could run code.
    """
    with as_bad_input(f"{origin} is not a plain data batch", "fetch the archive again"):
        found = _NumpyOnly(io.BytesIO(data)).load()
        if not isinstance(found, dict):
            raise ValueError(f"it holds a {type(found).__name__}, but a batch is a dict")
        return found


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each regular file of a tar archive, compressed or not, read in memory.

    Raises :class:`BadInput` if the archive is damaged or over 512 MiB.
    """
    data = content(path, str(path))  # to the end: tar itself stops before gzip's check sum
    with as_bad_input(f"{path} is not a complete tar archive", "fetch it again"):
        if isinstance(data, Path):
            raise ValueError("it is a FITS file")
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            for item in tar:
                if item.isreg() and (stream := tar.extractfile(item)):
                    yield item.name, stream.read()


def read_batches(path: Path) -> tuple[NDArray[np.uint8], list[int], list[str], list[str]]:
    """Images (N, 150, 150) uint8, classes, file names and splits of a CIFAR-style archive, train batches first.

    Raises :class:`BadInput` if the archive is damaged, or lacks batches, images, labels or file names.
    """
    batches = {PurePosixPath(name).name: data for name, data in members(path)}
    names = sorted((n for n in batches if n.startswith("data_batch")), key=lambda n: (len(n), n))
    if not names or "test_batch" not in batches:
        raise BadInput(f"{path} holds no data_batch_* and test_batch: it is not a batched data set")
    images, files, splits, classes = [], [], [], list[int]()
    for name in (*names, "test_batch"):
        origin = f"{path.name}/{name}"
        batch = unpickle(batches[name], origin)
        with as_bad_input(f"{origin} lacks 150×150 images, labels or filenames", "fetch the archive again"):
            pixels = np.reshape(batch["data"], (-1, 150, 150))
            if not len(pixels) == len(batch["labels"]) == len(batch["filenames"]) or pixels.dtype != np.uint8:
                raise ValueError("there is not one label and file name for each uint8 image")
            images.append(pixels)
            classes += map(int, batch["labels"])
            files += [str(file).removeprefix("b'").removesuffix("'") for file in batch["filenames"]]
            splits += ["test" if name == "test_batch" else "train"] * len(pixels)
    return np.concatenate(images), classes, files, splits


def content(source: Path | bytes, name: str) -> Path | bytes:
    """What is in a file: its bytes, unpacked from gzip, bzip2 or zip, or the path itself of a FITS file.

    Raises :class:`BadInput` if the file is missing, truncated, not a regular file, or over 512 MiB when unpacked.
    """
    try:
        if isinstance(source, Path) and not S_ISREG(source.stat().st_mode):
            raise BadInput(f"{name} is a folder or a device: give the path of a file")
        with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as stream:
            start = stream.read(len(FITS))
            stream.seek(0)
            if start == FITS:
                return source  # a path is to be mapped into memory
            kind, opener = next((how for begin, how in PACKED.items() if start.startswith(begin)), ("", nullcontext))
            problem = f"{name} is not a complete {kind} file of at most 512 MiB".replace("  ", " ")
            with as_bad_input(problem, "unpack it first, or fetch it again"), opener(stream) as unpacked:
                found: bytes = unpacked.read(LARGEST + 1)
                if len(found) > LARGEST:
                    raise ValueError("it is larger; of a large FITS file a part can be read, if it is not packed")
                return found
    except BadInput:
        raise
    except (OSError, ValueError) as error:  # the latter for a name that has a NUL
        reason = getattr(error, "strerror", None) or error
        raise BadInput(f"{name} cannot be read ({reason}): check its path") from error


def _only_member(stream: IO[bytes]) -> IO[bytes]:
    archive = zipfile.ZipFile(stream)
    files = [one for one in archive.infolist() if not one.is_dir()]
    files = [one for one in files if not PurePosixPath(one.filename).name.startswith(".")]  # which macOS adds
    if len(files) != 1:
        raise ValueError(f"it holds {len(files)} files of {sum(one.file_size for one in files)} bytes")
    return archive.open(files[0])


FITS = b"SIMPLE  ="
PACKED: dict[bytes, tuple[str, Any]] = {
    b"\x1f\x8b": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"PK": ("zip", _only_member),
}


def read_plane(
    source: Path | bytes,
    name: str = "the FITS data",
    hdu: int | str | None = None,
    plane: int | None = None,
    at: SkyCoord | None = None,
    side: int | None = None,
) -> tuple[NDArray[np.float32], WCS | None, fits.Header, list[str]]:
    """A plane of the first celestial image of a FITS file, or else of its first image.

    ``hdu`` (number or name) chooses another image; ``plane`` counts from 0 along all axes but the two of the sky.
    ``side`` limits the pixels that are read along an axis; of a larger image these are around ``at``. An extension
    without a WCS has that of an empty primary HDU. Returns pixels (H, W), NaN where blank, the celestial WCS if any,
    the header, and notes. Raises :class:`BadInput`, which names the path or ``name``, if the file is not FITS, damaged
    (by its checksums too) or truncated, or if the image is not there, needs ``plane``, or is larger than ``side``.
    """
    origin = name if isinstance(source, bytes) else str(source)
    data = content(source, origin)
    length = data.stat().st_size if isinstance(data, Path) else len(data)
    with (
        as_bad_input(f"{origin} is not a readable FITS image", "fetch or export it again"),
        np.errstate(all="ignore"),  # of scaled pixels that overflow
        data.open("rb") if isinstance(data, Path) else io.BytesIO(data) as stream,
    ):
        images = read_images(stream, length)
        if not images:
            raise BadInput(f"{origin} has no image in any of its HDUs: give a file with an image of two axes")
        number, names = next(iter(images)), {one: image.unit.name for one, image in sorted(images.items())}
        known = ", ".join(f"{one} {title}".strip() for one, title in names.items())
        if hdu is not None:
            chosen = [one for one, title in names.items() if str(hdu).upper() in (str(one), title)]
            if not chosen:
                raise BadInput(f"{origin} has no image in HDU {hdu}: choose one of its images ({known}) with --hdu")
            number = chosen[0]
        image = images[number]
        if length > LARGEST and "DATASUM" in image.unit.header:
            image.notes.append("its check sum was not verified, because the file has over 512 MiB")
        if hdu is None and len(images) > 1:
            image.notes.append(f"HDU {number} was read, of {known}; choose another one with --hdu")
        return *section(origin, image, plane, length, at, side), image.header, image.notes


class Image(NamedTuple):
    """An image HDU, its header with what it inherits, celestial WCS, axes of the sky (y, x), lengths of the others."""

    unit: Any
    header: fits.Header
    wcs: WCS | None
    axes: tuple[int, ...]
    others: list[int]
    notes: list[str]


def read_images(stream: IO[bytes], length: int) -> dict[int, Image]:
    """The images of a FITS file of ``length`` bytes by the number of their HDU: celestial ones first, then planes.

    Raises AstropyUserWarning if a check sum is wrong; those of a file over 512 MiB are not verified.
    """
    images = {}
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*verification failed")
        units = list(open_fits(stream, checksum=length <= LARGEST))
    primary = _legible(units[0].header)
    for number, unit in enumerate(units):
        shape, notes = unit.shape if unit.is_image else (), list[str]()
        if len(shape) < 2:
            continue
        header = _legible(unit.header) if number else primary
        wcs, axes = _celestial(header, len(shape), notes)
        if wcs is None and not primary.get("NAXIS") and header.get("INHERIT", True):
            header = fits.Header([*header.cards, *(card for card in primary.cards if card.keyword not in header)])
            wcs, axes = _celestial(header, len(shape), notes)
        axes = axes or tuple(axis for axis, n in enumerate(shape) if n > 1)[-2:]
        if len(axes) == 2 and min(shape[axis] for axis in axes) > 1:
            others = [n for axis, n in enumerate(shape) if axis not in axes]
            images[number] = Image(unit, header, wcs, axes, others, notes)
    return dict(sorted(images.items(), key=lambda item: (item[1].wcs is None, math.prod(item[1].others) > 1)))


def open_fits(stream: IO[bytes], **options: Any) -> fits.HDUList:
    """The HDUs of a FITS file; raises ValueError for more columns than the standard allows: astropy makes them all."""
    units = fits.open(stream, disable_image_compression=True)
    headers = [unit.header for unit in units]
    if any(header.get("TFIELDS", 0) > 999 for header in headers):
        raise ValueError("it claims more than 999 columns")
    sums = [header[name] for header in headers for name in ("CHECKSUM", "DATASUM") if name in header]
    if not sums and not any("ZIMAGE" in header for header in headers):
        return units  # to open it again takes as long as to read a small image
    if "" in sums:  # there is none
        options.pop("checksum", None)
    stream.seek(0)
    return fits.open(stream, **options)


def _legible(header: fits.Header) -> fits.Header:
    """The cards of a header that follow the standard; a line feed in a value does not."""
    cards = []
    for card in header.cards:
        with suppress(ValueError):
            str(card)
            cards.append(card)
    return fits.Header(cards)


def _celestial(header: fits.Header, axes: int, notes: list[str]) -> tuple[WCS | None, tuple[int, ...]]:
    """The celestial WCS of a header, and its axes (y, x) as numpy counts those of the image; None if not usable."""
    with suppress(Exception):  # wcslib and astropy raise almost anything
        whole = WCS(header)
        sky, kind = (whole.wcs.lng, whole.wcs.lat), whole.wcs.lngtyp.strip()
        wcs = whole if whole.naxis == 2 and sky == (0, 1) else whole.celestial
        frame = wcs.wcs.radesys.strip().upper()
        wcs.wcs.radesys = frame if frame in FRAMES and kind == "RA" else ""  # with galactic axes astropy would use it
        wcs_to_celestial_frame(wcs)  # which astropy may not know
        place = wcs.pixel_to_world_values(*(wcs.wcs.crpix - 1))
        given = [float(header[f"{key}{n + 1}"]) for key in ("CRVAL", "CRPIX") for n in sky]  # wcslib takes zero if not
        usable = kind in ("RA", "GLON") and 0 <= min(sky) <= max(sky) < axes
        if usable and np.isfinite([*given, *place]).all():
            if frame not in FRAMES:
                notes.append(f"the celestial frame {frame} is unknown: that of the equinox was assumed, else ICRS")
            return wcs, (axes - 1 - max(sky), axes - 1 - min(sky))
    return None, ()


def section(
    origin: str, image: Image, plane: int | None, length: int, at: SkyCoord | None, side: int | None
) -> tuple[NDArray[np.float32], WCS | None]:
    """What :func:`read_plane` reads of an image in a file of ``length`` bytes: pixels (H, W) and their WCS."""
    unit, wcs, count = image.unit, image.wcs, math.prod(image.others)
    if (plane is None and count > 1) or not 0 <= (plane or 0) < count:
        raise BadInput(f"{origin} holds an image of shape {unit.shape}: choose one plane with --plane 0 to {count - 1}")
    room = LARGEST if isinstance(unit, fits.CompImageHDU) else length - unit.fileinfo()["datLoc"]
    if unit.size > room:
        raise ValueError(f"its header claims {unit.size} bytes of pixels, more than there are, or over 512 MiB")
    shape = [unit.shape[axis] for axis in image.axes]
    window = [slice(0, n) for n in shape]
    if side and max(shape) > side:
        if at is None or wcs is None:
            raise BadInput(f"{origin} is {shape[1]}×{shape[0]} pixels: give the position of the source, --at RA DEC")
        middle = np.nan_to_num(wcs.world_to_pixel(at))[::-1]
        starts = [int(np.clip(round(v) - side // 2, 0, max(0, n - side))) for v, n in zip(middle, shape, strict=True)]
        window = [slice(start, min(start + side, n)) for start, n in zip(starts, shape, strict=True)]
        wcs = wcs[tuple(window)]
    key: list[Any] = list(map(int, np.unravel_index(plane or 0, image.others)))
    for axis, part in zip(image.axes, window, strict=True):
        key.insert(axis, part)
    pixels = np.array(unit.section[tuple(key)], dtype=np.float32)  # of which astropy may keep axes of one pixel
    return pixels.reshape([part.stop - part.start for part in window]), wcs

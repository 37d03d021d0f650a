"""From a list of positions to a folder of images: cutting sources out of the FIRST survey, over the network.

A cut-out service answers one position with one small FITS image. Tens of thousands of positions take it a day, so the
way there is polite and can be stopped at any time: one request at a time with a pause after each, fewer when the service
is busy, none for what is in the folder already. Nothing that comes is trusted: an answer is kept only if it is an image,
whole, not blank, and shows the position that was asked for. What could not be had is listed, and asked for again last in
the next run.
"""

import csv
import gzip
import hashlib
import re
import warnings
from http.client import HTTPException
from pathlib import Path
from time import monotonic, sleep
from urllib.error import HTTPError
from urllib.parse import urlencode, urlsplit
from urllib.request import Request, urlopen

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs.utils import proj_plane_pixel_scales

import rgz
from rgz import artifacts
from rgz.data import archives
from rgz.data.sample import Sample, unique
from rgz.errors import BadInput, first_line
from rgz.progress import progress
from rgz.transforms import prepare

__all__ = ["FAILURES", "SERVICE", "collect", "download", "file_name", "read_catalogue"]

SERVICE = "https://third.ucllnl.org/cgi-bin/firstcutout"
FAILURES = "failures.csv"  # beside the images
LISTED = ("name", "ra", "dec", "reason")
AGENT = {"User-Agent": f"rgz/{rgz.__version__} (cut-outs for radio galaxy research)"}
LARGEST = 16 << 20  # bytes of one answer; 4.6′ of FIRST are 95 kB
LONGEST_WAIT = 300.0  # seconds, whatever Retry-After says
PATIENCE = 10  # sources in a row that may fail
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


class _NoAnswer(BadInput):
    """The service gave no answer, as against one that cannot be used."""


def read_catalogue(path: Path) -> Table:
    """Radio Galaxy Zoo DR1 as a table: ``name``, unique, and ``rgz_name``, which may repeat, ``ra``, ``dec``, ``las``.

    Positions are in deg; ``las`` is the largest angular size in arcsec.

    Raises
    ------
    BadInput
        The file, CSV or gzipped CSV, is damaged, lacks a column or a name, or has a value out of range.
    """
    path = Path(path)
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream))
        names = [row["rgz_name"].strip() for row in rows]
        ra, dec, las = (np.array([row[column] for row in rows], float) for column in ("ra", "dec", "las_arcsec"))
    except Exception as error:  # gzip and csv raise OSError, EOFError, zlib.error, KeyError, ValueError and more
        raise BadInput(
            f"{path} is not a catalogue with the columns rgz_name, ra, dec, las_arcsec ({first_line(error)}): fetch it again"
        ) from error
    good = (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90) & (las >= 0) & np.isfinite(las) & np.array(names, bool)
    if not len(rows) or not good.all():
        where = f"row {np.argmin(good) + 1} has no name, or a value out of range" if len(rows) else "it has no rows"
        raise BadInput(f"{path} is not a catalogue of positions ({where}): fetch it again")
    columns = {"name": unique(names), "rgz_name": names, "ra": ra, "dec": dec, "las": las}
    return Table(columns, units=("", "", "deg", "deg", "arcsec"))


def file_name(name: str) -> str:
    """What the image of a source is called: its name where that is plain, else a hash, so that no name leaves the folder.

    >>> file_name("RGZJ000001.3+044129"), file_name("../../etc/passwd")
    ('RGZJ000001.3+044129.fits', 'source-3754d6cb3a38e118.fits')
    """
    if not PLAIN_NAME.fullmatch(name):
        name = f"source-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.fits"


def _image(source: Path | bytes, ra: float, dec: float) -> tuple[np.ndarray, tuple[float, float], float]:
    """Pixels (H, W) of a cut-out, the place (x, y) of a position in them, and the width of a pixel in arcsec."""
    origin = "the answer" if isinstance(source, bytes) else source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)  # a last block that is not padded
        pixels, wcs = archives.read_fits(source)
    try:
        width, height = proj_plane_pixel_scales(wcs) * 3600
        x, y = wcs.wcs_world2pix([[ra, dec]], 0)[0]
    except Exception as error:  # no WCS, or one that wcslib cannot invert
        raise BadInput(f"{origin} has no usable celestial coordinates") from error
    if not np.isclose(width, height, rtol=1e-3):
        raise BadInput(f"{origin} has pixels of {width:.3f}″×{height:.3f}″, where squares are needed")
    if not (0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0]):
        raise BadInput(f"{origin} does not show the position {ra:.5f} {dec:+.5f}")
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0 or finite.min() == finite.max():
        raise BadInput(f"{origin} is a blank image")
    return pixels, (x, y), float(width)


def _read(request: Request, timeout: float, total: float) -> bytes:
    """One answer; TimeoutError when the service is silent for ``timeout`` s or not at the end after ``total`` s."""
    data, deadline = bytearray(), monotonic() + total
    with urlopen(request, timeout=timeout) as response:
        while part := response.read1(1 << 16):  # what has come, however little, so that the clock is looked at
            data += part
            if len(data) > LARGEST:
                raise BadInput(f"the answer is longer than {LARGEST} bytes")
            if monotonic() > deadline:
                raise TimeoutError(f"the answer is not whole after {total:g} s")
        if response.length:
            raise ConnectionError("the connection was cut before the end of the answer")
    if not data.startswith(b"SIMPLE") or b"ZIMAGE" in data:  # nothing that could unpack to more than was sent
        raise BadInput(f"the answer is not a plain FITS file, it begins {bytes(data[:40])!r}")
    return bytes(data)


def _ask(request: Request, pause: float, timeout: float, total: float, retries: int) -> bytes:
    """One answer, asked for again when the connection fails or the service is busy, each time after a longer wait."""
    for attempt in range(retries + 1):
        asked = "0"
        try:
            return _read(request, timeout, total)
        except HTTPError as error:
            error.close()
            if error.code < 500 and error.code != 429:
                raise BadInput(f"the service answers {first_line(error)}") from error
            last, asked = error, error.headers.get("Retry-After", "0")
        except (OSError, HTTPException) as error:
            last = error
        if attempt < retries:
            wait = pause * 2 ** (attempt + 1)
            sleep(min(max(wait, float(asked) if asked.isdecimal() else 0), LONGEST_WAIT))
    raise _NoAnswer(f"no answer in {retries + 1} attempts, the last: {first_line(last)}") from last


def _listed(path: Path) -> dict[str, dict]:
    """Rows of a list of failures, by name; none where there is no list."""
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            return {row["name"]: {column: row[column] for column in LISTED} for row in csv.DictReader(stream)}
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, ValueError, csv.Error) as error:
        raise BadInput(f"{path} cannot be read as a list of failures ({first_line(error)}): remove it") from error


def download(
    table: Table,
    folder: Path,
    service: str = SERVICE,
    *,
    size_arcmin: float = 4.6,
    pause: float = 1.0,
    timeout: float = 30.0,
    total: float = 120.0,
    retries: int = 3,
) -> dict[str, str]:
    """Ask a service for the cut-out of each source that the folder lacks; the reasons, by name, where one could not be had.

    Each image becomes one file, see :func:`file_name`, that appears only when it is whole and right. Failures are listed
    in ``failures.csv`` (name, ra, dec, reason), however the run ends; the next run asks for them again, after all others.

    Parameters
    ----------
    table
        One row a source: ``name``, ``ra`` and ``dec`` in deg, as :func:`read_catalogue` gives them.
    folder
        Where the images are and go to.
    service
        Address that takes the form of the FIRST cut-out server.
    size_arcmin
        Width of the field; 4.6′ are 153 pixels of FIRST.
    pause
        Seconds between requests. Before a repeated one they double each time, or are what the service asks for, up to
        five minutes.
    timeout, total
        Seconds that the service may stay silent, and that one answer may take.
    retries
        How often a request is repeated when the connection fails or the service is busy.

    Raises
    ------
    BadInput
        The address is not one, the folder cannot be written to, or ten sources in a row failed: the service is down.
    """
    if urlsplit(service).scheme not in ("http", "https"):
        raise BadInput(f"{service!r} is no http:// or https:// address of a cut-out service")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder} ({error.strerror}): choose another folder") from error
    failures = {n: row for n, row in _listed(folder / FAILURES).items() if not (folder / file_name(n)).is_file()}
    known = set(failures)
    missing = table[[not (folder / file_name(name)).is_file() for name in table["name"]]]
    missing = missing[np.argsort([name in known for name in missing["name"]], kind="stable")]
    places = SkyCoord(missing["ra"], missing["dec"], unit="deg").to_string("hmsdms", sep=" ", precision=3)
    in_a_row = 0
    try:
        for row, place in zip(progress(missing, desc="cut-outs", unit="source"), places, strict=True):
            name, ra, dec = str(row["name"]), float(row["ra"]), float(row["dec"])
            form = {"RA": place, "Equinox": "J2000", "ImageSize": size_arcmin, "ImageType": "FITS File"}
            try:
                data = _ask(Request(service, urlencode(form).encode(), AGENT), pause, timeout, total, retries)
                pixels, _, width = _image(data, ra, dec)
                sides = np.array(pixels.shape) * width / 60
                if sides.min() < size_arcmin / 2 or sides.max() > size_arcmin * 2:
                    raise BadInput(f"the answer is {sides[1]:.1f}′×{sides[0]:.1f}′ of sky, not {size_arcmin:g}′")
            except BadInput as error:
                failures[name] = dict(zip(LISTED, (name, ra, dec, first_line(error)), strict=True))
                in_a_row += isinstance(error, _NoAnswer) or name not in known  # a known gap in the survey is no alarm
                if in_a_row >= PATIENCE:
                    raise BadInput(
                        f"{in_a_row} sources in a row could not be had from {service} ({first_line(error)}): "
                        "the service may be down, run again later to go on from here"
                    ) from error
            else:
                with artifacts.atomic(folder / file_name(name)) as partial:
                    partial.write_bytes(data)
                failures.pop(name, None)
                in_a_row = 0
            sleep(pause)
    finally:
        with artifacts.atomic(folder / FAILURES) as partial, open(partial, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, LISTED)
            writer.writeheader()
            writer.writerows(failures.values())
    return {name: failures[name]["reason"] for name in map(str, table["name"]) if name in failures}


def collect(folder: Path, table: Table, size: int = 150) -> Sample:
    """The sources of a table whose images are in a folder: fields of (size, size) pixels about each position, Jy/beam.

    Rows keep the order of the table, and gain the columns of a sample where they lack them: no label, confident, ``train``.
    Sky that a cut-out does not show, and what the survey blanks, is zero. The fields are not clipped, see
    :func:`rgz.transforms.prepare.clip`. Memory is 4 size² bytes a source: 4.6 GB for all of Radio Galaxy Zoo DR1.

    Raises
    ------
    BadInput
        No image is there, one cannot be used, or they differ in the width of a pixel.
    """
    files = [Path(folder) / file_name(name) for name in table["name"]]
    found = [file.is_file() for file in files]
    if not any(found):
        raise BadInput(f"{folder} has no image of any of these {len(table)} sources: download them first")
    table, files = table[found], [file for file, here in zip(files, found, strict=True) if here]
    fields, pixel = np.zeros((len(files), size, size), np.float32), None
    rows = progress(table, desc="reading", unit="source")
    for file, row, field in zip(files, rows, fields, strict=True):
        image, place, width = _image(file, row["ra"], row["dec"])
        pixel = pixel or width
        if not np.isclose(width, pixel, rtol=1e-3):
            raise BadInput(
                f"{file} has pixels of {width:.3f}″, {files[0].name} of {pixel:.3f}″: remove what is foreign"
            )
        field[:] = prepare.fill(Cutout2D(image, place, size, mode="partial", fill_value=0.0).data)
    for column, value in (("label", ""), ("confident", True), ("split", "train")):
        if column not in table.colnames:
            table[column] = value
    return Sample(fields, table, pixel)

"""Download cut-outs of the FIRST survey around a list of positions.

A cut-out service returns one small FITS image for one position. Tens of thousands of positions take about a day, so a
run can be stopped at any time. To avoid overloading the service, it makes one request at a time with a pause after
each, and waits longer if the service is busy. It never requests an image that is already in the folder. An image is
kept only if it is complete, not blank, and shows the requested position. Failures are listed, and requested again at
the end of the next run.
"""

import csv
import gzip
import hashlib
import io
import re
import time
import warnings
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import requests
from astropy.coordinates import SkyCoord
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import Retry

import rgz
from rgz import artifacts
from rgz.data import archives
from rgz.data.sample import Sample, unique
from rgz.errors import BadInput, as_bad_input, first_line
from rgz.progress import progress
from rgz.transforms import fields

__all__ = ["FAILURES", "SERVICE", "collect", "download", "file_name", "read_catalogue"]

SERVICE = "https://third.ucllnl.org/cgi-bin/firstcutout"
FAILURES = "failures.csv"  # beside the images
LISTED = ("name", "ra", "dec", "reason")
HEADERS = {
    "User-Agent": f"rgz/{rgz.__version__} (cut-outs for radio galaxy research)",
    "Accept-Encoding": "identity",  # nothing that could unpack to more than was sent
}
SIZE = 4.6  # arcmin, width of a field: 153 pixels of FIRST
PAUSE = 1.0  # seconds between requests; a failed request is repeated at once, then after 4 and 8 pauses
RETRIES, LONGEST_WAIT = 3, 300  # repetitions of a request; longest wait before one, seconds, whatever Retry-After says
TIMEOUT, TOTAL = 30.0, 120.0  # seconds that the service may be silent, and that one answer may take
LARGEST = 16 << 20  # bytes of one answer; 4.6′ of FIRST are 95 kB
PATIENCE = 10  # sources in a row that may fail
BUSY = (429, *range(500, 600))  # status of a service that cannot answer at the moment
PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")


class _NoAnswer(BadInput):
    """The service did not answer, as opposed to an answer that cannot be used."""


def read_catalogue(path: Path) -> Table:
    """Radio Galaxy Zoo DR1 as a table: ``name``, unique, and ``rgz_name``, which may repeat, ``ra``, ``dec``, ``las``.

    Positions are in deg; ``las`` is the largest angular size in arcsec. Raises :class:`BadInput` if the file, CSV or
    gzipped CSV, is damaged, lacks a column or a name, or has a value out of range.
    """
    with as_bad_input(f"{path} is not a catalogue with the columns rgz_name, ra, dec, las_arcsec", "fetch it again"):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        rows = list(csv.DictReader(io.StringIO(data.decode())))
        names = [row["rgz_name"].strip() for row in rows]
        ra, dec, las = (np.array([row[column] for row in rows], float) for column in ("ra", "dec", "las_arcsec"))
    good = (ra >= 0) & (ra <= 360) & (np.abs(dec) <= 90) & (las >= 0) & np.isfinite(las) & np.array(names, bool)
    if not len(rows) or not good.all():
        where = f"row {np.argmin(good) + 1} has no name, or a value out of range" if len(rows) else "it has no rows"
        raise BadInput(f"{path} is not a catalogue of positions ({where}): fetch it again")
    values = {"name": unique(names), "rgz_name": names, "ra": ra, "dec": dec, "las": las}
    return Table(values, units=("", "", "deg", "deg", "arcsec"))


def file_name(name: str) -> str:
    """File name of an image: the source's name if it is safe, else a hash, so that no file is written elsewhere.

    >>> file_name("RGZJ000001.3+044129"), file_name("../../etc/passwd")
    ('RGZJ000001.3+044129.fits', 'source-3754d6cb3a38e118.fits')
    """
    if not PLAIN_NAME.fullmatch(name):
        name = f"source-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
    return f"{name}.fits"


def _image(source: Path | bytes, ra: float, dec: float) -> tuple[NDArray[np.float32], tuple[float, float], float]:
    """Pixels (H, W) of a cut-out, the pixel (x, y) of a position, and the width of a pixel in arcsec."""
    origin = "the answer" if isinstance(source, bytes) else source
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", AstropyUserWarning)  # a last block that is not padded
        pixels, wcs = archives.read_fits(source)
    with as_bad_input(f"{origin} has no usable celestial coordinates", "fetch it again"):
        width, height = proj_plane_pixel_scales(wcs) * 3600
        x, y = WCS.wcs_world2pix(wcs, [[ra, dec]], 0)[0]
    if not np.isclose(width, height, rtol=1e-3):
        raise BadInput(f"{origin} has pixels of {width:.3f}″×{height:.3f}″, but square pixels are needed")
    if not (0 <= x < pixels.shape[1] and 0 <= y < pixels.shape[0]):
        raise BadInput(f"{origin} does not show the position {ra:.5f} {dec:+.5f}")
    finite = pixels[np.isfinite(pixels)]
    if finite.size == 0 or finite.min() == finite.max():
        raise BadInput(f"{origin} is a blank image")
    return pixels, (x, y), float(width)


def _session() -> requests.Session:
    """A session that repeats requests if the connection fails or the service is busy, after increasing waits."""
    waits: dict[str, Any] = {"backoff_factor": 2 * PAUSE, "backoff_max": LONGEST_WAIT, "retry_after_max": LONGEST_WAIT}
    retry = Retry(RETRIES, allowed_methods=None, status_forcelist=BUSY, raise_on_status=False, **waits)
    session = requests.Session()
    session.headers.update(HEADERS)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retry))
    return session


def _ask(session: requests.Session, service: str, ra: float, dec: float) -> bytes:
    """The FITS file of one cut-out."""
    place = SkyCoord(ra, dec, unit="deg").to_string("hmsdms", sep=" ", precision=3)
    form = {"RA": place, "Equinox": "J2000", "ImageSize": SIZE, "ImageType": "FITS File"}
    data = bytearray()
    try:
        with session.post(service, form, timeout=TIMEOUT, stream=True, allow_redirects=False) as response:
            if response.status_code != 200:
                failure = _NoAnswer if response.status_code in BUSY else BadInput
                raise failure(f"the service answers {response.status_code} {response.reason}")
            deadline = time.monotonic() + TOTAL
            while part := response.raw.read1(1 << 16):  # whatever has arrived, so that the deadline is checked
                data += part
                if len(data) > LARGEST:
                    raise BadInput(f"the answer is longer than {LARGEST} bytes")
                if time.monotonic() > deadline:
                    raise _NoAnswer(f"the answer is incomplete after {TOTAL:g} s")
    except (requests.RequestException, HTTPError) as error:
        cause = error.args[0] if error.args else error  # requests wraps urllib3's error, and that the reason
        reason = str(getattr(cause, "reason", cause)).split("): ", 1)[-1]  # without the address
        raise _NoAnswer(f"no complete answer ({reason})") from error
    if not data.startswith(b"SIMPLE") or b"ZIMAGE" in data:  # a compressed image could unpack to more than was sent
        raise BadInput(f"the answer is not a plain FITS file, it begins {bytes(data[:40])!r}")
    pixels, _, width = _image(bytes(data), ra, dec)
    sides = np.array(pixels.shape) * width / 60
    if sides.min() < SIZE / 2 or sides.max() > SIZE * 2:
        raise BadInput(f"the answer is {sides[1]:.1f}′×{sides[0]:.1f}′ of sky, not {SIZE:g}′")
    return bytes(data)


def _read_failures(folder: Path) -> dict[str, dict[str, Any]]:
    """Rows of the list of failures that still have no image, by name."""
    path = folder / FAILURES
    with as_bad_input(f"{path} cannot be read as a list of failures", "remove it"):
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        rows = [{column: row[column] for column in LISTED} for row in csv.DictReader(lines)]
    return {row["name"]: row for row in rows if not (folder / file_name(row["name"])).is_file()}


def download(table: Table, folder: Path, service: str = SERVICE) -> dict[str, str]:
    """Request the cut-out of each source that the folder lacks; return the reasons for failures, by name.

    ``table`` has ``name``, ``ra`` and ``dec`` (deg); ``service`` is the address of a server that takes the form of the
    FIRST cut-out server. Each image becomes one file, see :func:`file_name`, written only when it is complete and
    correct. Failures are listed in ``failures.csv`` (name, ra, dec, reason), even if the run is stopped; the next run
    requests them again, after all others. Raises :class:`BadInput` if the address or the folder cannot be used, or if
    ten sources in a row failed, because the service is probably down.
    """
    if urlsplit(service).scheme not in ("http", "https"):
        raise BadInput(f"{service!r} is not an http:// or https:// address of a cut-out service")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot write to {folder} ({error.strerror}): choose another folder") from error
    failures = _read_failures(folder)
    missing = table[[not (folder / file_name(name)).is_file() for name in table["name"]]]
    missing = missing[np.argsort([name in failures for name in missing["name"]], kind="stable")]
    known, session, in_a_row = set(failures), _session(), 0
    try:
        for row in progress(missing, desc="cut-outs", unit="source"):
            name, ra, dec = str(row["name"]), float(row["ra"]), float(row["dec"])
            try:
                data = _ask(session, service, ra, dec)
            except BadInput as error:
                reason = first_line(error)
                failures[name] = dict(zip(LISTED, (name, ra, dec, reason), strict=True))
                in_a_row += isinstance(error, _NoAnswer) or name not in known  # known gaps of the survey do not count
                if in_a_row >= PATIENCE:
                    down = f"{in_a_row} sources in a row could not be downloaded from {service} ({reason})"
                    raise BadInput(f"{down}: the service may be down, run again later to continue from here") from error
            else:
                with artifacts.atomic(folder / file_name(name)) as partial:
                    partial.write_bytes(data)
                failures.pop(name, None)
                in_a_row = 0
            time.sleep(PAUSE)
    finally:
        with artifacts.atomic(folder / FAILURES) as partial, open(partial, "w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, LISTED)
            writer.writeheader()
            writer.writerows(failures.values())
    return {name: failures[name]["reason"] for name in map(str, table["name"]) if name in failures}


def collect(folder: Path, table: Table, size: int = 150) -> Sample:
    """The sources of a table whose images are in a folder: fields of (size, size) pixels about each position, Jy/beam.

    Rows keep the order of the table. Missing columns of a sample are added: an empty label, confident, ``train``. Sky
    outside a cut-out, and pixels that the survey blanks, are zero. The fields are not clipped, see
    :func:`rgz.transforms.fields.clip`. Memory is 4 size² bytes a source: 4.6 GB for all of Radio Galaxy Zoo DR1.
    Raises :class:`BadInput` if there is no image, one cannot be used, or their pixel widths differ.
    """
    files = [Path(folder) / file_name(name) for name in table["name"]]
    found = [file.is_file() for file in files]
    if not any(found):
        raise BadInput(f"{folder} has no image of any of these {len(table)} sources: download them first")
    table, files = table[found], [file for file in files if file.is_file()]
    images, pixel = np.zeros((len(files), size, size), np.float32), 0.0
    rows = progress(table, desc="reading", unit="source")
    for file, row, field in zip(files, rows, images, strict=True):
        image, place, width = _image(file, row["ra"], row["dec"])
        pixel = pixel or width
        if not np.isclose(width, pixel, rtol=1e-3):
            raise BadInput(f"{file} has pixels of {width:.3f}″, {files[0].name} of {pixel:.3f}″: remove one of them")
        field[:] = fields.fill(Cutout2D(image, place, size, mode="partial", fill_value=0.0).data)
    for column, value in (("label", ""), ("confident", True), ("split", "train")):
        if column not in table.colnames:
            table[column] = value
    return Sample(images, table, pixel)

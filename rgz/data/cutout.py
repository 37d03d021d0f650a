"""Open or download an image of a galaxy, and convert it to a cut-out in the format of the samples.

FITS images of any telescope and grey-scale PNG and JPEG pictures are accepted, also compressed (gzip, bzip2, zip), with
pixels up to 20″ wide, with blank edges, or with the source away from the middle. Each is converted to a square field
like those of the archives: pixels of at least 1.8″, clipped at three times the rms, with the source in its middle.
``notes`` lists the changes. An image without a source above five times the rms is rejected, because the network would
return a result for pure noise as well.
"""

import io
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray
from scipy import ndimage
from scipy.interpolate import RectBivariateSpline

from rgz.data import archives, detect
from rgz.data.datasets import FIRST_PIXEL, NVSS_PIXEL
from rgz.data.sample import linked
from rgz.errors import BadInput, as_bad_input, first_line
from rgz.transforms import fields

__all__ = ["Cutout", "Observation", "centre", "download_cutout", "open_cutout", "parse_position", "read_cutout"]

JPEG = b"\xff\xd8\xff"
PICTURES = b"\x89PNG\r\n\x1a\n", JPEG
ARTEFACTS = 12  # grey levels above a black sky
LARGEST = 2500  # pixels along a side, of what is read
REACH = 270.0  # arcsec, half of the field around a position that is read and whose noise is measured
COARSEST = 20.0  # arcsec, width of a pixel
NARROWEST = 16  # pixels, of the image and of FIRST along a side of it
SENTINEL = 1e20  # brightness; what exceeds it stands for blank
CENTRED = 20.0  # arcsec; in 19 of 20 images of MiraBest the centroid of the emission is nearer to the middle
NOISY = 0.2  # more pixels beside an edge or blank ones above the lowest value are noise
NOISY_MARGIN = 0.4  # the same, along the box around all that is not a margin
CLIPPED = 0.5  # an image with more than this share of pixels at the lowest value has been clipped already
BLANK = 0.5  # largest share of blank pixels around a source that may reach them
FAINT = 0.1  # share of a source's peak; less may reach the edge
RADIUS = fields.RADIUS  # arcsec, around a source
WIDEST = 180.0  # arcsec, between lobes; unrelated sources are often farther apart
TIMEOUT = 60  # seconds
BESIDE = np.array([[0.5, -0.5, 0, 0], [0, 0, 0.5, -0.5]])  # x and y of the middles of a pixel's sides
GRID = 64  # pixels, between points of which celestial coordinates are interpolated
NOISELESS = 6  # decimals of a pixel that celestial coordinates give; what follows is rounding error

Sky = tuple[float, float] | None  # RA and Dec, degrees
Pixel = tuple[float, float]  # x, y
Hdu = int | str | None  # number or name


@dataclass(frozen=True)
class Observation:
    """An image before preparation: brightness (H, W), NaN where blank, widths of a pixel and of the beam in arcsec."""

    name: str
    pixels: NDArray[Any]
    pixel: float
    wcs: WCS | None = None
    beam: float = np.nan
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cutout:
    """A clipped field with its source in the middle."""

    name: str  # path as given, or position and survey
    pixels: NDArray[Any]  # (150, 150), brightness, zero below 3 rms
    pixel: float  # arcsec, width of a pixel
    place: tuple[float, float]  # RA and Dec of the middle in degrees, NaN if unknown
    snr: float  # peak of the source over the rms noise, NaN if the image had been clipped before
    others: int  # number of further sources in the image
    notes: tuple[str, ...]  # what was found, and what was changed
    beam: float = np.nan  # arcsec, FWHM of the beam in these pixels (geometric mean), NaN if unknown
    given: bool = False  # whether the middle is a position that was given, that of the host galaxy
    partial: bool = False  # whether a part of the source is, or may be, outside of what is classified


def open_cutout(
    path: str | Path, at: Sky = None, pixel: float | None = None, hdu: Hdu = None, plane: int | None = None
) -> Cutout:
    """The source in the middle of a FITS, PNG or JPEG file, or at the position ``at`` (RA and Dec in degrees).

    The file may be compressed by gzip, bzip2 or zip. ``pixel`` is the width of a pixel in arcsec, for files that do not
    give it. ``hdu`` (number or name) and ``plane`` (from 0) choose an image of a FITS file, as in
    :func:`rgz.data.archives.read_plane`. Raises :class:`BadInput` if the file is missing or damaged, shows no source,
    or lacks the coordinates that are needed.
    """
    return read_cutout(Path(path), str(path), at, pixel, hdu, plane)


def read_cutout(data: Path | bytes, name: str, at: Sky = None, *choice: Any) -> Cutout:
    """Like :func:`open_cutout`, for a path or content of a file; ``choice`` is ``pixel``, ``hdu`` and ``plane``."""
    with warnings.catch_warnings(action="ignore"), np.errstate(all="ignore"):  # of headers that break the standard
        return centre(read_image(data, name, at, *choice), at)


def read_image(
    data: Path | bytes, name: str, at: Sky = None, pixel: float | None = None, hdu: Hdu = None, plane: int | None = None
) -> Observation:
    """The image in a path or in the content of a file; of an image over 2500 pixels wide, 2500 pixels around ``at``."""
    if pixel is not None and not 0 < pixel <= COARSEST:
        raise BadInput(f"{name} cannot be read with pixels of {pixel:g}″: give a width of at most {COARSEST:g}″")
    data = archives.content(data, name)
    if isinstance(data, bytes) and data.startswith(PICTURES):
        if hdu is not None or plane is not None:
            raise BadInput(f"{name} is a PNG or JPEG picture: omit --hdu and --plane, which are for FITS files")
        return _read_picture(data, name, pixel)
    if isinstance(data, bytes) and not data.startswith(archives.FITS):
        begins = f"begins {data[:12]!r}" if data else "is empty"
        raise BadInput(f"{name} is not a readable FITS, PNG or JPEG image (it {begins}): save it as one")
    place = None if at is None else SkyCoord(*at, unit="deg")
    return observed(name, *archives.read_plane(data, name, hdu, plane, place, LARGEST), pixel)


def observed(
    name: str,
    pixels: NDArray[Any],
    wcs: WCS | None,
    header: Mapping[str, Any],
    notes: list[str],
    pixel: float | None = None,
) -> Observation:
    """The image of what :func:`rgz.data.archives.read_plane` returns, with pixels of ``pixel`` arcsec if unknown."""
    pixels = _without_sentinels(pixels, notes)
    if wcs is None:
        if pixel is None:
            raise BadInput(f"{name} has no usable celestial WCS: give the width of its pixels (--pixel 1.8 for FIRST)")
    elif np.allclose(proj_plane_pixel_scales(wcs), 1):  # degree: no CDELT
        if pixel is None:
            raise BadInput(f"{name} gives no width of its pixels (CDELT): give it in arcsec (--pixel 1.8 for FIRST)")
        wcs.wcs.cdelt = -pixel / 3600, pixel / 3600
        notes.append(f"pixels of {pixel:g}″, as given, with east to the left of north")
    else:
        with as_bad_input(f"{name} has celestial coordinates that cannot be used", "correct its header"):
            widths, _ = widths_at(wcs, (pixels.shape[1] - 1) / 2, (pixels.shape[0] - 1) / 2)
        own = float(np.sqrt(np.prod(widths)))
        if pixel is not None and abs(pixel / own - 1) > 0.05:
            raise BadInput(f"{name} has pixels of {own:.3g}″ by its header, not of {pixel:g}″: omit --pixel")
        pixel = own
    beam = _beam(header)
    if np.isnan(beam) and "BMAJ" in header:
        notes.append("the beam in the header (BMAJ, BMIN) cannot be right, and was not used")
    return Observation(name, pixels, pixel, wcs, beam, tuple(notes))


def _beam(header: Mapping[str, Any]) -> float:
    """Geometric mean of the beam's FWHM, arcsec; NaN if it is unknown."""
    try:
        axes = [3600 * float(header[name]) for name in ("BMAJ", "BMIN")]
    except (KeyError, TypeError, ValueError):
        return np.nan
    return float(np.sqrt(np.prod(axes))) if 0 < min(axes) <= max(axes) < 3600 else np.nan


def _without_sentinels(pixels: NDArray[Any], notes: list[str], picture: bool = False) -> NDArray[Any]:
    """NaN in place of values that stand for blank, such as -9999, 1e30, or a constant along the edges or in the margin.

    They are far beyond all others, or repeated along the edge and unlike the sky. The sky of a clipped image is not.
    In a picture, which has few grey levels, the source may have the same value: only pixels around it are blank.
    """
    if (huge := np.abs(pixels) >= SENTINEL).any():
        notes.append(f"{huge.sum()} pixels beyond ±{SENTINEL:g} were treated as blank")
    pixels = np.where(huge, np.nan, pixels)
    edge, finite = _edge(pixels), pixels[np.isfinite(pixels)]
    values, counts = np.unique(edge[np.isfinite(edge)], return_counts=True)
    repeated = values[[counts.argmax()]] if counts.max(initial=0) >= 8 else values[:0]
    step = np.diff(values).min() if values.size > 1 else 0.0  # between the levels of a picture
    for value in (finite.min(), finite.max(), *repeated) if finite.size else ():
        same, rest = pixels == value, finite[finite != value]
        if 1 < same.sum() < finite.size:
            away = np.abs(rest - (sky := np.median(rest)))
            beyond = max(rest.min() - value, value - rest.max()) > 10 * np.ptp(rest) > 0
            unlike = abs(value - sky) > 5 * 1.4826 * max(np.median(away), step) and rest.size > CLIPPED * finite.size
            if beyond or (value in repeated and (unlike or _is_margin(same))):
                if picture and value in repeated:
                    labels, _ = ndimage.label(same, structure=np.ones((3, 3)))
                    same &= np.isin(labels, _edge(labels))  # connected with the edges
                notes.append(f"{same.sum()} pixels of the value {value:g} were treated as blank")
                return _without_sentinels(np.where(same, np.nan, pixels), notes, picture)  # there may be others
    return pixels


def _is_margin(same: NDArray[np.bool_]) -> bool:
    """Whether a mask is a margin around a noisy image; a source in a clipped image touches its box in a few pixels."""
    (box,) = ndimage.find_objects((~same).astype(int))
    inside = ~same[box]
    return bool(min(inside.shape) >= NARROWEST and inside.shape != same.shape and _edge(inside).mean() > NOISY_MARGIN)


def _edge(pixels: NDArray[Any]) -> NDArray[Any]:
    """Values of the pixels along the four edges of an image."""
    return np.concatenate([pixels[[0, -1]].ravel(), pixels[:, [0, -1]].ravel()])


def _read_picture(data: bytes, name: str, pixel: float | None) -> Observation:
    """Grey levels of a PNG or JPEG, NaN where it is transparent, dark where the sky is."""
    from PIL import Image

    notes = ["the brightness in a picture may have been stretched (to its square root, say): a FITS image is safer"]
    if pixel is None:
        notes.append(f"pixels of {FIRST_PIXEL}″ were assumed, because a picture does not say; --pixel changes it")
    with (
        as_bad_input(f"{name} is not a complete PNG or JPEG picture", "save or fetch it again"),
        Image.open(io.BytesIO(data), formats=["PNG", "JPEG"]) as picture,
    ):
        if max(picture.size) > LARGEST:
            raise BadInput(f"{name} is {picture.size[0]}×{picture.size[1]} pixels: cut the galaxy out of it first")
        if picture.mode.startswith("I") or picture.mode == "F":
            levels = np.asarray(picture, dtype=float)
        else:
            *colours, alpha = np.moveaxis(np.asarray(picture.convert("RGBA"), dtype=float), -1, 0)
            if (np.ptp(colours, axis=0)[alpha > 0] > (2 if picture.format == "PNG" else 16)).any():
                raise BadInput(f"{name} is in colour, which gives no brightness: save it in shades of grey, or as FITS")
            levels = np.where(alpha > 0, colours[0], np.nan)
    levels = _without_sentinels(levels, notes, picture=True)
    if np.nansum((levels - np.nanmedian(levels)) ** 3) < 0:  # sources stand out of the sky
        levels = np.nanmax(levels) - levels
        notes.append("the picture is black on white: it was inverted")
    lowest = np.nanmin(levels)
    if data.startswith(JPEG) and np.nanmedian(levels) - lowest < ARTEFACTS / 3:  # the sky is black
        levels = np.where(levels - lowest < ARTEFACTS, lowest, levels)
        notes.append(
            f"what is fainter than {ARTEFACTS} of 255 grey levels was taken for traces of the compression as JPEG"
        )
    return Observation(name, levels, pixel or FIRST_PIXEL, notes=tuple(notes))


def widths_at(wcs: WCS, x: float, y: float) -> tuple[NDArray[np.float64], bool]:
    """Widths of a pixel along x and y in arcsec, as they are at that pixel, and whether its sides are orthogonal."""
    lon, lat = np.radians(wcs.pixel_to_world_values(x + BESIDE[0], y + BESIDE[1]))
    ends = np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)])  # unit vectors
    sides = np.degrees(ends[:, ::2] - ends[:, 1::2]) * 3600  # (3, 2): along x and y
    widths = np.linalg.norm(sides, axis=0)
    return widths, bool(abs(sides[:, 0] @ sides[:, 1]) < 0.01 * np.prod(widths))


def download_cutout(ra: float, dec: float) -> Cutout:
    """The source at a position in degrees, from FIRST, or from NVSS if FIRST does not cover the position.

    Raises :class:`BadInput` if neither image is available (no network, no answer within a minute, no coverage), or if
    there is no source in it.
    """
    try:
        from astroquery.hips2fits import hips2fits
        from astroquery.image_cutouts.first import First
        from requests import ConnectionError
    except ImportError as error:
        raise BadInput("positions need astroquery: pip install 'rgz[sky]', or use a FITS file") from error
    sky, name, refused = SkyCoord(ra, dec, unit="deg"), f"{ra:.5f} {dec:+.5f}", []
    First.TIMEOUT = hips2fits.timeout = TIMEOUT
    side = round(8 * REACH / NVSS_PIXEL)
    field = {"ra": sky.ra, "dec": sky.dec, "fov": (side * NVSS_PIXEL * u.arcsec).to(u.deg)}
    surveys: dict[str, Callable[[], Any]] = {
        "FIRST": lambda: First.get_images(sky, image_size=2 * REACH * u.arcsec),
        "NVSS": lambda: hips2fits.query("CDS/P/NVSS", side, side, "TAN", format="fits", **field),
    }
    for survey, request in surveys.items():
        try:
            stream = io.BytesIO()
            request().writeto(stream, output_verify="fix")
            image = read_image(stream.getvalue(), f"{name} ({survey})")
            if not (image.pixels[np.isfinite(image.pixels)] != 0).any():
                raise BadInput("the survey has no image there")
        except Exception as error:  # astroquery, requests and astropy each raise their own
            offline = isinstance(error, ConnectionError)  # of requests, whose message is long
            refused.append(f"{survey}: {'its server cannot be reached' if offline else first_line(error)}")
        else:
            return centre(image, (ra, dec))
    reasons = "; ".join(refused)
    raise BadInput(f"no image of {name} is available ({reasons}): check the network, or use a FITS file of your own")


def parse_position(ra: str, dec: str) -> tuple[float, float]:
    """RA and Dec in degrees, from degrees or from sexagesimal text with RA in hours; else raises :class:`BadInput`.

    >>> parse_position("150.5", "2.25"), parse_position("10:02:00", "+02:15:00")
    ((150.5, 2.25), (150.5, 2.25))
    """
    with as_bad_input(f"{ra} {dec} is no position on the sky", "give degrees, or 10:02:00 +02:15:00"):
        try:
            degrees = float(ra), float(dec)
        except ValueError:
            sky = SkyCoord(ra, dec, unit=(u.hourangle, u.deg))
        else:
            if abs(degrees[0]) > 360:
                raise ValueError("its RA is beyond 360 degrees")
            sky = SkyCoord(*degrees, unit="deg")
        if not np.isfinite([sky.ra.deg, sky.dec.deg]).all():
            raise ValueError("not finite")
    return round(float(sky.ra.deg), 9), round(float(sky.dec.deg), 9)


def centre(image: Observation, at: Sky = None) -> Cutout:
    """The field around the source in the middle of an image, or at a position in degrees, or nearest to it.

    Raises :class:`BadInput` if nothing in the image reaches five times the rms, if the source reaches far into
    surroundings that are blank, or if the position is outside of the image.
    """
    notes, located = list(image.notes), image.wcs is not None
    with as_bad_input(f"{image.name} has celestial coordinates that cannot be used", "correct its header"):
        image, wcs, target = _square_pixels(image, at, notes)
    pixel, blank = image.pixel, ~np.isfinite(image.pixels)
    clipped, rms = _clip(image.pixels, blank, notes)
    islands, labels = detect.islands(clipped, rms)
    if not len(islands):
        nearest = np.clip(np.rint(target[::-1]).astype(int), 0, np.array(blank.shape) - 1)
        if at is not None and blank[tuple(nearest)]:
            raise BadInput(f"{image.name} is blank at {at[0]:.5f} {at[1]:+.5f}: use another image")
        read = "".join(f"; {note}" for note in notes if note.startswith("HDU "))  # which may be that of the noise
        raise BadInput(_no_source(image.name, image.pixels[~blank], rms) + read)
    groups = linked(np.stack((islands["x"], islands["y"]), 1) * pixel, RADIUS)
    _, group = np.unique(groups, return_inverse=True)
    flux = np.bincount(group, islands["flux"])
    across, down = (np.bincount(group, islands["flux"] * islands[axis]) / flux for axis in ("x", "y"))
    sources = np.stack([across, down, flux])
    emission = np.where(np.isin(labels, islands["number"]), clipped, 0)
    x, y = _middle(emission, sources, pixel, target, notes, at is not None)
    near = _circle(clipped.shape, (x, y), RADIUS / pixel)
    lost = 1 - (near & ~blank).sum() / (np.pi * (RADIUS / pixel) ** 2)
    outside = f"{lost:.0%} of the source's surroundings are blank or outside of the image"
    ended = ndimage.binary_dilation(blank, np.ones((3, 3)), border_value=1)
    brightest = np.max(clipped, where=near, initial=0)
    partial = bool(np.max(clipped, where=near & ended, initial=0) > FAINT * brightest)
    if lost > BLANK and partial:
        raise BadInput(f"{image.name} does not show the whole source, because {outside}: use a larger image")
    if lost > 0.05:
        notes.append(f"{outside}, and treated as empty sky")
    if partial:
        notes.append("the source reaches an edge of the image, or blank pixels")
    if apart := _lobes(sources, pixel, target):
        partial = True
        notes.append(
            f"two sources of similar brightness, {apart:.0f}″ apart, on opposite sides of the requested position may "
            f"be lobes of one galaxy, which is wider than the {2 * RADIUS:.0f}″ that are classified"
        )
    own = near[np.rint(islands["y"]).astype(int), np.rint(islands["x"]).astype(int)]
    others = len(set(groups) - set(groups[own]))
    if others:
        notes.append(f"{others} further source{'s' * (others > 1)} in the image; rgz look --at RA DEC shows one")
    sky = wcs.pixel_to_world(x, y).icrs
    place = (float(sky.ra.deg), float(sky.dec.deg)) if located else (np.nan, np.nan)
    field, given = detect.cut(clipped, x, y), at is not None and (x, y) == target
    snr = float(brightest) / rms
    return Cutout(image.name, field, pixel, place, snr, others, tuple(notes), image.beam, given, partial)


def _lobes(sources: NDArray[np.float64], pixel: float, target: Pixel) -> float:
    """Distance, arcsec, of two sources (3, N) that may be the lobes of one too wide to be classified, or 0.

    They are on opposite sides of the target, within a factor of two in distance from it and of three in flux.
    """
    x, y, flux = sources
    arm = pixel * ((x - target[0]) + 1j * (y - target[1])) + 1e-6  # arcsec, never zero
    opposite = np.abs(np.angle(-arm[:, None] / arm)) < np.pi / 6
    alike = np.maximum(flux / flux[:, None] / 3, np.abs(arm / arm[:, None]) / 2) <= 1
    apart = np.abs(arm[:, None] - arm)
    pairs = opposite & alike & alike.T & (apart > 2 * RADIUS) & (apart <= WIDEST)
    return float(apart[pairs].max(initial=0))


def _square_pixels(image: Observation, at: Sky, notes: list[str]) -> tuple[Observation, WCS, Pixel]:
    """The image with square pixels not finer than FIRST's, cropped around ``at``, its WCS, and the pixel to look at."""
    pixels, (height, width) = image.pixels, image.pixels.shape
    wcs = detect.north_up(pixels.shape, image.pixel, 0.0, 0.0) if image.wcs is None else image.wcs  # any position
    x, y = (width - 1) / 2, (height - 1) / 2
    if at is not None:
        if image.wcs is None:
            raise BadInput(
                f"{image.name} does not say where on the sky it is: omit --at to take the source in its middle"
            )
        x, y = (float(v) for v in wcs.world_to_pixel(SkyCoord(*at, unit="deg")))
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise BadInput(f"{image.name} does not show {at[0]:.5f} {at[1]:+.5f}: it is outside of the image")
    widths, orthogonal = widths_at(wcs, x, y)  # there: they vary across a wide image
    if not max(widths) <= COARSEST:  # or NaN
        raise BadInput(
            f"{image.name} has pixels of {max(widths):.3g}″: at most {COARSEST:g}″ show the shape of a galaxy"
        )
    across = min(widths * (width, height))
    if min(height, width) < NARROWEST or across < NARROWEST * FIRST_PIXEL:
        raise BadInput(
            f"{image.name} is {width}×{height} pixels, {across:.2g}″ by its pixel width: too small, use a larger image"
        )
    pixel = max(float(np.sqrt(np.prod(widths))), FIRST_PIXEL)
    if at is not None:
        reach = reached(widths)  # the noise is that of the neighbourhood
        left, bottom = (max(0, round(v - r)) for v, r in zip((x, y), reach, strict=True))
        right, top = (round(v + r) + 1 for v, r in zip((x, y), reach, strict=True))
        pixels, x, y = pixels[bottom:top, left:right], x - left, y - bottom
        wcs = wcs[bottom:top, left:right] if left or bottom else wcs
    image = replace(image, pixels=pixels, pixel=pixel)
    if np.allclose(widths, pixel, rtol=0.01) and orthogonal:
        return image, wcs, (x, y)
    notes.append(f"pixels of {widths[0]:.2f}″ × {widths[1]:.2f}″ were resampled to {pixel:.2f}″")
    resampled, new = _resample(image, widths, wcs)
    x, y = (round(float(v), NOISELESS) for v in new.world_to_pixel(wcs.pixel_to_world(x, y)))
    return resampled, new, (x, y)


def reached(widths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pixels of ``widths`` arcsec, along x and y, on either side of a position that are used of a larger image."""
    pixel = max(float(np.sqrt(np.prod(widths))), FIRST_PIXEL)
    return 1.5 * max(REACH, detect.FIELD / 2 * pixel) / widths


def _resample(image: Observation, widths: NDArray[Any], wcs: WCS) -> tuple[Observation, WCS]:
    """The image, with pixels of ``widths`` (arcsec, x and y), on square pixels of its ``pixel``, north up; its WCS."""
    pixels, pixel = image.pixels, image.pixel
    height, width = pixels.shape
    x, y = (width - 1) / 2, (height - 1) / 2
    sky = wcs.pixel_to_world(x, y).icrs
    place = pixel, sky.ra.deg, sky.dec.deg
    ends = wcs.pixel_to_world(x + BESIDE[0], y + BESIDE[1])
    ends = np.array(detect.north_up((1, 1), *place).world_to_pixel(ends))
    across, down = np.abs(ends[:, ::2] - ends[:, 1::2]) @ (width, height)  # which show all of it, also if it is turned
    if across * down > 4 * LARGEST**2:  # of narrow pixels, turned
        raise BadInput(f"{image.name} is too wide to be turned with north up: cut the galaxy out of it first")
    shape = tuple(max(16, round(float(n))) for n in np.round((down, across), NOISELESS))
    new = detect.north_up(shape, *place)
    x, y = np.round(_places(new, shape, wcs), NOISELESS)
    sigma = np.where(pixel > 1.01 * widths, 0.42 * pixel, 0)  # arcsec
    blank = ~np.isfinite(pixels)
    level = np.median(pixels[~blank]) if not blank.all() else 0.0  # of the sky, which need not be zero
    smooth = ndimage.gaussian_filter(np.where(blank, level, pixels).astype(float), (sigma / widths)[::-1])
    made = ndimage.map_coordinates(smooth, [y, x], order=1)
    made[ndimage.map_coordinates(blank.astype(float), [y, x], order=1, cval=1.0) > 0.5] = np.nan
    variance = np.mean(sigma**2 + widths**2 / 6)  # arcsec², of the smoothing and of the linear interpolation
    return replace(image, pixels=made, beam=float(np.sqrt(image.beam**2 + 8 * np.log(2) * variance))), new


def _places(new: WCS, shape: tuple[int, ...], old: WCS) -> Any:
    """Places x and y (H, W), in pixels of ``old``, of the pixels of ``new``, whose image has a shape (H, W).

    They are computed on a grid, with cubic splines between every second point. All are computed if the other points
    are not where the splines have them, as at a pole or at the edge of a projection.
    """
    across, down = (np.linspace(0, n - 1, 1 + 2 * max(3, n // GRID)) for n in shape[::-1])
    points = old.world_to_pixel(new.pixel_to_world(*np.meshgrid(across, down)))
    if np.isfinite(points).all():
        splines = [RectBivariateSpline(down[::2], across[::2], one[::2, ::2]) for one in points]
        wrong = [np.abs(spline(down, across) - one).max() for spline, one in zip(splines, points, strict=True)]
        if max(wrong) < 0.1 * 10.0**-NOISELESS:
            return [spline(*map(np.arange, shape)) for spline in splines]
    return old.world_to_pixel(new.pixel_to_world(*np.indices(shape, float)[::-1]))


def _clip(pixels: NDArray[Any], blank: NDArray[Any], notes: list[str]) -> tuple[NDArray[Any], float]:
    """The image clipped at 3 rms, without small islands, and the rms; NaN if it had been clipped before."""
    lowest = np.min(pixels, where=~blank, initial=np.inf)
    rest, rms = pixels - lowest, np.nan
    if (rest == 0).sum() <= CLIPPED * (~blank).sum():
        median, rms = fields.noise(fields.fill(pixels))
        rms = rms or float(np.min(pixels, where=pixels > median, initial=np.inf) - median) / 2  # less than a grey level
        rest = fields.clip(np.where(blank, median, pixels), measured=(median, rms))  # the sky level need not be zero
    elif (rest[ndimage.binary_dilation(blank, np.ones((3, 3)), border_value=1) & ~blank] > 0).mean() > NOISY:
        _, half = fields.noise(np.concatenate([rest[rest > 0], -rest[rest > 0]]).astype(float))
        rest = np.where(rest >= 3 * half, rest, 0)
        notes.append("the darker half of the sky is black: what is left of the noise was clipped")
    else:
        rest = fields.fill(rest)
        notes.append("the image had been clipped before: its rms and the S/N of the source are not known")
    return fields.despeckle(np.where(blank, 0.0, rest)), rms


def _middle(
    emission: NDArray[Any],
    sources: NDArray[np.float64],
    pixel: float,
    target: Pixel,
    notes: list[str],
    given: bool,
) -> Pixel:
    """The target, or the centroid of the nearest source (3, N) if the target is not on a source.

    It is on a source if the centroid of all emission within 57.6″, or of one group of islands less than 57.6″ apart,
    such as two lobes, lies within 20″ of it.
    """

    x, y, _ = sources
    away = np.hypot(x - target[0], y - target[1]) * pixel
    nearest, found = np.argmin(away), target
    light = np.where(_circle(emission.shape, target, RADIUS / pixel), emission, 0)
    down, across = ndimage.center_of_mass(light) if light.any() else (np.inf, np.inf)
    if min(away[nearest], np.hypot(across - target[0], down - target[1]) * pixel) > CENTRED:
        place = "the position given" if given else "the middle of the image"
        notes.append(f"the nearest source is {away[nearest]:.0f}″ from {place}: the field was centred on it")
        found = float(x[nearest]), float(y[nearest])
    if not emission[_circle(emission.shape, found, RADIUS / pixel)].any():  # the middle of a wide ring or double
        down, across = np.nonzero(emission)
        closest = np.argmin(np.hypot(across - found[0], down - found[1]))
        found = float(across[closest]), float(down[closest])
    return found


def _circle(shape: tuple[int, ...], middle: Pixel, radius: float) -> NDArray[np.bool_]:
    """Mask (H, W) of the pixels within a radius of a pixel."""
    inside = np.zeros(shape, bool)
    left, bottom = (max(0, int(v - radius)) for v in middle)
    part = inside[bottom : int(middle[1] + radius) + 1, left : int(middle[0] + radius) + 1]
    down, across = np.ogrid[: part.shape[0], : part.shape[1]]
    part[:] = np.hypot(across + left - middle[0], down + bottom - middle[1]) <= radius
    return inside


def _no_source(name: str, pixels: NDArray[Any], rms: float) -> str:
    if not pixels.size or not np.ptp(pixels):
        return f"{name} is blank: every pixel has the same value, or none; use an image with a source"
    if np.isnan(rms):
        return f"{name} shows nothing larger than a few pixels: use an image with a source"
    peak = (pixels.max() - np.median(pixels)) / rms if rms > 0 else 0
    least = f"above {detect.PEAK:g} times its rms noise, of at least {fields.SMALLEST_ISLAND} pixels"
    return f"{name} has no source {least}: its brightest pixel is at {peak:.1f} times the rms noise, use another image"

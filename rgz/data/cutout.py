"""Open or download an image of a galaxy, and convert it to a cut-out in the format of the samples.

FITS images of any telescope and grey-scale PNG images are accepted, with pixels up to 20″ wide, with blank edges, or
with the source away from the middle. Each is converted to a square field like those of the archives: pixels of at least
1.8″, clipped at three times the rms, with the source in its middle. ``notes`` lists the changes. An image without a
source above five times the rms is rejected, because the network would return a result for pure noise as well.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales
from numpy.typing import NDArray

from rgz.data import archives, detect
from rgz.data.datasets import FIRST_PIXEL, NVSS_PIXEL
from rgz.errors import BadInput, as_bad_input, first_line
from rgz.transforms import fields

__all__ = ["Cutout", "Observation", "centre", "download_cutout", "open_cutout", "parse_position", "read_cutout"]

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST = 4000  # pixels along a side, of an image without a position to look at, or of a PNG
REACH = 270.0  # arcsec, half of the field around a position that is read and whose noise is measured
COARSEST = 20.0  # arcsec, width of a pixel
CENTRED = 20.0  # arcsec; in 19 of 20 images of MiraBest the centroid of the emission is nearer to the middle
CLIPPED = 0.5  # an image with more than this share of pixels at the lowest value has been clipped already
BLANK = 0.5  # largest share of blank pixels around a source
RADIUS = fields.RADIUS  # arcsec, around a source
TIMEOUT = 60  # seconds

Pixel = tuple[float, float]  # x, y


@dataclass(frozen=True)
class Observation:
    """An image before preparation: brightness (H, W), NaN where blank, pixel width in arcsec, WCS if known."""

    name: str
    pixels: NDArray[Any]
    pixel: float
    wcs: WCS | None = None


@dataclass(frozen=True)
class Cutout:
    """A clipped field with its source in the middle."""

    name: str  # file name, or position and survey
    pixels: NDArray[Any]  # (150, 150), brightness, zero below 3 rms
    pixel: float  # arcsec, width of a pixel
    place: tuple[float, float]  # RA and Dec of the middle in degrees, NaN if unknown
    snr: float  # peak of the source over the rms noise, NaN if the image had been clipped before
    others: int  # number of further sources in the image
    notes: tuple[str, ...]  # what was found, and what was changed


def open_cutout(path: str | Path, at: tuple[float, float] | None = None, pixel: float | None = None) -> Cutout:
    """The source in the middle of a FITS or PNG file, or at the position ``at`` (RA and Dec in degrees).

    ``pixel`` is the width of a pixel in arcsec, for files that do not give it. Raises :class:`BadInput` if the file is
    missing or damaged, shows no source, or lacks the coordinates that are needed.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from error
    return read_cutout(data, Path(path).name, at, pixel)


def read_cutout(data: bytes, name: str, at: tuple[float, float] | None = None, pixel: float | None = None) -> Cutout:
    """Like :func:`open_cutout`, for the content of a file."""
    return centre(read_image(data, name, pixel), at)


def read_image(data: bytes, name: str, pixel: float | None = None) -> Observation:
    """The image in the content of a FITS or PNG file, unchanged."""
    if data.startswith(PNG):
        return Observation(name, _read_png(data, name), pixel or FIRST_PIXEL)
    pixels, wcs = archives.read_fits(data, name)
    if wcs is not None:
        pixel = float(np.sqrt(np.prod(_widths(wcs))))
    elif pixel is None:
        raise BadInput(f"{name} has no celestial WCS: give the width of its pixels in arcsec (--pixel 1.8 for FIRST)")
    return Observation(name, pixels, pixel, wcs)


def _read_png(data: bytes, name: str) -> NDArray[np.float64]:
    """Grey levels (H, W) of a PNG, NaN where it is transparent."""
    from PIL import Image

    with (
        as_bad_input(f"{name} is not a complete PNG", "save or fetch it again"),
        Image.open(io.BytesIO(data), formats=["PNG"]) as picture,
    ):
        if max(picture.size) > LARGEST:
            raise BadInput(f"{name} is {picture.size[0]}×{picture.size[1]} pixels: cut the galaxy out of it first")
        if picture.mode in ("I;16", "I", "F"):
            return np.asarray(picture, dtype=float)
        levels = np.asarray(picture.convert("RGBA"), dtype=float)
    opaque = levels[..., 3] > 0
    if (np.ptp(levels[..., :3], axis=-1)[opaque] > 2).any():
        raise BadInput(f"{name} is in colour, which does not give a brightness: save it in shades of grey, or as FITS")
    return np.where(opaque, levels[..., 0], np.nan)


def _widths(wcs: WCS) -> NDArray[np.float64]:
    """Widths of a pixel along x and y, arcsec."""
    widths: NDArray[np.float64] = np.abs(proj_plane_pixel_scales(wcs)) * 3600
    return widths


def download_cutout(ra: float, dec: float) -> Cutout:
    """The source at a position in degrees, from FIRST, or from NVSS if FIRST does not cover the position.

    Raises :class:`BadInput` if neither image is available (no network, no answer within a minute, no coverage), or if
    there is no source in it.
    """
    try:
        from astroquery.hips2fits import hips2fits
        from astroquery.image_cutouts.first import First
    except ImportError as error:
        raise BadInput("positions need astroquery: pip install astroquery, or use a FITS file") from error
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
            refused.append(f"{survey}: {first_line(error)}")
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
            sky = SkyCoord(float(ra), float(dec), unit="deg")
        except ValueError:
            sky = SkyCoord(ra, dec, unit=(u.hourangle, u.deg))
        if not np.isfinite([sky.ra.deg, sky.dec.deg]).all():
            raise ValueError("not finite")
    return round(float(sky.ra.deg), 9), round(float(sky.dec.deg), 9)


def centre(image: Observation, at: tuple[float, float] | None = None) -> Cutout:
    """The field around the source in the middle of an image, or at a position in degrees, or nearest to it.

    Raises :class:`BadInput` if nothing in the image reaches five times the rms, if most of the source's surroundings
    are blank, or if the position is outside of the image.
    """
    notes: list[str] = []
    pixels, pixel, wcs, target = _square_pixels(image, at, notes)
    blank = ~np.isfinite(pixels)
    clipped, rms = _clip(pixels, blank, notes)
    islands, labels = detect.islands(clipped, rms)
    if not len(islands):
        raise BadInput(_no_source(image.name, fields.fill(pixels), rms))
    groups = detect.linked(np.stack((islands["x"], islands["y"]), 1) * pixel, RADIUS)
    emission = np.where(np.isin(labels, islands["number"]), clipped, 0)
    x, y = _middle(emission, islands, groups, pixel, target, notes)
    near = _circle(clipped.shape, (x, y), RADIUS / pixel)
    lost = 1 - (near & ~blank).sum() / (np.pi * (RADIUS / pixel) ** 2)
    outside = f"{lost:.0%} of the source's surroundings are blank or outside of the image"
    if lost > BLANK:
        raise BadInput(f"{image.name}: {outside}: use a larger image")
    if lost > 0.05:
        notes.append(f"{outside}, and treated as empty sky")
    own = [bool(near[round(float(one["y"])), round(float(one["x"]))]) for one in islands]
    others = len(set(groups) - set(groups[own]))
    if others:
        notes.append(f"{others} further source{'s' * (others > 1)} in the image; choose one with --at RA DEC")
    sky = wcs.pixel_to_world(x, y).icrs
    place = (float(sky.ra.deg), float(sky.dec.deg)) if image.wcs is not None else (np.nan, np.nan)
    snr = float(np.max(clipped, where=near, initial=0)) / rms
    return Cutout(image.name, detect.cut(clipped, x, y), pixel, place, snr, others, tuple(notes))


def _square_pixels(
    image: Observation, at: tuple[float, float] | None, notes: list[str]
) -> tuple[NDArray[Any], float, WCS, Pixel]:
    """Square pixels not finer than FIRST's, cropped around ``at``: image, width, WCS, and the pixel to look at."""
    pixels, pixel, wcs = image.pixels, max(image.pixel, FIRST_PIXEL), image.wcs
    height, width = pixels.shape
    if min(height, width) < 16:
        raise BadInput(f"{image.name} is {width}×{height} pixels: too small to show a galaxy")
    if not pixel <= COARSEST:  # or NaN
        raise BadInput(f"{image.name} has pixels of {pixel:.3g}″: at most {COARSEST:g}″ show the shape of a galaxy")
    if at is None and max(height, width) > LARGEST:
        raise BadInput(f"{image.name} is {width}×{height} pixels: give the position of the source, --at RA DEC")
    if wcs is None:  # any position will do
        wcs = detect.north_up(pixels.shape, image.pixel, 0.0, 0.0)
    widths = _widths(wcs)
    x, y = (width - 1) / 2, (height - 1) / 2
    if at is not None:
        if image.wcs is None:
            raise BadInput(
                f"{image.name} does not say where on the sky it is: omit --at to take the source in its middle"
            )
        x, y = (float(v) for v in wcs.world_to_pixel(SkyCoord(*at, unit="deg")))
        if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
            raise BadInput(f"{image.name} does not show {at[0]:.5f} {at[1]:+.5f}: it is outside of the image")
        reach = 1.5 * max(REACH, detect.FIELD / 2 * pixel) / widths  # the noise is that of the neighbourhood
        left, bottom = (max(0, round(v - r)) for v, r in zip((x, y), reach, strict=True))
        right, top = (round(v + r) + 1 for v, r in zip((x, y), reach, strict=True))
        pixels, wcs, x, y = pixels[bottom:top, left:right], wcs[bottom:top, left:right], x - left, y - bottom
    one, two = wcs.pixel_scale_matrix.T
    right_angled = abs(one @ two) < 0.01 * np.linalg.norm(one) * np.linalg.norm(two)
    if np.allclose(widths, pixel, rtol=0.01) and right_angled:
        return pixels, pixel, wcs, (x, y)
    notes.append(f"pixels of {widths[0]:.2f}″ × {widths[1]:.2f}″ were resampled to {pixel:.2f}″")
    resampled, new = _resample(pixels, widths, wcs, pixel)
    x, y = (float(v) for v in new.world_to_pixel(wcs.pixel_to_world(x, y)))
    return resampled, pixel, new, (x, y)


def _resample(pixels: NDArray[Any], widths: NDArray[Any], wcs: WCS, pixel: float) -> tuple[NDArray[Any], WCS]:
    """The image on square pixels of ``pixel`` arcsec, north up, and its WCS."""
    from scipy import ndimage

    height, width = pixels.shape
    shape = tuple(max(16, round(n * w / pixel)) for n, w in zip((height, width), widths[::-1], strict=True))
    sky = wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs
    new = detect.north_up(shape, pixel, sky.ra.deg, sky.dec.deg)
    down, across = np.mgrid[: shape[0], : shape[1]].astype(float)
    x, y = wcs.world_to_pixel(new.pixel_to_world(across, down))
    sigma = [0.42 * pixel / w if pixel > 1.01 * w else 0 for w in widths[::-1]]
    made = ndimage.map_coordinates(ndimage.gaussian_filter(fields.fill(pixels), sigma), [y, x], order=1)
    blank = (~np.isfinite(pixels)).astype(float)
    made[ndimage.map_coordinates(blank, [y, x], order=1, cval=1.0) > 0.5] = np.nan
    return made, new


def _clip(pixels: NDArray[Any], blank: NDArray[Any], notes: list[str]) -> tuple[NDArray[Any], float]:
    """The image clipped at 3 rms, without small islands, and the rms; NaN if it had been clipped before."""
    lowest = np.min(pixels, where=~blank, initial=np.inf)
    if (pixels == lowest).mean() > CLIPPED:
        notes.append("the image had been clipped before: its rms and the S/N of the source are not known")
        return fields.despeckle(fields.fill(pixels - lowest)), np.nan
    median, rms = fields.noise(fields.fill(pixels))
    clipped = fields.clip(np.where(blank, median, pixels), measured=(median, rms))  # the sky level need not be zero
    return fields.despeckle(np.where(blank, 0.0, clipped)), rms


def _middle(
    emission: NDArray[Any], islands: Table, groups: NDArray[Any], pixel: float, target: Pixel, notes: list[str]
) -> Pixel:
    """The target, or the middle of the nearest group of islands if the target is not on a source.

    It is on a source if the centroid of all emission within 57.6″, or of one group of islands less than 57.6″ apart,
    such as two lobes, lies within 20″ of it.
    """
    parts = [islands[groups == group] for group in np.unique(groups)]
    centres = [[np.average(part[axis], weights=part["flux"]) for axis in ("x", "y")] for part in parts]
    away = [float(np.hypot(x - target[0], y - target[1])) * pixel for x, y in centres]
    nearest = int(np.argmin(away))
    light = np.where(_circle(emission.shape, target, RADIUS / pixel), emission, 0)
    if light.any():
        y, x = (np.average(axis, weights=light) for axis in np.mgrid[: light.shape[0], : light.shape[1]])
        away.append(float(np.hypot(x - target[0], y - target[1])) * pixel)
    if min(away) <= CENTRED:
        return target
    notes.append(f"the nearest source is {away[nearest]:.0f}″ from the middle: the field was centred on it")
    return centres[nearest][0], centres[nearest][1]


def _circle(shape: tuple[int, ...], middle: Pixel, radius: float) -> NDArray[np.bool_]:
    """Mask (H, W) of the pixels within a radius of a pixel."""
    down, across = np.ogrid[: shape[0], : shape[1]]
    return np.asarray(np.hypot(across - middle[0], down - middle[1]) <= radius)


def _no_source(name: str, pixels: NDArray[Any], rms: float) -> str:
    if not np.ptp(pixels):
        return f"{name} is blank: every pixel has the same value"
    if np.isnan(rms):
        return f"{name} shows nothing larger than a few pixels: use an image with a source"
    peak = (pixels.max() - np.median(pixels)) / rms if rms > 0 else 0
    least = f"above {detect.PEAK:g} times its rms noise, of at least {fields.SMALLEST_ISLAND} pixels"
    return f"{name} has no source {least}: its brightest pixel is at {peak:.1f} times the rms noise"

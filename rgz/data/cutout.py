"""From a file, or a place on the sky, to a field that the network can look at.

People bring images of every kind: FITS from any telescope, a picture saved from a paper, a source beside the middle, blank edges,
pixels of another width. Here each becomes what the archives hold: a square field of at least 1.8″ a pixel, clipped at three
times its noise, with the source in its middle. Whatever had to be done to it is said in words. An image without a source above
five times the noise is refused: a network asked what it sees would answer all the same.
"""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from astropy.wcs.utils import proj_plane_pixel_scales

from rgz.data import archives, datasets, detect
from rgz.errors import BadInput, first_line
from rgz.transforms import prepare

__all__ = ["Field", "Observation", "at_position", "centre", "download", "open_cutout", "place", "read_image"]

PNG = b"\x89PNG\r\n\x1a\n"
LARGEST = 4000  # pixels along a side, of an image without a place to look at, or of a PNG
REACH = 270.0  # arcsec, half of the field around a place that is read and whose noise is measured
COARSEST = 20.0  # arcsec, width of a pixel
CENTRED = 20.0  # arcsec; in 19 of 20 images of MiraBest the emission's centroid lies nearer to the middle
CLIPPED = 0.5  # share of pixels with the lowest value beyond which an image has been clipped already
BLANK = 0.5  # share of the neighbourhood of a source that may be blank
TIMEOUT = 60  # seconds


@dataclass(frozen=True)
class Observation:
    """An image as it came: brightness (H, W), NaN where blank, width of a pixel in arcsec, and where it is, if known."""

    name: str
    pixels: np.ndarray
    pixel: float
    wcs: WCS | None = None


@dataclass(frozen=True)
class Field:
    """A clipped field (150, 150) with its source in the middle.

    Parameters
    ----------
    name
        What was asked for.
    pixels
        Brightness, zero below three times the noise.
    pixel
        Width of a pixel in arcsec.
    place
        RA and Dec of the middle in degrees, NaN where unknown.
    snr
        Brightest pixel of the source over the noise, NaN where the image had been clipped before.
    others
        Further sources in the image.
    notes
        What was found, and done about it.
    """

    name: str
    pixels: np.ndarray
    pixel: float
    place: tuple[float, float]
    snr: float
    others: int
    notes: tuple[str, ...]


def open_cutout(path: Path, pixel: float | None = None) -> Observation:
    """A FITS or PNG file; ``pixel`` (arcsec) is for those that do not say how wide their pixels are.

    Raises
    ------
    BadInput
        The file is missing, damaged, no image, or does not say enough of itself.
    """
    try:
        return read_image(Path(path).read_bytes(), Path(path).name, pixel)
    except OSError as error:
        raise BadInput(f"{path} cannot be read ({error.strerror or error})") from error


def read_image(data: bytes, name: str, pixel: float | None = None) -> Observation:
    """What :func:`open_cutout` does, of bytes that have a name."""
    if data[:8] == PNG:
        return Observation(name, _png(data, name), pixel or datasets.FIRST_PIXEL)
    try:
        pixels, wcs = archives.read_fits(data)
    except BadInput as error:
        raise BadInput(f"{name}: {error}") from error
    if wcs is None and pixel is None:
        raise BadInput(f"{name} has no celestial WCS: say how wide its pixels are in arcsec (--pixel 1.8 for FIRST)")
    width = pixel if wcs is None else float(np.sqrt(np.prod(_widths(wcs))))
    return Observation(name, pixels, width, wcs)


def _png(data: bytes, name: str) -> np.ndarray:
    """Grey levels (H, W) of a PNG, NaN where it is transparent."""
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if max(picture.size) > LARGEST:
                raise BadInput(f"{name} is {picture.size[0]}×{picture.size[1]} pixels: cut the galaxy out of it first")
            if picture.mode in ("I;16", "I", "F"):
                return np.asarray(picture, dtype=float)
            levels = np.asarray(picture.convert("RGBA"), dtype=float)
    except BadInput:
        raise
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError and more on damage
        raise BadInput(f"{name} is not a whole PNG ({first_line(error)}): save or fetch it again") from error
    seen = levels[..., 3] > 0
    if (np.ptp(levels[..., :3], axis=-1)[seen] > 2).any():
        raise BadInput(f"{name} is in colour, which says nothing of brightness: save it in shades of grey, or as FITS")
    return np.where(seen, levels[..., 0], np.nan)


def _widths(wcs: WCS) -> np.ndarray:
    """Widths of a pixel along both axes, arcsec."""
    return np.abs(proj_plane_pixel_scales(wcs)) * 3600


def download(ra: float, dec: float) -> Observation:
    """The FIRST cut-out around a place in degrees, or the NVSS one where FIRST has not looked.

    Raises
    ------
    BadInput
        Neither can be had: no network, no answer within a minute, or no such place in both surveys.
    """
    try:
        from astroquery.hips2fits import hips2fits
        from astroquery.image_cutouts.first import First
    except ImportError as error:
        raise BadInput("positions need astroquery: pip install astroquery, or bring a FITS file") from error
    centre, name, refused = SkyCoord(ra, dec, unit="deg"), f"{ra:.5f} {dec:+.5f}", []
    First.TIMEOUT = hips2fits.timeout = TIMEOUT

    def first():
        return First.get_images(centre, image_size=2 * REACH * u.arcsec)

    def nvss():
        width = round(2 * 4 * REACH / datasets.NVSS_PIXEL)
        fov = width * datasets.NVSS_PIXEL * u.arcsec
        return hips2fits.query(
            "CDS/P/NVSS", width, width, "TAN", ra=centre.ra, dec=centre.dec, fov=fov.to(u.deg), format="fits"
        )

    for survey, ask in (("FIRST", first), ("NVSS", nvss)):
        try:
            stream = io.BytesIO()
            ask().writeto(stream, output_verify="fix")
            pixels, wcs = archives.read_fits(stream.getvalue())
            if wcs is None or not (pixels[np.isfinite(pixels)] != 0).any():
                raise BadInput("it has no image there")
            return Observation(f"{name} ({survey})", pixels, float(np.sqrt(np.prod(_widths(wcs)))), wcs)
        except Exception as error:  # astroquery, requests and astropy each raise their own
            refused.append(f"{survey}: {first_line(error)}")
    raise BadInput(
        f"no image of {name} could be had ({'; '.join(refused)}): is there a network? A FITS file of your own will do"
    )


def at_position(observation: Observation, ra: float, dec: float) -> tuple[float, float]:
    """Pixel (x, y) of a place in degrees.

    Raises
    ------
    BadInput
        The image does not say where it is, or does not show the place.
    """
    if observation.wcs is None:
        raise BadInput(
            f"{observation.name} does not say where on the sky it is: leave --at away, its middle is looked at"
        )
    x, y = (float(v) for v in observation.wcs.world_to_pixel(SkyCoord(ra, dec, unit="deg")))
    height, width = observation.pixels.shape
    if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
        raise BadInput(f"{observation.name} does not show {ra:.5f} {dec:+.5f}: it lies outside of the image")
    return x, y


def place(ra: str, dec: str) -> tuple[float, float]:
    """RA and Dec in degrees, from degrees or from sexagesimal text, RA then in hours.

    Examples
    --------
    >>> place("150.5", "2.25"), place("10:02:00", "+02:15:00")
    ((150.5, 2.25), (150.5, 2.25))
    """
    try:
        try:
            sky = SkyCoord(float(ra), float(dec), unit="deg")
        except ValueError:
            sky = SkyCoord(ra, dec, unit=(u.hourangle, u.deg))
        if not (np.isfinite(sky.ra.deg) and np.isfinite(sky.dec.deg)):
            raise ValueError("not finite")
    except ValueError as error:
        raise BadInput(f"{ra} {dec} is no place on the sky: give degrees, or 10:02:00 +02:15:00") from error
    return round(float(sky.ra.deg), 9), round(float(sky.dec.deg), 9)


def centre(observation: Observation, at: tuple[float, float] | None = None) -> Field:
    """The field around the source nearest to the middle of an image, or to a place in degrees.

    The middle stays where it is as long as the centroid of all emission within 57.6″, or that of one group of islands less than
    57.6″ apart, the two lobes of a source, say, lies within 20″ of it; otherwise the field is moved onto the nearest group.

    Raises
    ------
    BadInput
        Nothing in the image reaches five times its noise, most of the source's neighbourhood is blank, or the place is not in it.
    """
    notes: list[str] = []
    pixels, pixel, wcs, (x, y) = _square(observation, at, notes)
    blank = ~np.isfinite(pixels)
    lowest = np.min(pixels, where=~blank, initial=np.inf)
    if (pixels == lowest).mean() > CLIPPED:
        clipped, rms = prepare.despeckle(prepare.fill(pixels - lowest)), np.nan
        notes.append(
            "the image had been clipped before: its noise is not known, and its source not measured against it"
        )
    else:
        median, rms = prepare.noise(prepare.fill(pixels))
        clipped = prepare.clip(np.where(blank, median, pixels), measured=(median, rms))  # a sky need not lie at zero
        clipped = prepare.despeckle(np.where(blank, 0.0, clipped))
    islands, labels = detect.islands(clipped, rms)
    if not len(islands):
        raise BadInput(_refusal(observation.name, prepare.fill(pixels), rms))
    radius = prepare.Recipe().radius / pixel
    own = detect.linked(np.stack((islands["x"], islands["y"]), 1) * pixel, prepare.Recipe().radius)
    down, across = np.mgrid[: pixels.shape[0], : pixels.shape[1]]
    light = np.where(np.isin(labels, islands["number"]) & (np.hypot(across - x, down - y) <= radius), clipped, 0)
    centroid = [np.average(axis, weights=light) for axis in (across, down)] if light.any() else (np.inf, np.inf)
    if np.hypot(centroid[0] - x, centroid[1] - y) * pixel > CENTRED:
        groups = [islands[own == g] for g in np.unique(own)]
        centres = [[np.average(group[axis], weights=group["flux"]) for axis in ("x", "y")] for group in groups]
        away = [float(np.hypot(cx - x, cy - y)) * pixel for cx, cy in centres]
        if min(away) > CENTRED:
            x, y = centres[int(np.argmin(away))]
            notes.append(f"the nearest source lies {min(away):.0f}″ beside the middle: the field was moved onto it")
    near = np.hypot(across - x, down - y) <= radius
    lost = 1 - (near & ~blank).sum() / (np.pi * radius**2)
    if lost > BLANK:
        raise BadInput(f"{observation.name}: {lost:.0%} of what surrounds the source is blank or outside of the image")
    if lost > 0.05:
        notes.append(
            f"{lost:.0%} of what surrounds the source is blank or outside of the image, and taken for empty sky"
        )
    inside = [bool(near[round(float(one["y"])), round(float(one["x"]))]) for one in islands]
    others = len(set(own) - set(own[inside]))
    if others:
        notes.append(
            f"{others} more source{'s' if others > 1 else ''} in the image, not looked at: choose with --at RA DEC"
        )
    known = (np.nan, np.nan)
    if wcs is not None:
        sky = wcs.pixel_to_world(x, y).icrs
        known = float(sky.ra.deg), float(sky.dec.deg)
    return Field(
        observation.name,
        detect.cut(clipped, x, y),
        pixel,
        known,
        float(np.max(clipped, where=near, initial=0)) / rms,
        others,
        tuple(notes),
    )


def _refusal(name: str, pixels: np.ndarray, rms: float) -> str:
    if not np.ptp(pixels):
        return f"{name} is blank: every pixel has the same value"
    if np.isnan(rms):
        return f"{name} shows nothing larger than a few pixels: no source to look at"
    peak = (pixels.max() - np.median(pixels)) / rms if rms > 0 else 0
    return (
        f"{name} has no source above {detect.PEAK:g} times its noise, of at least {prepare.SMALLEST_ISLAND} pixels: its "
        f"brightest pixel stands at {peak:.1f}"
    )


def _square(observation: Observation, at, notes: list[str]):
    """Pixels (H, W), their width, their WCS and the pixel (x, y) to look at: on square pixels, none finer than FIRST's."""
    pixels, wcs = observation.pixels, observation.wcs
    height, width = pixels.shape
    if min(height, width) < 16:
        raise BadInput(f"{observation.name} is {width}×{height} pixels: too small to show a galaxy")
    x, y = ((width - 1) / 2, (height - 1) / 2) if at is None else at_position(observation, *at)
    widths = np.full(2, observation.pixel) if wcs is None else _widths(wcs)
    pixel = max(float(np.sqrt(np.prod(widths))), datasets.FIRST_PIXEL)
    if not pixel <= COARSEST:  # nor NaN
        raise BadInput(
            f"{observation.name} has pixels of {pixel:.3g}″: at most {COARSEST:g}″ show the shape of a galaxy"
        )
    if at is None and max(height, width) > LARGEST:
        raise BadInput(f"{observation.name} is {width}×{height} pixels: say where to look, --at RA DEC")
    reach = max(REACH, detect.FIELD / 2 * pixel)
    if at is not None:  # the noise is that of the neighbourhood
        left, bottom = (max(0, round(v - 1.5 * reach / w)) for v, w in zip((x, y), widths, strict=True))
        right, top = (round(v + 1.5 * reach / w) + 1 for v, w in zip((x, y), widths, strict=True))
        pixels, x, y = pixels[bottom:top, left:right], x - left, y - bottom
        wcs = wcs[bottom:top, left:right]
    if np.allclose(widths, pixel, rtol=0.01) and (wcs is None or _upright(wcs)):
        return pixels, pixel, wcs, (x, y)
    notes.append(f"pixels of {widths[0]:.2f}″ × {widths[1]:.2f}″ were resampled to {pixel:.2f}″")
    return _resampled(pixels, widths, pixel, wcs, (x, y))


def _upright(wcs: WCS) -> bool:
    """Whether the axes of the pixels stand at right angles on the sky."""
    matrix = wcs.pixel_scale_matrix
    one, two = matrix[:, 0], matrix[:, 1]
    return bool(abs(one @ two) < 0.01 * np.linalg.norm(one) * np.linalg.norm(two))


def _resampled(pixels, widths, pixel, wcs, target):
    """The image on square pixels of ``pixel`` arcsec; without a WCS its axes are taken to stand at right angles."""
    from scipy import ndimage

    height, width = pixels.shape
    count = [max(16, round(n * w / pixel)) for n, w in zip((height, width), widths[::-1], strict=True)]
    blank = ~np.isfinite(pixels)
    smoothed = ndimage.gaussian_filter(
        prepare.fill(pixels), [0.42 * pixel / w if pixel > 1.01 * w else 0 for w in widths[::-1]]
    )
    down, across = np.mgrid[: count[0], : count[1]].astype(float)
    if wcs is None:
        new, x, y = (
            None,
            (across - (count[1] - 1) / 2) * pixel / widths[0],
            (down - (count[0] - 1) / 2) * pixel / widths[1],
        )
        x, y = x + (width - 1) / 2, y + (height - 1) / 2
        there = [
            (t - (n - 1) / 2) * w / pixel + (c - 1) / 2
            for t, n, w, c in zip(target, (width, height), widths, count[::-1], strict=True)
        ]
    else:
        centre, new = wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs, WCS(naxis=2)
        new.wcs.ctype, new.wcs.crval = ("RA---TAN", "DEC--TAN"), (centre.ra.deg, centre.dec.deg)
        new.wcs.crpix, new.wcs.cdelt = [(n + 1) / 2 for n in count[::-1]], (-pixel / 3600, pixel / 3600)
        x, y = wcs.world_to_pixel(new.pixel_to_world(across, down))
        there = [float(v) for v in new.world_to_pixel(wcs.pixel_to_world(*target))]
    made = ndimage.map_coordinates(smoothed, [y, x], order=1, mode="constant")
    outside = ndimage.map_coordinates(blank.astype(float), [y, x], order=1, mode="constant", cval=1.0) > 0.5
    made[outside] = np.nan
    return made, pixel, new, tuple(there)

"""Image preparation: from a field of the sky to the small square image that is the input of the network.

The network should encode the shape of a source, not its position angle or angular size. Each source is therefore
brought to a *canonical orientation*, with the principal axis along the rows, the brighter half to the right and the
brighter side below, and is scaled to about the same length. Angle and length are stored separately. The steps are pure
functions of arrays:

1. :func:`fill` blank pixels with zero,
2. :func:`clip` pixels below three times the rms, measured on the whole field,
3. :func:`despeckle`: remove islands too small to be a source,
4. :func:`lower`: subtract the threshold, so that brightness rises from zero,
5. :func:`find_orientation`: principal axis, brighter half and length inside a circle around the centre,
6. :func:`smooth` to the width of the new, coarser pixels,
7. :func:`render`: rotate, crop and scale to a small square in one interpolation,
8. :func:`stretch`: divide by the peak, square root, 256 grey levels.

:func:`prepare` does all but the clip. Images of MiraBest, FR-DEEP and the Radio Galaxy Dataset were clipped by their
authors; FITS cut-outs were not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
from astropy.stats import sigma_clipped_stats
from numpy.typing import NDArray
from scipy import ndimage

from rgz.errors import BadInput

ROUNDS, SETTLED = 20, 0.05  # find_orientation: most steps of the centroid, and the step in pixels at which it stops
SMALLEST_ISLAND = 6  # pixels above 3 rms: area of an unresolved source of 5 rms with a beam of three pixels


@dataclass(frozen=True)
class Recipe:
    """Parameters of the preparation: a square whose width scales with the length of the source, within bounds."""

    size: int = 32  # width of the prepared square, in its own pixels
    reach: float = 2.5  # half of that width, in lengths of the source (Orientation)
    narrowest: float = 57.6  # arcsec, least width; 32 pixels of FIRST
    widest: float = 230.4  # arcsec, largest width; set equal to narrowest for a fixed scale
    radius: float = 57.6  # arcsec, around the centre: where emission counts for the orientation

    def pixel(self, length: float, own: float = 0.0) -> float:
        """Width of a prepared pixel, arcsec, for a source of this length in arcsec.

        It is at least half of ``own``, the width of the survey's pixels, because finer pixels would show nothing new.

        >>> Recipe().pixel(20.0), Recipe().pixel(1000.0), Recipe().pixel(20.0, own=15.0)
        (3.125, 7.2, 7.5)
        """
        return max(float(np.clip(2 * self.reach * length, self.narrowest, self.widest)) / self.size, own / 2)


@dataclass(frozen=True)
class Orientation:
    """Orientation, length and centre of a source in its field.

    ``angle`` is the angle between the rows of the field and the principal axis, in radians; ``along`` and ``across``
    are +1, or −1 where the aligned image is mirrored along or across that axis. ``length`` is the root mean square
    distance from the centre, weighted by the square root of brightness, in input pixels. ``shift`` moves the centre,
    (x, y) in input pixels.
    """

    angle: float = 0.0
    along: int = 1
    across: int = 1
    length: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def then(self, turn: "Orientation") -> "Orientation":
        """This orientation after another one: angles and shifts are added, reflections and lengths multiplied."""
        return Orientation(
            self.angle + turn.angle,
            self.along * turn.along,
            self.across * turn.across,
            self.length * turn.length,
            (self.shift[0] + turn.shift[0], self.shift[1] + turn.shift[1]),
        )


MIRRORED = tuple(Orientation(along=along, across=across) for along in (1, -1) for across in (1, -1))
"""The four mirrored views of an aligned image, the image itself first; all are equally valid."""

VIEWS = tuple(Orientation(np.radians(turn), view.along, view.across) for turn in (0, -12, 12) for view in MIRRORED)
"""The twelve views of test-time augmentation, mirrored and rotated by ±12°, about the error of a principal axis."""


@dataclass(frozen=True)
class Frame:
    """Which part of the field a view shows.

    ``centred`` views are centred on the centroid of the emission, which does not depend on how the cut-out was made,
    others on the middle of the field. ``width`` is in arcsec; None is the width that :class:`Recipe` derives from the
    length of the source. Unlike the length, a fixed width does not depend on the level at which an archive clips.
    """

    centred: bool = False
    width: float | None = None


FRAMES = (Frame(), Frame(centred=True), Frame(width=115.2), Frame(True, 115.2), Frame(True, 57.6))
"""The five ways of centring and scaling that a search uses; the first is that of :func:`prepare`."""


def pool(views: NDArray[Any]) -> NDArray[Any]:
    """Pool codes of several views (views, N, D) to the mean and the mean absolute value over views, (N, 2 D)."""
    return np.hstack([views.mean(axis=0), np.abs(views).mean(axis=0)])


def fill(image: NDArray[Any]) -> NDArray[np.float64]:
    """Replace NaN and infinities, the blank edges of a survey, by zero.

    >>> fill(np.array([[1.0, np.nan]]))
    array([[1., 0.]])
    """
    filled: NDArray[np.float64] = np.nan_to_num(np.asarray(image, dtype=float), nan=0.0, posinf=0.0, neginf=0.0)
    return filled


def noise(image: NDArray[Any]) -> tuple[float, float]:
    """Median and rms of the nonzero pixels of an unclipped field after iterative 3σ clipping; zeros if all are
    blank."""
    sky = image[image != 0]
    if sky.size == 0:
        return 0.0, 0.0
    _, median, rms = sigma_clipped_stats(sky, sigma=3.0)
    return float(median), float(rms)


def clip(image: NDArray[Any], sigmas: float = 3.0, measured: tuple[float, float] | None = None) -> NDArray[Any]:
    """Subtract the median and set every pixel below ``sigmas`` × rms to zero, in the field's own units.

    Median and rms are those of :func:`noise`, or given as ``measured``. Apply it to the field before any crop: a crop
    around a source has too little empty sky to measure the rms.
    """
    median, rms = noise(image) if measured is None else measured
    return np.where(image - median >= sigmas * rms, image - median, 0.0)


def despeckle(image: NDArray[Any], radius: float = np.inf) -> NDArray[Any]:
    """Set islands of fewer than six connected pixels of a clipped field to zero.

    They are noise, or sources too faint to show a shape. An image without larger islands within ``radius`` pixels of
    its centre is returned unchanged.

    >>> despeckle(np.pad(np.ones((3, 3)), ((1, 4), (1, 4)))).sum()
    np.float64(9.0)
    """
    labels, _ = ndimage.label(image > 0, structure=np.ones((3, 3)))
    keep = np.bincount(labels.ravel()) >= SMALLEST_ISLAND
    keep[0] = False
    return np.where(keep[labels], image, 0) if keep[labels[_offsets(image.shape)[2] <= radius]].any() else image


def lower(image: NDArray[Any]) -> NDArray[Any]:
    """Subtract the brightness of the faintest nonzero pixel from all nonzero pixels of a clipped field.

    MiraBest does not change the brightness above the threshold, so that a source ends in a step of three times the rms;
    the Radio Galaxy Dataset subtracts the threshold. This step makes both the same, with smooth edges.

    >>> lower(np.array([[0.0, 3.0, 10.0]]))
    array([[0., 0., 7.]])
    """
    lit = image > 0
    return np.where(lit, image - image[lit].min(), 0.0) if lit.any() else image


def crop(image: NDArray[Any], size: int) -> NDArray[Any]:
    """The central (size, size) pixels of an image or of a stack of images.

    Raises :class:`BadInput` if the image is smaller than that.
    """
    height, width = image.shape[-2:]
    if size > min(height, width):
        raise BadInput(f"a {height}×{width} image has no central {size}×{size} pixels: a larger cut-out is needed")
    top, left = (height - size) // 2, (width - size) // 2
    return image[..., top : top + size, left : left + size]


@lru_cache(8)
def _offsets(shape: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Distance of each pixel from the centre along y, along x, and in total, (H, W) each."""
    y, x = np.mgrid[: shape[0], : shape[1]] - (np.array(shape).reshape(2, 1, 1) - 1) / 2
    return y, x, np.hypot(x, y)


def has_source(image: NDArray[Any], pixel: float, recipe: Recipe) -> bool:
    """Whether an image with pixels of ``pixel`` arcsec has emission within the recipe's radius: it can be prepared."""
    return bool((image[_offsets(image.shape)[2] <= recipe.radius / pixel] > 0).any())


def find_orientation(image: NDArray[Any], radius: float, centred: bool = False) -> Orientation:
    """Principal axis, brighter half and length of the emission within ``radius`` pixels of the centre.

    The axis is the eigenvector of the larger eigenvalue of the second moments of brightness about the centroid. Sides
    and length are measured about the image's centre, where the host galaxy is, or, if ``centred``, about the centroid,
    which then becomes the centre. In that case the circle is moved to the centroid until both are stable, so that the
    result does not depend on how the cut-out was made.

    Raises :class:`BadInput` if there is no emission within the radius.
    """
    lit = image > 0  # a small part of a clipped field
    y, x = (offset[lit] for offset in _offsets(image.shape)[:2])
    light, shift = image[lit], (0.0, 0.0)
    for _ in range(ROUNDS if centred else 1):
        weight = np.where(np.hypot(x - shift[0], y - shift[1]) <= radius, light, 0.0)
        total, before = weight.sum(), shift
        if not total > 0:
            raise BadInput(f"the image has no emission within {radius:g} pixels of its centre: centre it on a source")
        shift = float((weight * x).sum() / total), float((weight * y).sum() / total)
        if np.hypot(shift[0] - before[0], shift[1] - before[1]) < SETTLED:
            break
    dx, dy = x - shift[0], y - shift[1]
    angle = 0.5 * np.arctan2(2 * (weight * dx * dy).sum(), (weight * (dx**2 - dy**2)).sum())
    x, y, shift = (dx, dy, shift) if centred else (x, y, (0.0, 0.0))
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    root = np.sqrt(weight)  # so that faint lobes contribute to the length, not only hot spots
    return Orientation(
        float(angle),
        1 if (weight * np.sign(along)).sum() >= 0 else -1,
        1 if (weight * np.sign(across)).sum() >= 0 else -1,
        float(np.sqrt((root * (x**2 + y**2)).sum() / root.sum())),
        shift,
    )


def smooth(image: NDArray[Any], scale: float) -> NDArray[Any]:
    """Smooth by a Gaussian of 0.42 new pixels (σ) to avoid aliasing; unchanged if the new pixels are not coarser."""
    smoothed: NDArray[Any] = ndimage.gaussian_filter(image, 0.42 * scale) if scale > 1 else image
    return smoothed


def render(image: NDArray[Any], orientation: Orientation, size: int, scale: float) -> NDArray[Any]:
    """Rotate, mirror, shift, crop and scale a field to a (size, size) square, in one linear interpolation.

    ``scale`` is the width of a new pixel in old ones. Beyond the field's edge the square is zero.
    """
    u = (np.arange(size) - (size - 1) / 2) * scale  # along a row of the result, input pixels
    along, across = u[None, :] * orientation.along, u[:, None] * orientation.across
    cos, sin = np.cos(orientation.angle), np.sin(orientation.angle)
    centre_y, centre_x = (np.array(image.shape) - 1) / 2
    x = centre_x + orientation.shift[0] + along * cos - across * sin
    y = centre_y + orientation.shift[1] + along * sin + across * cos
    square: NDArray[Any] = ndimage.map_coordinates(image, [y, x], order=1, mode="constant")
    return square


def stretch(image: NDArray[Any]) -> NDArray[np.uint8]:
    """Divide by the peak, take the square root, and round to 256 grey levels: uint8, peak 255.

    The square root keeps faint lobes visible next to bright hot spots; grey level 1 is 1/65025 of the peak.

    Raises :class:`BadInput` if nothing in the image is above zero.
    """
    peak = image.max(initial=0)
    if not peak > 0:
        raise BadInput("the cut-out has no emission: centre it on a source")
    grey: NDArray[np.uint8] = np.rint(255 * np.sqrt(np.clip(image, 0, None) / peak)).astype(np.uint8)
    return grey


def align(image: NDArray[Any], pixel: float, recipe: Recipe) -> tuple[NDArray[Any], Orientation]:
    """A clipped field (H, W) with pixels of ``pixel`` arcsec, cleaned for rendering, and its source's orientation.

    Raises :class:`BadInput` if the image is not two-dimensional, or is blank around its centre.
    """
    clean = _clean(image, pixel, recipe)
    return clean, find_orientation(clean, recipe.radius / pixel)


def _clean(image: NDArray[Any], pixel: float, recipe: Recipe) -> NDArray[Any]:
    if image.ndim != 2:
        raise BadInput(f"an image must have two axes; this one has shape {image.shape}")
    whole = despeckle(fill(image), recipe.radius / pixel)
    clean = lower(whole)
    return clean if has_source(clean, pixel, recipe) else whole  # all pixels of the source are equally bright


def length(image: NDArray[Any], pixel: float, recipe: Recipe) -> float:
    """Length of the source in a clipped field with pixels of ``pixel`` arcsec (:class:`Orientation`), in arcsec."""
    return align(image, pixel, recipe)[1].length * pixel


def prepare(image: NDArray[Any], pixel: float, recipe: Recipe, turn: Orientation = Orientation()) -> NDArray[np.uint8]:
    """One clipped field (H, W) with pixels of ``pixel`` arcsec to the (size, size) uint8 square for the network.

    ``turn`` is applied on top of the orientation found, to mirror the image for example.

    Raises :class:`BadInput` if the image is not two-dimensional, or is blank around its centre.

    >>> field = np.pad(np.arange(1.0, 10.0).reshape(3, 3), 20)
    >>> prepare(field, 1.8, Recipe()).shape
    (32, 32)
    """
    return np.asarray(views(image, pixel, recipe, (turn,))[0])


def views(
    image: NDArray[Any], pixel: float, recipe: Recipe, turns: Sequence[Orientation] = VIEWS, frame: Frame = FRAMES[0]
) -> NDArray[np.uint8]:
    """Several views of one field, each as :func:`prepare` makes it, (turns, size, size) uint8.

    A frame of fixed width about the centroid may be empty, for example between two distant lobes: the view is then
    blank.
    """
    return np.asarray(framed(image, pixel, recipe, turns, (frame,))[0])


def framed(
    image: NDArray[Any],
    pixel: float,
    recipe: Recipe,
    turns: Sequence[Orientation] = VIEWS,
    frames: Sequence[Frame] = FRAMES,
) -> NDArray[np.uint8]:
    """The :func:`views` of one field in several frames, (frames, turns, size, size) uint8."""
    field = _clean(image, pixel, recipe)
    found = {about: find_orientation(field, recipe.radius / pixel, about) for about in {f.centred for f in frames}}
    return np.stack([_in_frame(field, found[frame.centred], pixel, recipe, turns, frame) for frame in frames])


def _in_frame(
    field: NDArray[Any], found: Orientation, pixel: float, recipe: Recipe, turns: Sequence[Orientation], frame: Frame
) -> NDArray[np.uint8]:
    if frame.width is not None:
        recipe = replace(recipe, narrowest=frame.width, widest=frame.width)
    smoothed = cache(lambda scale: smooth(field, scale))

    @cache  # mirrored views are flips of one square
    def square(upright: Orientation) -> NDArray[np.uint8]:
        scale = recipe.pixel(upright.length * pixel, pixel) / pixel
        shown = render(smoothed(scale), upright, recipe.size, scale)
        black = frame.width is not None and not shown.any()
        return np.zeros(shown.shape, np.uint8) if black else stretch(shown)

    turned = [found.then(turn) for turn in turns]
    return np.stack([square(replace(one, along=1, across=1))[:: one.across, :: one.along] for one in turned])

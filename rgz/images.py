"""From a field of the sky to what the network sees, in named steps.

A radio galaxy looks the same to us however it lies on the sky and however far it is, but not to a network, so each source
is *posed*: its principal axis along the rows, its brighter half to the right, the brighter side below, and always about
equally long. What remains is shape; angle and length are kept beside it. The steps, each a pure function of arrays:

1. :func:`fill` blank pixels with zero,
2. :func:`clip` what is below three times the noise, measured on the whole field,
3. :func:`despeckle`: drop islands too small to be a source,
4. :func:`lower`: take off the threshold, so that brightness rises from zero,
5. :func:`find_pose`: principal axis, brighter half and length, inside a circle around the centre,
6. :func:`smooth` to the coarser pixel to come,
7. :func:`render`: turn, crop and scale to a small square in one interpolation,
8. :func:`stretch`: divide by the peak, square root, 256 grey levels.

:func:`prepare` does all but the clip to one image. Images of MiraBest, FR-DEEP and the Radio Galaxy Dataset come clipped by their
authors; FITS cut-outs do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from astropy.stats import sigma_clipped_stats
from scipy import ndimage

from rgz.errors import BadInput

__all__ = [
    "FRAMES",
    "MIRRORED",
    "VIEWS",
    "Frame",
    "Pose",
    "Recipe",
    "clip",
    "crop",
    "despeckle",
    "fill",
    "find_pose",
    "framed",
    "has_source",
    "length",
    "lower",
    "noise",
    "pool",
    "posed",
    "prepare",
    "render",
    "smooth",
    "stretch",
    "views",
]


ROUNDS, SETTLED = (
    20,
    0.05,
)  # times that a circle follows the centroid of what it holds, and the move, in pixels, that ends it
SMALLEST_ISLAND = 6  # pixels above 3 rms: what an unresolved source of 5 rms covers with a beam of three pixels


@dataclass(frozen=True)
class Recipe:
    """How an image is prepared: a square whose width follows the length of the source, within bounds.

    Parameters
    ----------
    size
        Width of the prepared square, in its own pixels.
    reach
        Half of that width, in lengths of the source (:class:`Pose`).
    narrowest, widest
        Bounds of that width, arcsec. With 32 pixels, the narrowest has FIRST's own pixels. Where both are the same every
        source is shown at the same scale.
    radius
        Distance from the centre within which the pose is measured, arcsec.
    """

    size: int = 32
    reach: float = 2.5
    narrowest: float = 57.6
    widest: float = 230.4
    radius: float = 57.6

    def pixel(self, length: float, own: float = 0.0) -> float:
        """Width of a prepared pixel, arcsec, for a source of a length in arcsec in a survey whose pixels are ``own`` arcsec wide.

        It is never less than half as wide as the survey's own, which would show nothing new.

        >>> Recipe().pixel(20.0), Recipe().pixel(1000.0), Recipe().pixel(20.0, own=15.0)
        (3.125, 7.2, 7.5)
        """
        return max(float(np.clip(2 * self.reach * length, self.narrowest, self.widest)) / self.size, own / 2)


@dataclass(frozen=True)
class Pose:
    """How a source lies in its field.

    ``angle`` turns the principal axis from the rows of the field, in radians; ``along`` and ``across`` are +1, or −1
    where the posed image is mirrored along or across that axis. ``length`` is the root mean square distance from the centre,
    weighted by the square root of brightness, in input pixels. ``shift`` moves the centre, (x, y) in input
    pixels.
    """

    angle: float = 0.0
    along: int = 1
    across: int = 1
    length: float = 1.0
    shift: tuple[float, float] = (0.0, 0.0)

    def turned(self, turn: "Pose") -> "Pose":
        """This pose after a further turn: angles and shifts add up, mirrorings and lengths multiply."""
        return Pose(
            self.angle + turn.angle,
            self.along * turn.along,
            self.across * turn.across,
            self.length * turn.length,
            (self.shift[0] + turn.shift[0], self.shift[1] + turn.shift[1]),
        )


MIRRORED = tuple(Pose(along=along, across=across) for along in (1, -1) for across in (1, -1))
"""The four mirrored views of a posed image, the pose itself first; none of them is more true than another."""

VIEWS = tuple(Pose(np.radians(turn), view.along, view.across) for turn in (0, -12, 12) for view in MIRRORED)
"""The mirrored views as they are and turned by 12° either way, since a principal axis is not known better than that."""


@dataclass(frozen=True)
class Frame:
    """Which part of the field a view shows.

    Parameters
    ----------
    centred
        Whether the middle is the centroid of the emission, which does not depend on where the cut-out was made, and not the
        middle of the field.
    width
        Width in arcsec; where it is None, as wide as the length of the source wants (:class:`Recipe`). The length depends on the
        level at which an archive clips; a width in arcsec does not.
    """

    centred: bool = False
    width: float | None = None


FRAMES = (Frame(), Frame(centred=True), Frame(width=115.2), Frame(True, 115.2), Frame(True, 57.6))
"""The frames that a search compares; the first is that of the pose itself."""


def pool(views: np.ndarray) -> np.ndarray:
    """Descriptions of several views (views, N, D) to one that does not depend on the choice of view, (N, 2 D).

    The first half is the mean over views, the second the mean absolute value.
    """
    return np.hstack([views.mean(axis=0), np.abs(views).mean(axis=0)])


def fill(image: np.ndarray) -> np.ndarray:
    """Replace NaN and infinities, the blank edges of a survey, by zero: no emission was seen there.

    >>> fill(np.array([[1.0, np.nan]]))
    array([[1., 0.]])
    """
    return np.nan_to_num(np.asarray(image, dtype=float), nan=0.0, posinf=0.0, neginf=0.0)


def noise(image: np.ndarray) -> tuple[float, float]:
    """Median and rms of an unclipped field, blank (zero) pixels apart, after an iterative 3σ clip; zeros where all is blank."""
    sky = image[image != 0]
    if sky.size == 0:
        return 0.0, 0.0
    _, median, rms = sigma_clipped_stats(sky, sigma=3.0)
    return float(median), float(rms)


def clip(image: np.ndarray, sigmas: float = 3.0, measured: tuple[float, float] | None = None) -> np.ndarray:
    """Set every pixel below ``sigmas`` × rms of the whole field to zero, in the field's own units.

    The rms comes from an iterative 3σ clip about the median, so that sources do not raise it (:func:`noise`, or what it gave
    before as ``measured``). Apply it to the field, before any crop: a crop around a source has no empty sky left to measure.
    """
    median, rms = noise(image) if measured is None else measured
    return np.where(image - median >= sigmas * rms, image - median, 0.0)


def despeckle(image: np.ndarray, radius: float = np.inf) -> np.ndarray:
    """Set islands of fewer than six connected pixels of a clipped field to zero.

    They are noise, or sources too faint to say anything of their shape. An image with nothing else within ``radius`` pixels of
    its centre is left as it is.

    >>> despeckle(np.pad(np.ones((3, 3)), ((1, 4), (1, 4)))).sum()
    np.float64(9.0)
    """
    labels, _ = ndimage.label(image > 0, structure=np.ones((3, 3)))
    keep = np.bincount(labels.ravel()) >= SMALLEST_ISLAND
    keep[0] = False
    _, _, distance = _offsets(image.shape)
    return np.where(keep[labels], image, 0) if keep[labels[distance <= radius]].any() else image


def lower(image: np.ndarray) -> np.ndarray:
    """Take the brightness of the faintest lit pixel off all lit pixels of a clipped field.

    Archives treat what is above the threshold differently: MiraBest keeps it as it is, so that a source ends in a step of three
    times the noise, the Radio Galaxy Dataset takes the threshold off. This makes them alike, and edges smooth.

    >>> lower(np.array([[0.0, 3.0, 10.0]]))
    array([[0., 0., 7.]])
    """
    lit = image > 0
    return np.where(lit, image - image[lit].min(), 0.0) if lit.any() else image


def crop(image: np.ndarray, size: int) -> np.ndarray:
    """The central (size, size) pixels of an image or of a stack of images.

    Raises
    ------
    BadInput
        The image is smaller than that.
    """
    height, width = image.shape[-2:]
    if size > min(height, width):
        raise BadInput(f"a {height}×{width} image has no central {size}×{size} pixels: a larger cut-out is needed")
    top, left = (height - size) // 2, (width - size) // 2
    return image[..., top : top + size, left : left + size]


@lru_cache(8)
def _offsets(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distances of each pixel from the centre along y and x, and as the crow flies, (H, W) each, for images of one shape."""
    y, x = np.mgrid[: shape[0], : shape[1]] - (np.array(shape).reshape(2, 1, 1) - 1) / 2
    return y, x, np.hypot(x, y)


def has_source(image: np.ndarray, pixel: float, recipe: Recipe) -> bool:
    """Whether an image with pixels of ``pixel`` arcsec has emission within the recipe's radius, so that it can be prepared."""
    _, _, distance = _offsets(image.shape)
    return bool((image[distance <= recipe.radius / pixel] > 0).any())


def find_pose(image: np.ndarray, radius: float, centred: bool = False) -> Pose:
    """Principal axis, brighter half and length of the emission within ``radius`` pixels of the centre.

    The axis is the eigenvector of the larger eigenvalue of the second moments of brightness about the brightness-weighted
    centroid; the sides are compared, and the length is measured, about the image's centre, where the host galaxy is, or, if
    ``centred``, about the centroid, which then becomes the middle. The radius follows it, until both have settled, so
    that it does not matter where the cut-out was made.

    Raises
    ------
    BadInput
        There is no emission within the radius.
    """
    lit = image > 0  # a small part of a clipped field
    y, x = (offset[lit] for offset in _offsets(image.shape)[:2])
    light, shift = image[lit], (0.0, 0.0)
    for _ in range(ROUNDS if centred else 1):
        weight = np.where(np.hypot(x - shift[0], y - shift[1]) <= radius, light, 0.0)
        total, before = weight.sum(), shift
        if not total > 0:
            raise BadInput(f"the image has no emission within {radius:g} pixels of its centre: nothing to pose")
        shift = (weight * x).sum() / total, (weight * y).sum() / total
        if np.hypot(shift[0] - before[0], shift[1] - before[1]) < SETTLED:
            break
    dx, dy = x - shift[0], y - shift[1]
    angle = 0.5 * np.arctan2(2 * (weight * dx * dy).sum(), (weight * (dx**2 - dy**2)).sum())
    x, y, shift = (dx, dy, shift) if centred else (x, y, (0.0, 0.0))
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    root = np.sqrt(weight)  # faint lobes count for the length, not only hot spots
    return Pose(
        float(angle),
        1 if (weight * np.sign(along)).sum() >= 0 else -1,
        1 if (weight * np.sign(across)).sum() >= 0 else -1,
        float(np.sqrt((root * (x**2 + y**2)).sum() / root.sum())),
        (float(shift[0]), float(shift[1])),
    )


def smooth(image: np.ndarray, scale: float) -> np.ndarray:
    """Smooth by a Gaussian of 0.42 new pixels (σ), so that flux between the points sampled later counts; none if not coarser."""
    return ndimage.gaussian_filter(image, 0.42 * scale) if scale > 1 else image


def render(image: np.ndarray, pose: Pose, size: int, scale: float) -> np.ndarray:
    """Turn, mirror, shift, crop and scale a field to a (size, size) square, in one linear interpolation.

    ``scale`` is the width of a new pixel in old ones. Beyond the field's edge there is nothing.
    """
    u = (np.arange(size) - (size - 1) / 2) * scale  # along a row of the result, input pixels
    along, across = u[None, :] * pose.along, u[:, None] * pose.across
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    centre_y, centre_x = (np.array(image.shape) - 1) / 2
    x = centre_x + pose.shift[0] + along * cos - across * sin
    y = centre_y + pose.shift[1] + along * sin + across * cos
    return ndimage.map_coordinates(image, [y, x], order=1, mode="constant")


def stretch(image: np.ndarray) -> np.ndarray:
    """Divide by the peak, take the square root, and round to 256 grey levels: uint8, peak 255.

    The root keeps faint lobes beside bright hot spots; the distance between grey levels 0 and 1 is 1/65025 of the peak.

    Raises
    ------
    BadInput
        Nothing in the image is above zero.
    """
    peak = image.max(initial=0)
    if not peak > 0:
        raise BadInput("the cut-out has no emission: nothing to stretch")
    return np.rint(255 * np.sqrt(np.clip(image, 0, None) / peak)).astype(np.uint8)


def posed(image: np.ndarray, pixel: float, recipe: Recipe) -> tuple[np.ndarray, Pose]:
    """A clipped field (H, W) with pixels of ``pixel`` arcsec, cleaned for rendering, and the pose of its source.

    Raises
    ------
    BadInput
        The image is not two-dimensional, or is blank around its centre.
    """
    clean = _cleaned(image, pixel, recipe)
    return clean, find_pose(clean, recipe.radius / pixel)


def _cleaned(image: np.ndarray, pixel: float, recipe: Recipe) -> np.ndarray:
    if image.ndim != 2:
        raise BadInput(f"an image has two axes; this one has shape {image.shape}")
    whole = despeckle(fill(image), recipe.radius / pixel)
    clean = lower(whole)
    return clean if has_source(clean, pixel, recipe) else whole  # one lit pixel, or all equally bright


def length(image: np.ndarray, pixel: float, recipe: Recipe) -> float:
    """Length of the source in a clipped field with pixels of ``pixel`` arcsec, as its :class:`Pose` has it, in arcsec."""
    return posed(image, pixel, recipe)[1].length * pixel


def prepare(image: np.ndarray, pixel: float, recipe: Recipe, turn: Pose = Pose()) -> np.ndarray:
    """One clipped field (H, W) with pixels of ``pixel`` arcsec to the (size, size) uint8 square that the network sees.

    ``turn`` goes on top of the pose found: mirrored views, for example.

    Raises
    ------
    BadInput
        The image is not two-dimensional, or is blank around its centre.

    Examples
    --------
    >>> from rgz import synthetic
    >>> field = synthetic.source("FRII", np.random.default_rng(0))
    >>> prepare(clip(field), 1.8, Recipe()).shape
    (32, 32)
    """
    return views(image, pixel, recipe, (turn,))[0]


def views(
    image: np.ndarray, pixel: float, recipe: Recipe, turns: Sequence[Pose] = VIEWS, frame: Frame = FRAMES[0]
) -> np.ndarray:
    """Several views of one field as :func:`prepare` makes each, (turns, size, size) uint8; the pose is found once.

    A frame of its own width about the centroid may show nothing, as between two distant lobes: then it is black.
    """
    return framed(image, pixel, recipe, turns, (frame,))[0]


def framed(
    image: np.ndarray, pixel: float, recipe: Recipe, turns: Sequence[Pose] = VIEWS, frames: Sequence[Frame] = FRAMES
) -> np.ndarray:
    """The :func:`views` of one field in each of several frames, (frames, turns, size, size) uint8; it is cleaned once."""
    field = _cleaned(image, pixel, recipe)
    poses = {about: find_pose(field, recipe.radius / pixel, about) for about in {frame.centred for frame in frames}}
    return np.stack([_shown(field, poses[frame.centred], pixel, recipe, turns, frame) for frame in frames])


def _shown(
    field: np.ndarray, pose: Pose, pixel: float, recipe: Recipe, turns: Sequence[Pose], frame: Frame
) -> np.ndarray:
    if frame.width is not None:
        recipe = replace(recipe, narrowest=frame.width, widest=frame.width)
    smoothed, squares, prepared = {}, {}, []
    for turn in turns:
        turned = pose.turned(turn)
        scale = recipe.pixel(turned.length * pixel, pixel) / pixel
        upright = replace(turned, along=1, across=1)
        if upright not in squares:  # mirrored views are flips of one square
            if scale not in smoothed:
                smoothed[scale] = smooth(field, scale)
            square = render(smoothed[scale], upright, recipe.size, scale)
            black = frame.width is not None and not square.any()
            squares[upright] = np.zeros(square.shape, np.uint8) if black else stretch(square)
        prepared.append(squares[upright][:: turned.across, :: turned.along])
    return np.stack(prepared)

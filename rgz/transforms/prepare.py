"""Image preparation: from fields of the sky to the small square images that the network sees.

The network should encode the shape of a source, not its position angle or angular size. Each source is therefore
brought to a *canonical orientation*, with the principal axis along the rows, the brighter half to the right and the
brighter side below, and is scaled to about the same length. :class:`Prepare` does this for a stack of clipped fields at
once, on any device:

1. remove islands too small to be a source, and subtract the threshold, so that brightness rises from zero,
2. find the principal axis, the brighter half and the length of the emission around the centre,
3. smooth to the width of the new pixels, where these are coarser,
4. rotate, crop and scale to a small square, in one linear interpolation,
5. divide by the peak, take the square root, and round to 256 grey levels: faint lobes stay visible beside hot spots.

The centre is the middle of the field, where the host galaxy is, or the centroid of the emission, which does not depend
on how the image was cut out. Only the pixels with emission are touched before the fourth step, a few per cent of a
clipped field.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from rgz.errors import BadInput
from rgz.progress import progress
from rgz.transforms.fields import RADIUS, SMALLEST_ISLAND

__all__ = ["FRAMES", "Pose", "Prepare", "Recipe", "gaussian", "lengths", "prepare", "stretch"]

FRAMES = (False, True)  # about the middle of the field, and about the centroid of the emission
BATCH = 32  # fields prepared at once
ROUNDS = 12  # at most, steps of the centroid, which then moves by less than a twentieth of a pixel
FAINTEST = 1e-9  # of a kernel's peak, far below a grey level
WIDEST_KERNEL = 16  # pixels, half of the largest smoothing kernel


@dataclass(frozen=True)
class Recipe:
    """Parameters of the preparation: a square whose width scales with the length of the source, within bounds."""

    size: int = 64  # width of the prepared square, in its own pixels
    reach: float = 2.5  # half of that width, in lengths of the source (Pose)
    narrowest: float = 57.6  # arcsec, least width; 32 pixels of FIRST
    widest: float = 230.4  # arcsec, largest width
    radius: float = RADIUS  # arcsec, around the centre: where emission counts for the orientation

    def width(self, length: NDArray[Any], pixel: float = 0) -> NDArray[np.float64]:
        """Widths, arcsec, of the squares of sources with these lengths, in fields with pixels of ``pixel`` arcsec."""
        return np.maximum(np.clip(2 * self.reach * length, self.narrowest, self.widest), self.size * pixel / 2)


class Pose(NamedTuple):
    """Orientation, length and centre of the source of each field, (N,) each but ``shift``; lengths in input pixels."""

    angle: Tensor  # radians, between the rows of the field and the principal axis
    lean: Tensor  # (N, 2), −1 … 1: flux in the two halves along and across the axis, their difference over their sum
    length: Tensor  # root mean square distance from the centre, weighted by the square root of brightness
    shift: Tensor  # (N, 2), x and y of the centre from the middle of the field


class _Lit(NamedTuple):
    """The M pixels of a stack of fields that show emission."""

    row: Tensor  # field of each, (M,)
    y: Tensor  # row and column within the field, (M,), integers
    x: Tensor
    light: Tensor  # brightness, (M,)


def _lit(fields: Tensor) -> _Lit:
    """Finite pixels above zero of fields (N, H, W) of any dtype."""
    flat, width, area = fields.flatten(), fields.shape[2], fields.shape[1] * fields.shape[2]
    place = torch.nonzero(flat > 0)[:, 0]
    light = flat[place].float()
    place, light = place[light < torch.inf], light[light < torch.inf]
    row, inside = place // area, place % area
    return _Lit(row, inside // width, inside % width, light)


def _offsets(lit: _Lit, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """x and y of each pixel from the middle of the field, (M,) each."""
    return lit.x - (shape[2] - 1) / 2, lit.y - (shape[1] - 1) / 2


def _sums(values: Tensor, row: Tensor, count: int) -> Tensor:
    """Sums of values (M, K) over the pixels of each field, (count, K)."""
    return values.new_zeros(count, values.shape[1]).index_add(0, row, values)


def _large(lit: _Lit, shape: torch.Size) -> Tensor:
    """Mask (M,) of the pixels in islands of at least six connected pixels, exactly.

    A pixel with five lit neighbours is in a large island, and so are these neighbours. Among the few pixels left,
    labels spread to the largest neighbour five times, which is enough for an island of fewer than six pixels to get one
    label. A group of pixels with one label is small if it has fewer than six pixels and touches no other label.
    """
    width = shape[2] + 2  # of a field with a blank border
    place = (lit.row * (shape[1] + 2) + lit.y + 1) * width + lit.x + 1
    steps = place.new_tensor([-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1])[:, None]
    number = torch.zeros(shape[0] * (shape[1] + 2) * width, dtype=torch.int32, device=place.device)

    def beside(place: Tensor) -> Tensor:
        return number.index_select(0, (place + steps).flatten()).view(len(steps), -1)  # 0 where there is no pixel

    number.index_fill_(0, place, 1)
    crowded = beside(place).sum(0) >= SMALLEST_ISLAND - 1
    number.index_fill_(0, place[crowded], 2)
    large = crowded | (beside(place) == 2).any(0)
    left = torch.nonzero(~large)[:, 0]
    count = left.shape[0]
    number.index_fill_(0, place, count + 1)  # one label for all that are large, which prevails
    number[place[left]] = torch.arange(1, count + 1, dtype=torch.int32, device=place.device)
    neighbours = beside(place[left])
    label = torch.arange(count + 2, dtype=torch.int32, device=place.device)
    for _ in range(SMALLEST_ISLAND):
        around = label.index_select(0, neighbours.flatten()).view(len(steps), -1)  # (8, count)
        own = label[1:-1].clone()
        label[1:-1] = torch.maximum(own, around.amax(0))
    touches, own = ((around > 0) & (around != own)).any(0), own.long()
    size = torch.zeros(count + 2, dtype=torch.int64, device=place.device)
    size = size.index_add(0, own, torch.where(touches, SMALLEST_ISLAND, 1))
    large[left] = (size[own] >= SMALLEST_ISLAND) | (own == count + 1)
    return large


def _clean(fields: Tensor, radius: Tensor) -> tuple[_Lit, Tensor]:
    """Emission without small islands and above the threshold, and the fields (N, H, W) that show it alone."""
    count, shape = len(fields), fields.shape
    lit = _lit(fields)
    x, y = _offsets(lit, shape)
    central = x**2 + y**2 <= radius[lit.row] ** 2
    large = _large(lit, shape)
    has_large = _sums((large & central)[:, None].float(), lit.row, count)[:, 0] > 0
    kept = large | ~has_large[lit.row]
    lit, central = _Lit(*(part[kept] for part in lit)), central[kept]
    faintest = lit.light.new_full((count,), torch.inf).scatter_reduce(0, lit.row, lit.light, "amin", include_self=True)
    lower = lit.light - faintest[lit.row]
    contrast = _sums((central * lower)[:, None], lit.row, count)[:, 0] > 0  # else all pixels are equally bright
    light = torch.where(contrast[lit.row], lower, lit.light)
    clean = torch.zeros(shape, device=fields.device)
    clean.view(-1)[(lit.row * shape[1] + lit.y) * shape[2] + lit.x] = light
    return lit._replace(light=light), clean


def _find(lit: _Lit, shape: torch.Size, radius: Tensor, centred: bool) -> Pose:
    """Principal axis, brighter half, length and centre of the emission within ``radius`` (N,) pixels.

    The axis is the eigenvector of the larger eigenvalue of the second moments of brightness about the centroid. Sides
    and length are measured about the middle of the field or, if ``centred``, about the centroid of the emission in a
    circle around that centroid.
    """
    count, row = shape[0], lit.row
    x, y = _offsets(lit, shape)
    shift = x.new_zeros(count, 2)
    limit = radius[row] ** 2

    def within(shift: Tensor) -> Tensor:
        inside = (x - shift[row, 0]) ** 2 + (y - shift[row, 1]) ** 2 <= limit
        return torch.where(inside, lit.light, 0.0)

    weight = within(shift)
    for _ in range(ROUNDS):
        total, sum_x, sum_y = _sums(torch.stack((weight, weight * x, weight * y), 1), row, count).T
        centroid = torch.stack((sum_x, sum_y), 1) / total.clamp(min=torch.finfo(total.dtype).tiny)[:, None]
        if not centred or (not torch.onnx.is_in_onnx_export() and torch.equal(shift, centroid)):
            break
        shift = centroid
        weight = within(shift)
    dx, dy = x - centroid[row, 0], y - centroid[row, 1]
    xy, xx_yy = _sums(torch.stack((weight * dx * dy, weight * (dx**2 - dy**2)), 1), row, count).T
    angle = 0.5 * torch.atan2(2 * xy, xx_yy)
    x, y = x - shift[row, 0], y - shift[row, 1]
    cos, sin = angle.cos()[row], angle.sin()[row]
    root = weight.sqrt()
    sides = weight * (x * cos + y * sin).sign(), weight * (y * cos - x * sin).sign()
    columns = torch.stack((weight, *sides, root, root * (x**2 + y**2)), 1)
    total, along, across, roots, squares = _sums(columns, row, count).T
    smallest = torch.finfo(total.dtype).tiny
    lean = torch.stack((along, across), 1) / total.clamp(min=smallest)[:, None]
    return Pose(angle, lean, (squares / roots.clamp(min=smallest)).sqrt(), shift)


def gaussian(fields: Tensor, sigma: Tensor) -> Tensor:
    """Fields (N, H, W), each smoothed by a Gaussian of its own ``sigma`` (N,), in pixels; 0 leaves it as it is."""
    reach = WIDEST_KERNEL
    if not torch.onnx.is_in_onnx_export():
        reach = int(min(WIDEST_KERNEL, max(1, torch.ceil(4 * sigma.max()).item())))
    offset = torch.arange(-reach, reach + 1, device=fields.device, dtype=fields.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma.clamp(min=1e-3)[:, None]) ** 2)  # (N, taps)
    kernel = torch.where(kernel > FAINTEST, kernel, 0.0)  # products of smaller ones would be slow, subnormal numbers
    kernel = kernel / kernel.sum(1, keepdim=True)
    stack = fields[None].contiguous(memory_format=torch.channels_last)  # (1, N, H, W)
    stack = F.conv2d(stack, kernel[:, None, None, :], groups=len(fields), padding=(0, reach))
    return F.conv2d(stack, kernel[:, None, :, None], groups=len(fields), padding=(reach, 0))[0]


class Prepare(nn.Module):
    """Brings the source of each field to its canonical orientation and size."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        self.recipe = recipe

    def forward(
        self, fields: Tensor, pixel: float | Tensor, centred: tuple[bool, ...] = (False,)
    ) -> tuple[Tensor, list[Pose]]:
        """Clipped fields (N, H, W) to grey levels (frames, N, 1, size, size).

        Their pixels are ``pixel`` arcsec wide, one number or one for each field. There is one frame for each entry of
        ``centred``: False puts the middle of the field in the middle of the square, True the centroid of the emission.
        A field without emission in its middle gives a blank square.
        """
        radius = (self.recipe.radius / pixel * torch.ones(len(fields), device=fields.device)).float()
        pixel = pixel.float() if isinstance(pixel, Tensor) else pixel
        lit, clean = _clean(fields, radius)
        poses = [_find(lit, fields.shape, radius, one) for one in centred]
        return torch.stack([self.render(clean, pose, pixel) for pose in poses]), poses

    def scale(self, length: Tensor, pixel: float | Tensor) -> Tensor:
        """Width of a pixel of the square in pixels of the field, (N,), for lengths (N,) in pixels of the field."""
        recipe = self.recipe
        width = (2 * recipe.reach * length * pixel).clamp(recipe.narrowest, recipe.widest) / recipe.size
        return width.clamp(min=pixel / 2) / pixel

    def render(self, clean: Tensor, pose: Pose, pixel: float | Tensor) -> Tensor:
        """Rotate, mirror, shift, crop, scale and stretch: (N, H, W) to (N, 1, size, size)."""
        scale = self.scale(pose.length, pixel)
        size = self.recipe.size
        u = torch.arange(size, device=clean.device, dtype=clean.dtype) - (size - 1) / 2
        sides = torch.where(pose.lean >= 0, 1.0, -1.0) * scale[:, None]  # −1 where it is to be mirrored
        axis = torch.stack((pose.angle.cos(), pose.angle.sin()), -1)[:, None]  # (N, 1, 2), x and y
        normal = torch.stack((-pose.angle.sin(), pose.angle.cos()), -1)[:, None]
        along = pose.shift[:, None] + (u * sides[:, :1])[:, :, None] * axis  # (N, size, 2)
        across = (u * sides[:, 1:])[:, :, None] * normal
        half = clean.new_tensor([clean.shape[2] / 2, clean.shape[1] / 2])  # 1 is half of the field's width
        grid = (along / half)[:, None] + (across / half)[:, :, None]  # (N, size, size, 2)
        square = F.grid_sample(clean[:, None], grid, align_corners=False)
        sigma = torch.where(scale > 1, 0.42 * scale, 0.0)
        coarse = torch.arange(len(sigma)) if torch.onnx.is_in_onnx_export() else torch.nonzero(sigma)[:, 0]
        if len(coarse):
            smooth = gaussian(clean[coarse], sigma[coarse])
            square[coarse] = F.grid_sample(smooth[:, None], grid[coarse], align_corners=False)
        return stretch(square)


def stretch(square: Tensor) -> Tensor:
    """Divide by the peak, take the square root, and round to grey levels 0 … 255; a blank image stays blank."""
    peak = square.amax((-2, -1), keepdim=True)
    share = square / peak.clamp(min=torch.finfo(peak.dtype).tiny)
    return torch.round(255 * share.clamp(min=1e-20).sqrt())  # the square root of zero is slow


def prepare(
    images: NDArray[Any], pixel: float, recipe: Recipe, centred: tuple[bool, ...] = (False,)
) -> NDArray[np.uint8]:
    """Clipped fields (N, H, W) with pixels of ``pixel`` arcsec to grey levels (frames, N, size, size) uint8.

    The frames are those of :meth:`Prepare.forward`. Raises :class:`BadInput` if images are not a stack, or if one has
    no emission within ``RADIUS`` of its middle.

    >>> field = np.pad(np.arange(1.0, 10.0).reshape(3, 3), 20)
    >>> prepare(field[None], 1.8, Recipe()).shape
    (1, 1, 64, 64)
    """
    module = Prepare(recipe)
    squares = [module(part, pixel, centred)[0][:, :, 0].to(torch.uint8) for part in _parts(images)]
    found = torch.cat(squares, 1).numpy()
    if blank := int((~found[0].any((1, 2))).sum()):
        raise BadInput(f"{blank} of {len(images)} images have no emission in their middle: centre them on a source")
    return found


def lengths(images: NDArray[Any], pixel: float) -> NDArray[np.float64]:
    """Length of the source in each clipped field (N, H, W) about its middle (:class:`Pose`), in arcsec, (N,)."""
    found = []
    for part in _parts(images):
        radius = torch.full((len(part),), RADIUS / pixel)
        found.append(_find(_clean(part, radius)[0], part.shape, radius, centred=False).length)
    return pixel * torch.cat(found).double().numpy()


def _parts(images: NDArray[Any]) -> Iterator[Tensor]:
    """Batches of fields (N, H, W), uint8 or float32."""
    if images.ndim != 3:
        raise BadInput(f"images have shape (N, H, W); these have {images.shape}")
    whole = images if images.dtype == np.uint8 else np.asarray(images, dtype=np.float32)
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(whole)), BATCH)
    return iter(progress(parts, desc="preparing", unit="batch"))

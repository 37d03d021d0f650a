"""Training batches: pairs of a clean image and of another observation of the same galaxy.

The network should code the galaxy, not the observation. Each pair starts from one source, slightly stretched. The clean
image is its canonical orientation. The other one is prepared from a field that shows the same source turned, shifted,
farther away, under a larger beam, with more noise or a higher threshold (:func:`observe`). Both are mirrored at random,
in the same way. Batch ``n`` depends only on the seed and on ``n``, so a resumed run ends with the same weights as an
uninterrupted one.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rgz.data.sample import Sample
from rgz.transforms.canonical import Canonical, Pose, gaussian
from rgz.transforms.perturb import BEAM
from rgz.transforms.prepare import Recipe

__all__ = ["BOTH", "EXTENDED", "REPEATS", "batches", "resample"]

EXTENDED = 6.0  # arcsec, length; an unresolved source has about 4
REPEATS = 4  # times that a longer source occurs in an epoch; unresolved sources, which look alike, occur once
OTHER = 0.5  # share of pairs of two observations; the others are twice the clean image
TOGETHER = 4  # batches made at once
BOTH = (False, True)  # frames: about the middle of the field, and about the centroid of the emission

Pair = tuple[Tensor, Tensor]
"""A clean image and another observation of the same galaxy, (N, 1, H, W) grey levels each."""


def batches(sample: Sample, recipe: Recipe, size: int, seed: int, device: str = "cpu") -> Callable[[int], Pair]:
    """Batch ``n`` of endless shuffled epochs over a sample, as a function of ``n``.

    Half of the ``size`` pairs have the middle of the field in the middle of the image, the other half, of the same
    galaxies, the centroid of the emission.
    """
    fields = torch.from_numpy(np.asarray(sample.images, np.float32)).half().to(device)
    rms = np.nan_to_num(sample.table["rms"]) if "rms" in sample.table.colnames else np.zeros(len(sample))
    noise = torch.from_numpy(np.asarray(rms, np.float32)).to(device)
    canonical = Canonical(recipe)
    lengths = torch.cat([canonical(part.float(), sample.pixel)[1][0].length for part in torch.split(fields, 64)])
    resolved = (lengths * sample.pixel > EXTENDED).cpu().numpy()
    rows = np.repeat(np.arange(len(sample)), np.where(resolved, REPEATS, 1))
    count = size // len(BOTH) * TOGETHER

    @lru_cache(1)
    def several(block: int) -> Pair:
        epoch, start = divmod(block * count, len(rows))
        epochs = range(epoch, epoch + 1 + (start + count - 1) // len(rows))
        order = np.concatenate([np.random.default_rng((seed, 1 << 40, k)).permutation(rows) for k in epochs])
        drawn = torch.from_numpy(order[start : start + count]).to(device)
        with torch.random.fork_rng(devices=[device] if device != "cpu" else []):
            torch.manual_seed((seed << 32) + block)
            return _pairs(canonical, fields[drawn].float(), noise[drawn], sample.pixel)

    def batch(step: int) -> Pair:
        block, part = divmod(step, TOGETHER)
        clean, seen = (images.tensor_split(TOGETHER)[part] for images in several(block))
        return clean, seen

    return batch


def _pairs(canonical: Canonical, fields: Tensor, rms: Tensor, pixel: float) -> Pair:
    """Clean images and other observations (frames × N, 1, H, W) of N sources."""
    count, like = len(fields), fields[:, 0, 0]
    threshold = torch.where(fields > 0, fields, torch.inf).amin((1, 2))
    stretch = torch.exp(0.1 * torch.randn_like(like))[:, None] * torch.exp(
        0.06 * torch.randn_like(like)[:, None] * like.new_tensor([1.0, -1.0])
    )
    turn = _rotation(2 * math.pi * torch.rand_like(like))
    shape = turn @ (stretch[:, :, None] * turn.mT)  # (N, 2, 2): stretched along a random axis
    galaxy = _rotation(2 * math.pi * torch.rand_like(like)) @ shape
    offset = 2 * torch.rand(count, 2, device=fields.device) - 1
    clean = resample(fields, galaxy, offset)
    grain = gaussian(torch.randn_like(clean), torch.full_like(like, BEAM))
    amount = rms * torch.rand_like(like) / grain.std((1, 2))
    clean = clean + grain * amount[:, None, None] * (clean > 0)
    clean = torch.where(clean >= 0.6 * threshold[:, None, None], clean, 0.0)
    seen, turned = observe(fields, galaxy, offset, threshold, pixel)
    target, poses = canonical(clean, pixel, BOTH)  # (frames, N, 1, H, W)
    view, others = canonical(seen, pixel, BOTH)
    view = torch.stack([_matched(*one, turned) for one in zip(view, poses, others, strict=True)])
    usual = (view.amax((2, 3, 4), keepdim=True) > 0) & (torch.rand_like(view[:, :, :1, :1, :1]) < OTHER)
    view = torch.where(usual, view, target)
    pairs = torch.stack((target, view)).transpose(1, 2).flatten(1, 2)  # (2, N × frames, 1, H, W)
    flips = torch.rand(2, pairs.shape[1], 1, 1, 1, device=view.device) < 0.5
    pairs = torch.where(flips[0], pairs.flip(-1), pairs)
    pairs = torch.where(flips[1], pairs.flip(-2), pairs)
    return pairs[0], pairs[1]


def _matched(view: Tensor, own: Pose, other: Pose, turned: Tensor) -> Tensor:
    """Views (N, 1, H, W) of sources in another pose, mirrored as the clean images are.

    ``turned`` (N,) is the angle by which the other field is turned.
    """
    angle = other.angle + turned - own.angle
    same = angle.cos().sign()  # both axes of the image turn with it
    along, across = same * other.along * own.along < 0, same * other.across * own.across < 0
    view = torch.where(along[:, None, None, None], view.flip(-1), view)
    return torch.where(across[:, None, None, None], view.flip(-2), view)


def observe(
    fields: Tensor, galaxy: Tensor, offset: Tensor, threshold: Tensor, pixel: float
) -> tuple[Tensor, Tensor]:
    """Other observations (N, H, W) of the sources of fields that ``galaxy`` (N, 2, 2) and ``offset`` (N, 2) show, and
    the angles (N,) by which they are turned."""
    count, like = len(fields), fields[:, 0, 0]

    def some(share: float) -> Tensor:
        return torch.rand_like(like) < share

    distance = torch.where(some(0.2), 1 + 0.6 * torch.rand_like(like), 1.0)
    near = 2.0 / pixel * torch.randn(count, 2, device=fields.device)
    far = 20.0 / pixel * (2 * torch.rand(count, 2, device=fields.device) - 1)
    moved = torch.where(some(0.1)[:, None], far, near)
    turned = 2 * math.pi * torch.rand_like(like)
    shown = galaxy @ (_rotation(turned) * distance[:, None, None])
    seen = resample(fields, shown, offset + (galaxy @ moved[:, :, None])[:, :, 0])
    blur = torch.where(some(0.2), 2.5 * torch.rand_like(like), 0.0)
    seen = gaussian(seen, (BEAM**2 * (1 - 1 / distance**2) + blur**2).sqrt())
    rms = seen.amax((1, 2)) / torch.exp(math.log(8) + math.log(150 / 8) * torch.rand_like(like))
    rms = torch.where(some(0.4), rms, 0.0)
    grain = gaussian(torch.randn_like(seen), (BEAM**2 + blur**2).sqrt())
    seen = seen + grain * (rms / grain.std((1, 2)))[:, None, None]
    raised = threshold * torch.where(some(0.2), 1 + 2 * torch.rand_like(like), 0.6)
    limit = torch.maximum(3 * rms, raised)[:, None, None]
    return torch.where(seen >= limit, seen, 0.0), turned


def resample(fields: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Fields (N, H, W) with pixel u of the result, from the middle, at ``matrix`` u + ``offset`` of the field, in
    pixels; cubic interpolation."""
    height, width = fields.shape[1:]
    half = fields.new_tensor([width / 2, height / 2])
    theta = torch.cat((matrix * half / half[:, None], (offset / half)[:, :, None]), -1)  # (N, 2, 3)
    grid = F.affine_grid(theta, [len(fields), 1, height, width], align_corners=False)
    return F.grid_sample(fields[:, None], grid, mode="bicubic", align_corners=False)[:, 0]


def _rotation(angle: Tensor) -> Tensor:
    """Rotation matrices (N, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)

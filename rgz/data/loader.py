"""Training batches: pairs of a clean image and of another observation of the same galaxy.

The network should code the galaxy, not the observation. Each pair starts from one source, slightly stretched. The clean
image is its canonical orientation. The other image is prepared from a field that shows the same source rotated,
shifted, farther away, with a larger beam, more noise or a higher threshold (:func:`rgz.transforms.perturb.observe`).
Some pairs show the source as a survey with a beam as large as the galaxy does, such as NVSS. Both are mirrored at
random, in the same way. Batch ``n`` depends only on the seed and on ``n``, so a resumed run ends with the same weights
as an uninterrupted one.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from rgz.data.sample import Sample
from rgz.transforms import perturb
from rgz.transforms.prepare import FRAMES, Pose, Prepare, Recipe, gaussian

EXTENDED = 6.0  # arcsec, length; an unresolved source has about 4
REPEATS = 4  # times that a longer source occurs in an epoch; unresolved sources, which look alike, occur once
OTHER = 0.5  # share of pairs of two observations; the others are twice the clean image
SURVEY = 0.15  # share of pairs with the large beam of another survey, relative to the size of the galaxy
TOGETHER = 4  # batches made at once

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
    prepared = Prepare(recipe)
    lengths = torch.cat([prepared(part.float(), sample.pixel)[1][0].length for part in torch.split(fields, 64)])
    resolved = (lengths * sample.pixel > EXTENDED).cpu().numpy()
    rows = np.repeat(np.arange(len(sample)), np.where(resolved, REPEATS, 1))
    count = size // len(FRAMES) * TOGETHER

    @lru_cache(1)
    def several(block: int) -> Pair:
        epoch, start = divmod(block * count, len(rows))
        epochs = range(epoch, epoch + 1 + (start + count - 1) // len(rows))
        order = np.concatenate([np.random.default_rng((seed, 1 << 40, k)).permutation(rows) for k in epochs])
        drawn = torch.from_numpy(order[start : start + count]).to(device)
        with torch.random.fork_rng(devices=[device] if device != "cpu" else []):
            torch.manual_seed((seed << 32) + block)
            return _pairs(prepared, fields[drawn].float(), noise[drawn], sample.pixel)

    def batch(step: int) -> Pair:
        clean, seen = several(step // TOGETHER)
        return clean.tensor_split(TOGETHER)[step % TOGETHER], seen.tensor_split(TOGETHER)[step % TOGETHER]

    return batch


def _drawn(fields: Tensor, rms: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Clean fields (N, H, W) of slightly stretched sources, and how they were drawn (:func:`perturb.observe`)."""
    count, like = len(fields), fields[:, 0, 0]
    size, shape = torch.exp(0.1 * torch.randn_like(like)), torch.exp(0.06 * torch.randn_like(like))
    axis = perturb.rotation(2 * math.pi * torch.rand_like(like))
    widths = torch.stack((size * shape, size / shape), 1)[:, :, None]
    galaxy = perturb.rotation(2 * math.pi * torch.rand_like(like)) @ axis @ (widths * axis.mT)  # (N, 2, 2)
    offset = 2 * torch.rand(count, 2, device=fields.device) - 1
    other = torch.rand_like(like) < SURVEY
    farther = torch.where(other, 5 ** torch.rand_like(like), 1.0)
    galaxy = galaxy * farther[:, None, None]
    beam = torch.where(other, 2.6 + 0.6 * torch.rand_like(like), 0.0)  # σ, pixels
    smooth = gaussian(fields, torch.where(other, 0.42 * farther, 0.0))  # else small sources fall between coarse pixels
    clean = gaussian(perturb.resample(smooth, galaxy, offset), beam)
    middle = slice(fields.shape[1] // 2 - 6, fields.shape[1] // 2 + 6)
    contrast = torch.exp(math.log(6) + math.log(20) * torch.rand_like(like))  # peak over noise, 6 to 120
    depth = clean[:, middle, middle].amax((1, 2)) / contrast
    faintest = torch.where(other, 3 * depth, perturb.LIT * perturb.threshold(fields)[:, 0, 0])[:, None, None]
    noise = torch.where(other, depth, rms * torch.rand_like(like))
    noisy = perturb.add_noise(clean, noise, torch.where(other, beam, perturb.BEAM))
    clean = torch.where((clean > 0) & (noisy >= faintest), noisy, 0.0)
    return clean, (galaxy, offset, beam, faintest)


def _pairs(prepared: Prepare, fields: Tensor, rms: Tensor, pixel: float) -> Pair:
    """Clean images and other observations (frames × N, 1, H, W) of N sources."""
    clean, drawn = _drawn(fields, rms)
    seen, turned = perturb.observe(fields, pixel, *drawn)
    target, poses = prepared(clean, pixel, FRAMES)  # (frames, N, 1, H, W)
    view, others = prepared(seen, pixel, FRAMES)
    view = torch.stack([_matched(*one, turned) for one in zip(view, poses, others, strict=True)])
    usual = (view.amax((2, 3, 4), keepdim=True) > 0) & (torch.rand_like(view[:, :, :1, :1, :1]) < OTHER)
    view = torch.where(usual, view, target)
    pairs = torch.stack((target, view)).transpose(1, 2).flatten(1, 2)  # (2, N × frames, 1, H, W)
    flips = torch.rand(2, pairs.shape[1], 1, 1, 1, device=view.device) < 0.5
    pairs = torch.where(flips[0], pairs.flip(-1), pairs)
    pairs = torch.where(flips[1], pairs.flip(-2), pairs)
    return pairs[0], pairs[1]


def _matched(view: Tensor, own: Pose, other: Pose, turned: Tensor) -> Tensor:
    """Views (N, 1, H, W) in another pose, of fields that are ``turned`` (N,), mirrored as the clean images are."""
    angle = other.angle + turned - own.angle
    same = angle.cos().sign()  # both axes of the image turn with it
    mirrored = same[:, None] * torch.where(own.lean >= 0, 1, -1) * torch.where(other.lean >= 0, 1, -1) < 0
    along, across = mirrored.T[:, :, None, None, None]
    view = torch.where(along, view.flip(-1), view)
    return torch.where(across, view.flip(-2), view)

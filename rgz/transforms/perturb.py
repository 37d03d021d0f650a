"""Other observations of a galaxy: changes of a field that do not change the galaxy in it.

A rotation, a small shift, a larger distance, a larger beam, more noise or a higher threshold do not change the class of
a galaxy. The network is trained to tell what stays the same (:mod:`rgz.data.loader`), and the search ignores what
changes (``studies/encode.py``). Fields are clipped, (N, H, W), zero where there is no emission.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from rgz.transforms.prepare import gaussian

BEAM = 1.27  # pixels, σ: 5.4″ full width at half maximum, with FIRST's pixels
NEAR, FAR = 2.0, 20.0  # arcsec: usual error of a position (σ), and the largest
LIT = 0.6  # of the threshold: a pixel that interpolation leaves above it stays


def threshold(fields: Tensor) -> Tensor:
    """Brightness of the faintest nonzero pixel of each field, (N, 1, 1)."""
    return torch.where(fields > 0, fields, torch.inf).amin((1, 2), keepdim=True)


def observe(
    fields: Tensor, pixel: float, galaxy: Tensor, offset: Tensor, beam: Tensor, faintest: Tensor
) -> tuple[Tensor, Tensor]:
    """Other observations (N, H, W) of the sources that fields with pixels of ``pixel`` arcsec show.

    The galaxy itself is drawn as :func:`resample` does with ``galaxy`` (N, 2, 2) and ``offset`` (N, 2), smoothed by
    ``beam`` (N,), pixels (σ), and with a threshold ``faintest`` (N, 1, 1). Also returns the angles (N,) by which the
    observations are turned.
    """
    count, like = len(fields), fields[:, 0, 0]

    def some(share: float) -> Tensor:
        return torch.rand_like(like) < share

    distance = torch.where(some(0.2), 1 + 0.6 * torch.rand_like(like), 1.0)
    near = NEAR / pixel * torch.randn(count, 2, device=fields.device)
    far = FAR / pixel * (2 * torch.rand(count, 2, device=fields.device) - 1)
    moved = torch.where(some(0.1)[:, None], far, near)
    turned = 2 * math.pi * torch.rand_like(like)
    shown = galaxy @ (rotation(turned) * distance[:, None, None])
    seen = resample(fields, shown, offset + (galaxy @ moved[:, :, None])[:, :, 0])
    blur = torch.hypot(beam, torch.where(some(0.2), 2.5 * torch.rand_like(like), 0.0))
    seen = gaussian(seen, (BEAM**2 * (1 - 1 / distance**2) + blur**2).sqrt())
    rms = seen.amax((1, 2)) / torch.exp(math.log(8) + math.log(150 / 8) * torch.rand_like(like))
    rms = torch.where(some(0.4), rms, 0.0)
    seen = add_noise(seen, rms, (BEAM**2 + blur**2).sqrt())
    raised = faintest * torch.where(some(0.2), 2 + 3 * torch.rand_like(like), 1.0)[:, None, None]
    limit = torch.maximum(3 * rms[:, None, None], raised)
    return torch.where(seen >= limit, seen, 0.0), turned


def add_noise(fields: Tensor, rms: Tensor, beam: Tensor) -> Tensor:
    """Fields (N, H, W) with noise of an rms (N,), in their units, correlated by a beam (N,), pixels (σ)."""
    grain = gaussian(torch.randn_like(fields), beam)
    return fields + grain * (rms / grain.std((1, 2)))[:, None, None]


def resample(fields: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Fields (N, H, W) with pixel u of the result, from the middle, at ``matrix`` u + ``offset`` of the field, in
    pixels; cubic interpolation."""
    height, width = fields.shape[1:]
    half = fields.new_tensor([width / 2, height / 2])
    theta = torch.cat((matrix * half / half[:, None], (offset / half)[:, :, None]), -1)  # (N, 2, 3)
    grid = F.affine_grid(theta, [len(fields), 1, height, width], align_corners=False)
    return F.grid_sample(fields[:, None], grid, mode="bicubic", align_corners=False)[:, 0]


def rotation(angle: Tensor) -> Tensor:
    """Rotation matrices (N, 2, 2)."""
    cos, sin = angle.cos(), angle.sin()
    return torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2)

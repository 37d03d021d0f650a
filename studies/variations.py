"""Variations of real galaxies, and interpolations between two, for the chapter on generation."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rgz.errors import BadInput
from rgz.features import embed
from rgz.models.vdvae import VDVAE
from rgz.tasks.generate import BATCH, full_peak
from studies import latent


def resample_fine_latents(
    model: VDVAE, pixels: NDArray[Any], blocks: int, times: int = 1, seed: int = 0
) -> NDArray[np.uint8]:
    """Variations (times, N, H, W) of prepared images (N, H, W): latents after the first ``blocks`` blocks are
    resampled. Raises :class:`rgz.errors.BadInput` if the model has fewer blocks.
    """
    if not 0 <= blocks <= len(model.levels):
        raise BadInput(f"this model has {len(model.levels)} stochastic blocks; {blocks} of them cannot be kept")
    means, _ = latent.full_codes(model, pixels)
    means[:, latent.blocks_of(model, np.arange(model.dimensions)) >= blocks] = np.nan
    parts = torch.split(torch.from_numpy(means), BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        varied = [torch.cat([model.decode(part, 1.0) for part in parts]) for _ in range(times)]
    return np.stack([full_peak(grey[:, 0].numpy()) for grey in varied])


def interpolate(model: VDVAE, first: NDArray[Any], second: NDArray[Any], steps: int = 9) -> NDArray[np.uint8]:
    """Images (steps, H, W) from one prepared image (H, W) to another, on the straight line between their codes."""
    ends, _ = latent.full_codes(model, np.stack([first, second]))
    share = np.linspace(0, 1, steps)[:, None]
    return full_peak(embed.decode(model, (1 - share) * ends[0] + share * ends[1], np.arange(model.dimensions)))

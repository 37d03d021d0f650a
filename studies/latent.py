"""Latents of the whole network: their means and rates, their rank, and the blocks that they are in."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rgz.features.embed import BATCH
from rgz.models.vdvae import VDVAE
from rgz.progress import progress


def full_codes(model: Any, pixels: NDArray[Any], **options: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Posterior means and rates (nats) of all latents, each (N, dimensions), of prepared images (N, H, W).

    ``options`` are passed to the model's ``encode``.
    """
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(pixels[:, None])), BATCH)
    encoded = [model.encode(part, **options) for part in progress(parts, desc="encoding", unit="batch")]
    means, rates = (torch.cat(column).numpy() for column in zip(*encoded, strict=True))
    return means, rates


def rank(rates: NDArray[Any]) -> NDArray[np.intp]:
    """Latents from the highest to the lowest mean rate over images, (D,), of rates (N, D)."""
    return np.argsort(-rates.mean(axis=0), kind="stable")


def blocks_of(model: VDVAE, latents: NDArray[Any]) -> NDArray[np.intp]:
    """Index, from 0, of the stochastic block of each of some latents (D,); (D,)."""
    sizes = [model.config.channels * r * r for r in model.levels]
    return np.asarray(np.repeat(np.arange(len(sizes)), sizes)[latents])

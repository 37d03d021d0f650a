r"""New galaxies, drawn from the prior of the network.

The network itself generates: the decoder runs top-down with latents sampled from the priors, coarse to fine,
:math:`z_i \sim p(z_i \mid z_{<i})`. A *temperature* below one narrows the noise, and a *truncation* removes its tails:
samples become more typical and less diverse.

Mean images are smoother than real ones. Grey levels are therefore sampled from the pixel likelihood, in which
neighbouring pixels are correlated. As in prepared images, the peak of a generated image has grey level 255. Blank
images are replaced by new samples.
"""

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rgz import artifacts
from rgz.errors import BadInput
from rgz.models import checkpoint
from rgz.models.vdvae import VDVAE
from rgz.progress import progress

BATCH = 64
BLANK = 10  # maximum number of samples per galaxy


def full_peak(grey: NDArray[Any]) -> NDArray[np.uint8]:
    """Images (N, H, W) scaled to a peak of 255, as by :func:`rgz.transforms.prepare.stretch`; blank ones stay blank."""
    peak = np.asarray(grey, dtype=float).max((1, 2), keepdims=True)
    share = np.divide(grey, peak, out=np.zeros(grey.shape), where=peak > 0)
    return np.asarray(np.rint(255 * share), dtype=np.uint8)


def generate(
    count: int,
    temperature: float = 1.0,
    truncation: float = math.inf,
    seed: int = 0,
    model: VDVAE | None = None,
) -> NDArray[np.uint8]:
    """New galaxies, (count, size, size): prepared images in canonical orientation, square root of brightness.

    The noise is multiplied by ``temperature``, and truncated at ``truncation`` standard deviations. The same seed gives
    the same galaxies. They are those of ``model``, by default of the trained network. Raises
    :class:`rgz.errors.BadInput` if the count, the temperature or the truncation is not positive.
    """
    if count < 1 or not (0 < temperature < math.inf) or not truncation > 0:
        raise BadInput(
            f"count, temperature and truncation must be positive; they are {count}, {temperature}, {truncation}"
        )
    if model is None:
        model, _, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    kept, drawn = np.zeros((0, model.config.size, model.config.size), np.float32), 0
    bar = progress(total=count, desc="drawing galaxies", unit="galaxy")
    with torch.random.fork_rng(devices=[]), bar:
        torch.manual_seed(seed)
        while len(kept) < count:
            grey = model.sample(BATCH, temperature, truncation)[:, 0].numpy()
            kept, drawn = np.concatenate([kept, grey[grey.any((1, 2))]]), drawn + BATCH
            if len(kept) < count and drawn >= BLANK * max(BATCH, len(kept)):
                raise BadInput("this model generates almost only blank images: train it longer")
            bar.update(min(len(kept), count) - bar.n)
    return full_peak(kept[:count])

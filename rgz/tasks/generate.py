r"""New galaxies, variations of real ones, and interpolations between two.

Generation runs the decoder top-down with latents sampled from the priors, :math:`z_i \sim p(z_i \mid z_{<i})`. If the
rate had a small weight in training, codes of real images deviate from these priors. A masked autoregressive flow
(:mod:`rgz.models.flow`) then models the *aggregate posterior* :math:`q(z) = \mathbb{E}_x\, q(z \mid x)`, which is the
prior with the lowest rate (Tomczak & Welling 2018, arXiv:1705.07120). Codes sampled from the flow are decoded. A
*temperature* below one narrows the noise, and a *truncation* removes its tails: samples become more typical and less
diverse.

Mean images are smoother than real ones. Grey levels are therefore sampled from the pixel likelihood, with noise that is
correlated between neighbouring pixels, as in an image with a beam. As in prepared images, the peak of a generated image
has grey level 255. Blank images are replaced by new samples.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rgz import artifacts
from rgz.data import loader
from rgz.data.sample import Sample
from rgz.errors import BadInput
from rgz.features import embed
from rgz.models import checkpoint
from rgz.models.checkpoint import Model
from rgz.models.flow import MEMBERS, Config, FlowEnsemble, first_fold, fit_flow, load, whitening
from rgz.models.likelihood import mixture_sample
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.transforms import prepare

BATCH = 128
IMAGES = 32768  # augmented images whose codes the prior is fitted to
PRIOR = Config(
    kept=128, layers=5, hidden=256, blocks=1, dropout=0.0, decay=1e-4, learning_rate=3e-3, batch=512, epochs=40
)
MOST = 4096  # largest number of latents whose covariance fits in memory
BLANK = 10  # maximum number of samples per galaxy
NOISE_SIGMA = 0.9  # pixels; an ablation found reconstructions with it hardest to tell from real images


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
    flow: FlowEnsemble | None = None,
) -> NDArray[np.uint8]:
    """New galaxies, (count, 32, 32): prepared images in canonical orientation, square root of brightness.

    Parameters
    ----------
    temperature, truncation
        Factor of the noise, and the number of standard deviations at which it is truncated.
    seed
        The same seed gives the same galaxies.
    model, flow
        A network, and a flow fitted to its codes by :func:`fit_prior`. Without a flow, latents are sampled from the
        network's own priors. By default the trained network and its flow.

    Raises
    ------
    BadInput
        The count, the temperature or the truncation is not positive.
    """
    if count < 1 or not (0 < temperature < math.inf) or not truncation > 0:
        raise BadInput(
            f"count, temperature and truncation must be positive; they are {count}, {temperature}, {truncation}"
        )
    if model is None:
        weights = artifacts.artifact("vdvae.safetensors")
        model, _, _ = checkpoint.load(weights)
        flow = flow or load_prior(artifacts.artifact("prior.safetensors"), weights)
    kept, drawn = np.zeros((0, model.config.size, model.config.size), np.uint8), 0
    bar = progress(total=count, desc="drawing galaxies", unit="galaxy")
    with torch.random.fork_rng(devices=[]), bar:
        torch.manual_seed(seed)
        while len(kept) < count:
            if flow is None:
                grey = model.sample(BATCH, temperature, truncation, NOISE_SIGMA)[:, 0].numpy()
            else:
                grey = decode_with_noise(model, flow.sample(BATCH, temperature, truncation))
            kept, drawn = np.concatenate([kept, grey[grey.any((1, 2))]]), drawn + BATCH
            if len(kept) < count and drawn >= BLANK * max(BATCH, len(kept)):
                raise BadInput("this model generates almost only blank images: train it longer")
            bar.update(min(len(kept), count) - bar.n)
    return full_peak(kept[:count])


@torch.no_grad()
def decode_with_noise(model: Model, codes: NDArray[Any], sigma: float = NOISE_SIGMA) -> NDArray[np.uint8]:
    """Images (N, H, W) of full codes (N, dimensions); grey levels are sampled with noise smoothed by ``sigma``
    pixels."""
    parts = torch.split(torch.from_numpy(np.asarray(codes, dtype=np.float32)), BATCH)
    return torch.cat([mixture_sample(model.mixture(part), sigma) for part in parts])[:, 0].numpy()


def fit_prior(
    model: VDVAE, recipe: prepare.Recipe, sources: Sample, groups: NDArray[Any], config: Config = PRIOR
) -> FlowEnsemble:
    """A flow fitted to full codes, sampled from the posteriors of augmented training images.

    A fifth of the N sources is held out for early stopping; sources of one group (N,) stay together.

    Raises
    ------
    BadInput
        The model has thousands of latents, or there are fewer than five groups.
    """
    if model.dimensions > MOST:
        raise BadInput(f"{model.dimensions} latents are too many for a flow: sample from the network's own prior")
    if len(set(groups)) < MEMBERS:
        raise BadInput(
            f"a fifth of the sources is held out, by square degrees; these lie in {len(set(groups))} of them"
        )
    fitted, stopping = first_fold(groups)
    drawn = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for rows, count in ((fitted, IMAGES), (stopping, IMAGES // 8)):
            grey = loader.batches(sources[rows], recipe, count, 0)(0)[:, 0].numpy()
            drawn.append(embed.full_codes(model, grey, drawn=True)[0].astype(float))
    centre, matrix = whitening(drawn[0], config.kept)
    values, held_out = ((codes - centre) @ matrix for codes in drawn)
    flow, _ = fit_flow(values, held_out, config)
    return FlowEnsemble(config, centre, matrix, (flow,), np.zeros(0))


def load_prior(path: Path, weights: Path) -> FlowEnsemble:
    """The flow of a file written by ``rgz fit prior``.

    Raises
    ------
    BadInput
        It is damaged, or was fitted to the codes of other weights.
    """
    flow, about = load(path)
    if about.get("weights_sha256") != artifacts.sha256(weights):
        raise BadInput(
            f"{path} was fitted to the codes of other weights than {weights}: fit it again with rgz fit prior --weights"
        )
    if len(flow.flows) > 1:
        raise BadInput(f"{path} is a density of codes, from which galaxies cannot be drawn: use that of rgz fit prior")
    return flow


def resample_fine_latents(
    model: VDVAE, pixels: NDArray[Any], blocks: int, times: int = 1, seed: int = 0
) -> NDArray[np.uint8]:
    """Variations (times, N, H, W) of prepared images (N, H, W): latents after the first ``blocks`` blocks are
    resampled.

    Raises
    ------
    BadInput
        The model has fewer blocks.
    """
    if not 0 <= blocks <= len(model.levels):
        raise BadInput(f"this model has {len(model.levels)} stochastic blocks; {blocks} of them cannot be kept")
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(pixels[:, None])), BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        varied = [torch.cat([model.vary(part, blocks) for part in parts])[:, 0].numpy() for _ in range(times)]
    return np.stack([full_peak(grey) for grey in varied])


def interpolate(model: Model, first: NDArray[Any], second: NDArray[Any], steps: int = 9) -> NDArray[np.uint8]:
    """Images (steps, H, W) from one prepared image (H, W) to another, on the straight line between their codes."""
    ends, _ = embed.full_codes(model, np.stack([first, second]))
    share = np.linspace(0, 1, steps)[:, None]
    return full_peak(embed.decode(model, (1 - share) * ends[0] + share * ends[1], np.arange(model.dimensions)))

r"""A very deep variational autoencoder for single-channel images (Child 2021, arXiv:2011.10650).

An encoder goes down through the resolutions and leaves its activations at each. A decoder comes up again through
many small stochastic blocks. Block :math:`i` looks at what has been drawn so far, :math:`z_{<i}`, and holds a prior
:math:`p(z_i \mid z_{<i})` and a posterior :math:`q(z_i \mid x, z_{<i})`, both diagonal Gaussians. The loss is the
negative evidence lower bound in bits per dimension,

.. math:: \mathcal{L} = \frac{1}{D \ln 2}\Bigl[-\ln p(x \mid z)
          + \beta \sum_i \mathrm{KL}\bigl(q(z_i \mid x, z_{<i}) \,\|\, p(z_i \mid z_{<i})\bigr)\Bigr],

distortion plus rate, for an image of :math:`D` pixels; a rate that weighs less than one buys codes that say more (a β-VAE,
Higgins et al. 2017). Coarse blocks can say what kind of galaxy it is, fine ones where
each knot sits. Three walks through the decoder share one code path, ``VDVAE._descend``: drawing from the
posterior (training), from the prior (generation), and from a code with the rest filled in by the prior (decoding).
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgz.models.likelihood import gaussian_kl, mixture_log_prob, mixture_mean, mixture_sample, to_unit, truncated_noise

__all__ = ["PRESETS", "VDVAE", "Config"]


@dataclass(frozen=True)
class Config:
    """Shape of a VDVAE.

    Parameters
    ----------
    encoder, decoder
        ``(resolution, blocks)`` pairs, finest first for the encoder, coarsest first for the decoder. Both span the same
        resolutions, each half of the finer one or a whole fraction of it.
    latents
        Resolutions at which decoder blocks are stochastic; elsewhere they are plain residual blocks.
    width
        Channels of the residual stream.
    bottleneck
        Channels inside a block, as a fraction of ``width``.
    channels
        Latent channels of a stochastic block.
    mixtures
        Logistic components of the pixel likelihood.
    patch
        Pixels along a side that the first convolution folds into one position and the last unfolds again. With 1, as
        published, the finest blocks work on every pixel; with 2 they cost a quarter.
    beta
        What a nat of rate weighs in the training loss. Below one, images are drawn closer to what they were, and codes stray
        further from the prior.

    Examples
    --------
    >>> config = Config(encoder=((8, 1), (1, 1)), decoder=((1, 1), (8, 1)), latents=(1, 8), width=8, channels=2)
    >>> config.size, VDVAE(config).dimensions
    (8, 130)
    """

    encoder: tuple[tuple[int, int], ...]
    decoder: tuple[tuple[int, int], ...]
    latents: tuple[int, ...]
    width: int
    channels: int = 16
    bottleneck: float = 0.25
    mixtures: int = 5
    patch: int = 1
    beta: float = 1.0

    def __post_init__(self):
        down, up = [r for r, _ in self.encoder], [r for r, _ in self.decoder]
        if down != up[::-1] or any(fine % coarse or fine <= coarse for fine, coarse in pairwise(down)):
            raise ValueError(
                f"encoder resolutions {down} must fall by whole factors and decoder's {up} rise through the same"
            )
        if not self.latents or not set(self.latents) <= set(up):
            raise ValueError(f"latents at {self.latents} must be some of the decoder's resolutions {up}")

    @property
    def size(self) -> int:
        """Width of the images, in pixels."""
        return self.encoder[0][0] * self.patch


PRESETS = {
    "tiny": Config(
        encoder=((32, 1), (8, 1), (1, 1)),
        decoder=((1, 1), (8, 2), (32, 1)),
        latents=(1, 8),
        width=16,
        channels=4,
        mixtures=2,
    ),
    "small": Config(
        encoder=((16, 4), (8, 6), (4, 4), (1, 2)),
        decoder=((1, 2), (4, 8), (8, 8), (16, 4)),
        latents=(4,),
        width=192,
        channels=1,
        bottleneck=1 / 3,
        patch=2,
        beta=0.1,
    ),
    "base64": Config(
        encoder=((32, 6), (16, 8), (8, 8), (4, 6), (1, 3)),
        decoder=((1, 2), (4, 4), (8, 8), (16, 16), (32, 6)),
        latents=(1, 4, 8, 16),
        width=384,
        patch=2,
    ),
    "imagenet64": Config(
        encoder=((64, 12), (32, 21), (16, 10), (8, 9), (4, 8), (1, 5)),
        decoder=((1, 2), (4, 4), (8, 8), (16, 16), (32, 32), (64, 13)),
        latents=(1, 4, 8, 16, 32, 64),
        width=512,
        mixtures=10,
    ),
}
"""``tiny`` is for tests, ``small`` trains on a processor and has 128 latents in all, ``base64`` trains on one GPU with images of
64 pixels; ``imagenet64`` has the depth and width of the model published for ImageNet-64, 75 stochastic blocks."""


class Bottleneck(nn.Module):
    """Four convolutions (1×1, 3×3, 3×3, 1×1), each behind a GELU; the 3×3 become 1×1 below three pixels."""

    def __init__(self, width_in: int, width_middle: int, width_out: int, resolution: int, residual: bool = False):
        super().__init__()
        kernel = 3 if resolution > 2 else 1
        self.residual = residual
        self.c1 = nn.Conv2d(width_in, width_middle, 1)
        self.c2 = nn.Conv2d(width_middle, width_middle, kernel, padding=kernel // 2)
        self.c3 = nn.Conv2d(width_middle, width_middle, kernel, padding=kernel // 2)
        self.c4 = nn.Conv2d(width_middle, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, width_in, H, W) to (N, width_out, H, W)."""
        h = x
        for convolution in (self.c1, self.c2, self.c3, self.c4):
            h = convolution(F.gelu(h))
        return x + h if self.residual else h


class Stochastic(nn.Module):
    """One decoder block: prior, posterior, a projection of what was drawn, and a residual block."""

    def __init__(self, config: Config, resolution: int):
        super().__init__()
        width, middle, z = config.width, int(config.width * config.bottleneck), config.channels
        self.posterior = Bottleneck(2 * width, middle, 2 * z, resolution)
        self.prior = Bottleneck(width, middle, 2 * z + width, resolution)
        self.project = nn.Conv2d(z, width, 1)
        self.residual = Bottleneck(width, middle, width, resolution, residual=True)
        nn.init.zeros_(self.prior.c4.weight)
        nn.init.zeros_(self.prior.c4.bias)


def _rates(record) -> Tensor:
    """Rate of each block, (N, blocks) in nats, from what ``VDVAE._posterior`` recorded."""
    return torch.stack([gaussian_kl(*parameters).sum((1, 2, 3)) for _, parameters in record], dim=1)


class VDVAE(nn.Module):
    """The autoencoder. Images are (N, 1, H, W) grey levels 0 … 255.

    Attributes
    ----------
    levels
        Resolution of each stochastic block, coarsest first.
    dimensions
        Latent dimensions of all blocks together, the length of a full code.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        width, middle = config.width, int(config.width * config.bottleneck)
        self.stem = nn.Conv2d(1, width, config.patch + 2, stride=config.patch, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(Bottleneck(width, middle, width, r, residual=True) for _ in range(blocks))
            for r, blocks in config.encoder
        )
        self.decoder = nn.ModuleList(
            nn.ModuleList(
                Stochastic(config, r) if r in config.latents else Bottleneck(width, middle, width, r, residual=True)
                for _ in range(blocks)
            )
            for r, blocks in config.decoder
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(1, width, r, r)) for r, _ in config.decoder)
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.head = nn.Conv2d(width, 3 * config.mixtures * config.patch**2, 1)
        self.levels = [r for r, blocks in config.decoder if r in config.latents for _ in range(blocks)]
        self.dimensions = sum(config.channels * r * r for r in self.levels)
        self._scale_for_depth()

    def _scale_for_depth(self):
        """Shrink each residual branch's last convolution by 1/√(blocks), so that depth does not add up to noise."""
        for part in (self.encoder, self.decoder):
            blocks = [block for level in part for block in level]
            for block in blocks:
                last = block.residual.c4 if isinstance(block, Stochastic) else block.c4
                last.weight.data /= math.sqrt(len(blocks))
                if isinstance(block, Stochastic):
                    block.project.weight.data /= math.sqrt(len(blocks))

    def _ascend(self, images: Tensor) -> dict[int, Tensor]:
        """Encoder activations (N, width, r, r) at each resolution r."""
        if images.shape[1:] != (1, self.config.size, self.config.size):
            raise ValueError(
                f"images must be (N, 1, {self.config.size}, {self.config.size}), these are {tuple(images.shape)}: "
                "prepare them at the size of the model"
            )
        h = self.stem(to_unit(images).contiguous(memory_format=torch.channels_last))
        activations = {}
        for (resolution, _), blocks in zip(self.config.encoder, self.encoder, strict=True):
            if h.shape[-1] != resolution:
                h = F.avg_pool2d(h, h.shape[-1] // resolution)
            for block in blocks:
                h = block(h)
            activations[resolution] = h
        return activations

    def _descend(self, count: int, draw, pixels: bool = True) -> Tensor | None:
        """Walk up the decoder; ``draw(block, h, prior_mean, prior_log_std)`` returns each block's latents.

        Returns the parameters of the pixel mixture, (N, 3K, H, W); or, without ``pixels``, nothing, once all latents are drawn.
        """
        h, drawn = None, 0
        for (resolution, _), bias, blocks in zip(self.config.decoder, self.biases, self.decoder, strict=True):
            if h is None:
                h = bias.expand(count, -1, -1, -1)
            else:  # in h's own precision: one float32 term would lift the whole residual stream out of bfloat16
                h = F.interpolate(h, size=(resolution, resolution)) + bias.to(h.dtype)
                h = h.contiguous(memory_format=torch.channels_last)  # what grows out of one pixel comes otherwise
            for block in blocks:
                if not isinstance(block, Stochastic):
                    h = block(h)
                    continue
                z = self.config.channels
                mean, log_std, further = block.prior(h).split((z, z, self.config.width), dim=1)
                h = h.to(further.dtype)
                latents = draw(block, h, mean.float(), log_std.float())  # (N, channels, r, r)
                drawn += 1
                if drawn == len(self.levels) and not pixels:
                    return None
                h = block.residual(h + further + block.project(latents))
        parameters = self.head(h * self.gain.to(h.dtype) + self.shift.to(h.dtype))
        return F.pixel_shuffle(parameters, self.config.patch)

    def _posterior(
        self, images: Tensor, means: bool, blocks: int | None = None, rest: float = 0.0, pixels: bool = True
    ):
        """Posterior walk: mixture parameters, or None without ``pixels``; per block the latents, and posterior mean, log-std,
        prior mean, log-std.

        Only the first ``blocks`` blocks, where given, follow the posterior; the others are drawn from their priors, with
        their standard deviations times ``rest``.
        """
        activations, record = self._ascend(images), []

        def draw(block, h, prior_mean, prior_log_std):
            if len(record) == blocks:
                return prior_mean + rest * prior_log_std.exp() * torch.randn_like(prior_mean) if rest else prior_mean
            joint = torch.cat((h, activations[h.shape[-1]]), dim=1)
            mean, log_std = block.posterior(joint).float().chunk(2, dim=1)
            latents = mean if means else mean + log_std.exp() * torch.randn_like(mean)
            record.append((latents, (mean, log_std, prior_mean, prior_log_std)))
            return latents

        return self._descend(len(images), draw, pixels), record

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Loss of a batch, for training.

        Parameters
        ----------
        images
            Grey levels, (N, 1, H, W).

        Returns
        -------
        dict
            ``loss``, a scalar, the bits per dimension with the rate weighed by ``beta``; ``distortion`` (N,) and ``rate``
            (N, blocks), in nats.
        """
        parameters, record = self._posterior(images, means=False)
        distortion = -mixture_log_prob(images, parameters).sum((1, 2))
        rate = _rates(record)
        bits = (distortion + self.config.beta * rate.sum(1)) / (images[0].numel() * math.log(2))
        return {"loss": bits.mean(), "distortion": distortion, "rate": rate}

    @torch.no_grad()
    def encode(self, images: Tensor, drawn: bool = False) -> tuple[Tensor, Tensor]:
        """Full codes of images: posterior means, each block given the means of those before it.

        With ``drawn``, latents drawn from the posterior instead, each block given those drawn before it.

        Returns
        -------
        latents, rates
            Each (N, dimensions): posterior mean or draw, and KL in nats, of every latent, coarsest block first, each block
            flattened as (channel, row, column).
        """
        _, record = self._posterior(images, means=not drawn, pixels=False)  # what the pixels would cost is saved
        return (
            torch.cat([latents.flatten(1) for latents, _ in record], dim=1),
            torch.cat([gaussian_kl(*parameters).flatten(1) for _, parameters in record], dim=1),
        )

    @torch.no_grad()
    def transmit(self, images: Tensor, blocks: int | None = None) -> tuple[Tensor, Tensor]:
        """Images through a channel as wide as the rate: latents drawn from the posterior of the first ``blocks`` blocks.

        A receiver who holds the model needs as many nats as the rate to draw the same latents (bits-back coding, Hinton &
        van Camp 1993, doi:10.1145/168304.168306); the latents of further blocks take their prior means.

        Returns
        -------
        images, rate
            Mean images (N, 1, H, W), 0 … 255, and what was sent, (N,), in nats.
        """
        parameters, record = self._posterior(images, means=False, blocks=blocks)
        return mixture_mean(parameters), _rates(record).sum(1)

    def mixture(self, code: Tensor) -> Tensor:
        """Parameters of the pixel mixture, (N, 3K, H, W), of full codes (N, dimensions); a NaN latent takes its prior mean."""
        z = self.config.channels
        parts = iter(code.split([z * r * r for r in self.levels], dim=1))

        def draw(block, h, prior_mean, prior_log_std):
            given = next(parts).reshape(prior_mean.shape)
            return torch.where(torch.isnan(given), prior_mean, given)

        return self._descend(len(code), draw)

    @torch.no_grad()
    def decode(self, code: Tensor) -> Tensor:
        """Mean images (N, 1, H, W), 0 … 255, of full codes, as for :meth:`mixture`."""
        return mixture_mean(self.mixture(code))

    @torch.no_grad()
    def vary(self, images: Tensor, blocks: int, temperature: float = 1.0) -> Tensor:
        """Images again, (N, 1, H, W) 0 … 255: latents of the first ``blocks`` blocks at their posterior means, the others drawn."""
        return mixture_mean(self._posterior(images, means=True, blocks=blocks, rest=temperature)[0])

    @torch.no_grad()
    def sample(
        self, count: int, temperature: float = 1.0, truncation: float = math.inf, grain: float | None = None
    ) -> Tensor:
        """New images, (N, 1, H, W) uint8, of latents drawn from their priors: mean images, unless they are to have grain.

        Parameters
        ----------
        temperature
            What each prior's standard deviation is multiplied with.
        truncation
            Standard deviations beyond which nothing is drawn.
        grain
            Draw each grey level from its mixture too, with noise smoothed by so many pixels
            (:func:`rgz.models.likelihood.mixture_sample`): at 0, as published, neighbouring pixels differ by chance, which those of a
            survey, smoothed by its beam, do not.
        """

        def draw(block, h, prior_mean, prior_log_std):
            return prior_mean + temperature * prior_log_std.exp() * truncated_noise(prior_mean, truncation)

        parameters = self._descend(count, draw)
        return mixture_mean(parameters).round().to(torch.uint8) if grain is None else mixture_sample(parameters, grain)

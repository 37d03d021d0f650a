r"""A very deep variational autoencoder for single-channel images (Child 2021, arXiv:2011.10650).

A bottom-up pass through the encoder stores activations at every resolution. A top-down pass through the decoder then
runs many small stochastic blocks, from coarse to fine. Block :math:`i` takes the latents before it, :math:`z_{<i}`,
and computes a prior :math:`p(z_i \mid z_{<i})` and a posterior :math:`q(z_i \mid x, z_{<i})`, both diagonal Gaussians.
The loss is the negative evidence lower bound in bits per dimension,

.. math:: \mathcal{L} = \frac{1}{D \ln 2}\Bigl[-\ln p(x \mid z)
          + \beta \sum_i \mathrm{KL}\bigl(q(z_i \mid x, z_{<i}) \,\|\, p(z_i \mid z_{<i})\bigr)\Bigr],

distortion plus rate, for an image of :math:`D` pixels. Training, generation and decoding share one top-down pass; they
differ only in where each block's latents come from: the posterior, the prior, or a given code.

The pixels of an image follow mixtures of logistics, but they are not independent given the latents: neighbours share a
beam. An image is the :math:`p^2` sub-images of every :math:`p`-th row and column, and these follow one another,
:math:`p(x \mid z) = \prod_k p(x_k \mid x_{<k}, z)`, as in subscale pixel networks (Menick & Kalchbrenner 2019,
arXiv:1812.01608). Given these, the pixels of one sub-image are independent (:class:`Pixels`).

The *coarse* latents, which describe the galaxy, are inferred from another observation :math:`\tilde x` of it, the
finer ones from the image itself: :math:`q(z \mid x, \tilde x) = q(z_c \mid \tilde x)\,q(z_f \mid x, z_c)`. The loss
stays a bound, and the coarse latents gain nothing by coding what differs between observations (denoising variational
autoencoder, Im et al. 2017, arXiv:1511.06406). Fine latents, and sub-images that know each other, would leave them
without a use: both are added in later parts of the training (:meth:`VDVAE.anneal`, :meth:`VDVAE.keep_codes`).
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgz.models.likelihood import gaussian_kl, mixture_log_prob, mixture_mean, mixture_sample, to_unit

__all__ = ["PRESETS", "VDVAE", "Config"]


@dataclass(frozen=True)
class Config:
    """Shape of a VDVAE. Encoder and decoder have the same resolutions, each a multiple of the next coarser one.

    >>> config = Config(encoder=((8, 1), (1, 1)), decoder=((1, 1), (8, 1)), latents=(1, 8), width=8, channels=2)
    >>> config.size, VDVAE(config).dimensions
    (8, 130)
    """

    encoder: tuple[tuple[int, int], ...]  # pairs of resolution and number of blocks, finest first
    decoder: tuple[tuple[int, int], ...]  # the same, coarsest first
    latents: tuple[int, ...]  # resolutions at which decoder blocks are stochastic; the others are residual blocks
    width: int  # channels of the residual stream
    channels: int = 16  # latent channels of a stochastic block
    bottleneck: float = 0.25  # channels inside a block, as a fraction of the width
    mixtures: int = 5  # logistic components of the pixel likelihood
    patch: int = 1  # stride of the first convolution, inverted at the end; 2 makes the finest blocks four times cheaper
    coarse: int = 4  # largest resolution of the latents that are inferred from another observation of the galaxy
    beta: float = 0.1  # weight of the coarse rate during the first part of the training; at the end it is 1

    def __post_init__(self) -> None:
        fine_to_coarse, coarse_to_fine = [r for r, _ in self.encoder], [r for r, _ in self.decoder]
        if fine_to_coarse != coarse_to_fine[::-1] or any(a % b or a <= b for a, b in pairwise(fine_to_coarse)):
            raise ValueError(
                f"encoder resolutions {fine_to_coarse} must fall by whole factors and decoder resolutions "
                f"{coarse_to_fine} must be the same in reverse"
            )
        if not self.latents or not set(self.latents) <= set(coarse_to_fine):
            raise ValueError(f"latents at {self.latents} must be some of the decoder resolutions {coarse_to_fine}")

    @property
    def size(self) -> int:
        """Width of the images, in pixels."""
        return self.encoder[0][0] * self.patch


PRESETS = {
    "tiny": Config(
        ((32, 1), (8, 1), (1, 1)), ((1, 1), (8, 2), (32, 1)), latents=(1, 8), width=16, channels=4, mixtures=2
    ),
    "deep": Config(
        ((32, 1), (16, 3), (8, 5), (4, 4), (1, 2)), ((1, 2), (4, 8), (8, 6), (16, 6), (32, 2)),
        latents=(1, 4, 8, 16, 32), width=192, channels=1, bottleneck=1 / 3, patch=2,
    ),
}  # fmt: skip
"""``tiny`` is for tests; ``deep``, with 24 stochastic blocks, is the network of the book."""


CODED = 8  # pixels: latents up to this resolution can be part of a code, and have correlated priors
TOGETHER = 32  # images at finer resolutions, so that their activations stay near the processor
COARSE_ALONE, FULL_WEIGHT = 0.5, 0.9  # parts of the training at which fine latents begin, and all rates weigh the same


class Bottleneck(nn.Module):
    """Four convolutions (1×1, 3×3, 3×3, 1×1), each after a GELU; below three pixels the 3×3 are 1×1."""

    def __init__(self, width_in: int, width_middle: int, width_out: int, resolution: int):
        super().__init__()
        kernel = 3 if resolution > 2 else 1
        self.c1 = nn.Conv2d(width_in, width_middle, 1)
        self.c2 = nn.Conv2d(width_middle, width_middle, kernel, padding=kernel // 2)
        self.c3 = nn.Conv2d(width_middle, width_middle, kernel, padding=kernel // 2)
        self.c4 = nn.Conv2d(width_middle, width_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape: a residual block."""
        return x + self.after_gelu(F.gelu(x))

    def after_gelu(self, *inputs: Tensor) -> Tensor:
        """The convolutions of inputs to which the first GELU was already applied, in parts of the channels."""
        kernels = torch.split(self.c1.weight, [part.shape[1] for part in inputs], dim=1)
        h = F.conv2d(inputs[0], kernels[0], self.c1.bias)
        for part, kernel in zip(inputs[1:], kernels[1:], strict=True):  # a sum takes less memory than joined channels
            h = h + F.conv2d(part, kernel)
        for convolution in (self.c2, self.c3, self.c4):
            h = convolution(F.gelu(h))
        return h


class Stochastic(nn.Module):
    """One stochastic decoder block: prior, posterior, projection of the latents, and a residual block.

    ``factor`` (K, K) is the Cholesky factor of the correlations of its K latents under the prior.
    """

    factor: Tensor

    def __init__(self, config: Config, resolution: int):
        super().__init__()
        self.resolution = resolution
        width, middle, z = config.width, int(config.width * config.bottleneck), config.channels
        self.posterior = Bottleneck(2 * width, middle, 2 * z, resolution)
        self.prior = Bottleneck(width, middle, 2 * z + width, resolution)
        self.project = nn.Conv2d(z, width, 1)
        self.residual = Bottleneck(width, middle, width, resolution)
        for parameter in self.prior.c4.parameters():
            nn.init.zeros_(parameter)
        if resolution <= CODED:
            count = z * resolution**2  # on a meta device torch.eye would import a second of further modules
            self.register_buffer("factor", torch.zeros(count, count).fill_diagonal_(1))

    def sample(self, mean: Tensor, log_std: Tensor, temperature: float, truncation: float) -> Tensor:
        """Latents (N, z, r, r) from a prior of this mean and log-std, with its noise scaled and truncated."""
        lowest = torch.special.ndtr(torch.tensor(-truncation)).item()
        noise: Tensor = torch.special.ndtri(lowest + (1 - 2 * lowest) * torch.rand_like(mean).clamp(1e-7, 1 - 1e-7))
        if self.resolution <= CODED:
            noise = (noise.flatten(1) @ self.factor.T).view_as(noise)
        return mean + temperature * log_std.exp() * noise


class Given(nn.Module):
    """What the sub-images before it change in the pixel mixtures of a sub-image; nothing before the training."""

    def __init__(self, width: int, before: int, parameters: int, middle: int = 64):
        super().__init__()
        self.features = nn.Conv2d(width, middle, 1)
        self.before = nn.Conv2d(before, middle, 3, padding=1)
        self.c1 = nn.Conv2d(middle, middle, 3, padding=1)
        self.c2 = nn.Conv2d(middle, parameters, 1)
        for parameter in self.c2.parameters():
            nn.init.zeros_(parameter)

    def forward(self, features: Tensor, before: Tensor) -> Tensor:
        """(N, width, h, w) and (N, before, h, w) in 0 … 1 to (N, parameters, h, w)."""
        change: Tensor = self.c2(F.gelu(self.c1(F.gelu(self.features(features) + self.before(before)))))
        return change


class Pixels(nn.Module):
    """Distribution of the pixels, given the features of the decoder: one sub-image after the other.

    A sub-image has one pixel of each square of ``patch`` × ``patch``. The diagonal of the squares comes first, so that
    the pixels beside it have known ones on all sides.
    """

    def __init__(self, config: Config):
        super().__init__()
        self.patch, each = config.patch, 3 * config.mixtures
        self.order = sorted(range(self.patch**2), key=lambda place: place % (self.patch + 1) != 0)
        self.head = nn.Conv2d(config.width, each * self.patch**2, 1)
        self.given = nn.ModuleList(Given(config.width, k, each) for k in range(1, self.patch**2))

    def forward(self, features: Tensor, choose: Callable[[Tensor, int], Tensor]) -> tuple[Tensor, Tensor]:
        """Images, (N, 1, H, W), and the parameters of their pixel mixtures, (N, 3K, H, W), float32.

        ``choose`` gives the grey levels (N, 1, h, w) of a sub-image from its mixtures (N, 3K, h, w) and its place,
        row by row, in the squares.
        """
        with torch.autocast(features.device.type, enabled=False):  # bfloat16 has steps of half a grey level
            features = features.float()
            head = self.head(features).unflatten(1, (-1, self.patch**2))  # (N, 3K, patch², h, w)
            levels: dict[int, Tensor] = {}
            mixtures: dict[int, Tensor] = {}
            for place in self.order:
                mixtures[place] = head[:, :, place]
                if levels:
                    before = torch.cat([*levels.values()], dim=1) / 255
                    mixtures[place] = mixtures[place] + self.given[len(levels) - 1](features, before)
                levels[place] = choose(mixtures[place], place).float()
            images, parameters = (
                torch.stack([parts[place] for place in range(self.patch**2)], dim=2).flatten(1, 2)
                for parts in (levels, mixtures)
            )
        return F.pixel_shuffle(images, self.patch), F.pixel_shuffle(parameters, self.patch)


Gaussians = tuple[Tensor, Tensor, Tensor, Tensor]
"""Posterior mean and log-std, prior mean and log-std of one block, each (N, channels, r, r)."""
Draw = Callable[[Stochastic, Tensor, Tensor, Tensor], Tensor]
"""Latents of a block, from the block, the residual stream after a GELU, and the prior mean and log-std."""


class VDVAE(nn.Module):
    """The autoencoder. Images are (N, 1, H, W) grey levels 0 … 255.

    ``levels`` has the resolution of each stochastic block, coarsest first, and ``dimensions`` is the number of all
    latents, the length of a full code. The first ``coarse`` blocks are coarse, and latents of the first ``coded`` ones
    can be part of a code.
    """

    config_class = Config
    weight: Tensor

    def __init__(self, config: Config):
        super().__init__()
        self.config = config
        width, middle = config.width, int(config.width * config.bottleneck)
        self.stem = nn.Conv2d(1, width, config.patch + 2, stride=config.patch, padding=1)
        self.encoder = nn.ModuleList(
            nn.ModuleList(Bottleneck(width, middle, width, r) for _ in range(blocks)) for r, blocks in config.encoder
        )
        self.decoder = nn.ModuleList(
            nn.ModuleList(
                Stochastic(config, r) if r in config.latents else Bottleneck(width, middle, width, r)
                for _ in range(blocks)
            )
            for r, blocks in config.decoder
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(1, width, r, r)) for r, _ in config.decoder)
        self.gain = nn.Parameter(torch.ones(1, width, 1, 1))
        self.shift = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.pixels = Pixels(config)
        self.pixels.given.requires_grad_(False)  # nothing yet: pixels that know each other leave latents without a use
        self.levels = [r for r, blocks in config.decoder if r in config.latents for _ in range(blocks)]
        self.dimensions = sum(config.channels * r * r for r in self.levels)
        self.coarse = sum(r <= config.coarse for r in self.levels)
        self.coded = sum(r <= CODED for r in self.levels)
        self.fine, self.codes_kept = True, False
        self.register_buffer("weight", torch.ones(()), persistent=False)
        self._scale_for_depth()

    def _scale_for_depth(self) -> None:
        """Divide the last convolution of each residual branch by √blocks, so that variance does not grow with depth."""
        if self.gain.is_meta:  # there are no values, and torch would import more for them
            return
        for part in (self.encoder, self.decoder):
            blocks: list[Any] = [block for level in part for block in level.children()]
            for block in blocks:
                last = block.residual.c4 if isinstance(block, Stochastic) else block.c4
                last.weight.data /= math.sqrt(len(blocks))
                if isinstance(block, Stochastic):
                    fine = block.resolution > self.config.coarse  # begin without an effect on a trained network
                    block.project.weight.data *= 0.0 if fine else 1 / math.sqrt(len(blocks))

    def keep_codes(self) -> None:
        """Train from now on only what changes no code: the decoder finer than 8 × 8, and the pixels.

        Until then, sub-images are independent.
        """
        self.codes_kept = True
        self.requires_grad_(False)
        finer = [k for k, (resolution, _) in enumerate(self.config.decoder) if resolution > CODED]
        parts = [part for k in finer for part in (self.decoder[k], self.biases[k])]
        for part in (*parts, self.gain, self.shift, self.pixels):
            part.requires_grad_(True)

    def anneal(self, done: float) -> bool:
        """Set weight and latents for this part (0 … 1) of the training; returns whether there are new latents now.

        In the first half there are no fine latents, and coarse rates weigh less than one. Then the weight rises to one
        (warm-up, Sønderby et al. 2016, arXiv:1602.02282).
        """
        done = 1.0 if self.codes_kept else done
        before, self.fine = self.fine, done >= COARSE_ALONE
        rise = min(1.0, max(0.0, (done - COARSE_ALONE) / (FULL_WEIGHT - COARSE_ALONE)))
        self.weight.fill_(self.config.beta ** (1 - rise))
        return self.fine != before

    def _bottom_up(self, images: Tensor, largest: int, smallest: int = 1) -> dict[int, Tensor]:
        """Encoder activations after a GELU, (N, width, r, r), at each resolution r from the largest to the smallest."""
        if images.shape[1:] != (1, self.config.size, self.config.size):
            raise ValueError(
                f"images must be (N, 1, {self.config.size}, {self.config.size}), but these are {tuple(images.shape)}: "
                "prepare them at the size of the model"
            )
        if len(images) > TOGETHER and not torch.is_grad_enabled():
            parts = [self._bottom_up(part, largest, smallest) for part in torch.split(images, TOGETHER)]
            return {resolution: torch.cat([part[resolution] for part in parts]) for resolution in parts[0]}
        h = self.stem(to_unit(images).contiguous(memory_format=torch.channels_last))  # (N, width, r, r)
        activations = {}
        for (resolution, _), blocks in zip(self.config.encoder, self.encoder, strict=True):
            if resolution < smallest:
                break
            if h.shape[-1] != resolution:
                h = F.avg_pool2d(h, h.shape[-1] // resolution)
            for block in blocks.children():
                h = block(h)
            if resolution <= largest:
                activations[resolution] = F.gelu(h)
        return activations

    def _top_down(self, count: int, draw: Draw, until: int | None = None) -> Tensor:
        """Run the decoder with latents from ``draw``; returns the features for :class:`Pixels`, (N, width, h, w).

        After ``until`` stochastic blocks the pass ends, and the returned tensor must not be used.
        """
        z, done = self.config.channels, 0
        h: Tensor = self.biases[0].expand(count, -1, -1, -1)  # (N, width, r, r)
        for level, ((resolution, _), blocks) in enumerate(zip(self.config.decoder, self.decoder, strict=True)):
            if level:  # the bias in h's own precision: one float32 term would lift the residual stream out of bfloat16
                h = F.interpolate(h, size=(resolution, resolution)) + self.biases[level].to(h.dtype)
                h = h.contiguous(memory_format=torch.channels_last)  # enlarging a single pixel loses this layout
            for block in blocks.children():
                if not isinstance(block, Stochastic):
                    h = block(h)
                    continue
                active = F.gelu(h)  # once for prior and posterior
                mean, log_std, features = torch.split(block.prior.after_gelu(active), [z, z, self.config.width], dim=1)
                h = h.to(features.dtype)
                latents = draw(block, active, mean.float(), log_std.float())  # (N, channels, r, r)
                done += 1
                if done == until:
                    return h
                h = block.residual(h + features + block.project(latents))
        return h * self.gain.to(h.dtype) + self.shift.to(h.dtype)

    def _posterior(
        self,
        images: Tensor,
        means: bool,
        until: int | None = None,
        seen: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], list[Gaussians]]:
        """Features for :class:`Pixels`, and the latents and Gaussians of each block that follows the posterior.

        Fine latents have their prior means while they are not trained. With ``seen`` the coarse latents are inferred
        from these images. After ``until`` stochastic blocks the pass ends.
        """
        largest = self.levels[until - 1] if until else self.config.size  # that the latents need
        last = None if self.fine else self.coarse
        if seen is None or not self.fine:
            activations = self._bottom_up(images if seen is None else seen, largest)
        else:
            activations = self._bottom_up(seen, largest) | self._bottom_up(images, largest, self.config.coarse + 1)
        latents: list[Tensor] = []
        gaussians: list[Gaussians] = []

        def draw(block: Stochastic, h: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
            if len(latents) == last:
                return prior_mean
            mean, log_std = block.posterior.after_gelu(h, activations[block.resolution]).float().chunk(2, dim=1)
            latents.append(mean if means else mean + log_std.exp() * torch.randn_like(mean))
            gaussians.append((mean, log_std, prior_mean, prior_log_std))
            return latents[-1]

        return self._top_down(len(images), draw, until), latents, gaussians

    def forward(self, images: Tensor, seen: Tensor | None = None) -> dict[str, Tensor]:
        """Training loss of grey levels (N, 1, H, W), and of other observations ``seen`` of the same galaxies.

        Returns ``loss``, a scalar, in bits per dimension, with the rates as weighted now; ``distortion`` (N,) and
        ``rate`` (N, blocks), in nats.
        """
        features, _, gaussians = self._posterior(images, means=False, seen=seen)
        parts = F.pixel_unshuffle(images.float(), self.config.patch)
        _, parameters = self.pixels(features, lambda _, place: parts[:, place : place + 1])
        distortion = -mixture_log_prob(images, parameters).sum((1, 2))
        rate = torch.stack([gaussian_kl(*parameters).sum((1, 2, 3)) for parameters in gaussians], dim=1)
        rate = F.pad(rate, (0, len(self.levels) - rate.shape[1]))  # no fine latents yet
        coarse, fine = rate[:, : self.coarse].sum(1).mean(), rate[:, self.coarse :].sum(1).mean()
        nats = distortion.mean() + fine + self.weight * coarse
        return {"loss": nats / (images[0].numel() * math.log(2)), "distortion": distortion, "rate": rate}

    @torch.no_grad()
    def encode(self, images: Tensor, drawn: bool = False, blocks: int | None = None) -> tuple[Tensor, Tensor]:
        """Latents (N, D) of images, and the rate of each in nats, (N, D).

        They are the posterior means or, with ``drawn``, one sample from the posterior, of the first ``blocks``
        stochastic blocks, or of all: coarsest block first, each block flattened as (channel, row, column).
        """
        _, latents, gaussians = self._posterior(images, means=not drawn, until=blocks or len(self.levels))
        return (
            torch.cat([one.flatten(1) for one in latents], dim=1),
            torch.cat([gaussian_kl(*parameters).flatten(1) for parameters in gaussians], dim=1),
        )

    @torch.no_grad()
    def means(self, images: Tensor, blocks: int) -> Tensor:
        """Posterior means (N, D) as :meth:`encode` gives them, without the rates."""
        return torch.cat([one.flatten(1) for one in self._posterior(images, means=True, until=blocks)[1]], dim=1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Images (N, 1, H, W) decoded from the posterior means of all latents of images, in one top-down pass."""
        reconstructed: Tensor = self.pixels(self._posterior(images, means=True)[0], lambda one, _: mixture_mean(one))[0]
        return reconstructed

    @torch.no_grad()
    def correlate(self, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
        r"""Give the priors the correlations of posterior samples of these images, pairs as for :meth:`forward`.

        The loss takes the latents of a block as independent. From now on, the prior of each block up to 8 × 8 is
        :math:`\mathcal{N}(\mu, S R S)` with :math:`S = \mathrm{diag}(\sigma)`, where :math:`R` is one matrix per block:
        the correlations of the samples standardised by their priors.
        """
        factors = [tensor for name, tensor in self.named_buffers() if name.endswith(".factor")]  # of the first blocks
        products = [len(factor) * torch.eye(len(factor)).to(factor) for factor in factors]  # as many independent pairs
        for images, seen in pairs:
            _, latents, gaussians = self._posterior(images, means=False, until=len(factors), seen=seen)
            for product, drawn, (_, _, mean, log_std) in zip(products, latents, gaussians, strict=True):
                standard = ((drawn - mean) / log_std.exp()).flatten(1)  # (N, K)
                product += standard.mT @ standard
        for factor, product in zip(factors, products, strict=True):
            spread = product.diagonal().sqrt()
            factor.copy_(torch.linalg.cholesky(product / spread / spread[:, None]))

    @torch.no_grad()
    def decode(
        self, code: Tensor, temperature: float = 0.0, truncation: float = math.inf, drawn: bool = False
    ) -> Tensor:
        """Images (N, 1, H, W), grey levels 0 … 255 as float32, of full codes (N, dimensions).

        A NaN latent is sampled from its prior, with the standard deviation multiplied by ``temperature``, and the noise
        truncated at ``truncation`` standard deviations; at a temperature of 0 it has its prior mean. The pixels are the
        means of their mixtures or, with ``drawn``, sampled from them.
        """
        parts = iter(torch.split(code, [self.config.channels * r * r for r in self.levels], dim=1))

        def draw(block: Stochastic, h: Tensor, prior_mean: Tensor, prior_log_std: Tensor) -> Tensor:
            given, free = next(parts).reshape(prior_mean.shape), prior_mean
            if temperature:
                free = block.sample(prior_mean, prior_log_std, temperature, truncation)
            return torch.where(torch.isnan(given), free, given)

        value = mixture_sample if drawn else mixture_mean
        images: Tensor = self.pixels(self._top_down(len(code), draw), lambda mixture, _: value(mixture))[0]
        return images

    def sample(self, count: int, temperature: float = 1.0, truncation: float = math.inf) -> Tensor:
        """New images, (count, 1, H, W), with latents sampled from their priors and pixels drawn (:meth:`decode`)."""
        return self.decode(torch.full((count, self.dimensions), torch.nan), temperature, truncation, drawn=True)

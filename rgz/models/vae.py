r"""A plain convolutional variational autoencoder, to see what depth is worth.

One vector of latents with a fixed standard normal prior, a strided encoder and a mirrored decoder (Kingma & Welling 2014,
arXiv:1312.6114). Pixel likelihood, loss and training are those of :mod:`rgz.models.vdvae`; only the hierarchy is missing. It answers
the same calls, so whatever measures one measures the other.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from rgz.models.likelihood import gaussian_kl, mixture_log_prob, mixture_mean, to_unit

__all__ = ["Config", "PlainVAE"]


@dataclass(frozen=True)
class Config:
    """Shape of a plain VAE.

    Parameters
    ----------
    size
        Width of the images in pixels, a multiple of 8.
    width
        Channels at the finest resolution; each halving of the resolution doubles them.
    latents
        Length of the code.
    mixtures
        Logistic components of the pixel likelihood.
    """

    size: int = 32
    width: int = 32
    latents: int = 128
    mixtures: int = 5


class PlainVAE(nn.Module):
    """The autoencoder. Images are (N, 1, H, W) grey levels 0 … 255; ``dimensions`` is the length of a code."""

    levels = (1,)  # one group of latents, without place

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.dimensions = config, config.latents
        w, coarse = config.width, config.size // 8
        widths = (w, 2 * w, 4 * w, 4 * w)
        self.encoder = nn.Sequential(
            nn.Conv2d(1, w, 3, padding=1),
            *(
                layer
                for a, b in pairwise(widths)
                for layer in (
                    nn.GELU(),
                    nn.Conv2d(a, b, 4, stride=2, padding=1),
                    nn.GELU(),
                    nn.Conv2d(b, b, 3, padding=1),
                )
            ),
            nn.GELU(),
            nn.Flatten(),
            nn.Linear(4 * w * coarse**2, 2 * config.latents),
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.latents, 4 * w * coarse**2),
            nn.Unflatten(1, (4 * w, coarse, coarse)),
            *(
                layer
                for a, b in pairwise(widths[::-1])
                for layer in (
                    nn.GELU(),
                    nn.Conv2d(a, a, 3, padding=1),
                    nn.GELU(),
                    nn.Upsample(scale_factor=2),
                    nn.Conv2d(a, b, 3, padding=1),
                )
            ),
            nn.GELU(),
            nn.Conv2d(w, 3 * config.mixtures, 1),
        )

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.encoder(to_unit(images)).float().chunk(2, dim=1)
        return mean, log_std

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Loss of a batch: ``loss`` in bits per dimension, a scalar; ``distortion`` (N,) and ``rate`` (N, 1), in nats."""
        mean, log_std = self._posterior(images)
        parameters = self.decoder(mean + log_std.exp() * torch.randn_like(mean))
        distortion = -mixture_log_prob(images, parameters).sum((1, 2))
        rate = gaussian_kl(mean, log_std, torch.zeros_like(mean), torch.zeros_like(mean)).sum(1, keepdim=True)
        bits = (distortion + rate.sum(1)) / (images[0].numel() * math.log(2))
        return {"loss": bits.mean(), "distortion": distortion, "rate": rate}

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means and rates (nats), each (N, dimensions)."""
        mean, log_std = self._posterior(images)
        return mean, gaussian_kl(mean, log_std, torch.zeros_like(mean), torch.zeros_like(mean))

    @torch.no_grad()
    def transmit(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean images (N, 1, H, W) of latents drawn from the posterior, and the rate (N,) in nats that it takes to send them."""
        mean, log_std = self._posterior(images)
        rate = gaussian_kl(mean, log_std, torch.zeros_like(mean), torch.zeros_like(mean)).sum(1)
        return mixture_mean(self.decoder(mean + log_std.exp() * torch.randn_like(mean))), rate

    def mixture(self, code: Tensor) -> Tensor:
        """Parameters of the pixel mixture, (N, 3K, H, W), of codes (N, dimensions); a NaN latent takes its prior mean, zero."""
        return self.decoder(torch.nan_to_num(code))

    @torch.no_grad()
    def decode(self, code: Tensor) -> Tensor:
        """Mean images (N, 1, H, W), 0 … 255, of codes, as for :meth:`mixture`."""
        return mixture_mean(self.mixture(code))

"""A non-hierarchical VAE as a baseline (Kingma & Welling 2014, arXiv:1312.6114).

One vector of latents with a standard normal prior, a strided convolutional encoder and a mirrored decoder. The pixel
likelihood, loss, training and methods are those of :mod:`rgz.models.vdvae`. Run as a program, this module trains it,
minutes on a GPU.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from rgz.app import training
from rgz.models.likelihood import gaussian_kl, mixture_log_prob, mixture_mean, mixture_sample, to_unit
from rgz.models.train import Schedule
from studies import results


@dataclass(frozen=True)
class Config:
    """Shape of the baseline VAE.

    Parameters
    ----------
    size
        Width of the images in pixels, a multiple of 16.
    width
        Channels at half of the image's resolution; each further halving of the resolution doubles them.
    latents
        Length of the code.
    mixtures
        Number of logistic components of the pixel likelihood.
    """

    size: int = 64
    width: int = 32
    latents: int = 128
    mixtures: int = 5


class PlainVAE(nn.Module):
    """The autoencoder of (N, 1, H, W) grey levels 0 … 255; ``dimensions`` is the length of a code."""

    config_class, levels = Config, (1,)  # one block of latents, at resolution 1

    def __init__(self, config: Config):
        super().__init__()
        self.config, self.dimensions = config, config.latents
        w, coarse = config.width, config.size // 16
        widths = (w, 2 * w, 4 * w, 4 * w)
        encoder: list[nn.Module] = [nn.Conv2d(1, w, 4, stride=2, padding=1)]
        for a, b in pairwise(widths):
            halve = nn.Conv2d(a, b, 4, stride=2, padding=1)
            encoder += [nn.GELU(), halve, nn.GELU(), nn.Conv2d(b, b, 3, padding=1)]
        encoder += [nn.GELU(), nn.Flatten(), nn.Linear(4 * w * coarse**2, 2 * config.latents)]
        decoder: list[nn.Module] = [
            nn.Linear(config.latents, 4 * w * coarse**2),
            nn.Unflatten(1, (4 * w, coarse, coarse)),
        ]
        for a, b in pairwise(widths[::-1]):
            decoder += [nn.GELU(), nn.Conv2d(a, a, 3, padding=1), nn.GELU(), nn.Upsample(scale_factor=2)]
            decoder += [nn.Conv2d(a, b, 3, padding=1)]
        decoder += [nn.GELU(), nn.Conv2d(w, 4 * 3 * config.mixtures, 1), nn.PixelShuffle(2)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)

    def _posterior(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_std = self.encoder(to_unit(images)).float().chunk(2, dim=1)
        return mean, log_std

    def forward(self, images: Tensor, seen: Tensor | None = None) -> dict[str, Tensor]:
        """Training loss of images (N, 1, H, W); other observations ``seen`` are not used.

        Returns ``loss`` in bits per dimension, a scalar; ``distortion`` (N,) and ``rate`` (N, 1), in nats.
        """
        mean, log_std = self._posterior(images)
        parameters = self.decoder(mean + log_std.exp() * torch.randn_like(mean))
        distortion = -mixture_log_prob(images, parameters).sum((1, 2))
        rate = _rate(mean, log_std).sum(1, keepdim=True)
        bits = (distortion + rate.sum(1)) / (images[0].numel() * math.log(2))
        return {"loss": bits.mean(), "distortion": distortion, "rate": rate}

    @torch.no_grad()
    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Posterior means and rates (nats), each (N, dimensions)."""
        mean, log_std = self._posterior(images)
        return mean, _rate(mean, log_std)

    @torch.no_grad()
    def decode(self, code: Tensor, drawn: bool = False) -> Tensor:
        """Images (N, 1, H, W), 0 … 255, of codes (N, dimensions); a NaN latent takes its prior mean, zero.

        Pixels are the means of their mixtures or, with ``drawn``, sampled from them.
        """
        return (mixture_sample if drawn else mixture_mean)(self.decoder(torch.nan_to_num(code))).float()

    def reconstruct(self, images: Tensor) -> Tensor:
        """Images (N, 1, H, W) decoded from the posterior means of images."""
        return self.decode(self.encode(images)[0])


def _rate(mean: Tensor, log_std: Tensor) -> Tensor:
    """Rate of each latent, (N, dimensions), in nats, against the standard normal prior."""
    return gaussian_kl(mean, log_std, torch.zeros_like(mean), torch.zeros_like(mean))


def main() -> None:
    """Train it, or resume the training, in ``runs/plain``."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    schedule = Schedule(steps=2500, batch=128)
    torch.manual_seed(schedule.seed)
    weights = Path("runs/plain/plain.safetensors")
    print(training.run(PlainVAE(Config()), {"preset": "plain"}, training.TRAINING_SET, weights, schedule, device))


if __name__ == "__main__":
    results.run(main)

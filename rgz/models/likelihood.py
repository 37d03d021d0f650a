r"""Gaussian latents and the discretised logistic mixture of grey levels, in closed form.

The rate is the Kullback-Leibler divergence of two Gaussians. A pixel has 256 grey levels, whose distribution is a
mixture of *discretised* logistics (Salimans et al. 2017, arXiv:1701.05517, eq. 2; here for one channel): with
:math:`\sigma` the logistic sigmoid and a grey level :math:`x` scaled to :math:`[-1, 1]`,

.. math:: p(x) = \sum_k \pi_k \left[\sigma\!\left(\frac{x + 1/255 - \mu_k}{s_k}\right)
          - \sigma\!\left(\frac{x - 1/255 - \mu_k}{s_k}\right)\right],

where the lowest level takes all the probability below it and the highest all above. The 256 probabilities sum to one,
so the bits per dimension are the length of an ideal lossless code.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

LEVELS = 256
HALF_BIN = 1 / (LEVELS - 1)  # half the distance between grey levels once scaled to [-1, 1]
SMALLEST_LOG_SCALE = -7.0  # a width of 0.1 grey levels


def to_unit(grey: Tensor) -> Tensor:
    """Grey levels 0 … 255 scaled to [-1, 1], float32."""
    return grey.float() * (2 / (LEVELS - 1)) - 1


def gaussian_kl(mean_q: Tensor, log_std_q: Tensor, mean_p: Tensor, log_std_p: Tensor) -> Tensor:
    r"""KL(q ‖ p) of two Gaussians, elementwise, in nats; same shape as the arguments.

    .. math:: \ln\frac{\sigma_p}{\sigma_q} + \frac{\sigma_q^2 + (\mu_q - \mu_p)^2}{2\sigma_p^2} - \frac12
    """
    variance_ratio = torch.exp(2 * (log_std_q - log_std_p))
    offset = (mean_q - mean_p) * torch.exp(-log_std_p)
    return log_std_p - log_std_q + 0.5 * (variance_ratio + offset**2 - 1)


def _split(parameters: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(N, 3K, H, W) to log-weights, means and log-scales, each (N, K, H, W)."""
    logits, means, log_scales = parameters.float().chunk(3, dim=1)
    return F.log_softmax(logits, dim=1), means, log_scales.clamp(min=SMALLEST_LOG_SCALE)


def mixture_log_prob(grey: Tensor, parameters: Tensor) -> Tensor:
    """Log-probability of each pixel, in nats, (N, H, W), float32.

    Grey levels 0 … 255 have shape (N, 1, H, W) and any dtype; logits, means and log-scales of K components are the
    ``parameters`` (N, 3K, H, W).
    """
    log_weights, means, log_scales = _split(parameters)
    offset = to_unit(grey) - means  # (N, K, H, W)
    inverse = torch.exp(-log_scales)
    upper, lower = inverse * (offset + HALF_BIN), inverse * (offset - HALF_BIN)
    # Inside: ln[σ(u) − σ(l)] = ln σ(u) + ln σ(−l) + ln(1 − e^(l−u)), accurate far into the tails too.
    inside = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-2 * HALF_BIN * inverse))
    log_prob = torch.where(
        grey < 0.5, F.logsigmoid(upper), torch.where(grey > LEVELS - 1.5, F.logsigmoid(-lower), inside)
    )
    return torch.logsumexp(log_weights + log_prob, dim=1)


def mixture_mean(parameters: Tensor) -> Tensor:
    """Mean of the undiscretised mixture as a grey level, clipped to 0 … 255, shape (N, 1, H, W), float32."""
    log_weights, means, _ = _split(parameters)
    mean = (log_weights.exp() * means).sum(1, keepdim=True)
    return (mean.clamp(-1, 1) + 1) * ((LEVELS - 1) / 2)


def mixture_quantile(parameters: Tensor, share: Tensor) -> Tensor:
    """Lowest grey level, uint8, with at least ``share`` of the probability at or below it; both (N, 1, H, W)."""
    log_weights, means, log_scales = _split(parameters)
    lowest, highest = torch.zeros_like(share), torch.full_like(share, LEVELS - 1)
    for _ in range(int(math.log2(LEVELS))):  # bisection
        middle = torch.floor((lowest + highest) / 2)
        upper = torch.exp(-log_scales) * (to_unit(middle) + HALF_BIN - means)
        enough = (log_weights.exp() * torch.sigmoid(upper)).sum(1, keepdim=True) >= share
        lowest, highest = torch.where(enough, lowest, middle + 1), torch.where(enough, middle, highest)
    return lowest.to(torch.uint8)


def mixture_sample(parameters: Tensor) -> Tensor:
    """Grey levels (N, 1, H, W), uint8, drawn from the pixel mixture (N, 3K, H, W), each pixel on its own."""
    share = torch.rand_like(parameters[:, :1]).clamp(1e-6, 1 - 1e-6)  # below 1, which no level may reach after rounding
    return mixture_quantile(parameters, share)

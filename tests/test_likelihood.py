"""The two densities are what they say, to the last digit that float32 has."""

import math

import pytest
import torch

from rgz.models import likelihood


@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
def test_grey_level_probabilities_sum_to_one(spread):
    torch.manual_seed(0)
    parameters = torch.randn(3, 3 * 4, 2, 2) * spread
    total = sum(
        likelihood.mixture_log_prob(torch.full((3, 1, 2, 2), float(g)), parameters).double().exp() for g in range(256)
    )
    torch.testing.assert_close(total, torch.ones(3, 2, 2, dtype=torch.float64), rtol=0, atol=2e-5)


def test_log_prob_matches_the_equation():
    """One logistic at zero with scale one half: σ((x + 1/255)/s) − σ((x − 1/255)/s), in double precision."""
    parameters = torch.tensor([0.0, 0.0, math.log(0.5)]).reshape(1, 3, 1, 1)
    for grey in (1, 100, 254):
        x = torch.tensor(2 * grey / 255 - 1, dtype=torch.float64)
        expected = (torch.sigmoid((x + 1 / 255) / 0.5) - torch.sigmoid((x - 1 / 255) / 0.5)).log()
        found = likelihood.mixture_log_prob(torch.full((1, 1, 1, 1), float(grey)), parameters)
        assert found.item() == pytest.approx(expected.item(), abs=1e-4)


def test_far_tails_stay_finite_with_finite_gradients():
    parameters = torch.tensor([0.0, 50.0, -20.0]).reshape(1, 3, 1, 1).requires_grad_()
    loss = likelihood.mixture_log_prob(torch.full((1, 1, 1, 1), 3.0), parameters).sum()
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(parameters.grad).all()


def test_kl_is_zero_for_equal_and_positive_otherwise():
    torch.manual_seed(0)
    a, b, c, d = torch.randn(4, 1000)
    assert likelihood.gaussian_kl(a, b, a, b).abs().max() < 1e-6
    assert (likelihood.gaussian_kl(a, b, c, d) > 0).all()


def test_kl_matches_monte_carlo():
    torch.manual_seed(0)
    q, p = torch.distributions.Normal(0.3, 0.6), torch.distributions.Normal(-1.7, 0.9)
    z = q.sample((400_000,))
    log_ratio = q.log_prob(z) - p.log_prob(z)
    exact = likelihood.gaussian_kl(*map(torch.tensor, (0.3, math.log(0.6), -1.7, math.log(0.9)))).item()
    assert exact == pytest.approx(log_ratio.mean().item(), abs=4 * log_ratio.std().item() / math.sqrt(len(z)))


def test_samples_follow_the_probabilities():
    torch.manual_seed(0)
    parameters = torch.tensor([0.5, -0.5, -0.3, 0.4, -1.5, -2.0]).reshape(1, 6, 1, 1)
    drawn = likelihood.mixture_sample(parameters.expand(1_000_000, -1, -1, -1)).float()
    levels = torch.arange(256.0).reshape(256, 1, 1, 1)
    probability = likelihood.mixture_log_prob(levels, parameters.expand(256, -1, -1, -1)).exp().flatten()
    expected = len(drawn) * probability
    surprise = (torch.bincount(drawn.flatten().long(), minlength=256) - expected) / expected.sqrt()
    assert expected.min() > 100
    assert surprise.abs().max() < 4.5
    assert surprise.square().sum() < 255 + 4 * math.sqrt(2 * 255)  # chi-squared


def test_quantiles_are_where_the_probabilities_sum_up():
    parameters = torch.tensor([0.5, -0.5, -0.3, 0.4, -1.5, -2.0]).reshape(1, 6, 1, 1)
    levels = torch.arange(256.0).reshape(256, 1, 1, 1)
    below = likelihood.mixture_log_prob(levels, parameters.expand(256, -1, -1, -1)).double().exp().flatten().cumsum(0)
    for share in (0.01, 0.25, 0.5, 0.75, 0.99):
        expected = int(torch.searchsorted(below, share))
        assert likelihood.mixture_quantile(parameters, torch.full((1, 1, 1, 1), share)).item() == expected


def test_mean_of_one_narrow_component():
    parameters = torch.tensor([0.0, 0.2, -5.0]).reshape(1, 3, 1, 1)
    assert likelihood.mixture_mean(parameters).item() == pytest.approx(1.2 * 127.5, abs=1e-3)

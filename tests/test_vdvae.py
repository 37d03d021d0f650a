"""Properties of the autoencoder that hold whatever its weights, and what a few hundred steps must teach it."""

import math
from itertools import pairwise
from statistics import median

import pytest
import torch
from torch.distributions import Normal

from rgz.models import likelihood, vdvae


def stir(model, noise):
    """Add noise to every weight: zero-initialised layers would hide what stands behind them."""
    for parameter in model.parameters():
        parameter.data += noise * torch.randn_like(parameter)
    return model


@pytest.fixture
def stirred(tiny):
    return stir(tiny, 0.05)


def drawn(model):
    """List that will hold the latents (N, channels, r, r) that each stochastic block receives, in order."""
    latents = []
    for block in model.modules():
        if isinstance(block, vdvae.Stochastic):
            block.project.register_forward_pre_hook(lambda _, given: latents.append(given[0]))
    return latents


def mean_and_error(values):
    """Mean of independent values, and its standard error."""
    return values.mean().item(), (values.std() / math.sqrt(len(values))).item()


def log_mean_exp(values):
    """Logarithm of the mean of eˣ, and its standard error."""
    weights = (values - values.max()).exp()
    mean, error = mean_and_error(weights)
    return values.max().item() + math.log(mean), error / mean


def test_gradient_reaches_every_parameter(stirred, pixels):
    stirred(pixels[:4])["loss"].backward()
    silent = [
        name
        for name, parameter in stirred.named_parameters()
        if parameter.grad is None or not parameter.grad.flatten(1 if parameter.ndim > 1 else 0).abs().sum(-1).all()
    ]
    assert silent == []


def test_every_pixel_reaches_the_coarsest_latents(stirred, pixels):
    images = pixels[:2].float().requires_grad_()
    _, _, gaussians = stirred._posterior(images, means=True)
    gaussians[0][0].sum().backward()
    assert (images.grad != 0).all()


def test_loss_is_distortion_plus_rate_in_bits(stirred, pixels):
    out = stirred(pixels[:4])
    bits = (out["distortion"] + out["rate"].sum(1)) / (32 * 32 * math.log(2))
    assert out["rate"].shape == (4, len(stirred.levels))
    assert (out["rate"] > 0).all()
    torch.testing.assert_close(out["loss"], bits.mean())


def test_annealing_weighs_the_coarse_rates_in_the_loss_alone(stirred, pixels):
    assert not stirred.anneal(1.0)
    whole = torch.manual_seed(0) and stirred(pixels[:4])
    assert not stirred.anneal((vdvae.COARSE_ALONE + vdvae.FULL_WEIGHT) / 2)
    part = torch.manual_seed(0) and stirred(pixels[:4])
    assert stirred.weight.item() == pytest.approx(math.sqrt(stirred.config.beta))
    torch.testing.assert_close(part["rate"], whole["rate"])
    coarse = whole["rate"][:, : stirred.coarse].sum(1).mean()
    saved = (1 - stirred.weight) * coarse / (32 * 32 * math.log(2))
    torch.testing.assert_close(part["loss"], whole["loss"] - saved)
    parts = [(stirred.anneal(done), stirred.weight.item())[1] for done in (0.0, 0.3, 0.6, 0.7, 0.8, 0.9, 1.0)]
    assert parts == sorted(parts)
    assert (parts[0], parts[-1]) == (pytest.approx(stirred.config.beta), 1)


def test_in_the_first_part_of_the_training_there_are_no_fine_latents(stirred, pixels):
    assert stirred.anneal(0.0)  # it works in another way now
    assert not stirred.anneal(0.1)
    out = stirred(pixels[:4])
    assert out["rate"].shape == (4, len(stirred.levels))
    assert (out["rate"][:, : stirred.coarse] > 0).all()
    assert not out["rate"][:, stirred.coarse :].any()
    out["loss"].backward()
    fine = [b for b in stirred.modules() if isinstance(b, vdvae.Stochastic) and b.resolution > stirred.config.coarse]
    assert all(parameter.grad is None for block in fine for parameter in block.posterior.parameters())
    assert stirred.anneal(vdvae.COARSE_ALONE)
    assert (stirred(pixels[:4])["rate"][:, stirred.coarse :] > 0).all()


def test_fine_latents_begin_without_an_effect(tiny, pixels):
    code, _ = tiny.encode(pixels[:3])
    coarse = sum(tiny.config.channels * r * r for r in tiny.levels[: tiny.coarse])
    another = code.clone()
    another[:, coarse:] += 10
    torch.testing.assert_close(tiny.decode(another), tiny.decode(code), rtol=0, atol=0)
    another[:, :coarse] += 10
    assert not torch.equal(tiny.decode(another), tiny.decode(code))


def test_coarse_latents_are_inferred_from_the_other_observation_and_fine_ones_from_the_image(stirred, pixels):
    image, seen = pixels[:3], pixels[5:8]
    _, latents, _ = stirred._posterior(image, means=True, seen=seen)
    _, of_seen, _ = stirred._posterior(seen, means=True)
    _, of_image, _ = stirred._posterior(image, means=True)
    for given, own in zip(latents[: stirred.coarse], of_seen, strict=False):
        torch.testing.assert_close(given, own)
    assert not torch.allclose(latents[0], of_image[0], atol=1e-4)
    assert not torch.allclose(latents[-1], of_seen[-1], atol=1e-4)
    torch.manual_seed(0)
    alike = stirred(image, image)
    torch.manual_seed(0)
    torch.testing.assert_close(alike["loss"], stirred(image)["loss"])
    assert stirred(image, seen)["distortion"].shape == (3,)


def test_a_code_of_coarse_blocks_begins_the_full_code(stirred, pixels):
    code, rates = stirred.encode(pixels, blocks=stirred.coarse)
    whole, whole_rates = stirred.encode(pixels)
    assert code.shape[1] == 4  # channels at a single pixel
    torch.testing.assert_close(code, whole[:, :4])
    torch.testing.assert_close(rates, whole_rates[:, :4])


def test_a_drawn_code_is_the_one_that_is_decoded(stirred, pixels):
    torch.manual_seed(0)
    code, rates = stirred.encode(pixels[:5], drawn=True)  # which stops before the last latents are used
    received = drawn(stirred)
    torch.manual_seed(0)
    stirred(pixels[:5])
    torch.testing.assert_close(code, torch.cat([part.flatten(1) for part in received], dim=1))
    means, _ = stirred.encode(pixels[:5])
    assert ((code - means).abs() > 1e-3).float().mean() > 0.9
    assert rates.shape == code.shape


def test_a_model_that_ignores_its_input_costs_what_one_computes_by_hand(tiny, pixels):
    """One standard logistic a pixel and posterior = prior: the loss is the cross-entropy of the grey levels."""
    for layer in (
        tiny.pixels.head,
        *(block.posterior.c4 for block in tiny.modules() if isinstance(block, vdvae.Stochastic)),
    ):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    edges = torch.cat((torch.tensor([-math.inf]), torch.arange(-254, 255, 2) / 255, torch.tensor([math.inf]))).double()
    probability = torch.sigmoid(edges).diff()  # (256,)

    out = tiny(pixels)
    by_hand = -probability[pixels.long()].log2().mean()
    assert (out["rate"] == 0).all()
    assert out["loss"].item() == pytest.approx(by_hand.item(), abs=1e-5)

    torch.manual_seed(0)
    images = tiny.sample(100)
    mean, error = mean_and_error(tiny(images)["distortion"].double() / (32 * 32 * math.log(2)))
    entropy = -(probability * probability.log2()).sum().item()
    assert mean == pytest.approx(entropy, abs=4 * error)
    assert error < 0.02


def test_bounds_on_the_evidence_are_in_order():
    r"""ELBO = mean log-weight < importance-weighted bounds ≤ ln p(x), which is known from draws of the prior.

    Burda et al. 2016, arXiv:1509.00519: :math:`L_k = E \ln \frac1k \sum_{i=1}^k p(x, z_i) / q(z_i | x)` grows with k.
    """
    torch.manual_seed(0)
    config = vdvae.Config(
        encoder=((2, 1), (1, 1)), decoder=((1, 1), (2, 1)), latents=(1, 2), width=16, channels=2, mixtures=2
    )
    model = stir(vdvae.VDVAE(config), 0.05)  # so few latents that averages over thousands of draws are precise
    image, count = torch.tensor([[[[40, 70], [120, 200]]]]), 20_000
    with torch.no_grad():
        torch.manual_seed(1)
        out = model(image.expand(count, -1, -1, -1))
        torch.manual_seed(1)  # the same draws, seen from within
        _, latents, gaussians = model._posterior(image.expand(count, -1, -1, -1), means=False)
        log_ratio = sum(
            (Normal(mean_p, log_std_p.exp()).log_prob(z) - Normal(mean_q, log_std_q.exp()).log_prob(z)).sum((1, 2, 3))
            for z, (mean_q, log_std_q, mean_p, log_std_p) in zip(latents, gaussians, strict=True)
        )
        features = model._top_down(count, lambda block, h, mean, log_std: Normal(mean, log_std.exp()).sample())
        _, generated = model.pixels(features, lambda mixture, place: image.expand(count, -1, -1, -1))
        evidence, evidence_error = log_mean_exp(likelihood.mixture_log_prob(image, generated).sum((1, 2)))

    distortion, rate = out["distortion"], out["rate"].sum(1)
    surplus, error = mean_and_error(log_ratio + rate)
    assert abs(surplus) < 4 * error  # a single sample estimates the ELBO without bias

    log_weights = log_ratio - distortion
    elbo = mean_and_error(-distortion - rate)
    few, many = (
        mean_and_error(part.reshape(-1, k).logsumexp(1) - math.log(k))
        for k, part in ((5, log_weights[:5_000]), (50, log_weights[5_000:]))
    )
    for (lower, error), (upper, another) in pairwise((elbo, few, many)):
        assert upper - lower > 4 * math.hypot(error, another)
    assert many[0] < evidence + 4 * math.hypot(many[1], evidence_error)

    found, error = log_mean_exp(log_weights)  # E p(x, z) / q(z | x) = p(x): training and generation are one model
    assert found == pytest.approx(evidence, abs=4 * math.hypot(error, evidence_error))


@pytest.mark.slow
def test_ten_images_can_be_learned(pixels):
    torch.manual_seed(0)
    config = vdvae.Config(encoder=((4, 1),), decoder=((4, 2),), latents=(4,), width=64, channels=8, mixtures=2, patch=4)
    model, images = vdvae.VDVAE(config), pixels[:10, :, 8:24, 8:24]
    optimizer, losses = torch.optim.Adam(model.parameters(), 5e-3), []
    for _ in range(250):
        loss = model(images)["loss"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    learned = median(losses[-20:])  # a single step may stumble, and on which machine it does is chance
    assert learned < 0.5 * losses[0]
    with torch.no_grad():  # and they are learned by heart: others cost more
        assert model(pixels[10:, :, 8:24, 8:24])["loss"] > 1.3 * learned
    error, spread = (
        (x - images.float()).square().mean() for x in (model.decode(model.encode(images)[0]), images.float().mean(0))
    )
    assert error < 0.3 * spread


def test_half_precision_changes_the_loss_by_little(stirred, pixels):
    losses = []
    for enabled in (False, True):
        torch.manual_seed(0)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            out = stirred(pixels)
        assert {value.dtype for value in out.values()} == {torch.float32}
        losses.append(out["loss"].item())
    assert losses[1] == pytest.approx(losses[0], rel=0.01)
    assert losses[1] != losses[0]


def mean_images(model, features):
    return model.pixels(features, lambda mixture, place: likelihood.mixture_mean(mixture))[0]


def test_decoding_the_full_code_is_the_reconstruction(stirred, pixels):
    code, rates = stirred.encode(pixels)
    assert code.shape == rates.shape == (24, stirred.dimensions)
    torch.testing.assert_close(stirred.decode(code), stirred.reconstruct(pixels))


def test_missing_latents_take_their_prior_means(stirred, pixels):
    code, _ = stirred.encode(pixels[:2])
    code[:, ::3] = torch.nan
    prior_means = []

    def draw(block, h, prior_mean, prior_log_std):
        given = code.split([4 * r * r for r in stirred.levels], dim=1)[len(prior_means)].reshape(prior_mean.shape)
        prior_means.append(prior_mean)
        return torch.where(given == given, given, prior_mean)

    with torch.no_grad():
        expected = mean_images(stirred, stirred._top_down(2, draw))
    received = drawn(stirred)
    images = stirred.decode(code)
    torch.testing.assert_close(images, expected, rtol=1e-4, atol=1e-2)
    means, received = (torch.cat([part.flatten(1) for part in parts], dim=1) for parts in (prior_means, received))
    torch.testing.assert_close(received, torch.where(code.isnan(), means, code), rtol=1e-4, atol=1e-4)
    assert means.abs().max() > 0


@pytest.fixture
def four():
    """The distribution of the pixels of images in squares of 2 × 2, and features and images for it."""
    torch.manual_seed(0)
    config = vdvae.Config(((4, 1),), ((4, 1),), latents=(4,), width=6, channels=1, mixtures=2, patch=2)
    pixels = vdvae.Pixels(config)
    for given in pixels.given:
        torch.nn.init.normal_(given.c2.weight)
    return pixels, torch.randn(3, 6, 4, 4), torch.randint(256, (3, 1, 8, 8)).float()


def known(images):
    parts = torch.nn.functional.pixel_unshuffle(images, 2)
    return lambda mixture, place: parts[:, place : place + 1]


def test_a_pixel_depends_on_the_sub_images_before_its_own(four):
    pixels, features, images = four
    same, mixtures = pixels(features, known(images))
    assert (same == images).all()
    assert mixtures.shape == (3, 6, 8, 8)
    for row, column, later in ((0, 0, 3), (1, 1, 2), (0, 1, 1), (1, 0, 0)):
        changed = images.clone()
        changed[:, :, 2 + row, 2 + column] = 255 - changed[:, :, 2 + row, 2 + column]
        _, other = pixels(features, known(changed))
        found = torch.nn.functional.pixel_unshuffle((other != mixtures).any(1, keepdim=True).float(), 2).amax((0, 2, 3))
        assert found.sum() == later
        assert found[2 * row + column] == 0


def test_drawn_pixels_come_from_the_mixtures_that_they_then_have(four):
    pixels, features, _ = four
    images, drawn_from = pixels(features, lambda mixture, place: likelihood.mixture_sample(mixture))
    torch.testing.assert_close(pixels(features, known(images))[1], drawn_from)


def test_before_the_training_sub_images_change_nothing(four):
    pixels, features, images = four
    for given in pixels.given:
        torch.nn.init.zeros_(given.c2.weight)
        torch.nn.init.zeros_(given.c2.bias)
    expected = torch.nn.functional.pixel_shuffle(pixels.head(features), 2)
    torch.testing.assert_close(pixels(features, known(images))[1], expected)


def test_sub_images_learn_from_each_other_once_the_codes_are_kept(pixels):
    torch.manual_seed(0)
    levels = ((16, 1), (8, 1)), ((8, 1), (16, 1))
    model = vdvae.VDVAE(vdvae.Config(*levels, latents=(8, 16), width=8, channels=2, mixtures=2, patch=2))

    def learning():
        model.zero_grad()
        model(pixels[:3])["loss"].backward()
        return {name.split(".")[0] for name, value in model.named_parameters() if value.grad is not None}, [
            value.grad is not None for value in model.pixels.given.parameters()
        ]

    parts, given = learning()
    assert "encoder" in parts
    assert not any(given)
    model.keep_codes()
    parts, given = learning()
    assert parts == {"decoder", "biases", "gain", "shift", "pixels"}
    assert all(given)
    assert all(value.grad is None for value in model.decoder[0].parameters())


def test_one_image_has_one_code_whatever_its_batch(stirred, pixels):
    whole = stirred.encode(pixels)[0]
    torch.testing.assert_close(whole[3:5], stirred.encode(pixels[3:5])[0], rtol=1e-4, atol=1e-4)
    many = pixels.repeat(1 + vdvae.TOGETHER // len(pixels), 1, 1, 1)  # more than are in one pass at finer resolutions
    means = stirred.means(many, len(stirred.levels))
    assert len(means) > vdvae.TOGETHER
    torch.testing.assert_close(means, whole.repeat(len(many) // len(pixels), 1), rtol=1e-4, atol=1e-4)


def test_an_image_of_another_size_is_refused(tiny):
    for shape in ((2, 1, 64, 64), (2, 1, 16, 16), (2, 3, 32, 32)):
        with pytest.raises(ValueError, match=r"\(N, 1, 32, 32\)"):
            tiny.encode(torch.zeros(shape))


def test_samples_are_grey_levels(tiny):
    assert tiny.sample(3).shape == (3, 1, 32, 32)
    assert ((tiny.sample(3) >= 0) & (tiny.sample(3) <= 255)).all()
    assert (tiny.sample(3) % 1 == 0).all()


def test_temperature_scales_the_spread_of_the_latents(tiny):
    """An untrained prior is the standard Gaussian at every block, whatever was drawn before."""
    torch.manual_seed(0)
    received = drawn(tiny)
    for temperature in (0.0, 0.5, 1.0):
        received.clear()
        tiny.sample(50, temperature)
        latents = torch.cat([part.flatten() for part in received])
        assert latents.std().item() == pytest.approx(temperature, rel=4 / math.sqrt(2 * len(latents)))


def test_samples_have_the_correlations_of_posterior_samples(stirred, pixels):
    blocks = [block for block in stirred.modules() if isinstance(block, vdvae.Stochastic)]
    assert all((block.factor == torch.eye(len(block.factor))).all() for block in blocks)

    blocks[1].posterior.c4.weight.data[:4] *= 5000  # latents that follow the images
    torch.manual_seed(0)
    stirred.correlate([(pixels, pixels.flip(-1))] * 30)
    torch.manual_seed(0)
    standard = []
    for _ in range(30):
        _, latents, gaussians = stirred._posterior(pixels, means=False, until=2, seen=pixels.flip(-1))
        standard.append(((latents[1] - gaussians[1][2]) / gaussians[1][3].exp()).flatten(1))
    products = torch.cat(standard).T @ torch.cat(standard)  # about the means of the priors, which stay
    spread = products.diagonal().sqrt()
    known = products / spread / spread[:, None]
    like = torch.zeros(20_000, 4, 8, 8)
    drawn = blocks[1].sample(like, like, 1.0, math.inf).flatten(1)
    torch.testing.assert_close(drawn.std(0), torch.ones(256), atol=0.05, rtol=0)
    strong = (known.abs() > 0.5) & ~torch.eye(256, dtype=bool)
    assert strong.sum() > 100
    torch.testing.assert_close(torch.corrcoef(drawn.T)[strong], known[strong], atol=0.05, rtol=0)


def test_at_temperature_zero_only_the_pixels_are_random(stirred):
    received = drawn(stirred)
    one, another = stirred.sample(1, 0.0), stirred.sample(1, 0.0)
    for first, second in zip(received[: len(stirred.levels)], received[len(stirred.levels) :], strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert (one != another).any()


@pytest.mark.parametrize(
    "change", [{"decoder": ((1, 1), (16, 1))}, {"latents": (3,)}, {"latents": ()}, {"encoder": ((8, 1), (3, 1))}]
)
def test_an_impossible_configuration_says_so(change):
    with pytest.raises(ValueError, match=r"resolutions|must be"):
        vdvae.Config(**{"encoder": ((8, 1), (1, 1)), "decoder": ((1, 1), (8, 1)), "latents": (1,), "width": 8} | change)


@pytest.mark.parametrize(
    ("name", "blocks", "least", "most"),
    [
        ("tiny", 3, 0.02, 0.03),
        ("deep", 24, 8, 9),
    ],
)
def test_presets_have_the_size_they_promise(name, blocks, least, most):
    with torch.device("meta"):
        model = vdvae.VDVAE(vdvae.PRESETS[name])
    assert len(model.levels) == blocks
    assert least < sum(parameter.numel() for parameter in model.parameters()) / 1e6 < most
    assert model.config.size == (64 if name == "deep" else 32)

"""Properties of the autoencoder that hold whatever its weights."""

import math

import pytest
import torch

from rgz import likelihood, vdvae


def test_gradient_reaches_every_parameter(tiny, pixels):
    torch.manual_seed(0)
    for parameter in tiny.parameters():  # zero-initialised layers would hide what stands behind them
        parameter.data += 0.02 * torch.randn_like(parameter)
    tiny(pixels[:4])["loss"].backward()
    silent = [
        name
        for name, parameter in tiny.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert silent == []


def test_loss_is_distortion_plus_rate_in_bits(tiny, pixels):
    out = tiny(pixels[:4])
    bits = (out["distortion"] + out["rate"].sum(1)) / (32 * 32 * math.log(2))
    assert out["rate"].shape == (4, len(tiny.levels))
    assert (out["rate"] >= 0).all()
    torch.testing.assert_close(out["loss"], bits.mean())


def test_ten_images_can_be_learned(pixels):
    torch.manual_seed(0)
    config = vdvae.Config(
        encoder=((8, 1), (1, 1)), decoder=((1, 1), (8, 2)), latents=(1, 8), width=32, channels=4, mixtures=2, patch=4
    )
    model = vdvae.VDVAE(config)
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    first = model(pixels[:10])["loss"].item()
    for _ in range(200):
        loss = model(pixels[:10])["loss"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < 0.45 * first
    error, spread = (
        (x - pixels[:10].float()).square().mean()
        for x in (model.decode(model.encode(pixels[:10])[0]), pixels[:10].float().mean(0))
    )
    assert error < 0.2 * spread


def test_decoding_the_full_code_is_the_reconstruction(tiny, pixels):
    code, rates = tiny.encode(pixels)
    assert code.shape == rates.shape == (24, tiny.dimensions)
    parameters, _ = tiny._posterior(pixels, means=True)
    torch.testing.assert_close(tiny.decode(code), likelihood.mixture_mean(parameters), rtol=1e-4, atol=1e-2)


def test_an_empty_code_decodes_to_the_prior_mean(tiny):
    images = tiny.decode(torch.full((2, tiny.dimensions), torch.nan))
    torch.testing.assert_close(images[0], images[1])
    assert ((images >= 0) & (images <= 255)).all()


def test_one_image_has_one_code_whatever_its_batch(tiny, pixels):
    torch.testing.assert_close(tiny.encode(pixels)[0][3:5], tiny.encode(pixels[3:5])[0], rtol=1e-4, atol=1e-4)


def test_samples_are_grey_levels(tiny):
    assert tiny.sample(3).shape == (3, 1, 32, 32)
    assert tiny.sample(3).dtype == torch.uint8
    torch.manual_seed(1)
    cold = tiny.sample(1, temperature=0.0)
    torch.manual_seed(1)
    assert (tiny.sample(1, temperature=0.0) == cold).all()


@pytest.mark.parametrize(
    "change", [{"decoder": ((1, 1), (16, 1))}, {"latents": (3,)}, {"latents": ()}, {"encoder": ((8, 1), (3, 1))}]
)
def test_an_impossible_configuration_says_so(change):
    with pytest.raises(ValueError, match=r"resolutions|must be"):
        vdvae.Config(**{"encoder": ((8, 1), (1, 1)), "decoder": ((1, 1), (8, 1)), "latents": (1,), "width": 8} | change)


def test_presets_build_and_say_their_size():
    sizes = {name: sum(p.numel() for p in vdvae.VDVAE(config).parameters()) for name, config in vdvae.PRESETS.items()}
    assert sizes["tiny"] < 50_000 < 3_000_000 < sizes["small"] < 10_000_000

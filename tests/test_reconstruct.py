"""Measures of reconstruction are zero for identity and grow with the fault that each is about."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.decomposition import PCA

from rgz.models import checkpoint
from rgz.transforms import prepare
from studies import reconstruction
from studies.vae import Config, PlainVAE

RECIPE = prepare.Recipe(size=32)
SMALL = Config(size=32, width=8, latents=6, mixtures=2)
WIDTH = np.full(24, 2.0)


@pytest.fixture
def truth(pixels):
    return pixels[:, 0].numpy()


def test_identity_has_no_error(truth):
    measured = reconstruction.measure(truth, truth.astype(float), WIDTH)
    assert all(np.allclose(measured[f"{name}_error"], 0) for name in ("flux", "peak", "size"))
    assert np.allclose(measured["ssim"], 1)


def test_brightness_undoes_the_stretch():
    field = torch.tensor([[0.0, 0.25, 1.0]])
    assert reconstruction.brightness(prepare.stretch(field).numpy()) == pytest.approx(field.numpy(), abs=0.005)


def test_half_as_bright_is_half_the_flux_and_half_the_peak(truth):
    measured = reconstruction.measure(truth, truth * np.sqrt(0.5), WIDTH)
    assert np.allclose(measured["flux_error"], -0.5)
    assert np.allclose(measured["peak_error"], -0.5)
    assert np.allclose(measured["size_error"], 0)
    assert (measured["ssim"] < 0.99).all()
    assert reconstruction.summary(measured)["flux_error"] == pytest.approx([0.5] * 3)


def test_size_is_the_longest_way_across():
    bar = np.zeros((32, 32))
    bar[16, 5:15] = 255
    assert reconstruction.largest_size(bar) == pytest.approx(10, abs=0.6)
    bar[16, 25] = 20  # 0.6 % of the peak: not part of it
    assert reconstruction.largest_size(bar) == pytest.approx(10, abs=0.6)
    bar[16, 25] = 40
    assert reconstruction.largest_size(bar) == pytest.approx(21, abs=0.6)


@pytest.mark.slow
def test_a_study_compares_methods_on_the_same_images(tiny, simulated, monkeypatch):
    monkeypatch.setattr(reconstruction, "LENGTHS", (2, 9))
    latents = np.array([3, 2, 1, 0])  # all that are coarse
    rows = reconstruction.study(tiny.eval(), PlainVAE(SMALL), RECIPE, latents, simulated, {"sim": simulated})
    found = pd.DataFrame(rows).set_index(["code", "method", "metric"])
    assert (found["n"] == 24).all()
    assert set(found.loc["all latents"].index) >= {("VDVAE", "ssim"), ("plain VAE", "bits_per_dimension")}
    ssim = {method: found.loc["numbers", method, "ssim"] for method in ("VDVAE", "PCA", "plain VAE")}
    assert ssim["VDVAE"]["size"].tolist() == ssim["PCA"]["size"].tolist() == [2, 4]
    assert ssim["plain VAE"]["size"] == 6
    assert ssim["PCA"]["value"].is_monotonic_increasing


def test_as_many_components_as_images_lose_nothing(truth):
    pca = PCA(23).fit(truth.reshape(24, -1).astype(float))
    errors = [np.abs(reconstruction._of_components(pca, truth, k) - truth).max() for k in (5, 23)]
    assert errors[1] < 0.01 < errors[0]


def test_a_plain_autoencoder_answers_as_the_deep_one_does(pixels):
    torch.manual_seed(0)
    model = PlainVAE(SMALL)
    out = model(pixels)
    out["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert out["rate"].shape == (24, 1)
    nats = (out["distortion"] + out["rate"].sum(1)).mean() / (1024 * np.log(2))
    assert out["loss"].item() == pytest.approx(nats.item(), rel=1e-5)
    means, rates = model.encode(pixels)
    assert means.shape == rates.shape == (24, 6)
    assert model.decode(torch.full((2, 6), torch.nan)).shape == (2, 1, 32, 32)


def test_a_plain_autoencoder_is_saved_and_loaded(tmp_path, pixels):
    model = PlainVAE(SMALL)
    model.load_state_dict({name: value.half().float() for name, value in model.state_dict().items()})
    checkpoint.save(tmp_path / "plain.safetensors", model, RECIPE, {})
    read, *_ = checkpoint.load(tmp_path / "plain.safetensors", PlainVAE)
    assert isinstance(read, PlainVAE)
    torch.testing.assert_close(read.encode(pixels)[0], model.encode(pixels)[0])


def test_pixel_widths_follow_the_sources(simulated):
    widths = reconstruction.pixel_widths(simulated, RECIPE)
    assert ((widths >= 1.8 - 1e-6) & (widths <= 7.2 + 1e-6)).all()
    length = prepare.lengths(simulated.images, simulated.pixel)
    assert (np.diff(widths[np.argsort(length)]) >= 0).all()
    assert len(np.unique(widths)) > 1

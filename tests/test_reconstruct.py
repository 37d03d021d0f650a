"""Measures of reconstruction are zero for identity and grow with the fault that each is about."""

import numpy as np
import pandas as pd
import pytest
import torch

from rgz.data import sample
from rgz.features import embed
from rgz.models import checkpoint, vae
from rgz.models.likelihood import mixture_log_prob
from rgz.models.vae import PlainVAE
from rgz.transforms import prepare
from studies import reconstruction

SMALL = vae.Config(width=8, latents=6, mixtures=2)
WIDTH = np.full(24, 2.0)


@pytest.fixture
def truth(pixels):
    return pixels[:, 0].numpy()


def test_identity_has_no_error(truth):
    measured = reconstruction.measure(truth, truth.astype(float), WIDTH)
    assert all(np.allclose(measured[f"{name}_error"], 0) for name in ("flux", "peak", "size"))
    assert np.allclose(measured["ssim"], 1)


def test_brightness_undoes_the_stretch():
    field = np.array([[0.0, 0.25, 1.0]])
    assert reconstruction.brightness(prepare.stretch(field)) == pytest.approx(field, abs=0.005)


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
    monkeypatch.setattr(reconstruction, "CODE", 9)
    samples = {"sim": simulated}
    rows = reconstruction.study(tiny.eval(), PlainVAE(SMALL), prepare.Recipe(), simulated, samples)
    found = pd.DataFrame(rows).set_index(["code", "method", "metric"])
    assert (found["n"] == 24).all()
    assert set(found.loc["all latents"].index) >= {("VDVAE", "ssim"), ("plain VAE", "bits_per_dimension")}
    assert set(found.loc["numbers"].index.get_level_values("method")) == {
        "VDVAE",
        "VDVAE, fitted",
        "PCA",
        "plain VAE",
        "plain VAE, fitted",
    }
    pca = found.loc["numbers", "PCA", "ssim"].set_index("size")["value"]
    assert 9 in pca.index
    assert pca[pca.index.min()] < pca[pca.index.max()]
    assert pca[pca.index.max()] == pytest.approx(1, abs=0.01)  # more components than images: nothing is lost
    sent = {method: found.loc["bits", method, "ssim"] for method in ("VDVAE", "PCA")}
    assert len(sent["VDVAE"]) == len(tiny.levels)
    assert all(each["size"].is_monotonic_increasing for each in sent.values())
    assert sent["PCA"]["value"].iloc[-1] > sent["PCA"]["value"].iloc[0]


def test_bits_are_those_of_the_frequencies():
    known = np.array([[0], [0], [0], [1]] * 100)
    assert reconstruction._cost(known, np.array([[0], [1]])) == pytest.approx((np.log2(4 / 3) + 2) / 2, abs=0.01)
    assert reconstruction._cost(known, np.array([[7]])) > 10  # never seen, and yet it can be sent
    assert reconstruction._cost(known[:, [0, 0]], known[:, [0, 0]]) == pytest.approx(2 * 0.811, abs=0.01)


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
    checkpoint.save(tmp_path / "plain.safetensors", model, prepare.Recipe(), {})
    read, *_ = checkpoint.load(tmp_path / "plain.safetensors")
    assert isinstance(read, PlainVAE)
    torch.testing.assert_close(read.encode(pixels)[0], model.encode(pixels)[0])


def test_pixel_widths_follow_the_sources(simulated):
    recipe = prepare.Recipe()
    widths = sample.pixel_widths(simulated, recipe)
    assert ((widths >= 1.8) & (widths <= 7.2)).all()
    assert len(np.unique(widths)) > 1


def test_a_fitted_code_has_less_distortion(tiny, simulated):
    grey = sample.prepared(simulated[:6], prepare.Recipe())
    chosen = np.arange(0, tiny.dimensions, 2)
    code = embed.full_codes(tiny.eval(), grey)[0][:, chosen]
    fitted = reconstruction.fitted(tiny, grey, code, chosen, steps=20)

    def distortion(of):
        full = torch.full((len(of), tiny.dimensions), torch.nan)
        full[:, chosen] = torch.from_numpy(of)
        pixels = torch.from_numpy(grey[:, None])
        with torch.no_grad():
            return -mixture_log_prob(pixels, tiny.mixture(full)).sum((1, 2)).numpy()

    assert (distortion(fitted) < distortion(code)).all()
    assert all(parameter.grad is None for parameter in tiny.parameters())
    alone = reconstruction.fitted(tiny, grey[2:3], code[2:3], chosen, steps=20)
    np.testing.assert_allclose(alone, fitted[2:3], rtol=1e-2, atol=2e-3)
    np.testing.assert_array_equal(reconstruction.fitted(tiny, grey, code, chosen, steps=0), code)

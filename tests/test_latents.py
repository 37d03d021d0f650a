"""Codes keep their rows, decode again, and do not depend on which side of a galaxy is up."""

import numpy as np
import pytest
import torch

from rgz import anomalies, images, latents, oddities, sample
from rgz.errors import BadInput
from rgz.likelihood import mixture_log_prob


@pytest.fixture
def encoded(tiny, simulated):
    chosen = np.array([3, 130, 7, 300])
    return tiny, chosen, latents.encode(tiny.eval(), images.Recipe(), simulated, chosen)


def test_codes_are_the_chosen_latents_in_order(encoded, simulated, pixels):
    model, chosen, (kept, codes, left_out) = encoded
    np.testing.assert_allclose(codes["code"], model.encode(pixels)[0].numpy()[:, chosen], rtol=1e-4, atol=1e-5)
    assert codes["code_views"].shape == (24, 8)
    assert len(kept) == 24
    assert left_out == []
    lengths = [images.length(image, 1.8, images.Recipe()) for image in simulated.images]
    np.testing.assert_array_equal(kept.table["length"], lengths)


def test_a_fitted_code_gives_the_image_back_better(tiny, simulated):
    grey = sample.prepared(simulated[:6], images.Recipe())
    chosen = np.arange(0, tiny.dimensions, 2)
    code = latents.full_codes(tiny.eval(), grey)[0][:, chosen]
    fitted = latents.fitted(tiny, grey, code, chosen, steps=20)

    def distortion(of):
        full = torch.full((len(of), tiny.dimensions), torch.nan)
        full[:, chosen] = torch.from_numpy(of)
        pixels = torch.from_numpy(grey[:, None])
        with torch.no_grad():
            return -mixture_log_prob(pixels, tiny.mixture(full)).sum((1, 2)).numpy()

    assert (distortion(fitted) < distortion(code)).all()
    assert all(parameter.grad is None for parameter in tiny.parameters())
    alone = latents.fitted(tiny, grey[2:3], code[2:3], chosen, steps=20)
    np.testing.assert_allclose(alone, fitted[2:3], rtol=1e-2, atol=2e-3)
    np.testing.assert_array_equal(latents.fitted(tiny, grey, code, chosen, steps=0), code)


def test_rank_puts_the_most_variable_first():
    assert latents.rank(np.array([[0.0, 5.0, 1.0], [0.0, -5.0, 2.0]])).tolist() == [1, 2, 0]


def test_each_latent_belongs_to_a_block(tiny):
    coarse, fine = (tiny.config.channels * r * r for r in tiny.levels[:2])
    some = np.array([coarse, 0, coarse - 1, coarse + fine, coarse + fine - 1])
    assert latents.blocks_of(tiny, some).tolist() == [1, 0, 0, 2, 1]
    assert len(latents.blocks_of(tiny, np.arange(tiny.dimensions))) == tiny.dimensions


def test_pooled_codes_do_not_depend_on_the_order_of_views():
    views = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(images.pool(views), images.pool(views[[2, 0, 3, 1]]), rtol=1e-5, atol=1e-6)


def test_a_view_like_its_mirror_image_is_symmetric():
    views = np.random.default_rng(0).normal(size=(12, 5, 3))
    views[[1, 3]] = views[[0, 2]] + 0.25  # mirrored across the axis hardly anything changes
    across, along, both = latents.asymmetry(views).T
    np.testing.assert_allclose(across, np.log(0.25 + latents.EXACT))
    difference = np.sqrt(((views[0] - views[2]) ** 2).mean(axis=1))
    np.testing.assert_allclose(along, np.log(difference + latents.EXACT))
    assert (both > across).all()
    np.testing.assert_allclose(latents.asymmetry(np.ones((4, 2, 3))), np.log(latents.EXACT))


def test_halves_that_mirror_each_other_are_symmetric(tiny, simulated):
    rng, recipe, some = np.random.default_rng(0), images.Recipe(), np.arange(tiny.dimensions)

    def least(pictures):
        one = sample.Sample(np.stack(pictures), simulated.table[: len(pictures)], simulated.pixel)
        return latents.asymmetry(latents.of_views(tiny, recipe, one, some))[:, :2].min(axis=1)

    hosts = simulated.images[:6].astype(float)
    halved = [oddities.KINDS["mirrored halves"](host, rng) for host in hosts]
    np.testing.assert_allclose(least(halved), np.log(latents.EXACT), atol=1e-5)
    assert (
        least(list(hosts)) > np.log(latents.EXACT) + 1e-3
    ).all()  # codes of a network that was not trained are small


def test_a_density_is_of_means_over_views_and_of_asymmetries(encoded, simulated):
    tiny, chosen, (_, codes, _) = encoded
    recipe = images.Recipe()
    views = latents.of_views(tiny, recipe, simulated, chosen)
    expected = np.hstack([views.mean(axis=0), latents.asymmetry(views)])
    assert expected.shape == (24, len(chosen) + 3)
    np.testing.assert_allclose(latents.for_density(codes), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(anomalies.codes_of(tiny, recipe, simulated, chosen), expected, rtol=1e-5, atol=1e-6)


def test_a_blank_image_is_left_out_by_name(tiny, simulated):
    pixels = simulated.images.copy()
    pixels[2] = 0
    some = np.array([0, 1])
    kept, codes, left_out = latents.encode(tiny, images.Recipe(), sample.Sample(pixels, simulated.table, 1.8), some)
    assert left_out == ["sim-0002"]
    assert len(kept) == len(codes["code"]) == 23
    assert "sim-0002" not in kept.table["name"]


def test_decoding_gives_images(encoded):
    model, chosen, (_, codes, _) = encoded
    assert latents.decode(model, codes["code"], chosen).shape == (24, 32, 32)
    with pytest.raises(BadInput, match=r"\(N, 4\)"):
        latents.decode(model, codes["code"][:, :3], chosen)


def test_codes_come_back_from_their_file(tmp_path, encoded):
    _, chosen, (kept, codes, _) = encoded
    path = tmp_path / "c.h5"
    latents.write_codes(path, {"sim": (kept.table, codes, {"left_out": []})}, {"latents": chosen, "note": "x"})
    read, again, about = latents.read_codes(path, "sim")
    np.testing.assert_allclose(again, codes["code"], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(read["name"], kept.table["name"])
    np.testing.assert_array_equal(about["latents"], chosen)
    np.testing.assert_allclose(
        latents.read_codes(path, "sim", "code_views")[1], codes["code_views"], rtol=1e-3, atol=1e-6
    )
    with pytest.raises(BadInput, match="sim/code, sim/code_asymmetry, sim/code_views"):
        latents.read_codes(path, "other")


@pytest.mark.parametrize("damage", [lambda b: b[:3000], lambda b: b"HDF?" + b[4:], lambda b: b""])
def test_damaged_codes_are_refused(tmp_path, encoded, damage, run):
    _, _, (kept, codes, _) = encoded
    path = tmp_path / "c.h5"
    latents.write_codes(path, {"mirabest": (kept.table, codes, {})}, {})
    path.write_bytes(damage(path.read_bytes()))
    status, out, err = run("classify", "--codes", path, "--out", tmp_path / "r.json")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert not (tmp_path / "r.json").exists()

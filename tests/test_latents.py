"""Codes keep their rows, decode again, and do not depend on which side of a galaxy is up."""

import numpy as np
import pytest
import torch

from rgz import anomalies, images, latents, oddities, readers, sample, similar
from rgz.errors import BadInput
from rgz.likelihood import mixture_log_prob


@pytest.fixture(scope="module")
def basis(pixels):
    return latents.principal(pixels[:, 0].numpy(), 5)


@pytest.fixture
def encoded(tiny, simulated, basis):
    chosen = np.array([3, 130, 7, 300])
    return tiny, chosen, latents.encode(tiny.eval(), images.Recipe(), simulated, chosen, basis)


def test_codes_are_the_chosen_latents_in_order(encoded, pixels):
    model, chosen, (table, codes, left_out) = encoded
    np.testing.assert_allclose(codes["code"], model.encode(pixels)[0].numpy()[:, chosen], rtol=1e-4, atol=1e-5)
    assert codes["code_views"].shape == (24, 8)
    assert len(table) == 24
    assert left_out == []


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


def test_what_is_compared_holds_codes_and_components_of_all_frames(tiny, simulated, basis):
    chosen, recipe, frames = np.array([3, 130, 7]), images.Recipe(), len(images.FRAMES)
    whole = latents.for_comparison(tiny.eval(), recipe, simulated[:4], chosen, basis)
    _, codes, _ = latents.encode(tiny, recipe, simulated[:4], chosen, basis)
    np.testing.assert_allclose(whole, latents.beside(codes), rtol=1e-5, atol=1e-6)
    assert whole.shape == (4, 2 * (3 + 5) * frames)
    alone = whole[:, latents.alone(chosen)]
    for number, frame in enumerate(images.FRAMES):
        own = images.pool(latents.of_views(tiny, recipe, simulated[:4], chosen, frame=frame))
        np.testing.assert_allclose(alone[:, 6 * number : 6 * (number + 1)], own, rtol=1e-5, atol=1e-6)
    parts = latents.components(recipe, simulated[:4], basis)
    np.testing.assert_array_equal(whole[:, alone.shape[1] :], parts)


def test_components_are_those_of_the_prepared_images(simulated, pixels, basis):
    flat = pixels[:, 0].numpy().reshape(24, -1).astype(float)
    _, vectors = np.linalg.eigh(np.cov(flat.T))
    own = (flat - flat.mean(0)) @ vectors[:, ::-1][:, :5] / 255
    np.testing.assert_allclose(np.abs(basis.place(flat)), np.abs(own), rtol=1e-3, atol=1e-4)
    shown = np.stack([images.views(image, simulated.pixel, images.Recipe()) for image in simulated.images], axis=1)
    first = images.pool(np.stack([basis.place(view.reshape(24, -1)) for view in shown]))
    np.testing.assert_allclose(latents.components(images.Recipe(), simulated, basis)[:, :10], first, rtol=1e-4, atol=1e-5)


def test_changes_are_what_an_alteration_does_to_a_description(simulated):
    recipe = images.Recipe()
    lengths = lambda sample: np.array([[images.length(one, sample.pixel, recipe)] for one in sample.images])  # noqa: E731
    long = (lengths(simulated)[:, 0] > latents.RESOLVED).sum()
    found = latents.changes(lengths, recipe, simulated, count=6)
    assert found.shape == (min(6, long) * len(latents.TOLERATED), 1)
    turned, farther = found[: len(found) // 5], found[-len(found) // 5 :]
    assert np.abs(turned).max() < 1.0  # arcsec
    assert (farther < 0).all()


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
    assert (least(list(hosts)) > np.log(latents.EXACT) + 1e-3).all()  # codes of a network that was not trained are small


def test_a_density_is_of_means_over_views_and_of_asymmetries(encoded, simulated):
    tiny, chosen, (_, codes, _) = encoded
    recipe = images.Recipe()
    views = latents.of_views(tiny, recipe, simulated, chosen)
    expected = np.hstack([views.mean(axis=0), latents.asymmetry(views)])
    assert expected.shape == (24, len(chosen) + 3)
    np.testing.assert_allclose(latents.for_density(codes), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(anomalies.codes_of(tiny, recipe, simulated, chosen), expected, rtol=1e-5, atol=1e-6)


def test_a_blank_image_is_left_out_by_name(tiny, simulated, basis):
    pixels = simulated.images.copy()
    pixels[2] = 0
    table, codes, left_out = latents.encode(
        tiny, images.Recipe(), sample.Sample(pixels, simulated.table, 1.8), np.array([0, 1]), basis
    )
    assert left_out == ["sim-0002"]
    assert len(table) == len(codes["code"]) == 23


def test_decoding_gives_images(encoded):
    model, chosen, (_, codes, _) = encoded
    assert latents.decode(model, codes["code"], chosen).shape == (24, 32, 32)
    with pytest.raises(BadInput, match=r"\(N, 4\)"):
        latents.decode(model, codes["code"][:, :3], chosen)


def test_codes_come_back_from_their_file(tmp_path, encoded):
    _, chosen, (table, codes, _) = encoded
    path = tmp_path / "c.h5"
    latents.write_codes(path, {"sim": (table, codes, {"left_out": []})}, {"latents": chosen, "note": "x"})
    read, again, about = latents.read_codes(path, "sim")
    np.testing.assert_allclose(again, codes["code"], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(read["name"], table["name"])
    np.testing.assert_array_equal(about["latents"], chosen)
    np.testing.assert_allclose(
        latents.read_codes(path, "sim", "code_views")[1], codes["code_views"], rtol=1e-3, atol=1e-6
    )
    with pytest.raises(BadInput, match="sim/code, sim/code_asymmetry, sim/code_components, sim/code_frames, sim/code_views"):
        latents.read_codes(path, "other")


def test_spaces_come_back_from_their_file(tmp_path, encoded, basis):
    _, _, (table, codes, _) = encoded
    path = tmp_path / "c.h5"
    spaces = {latents.BASIS: basis, latents.SPACE: similar.plain(latents.beside(codes))}
    latents.write_codes(path, dict.fromkeys(readers.SAMPLES, (table, codes, {})), {}, spaces)
    for name, space in spaces.items():
        read = latents.read_space(name, path)
        np.testing.assert_allclose(read.centre, space.centre, rtol=1e-6)
        np.testing.assert_allclose(read.matrix, space.matrix, rtol=1e-3, atol=1e-6)
        assert read.cosine == space.cosine
    whole, found, space = latents.for_search(path)
    assert len(whole) == len(found) == 24 * len(readers.SAMPLES)
    np.testing.assert_allclose(found[:24], latents.beside(codes), rtol=1e-3, atol=1e-5)
    assert space.matrix.shape == (found.shape[1],) * 2
    with pytest.raises(BadInput, match="rgz encode"):
        latents.read_space(latents.ALONE, path)


@pytest.mark.parametrize("damage", [lambda b: b[:3000], lambda b: b"HDF?" + b[4:], lambda b: b""])
def test_damaged_codes_are_refused(tmp_path, encoded, damage, run):
    _, _, (table, codes, _) = encoded
    path = tmp_path / "c.h5"
    latents.write_codes(path, {"mirabest": (table, codes, {})}, {})
    path.write_bytes(damage(path.read_bytes()))
    status, out, err = run("report", "--codes", path, "--out", tmp_path / "r.json")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert not (tmp_path / "r.json").exists()

"""Codes keep their rows, decode to images, and do not depend on which mirror image is encoded."""

from types import SimpleNamespace

import numpy as np
import pytest

from rgz.data import sample
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import descriptors, embed
from rgz.transforms import prepare
from studies import injected

CHOSEN = np.array([3, 130, 7, 300])


@pytest.fixture
def encoder(tiny, pixels):
    return embed.Encoder(tiny.eval(), prepare.Recipe(), CHOSEN, descriptors.principal(pixels[:, 0].numpy(), 5))


def test_codes_are_the_chosen_latents_in_order(encoder, simulated, pixels):
    codes = encoder.variants(simulated)
    expected = encoder.model.encode(pixels)[0].numpy()[:, CHOSEN]
    np.testing.assert_allclose(codes["code"], expected, rtol=1e-4, atol=1e-5)
    assert {name: code.shape for name, code in codes.items()} == {
        "code": (24, 4),
        "code_views": (24, 8),
        "code_asymmetry": (24, 3),
        "code_compared": (24, 10 * (4 + 5)),
    }


def test_features_are_those_of_the_codes_file(encoder, simulated):
    some = simulated[:5]
    codes = encoder.variants(some)
    np.testing.assert_array_equal(encoder.transform(some), codes["code_views"])
    np.testing.assert_array_equal(encoder.transform(some, "density"), embed.for_density(codes))
    np.testing.assert_array_equal(encoder.transform(some, features="search"), codes["code_compared"])
    with pytest.raises(BadInput, match="classification, density, search; 'colour'"):
        encoder.transform(some, "colour")


def test_a_cutout_has_the_features_of_its_row(encoder, simulated):
    one = SimpleNamespace(pixels=simulated.images[3], pixel=simulated.pixel)  # what an encoder takes from a cut-out
    for features in embed.FEATURES:
        expected = encoder.transform(simulated[3:4], features)
        np.testing.assert_array_equal(encoder.transform(one, features), expected)
    assert encoder.reconstruct(one).shape == (1, 32, 32)


def test_reconstructions_decode_all_latents(encoder, simulated, pixels):
    rebuilt = encoder.model.decode(encoder.model.encode(pixels)[0])[:, 0].numpy()
    np.testing.assert_allclose(encoder.reconstruct(simulated), rebuilt, rtol=1e-4, atol=1e-2)


def test_images_without_a_source_are_named(encoder, simulated):
    blank = simulated.images.copy()
    blank[2] = 0
    with pytest.raises(BadInput, match=r"1 images .*sim-0002.* leave them out"):
        encoder.transform(sample.Sample(blank, simulated.table, simulated.pixel))


@pytest.mark.slow
def test_the_trained_encoder_gives_the_codes_of_the_file(survey):
    galaxies, encoder = survey("mirabest"), embed.Encoder.from_pretrained()
    table, codes, _ = codefile.read_variants(None, "mirabest", ("code_views", "code_asymmetry", "code_compared"))
    some = np.arange(0, len(table), 300)
    found = encoder.variants(galaxies.named(table["name"][some]))
    for name in ("code_views", "code_asymmetry"):
        np.testing.assert_allclose(found[name], codes[name][some], rtol=2**-11, atol=1e-5)
    step = codes["code_compared"].std(axis=0) / 16
    assert (np.abs(found["code_compared"] - codes["code_compared"][some]) <= step).all()


def test_rank_puts_the_most_variable_first():
    assert embed.rank(np.array([[0.0, 5.0, 1.0], [0.0, -5.0, 2.0]])).tolist() == [1, 2, 0]


def test_each_latent_belongs_to_a_block(tiny):
    coarse, fine = (tiny.config.channels * r * r for r in tiny.levels[:2])
    some = np.array([coarse, 0, coarse - 1, coarse + fine, coarse + fine - 1])
    assert embed.blocks_of(tiny, some).tolist() == [1, 0, 0, 2, 1]
    assert len(embed.blocks_of(tiny, np.arange(tiny.dimensions))) == tiny.dimensions


def test_pooled_codes_do_not_depend_on_the_order_of_views():
    views = np.random.default_rng(0).normal(size=(4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(prepare.pool(views), prepare.pool(views[[2, 0, 3, 1]]), rtol=1e-5, atol=1e-6)


def test_a_view_like_its_mirror_image_is_symmetric():
    views = np.random.default_rng(0).normal(size=(12, 5, 3))
    views[[1, 3]] = views[[0, 2]] + 0.25  # mirrored across the axis hardly anything changes
    across, along, both = embed.asymmetry(views).T
    np.testing.assert_allclose(across, np.log(0.25 + embed.EXACT))
    difference = np.sqrt(((views[0] - views[2]) ** 2).mean(axis=1))
    np.testing.assert_allclose(along, np.log(difference + embed.EXACT))
    assert (both > across).all()
    np.testing.assert_allclose(embed.asymmetry(np.ones((4, 2, 3))), np.log(embed.EXACT))


def test_halves_that_mirror_each_other_are_symmetric(tiny, simulated):
    rng, recipe, some = np.random.default_rng(0), prepare.Recipe(), np.arange(tiny.dimensions)

    def least(pictures):
        one = sample.Sample(np.stack(pictures), simulated.table[: len(pictures)], simulated.pixel)
        return embed.asymmetry(embed.of_views(tiny, recipe, one, some))[:, :2].min(axis=1)

    hosts = simulated.images[:6].astype(float)
    halved = [injected.KINDS["mirrored halves"](host, rng) for host in hosts]
    np.testing.assert_allclose(least(halved), np.log(embed.EXACT), atol=1e-5)
    assert (least(list(hosts)) > np.log(embed.EXACT) + 1e-3).all()  # codes of a network that was not trained are small


def test_features_of_a_density_are_mean_codes_and_asymmetries(encoder, simulated):
    views = embed.of_views(encoder.model, encoder.recipe, simulated, CHOSEN)
    expected = np.hstack([views.mean(axis=0), embed.asymmetry(views)])
    assert expected.shape == (24, len(CHOSEN) + 3)
    np.testing.assert_allclose(encoder.transform(simulated, "density"), expected, rtol=1e-5, atol=1e-6)


def test_decoding_gives_images(encoder, simulated):
    codes = encoder.variants(simulated)["code"]
    assert encoder.decode(codes).shape == (24, 32, 32)
    with pytest.raises(BadInput, match=r"\(N, 4\)"):
        encoder.decode(codes[:, :3])

"""Codes keep their rows, decode to images, and do not depend on which mirror image is encoded."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rgz.data import sample
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import embed
from rgz.transforms import prepare
from studies import figures, latent

CHOSEN = np.array([3, 0, 2])


@pytest.fixture
def encoder(tiny):
    for parameter in tiny.parameters():  # codes of an untrained network are all alike
        parameter.data *= 2
    return embed.Encoder(tiny.eval(), prepare.Recipe(32), CHOSEN)


def spread(codes):
    """Mean distance between the codes of different galaxies."""
    return np.linalg.norm(codes - codes[::-1], axis=1).mean()


def test_a_code_has_four_parts_from_four_views_in_two_frames(encoder, simulated):
    images = torch.from_numpy(simulated.images[:5])
    squares, poses = encoder.prepare(images, simulated.pixel, (False, True))
    mirrored = [[frame.flip(axes) for axes in ((), (-1,), (-2,), (-1, -2))] for frame in squares]
    middle, centroid = (torch.stack([encoder.model.encode(v)[0][:, CHOSEN] for v in views]) for views in mirrored)
    along, across = (1 + torch.tanh(poses[0].lean.abs() / embed.UNCERTAIN)).T[:, :, None] / 2
    assert ((along >= 0.5) & (along <= 1)).all()
    weights = torch.stack((along * across, (1 - along) * across, along * (1 - across), (1 - along) * (1 - across)))
    torch.testing.assert_close(weights.sum(0), torch.ones(5, 1))
    spreads = [views.std(0, correction=0) for views in (middle, centroid)]
    expected = ((weights * middle).sum(0), spreads[0], centroid.mean(0), spreads[1])
    codes = encoder.transform(simulated[:5])
    assert codes.shape == (5, 4 * len(CHOSEN))
    np.testing.assert_allclose(codes, torch.cat(expected, 1), rtol=1e-4, atol=1e-5)
    assert spread(codes) > 0.01


@pytest.mark.parametrize("turn", [np.fliplr, np.flipud, np.rot90, np.transpose], ids=lambda turn: turn.__name__)
def test_a_mirrored_or_turned_image_has_the_same_code(encoder, simulated, turn):
    turned = np.stack([turn(image) for image in simulated.images])
    codes = encoder.transform(simulated)
    found = encoder.transform(sample.Sample(turned, simulated.table, simulated.pixel))
    assert np.linalg.norm(codes - found, axis=1).max() < 0.1 * spread(codes)


def test_two_equal_halves_have_one_code_whichever_is_brighter(encoder):
    y, x = np.mgrid[:101, :101] - 50
    codes = []
    for more in (1.001, 0.999):
        lobes = [g * np.exp(-((x - u) ** 2 + y**2) / 20) for g, u in ((more, 12), (1, -12))]
        field = np.where(sum(lobes) > 0.01, sum(lobes), 0)
        field[40:50, 45] += 0.3 * np.arange(10) / 10  # below: the sides across are told apart
        codes.append(encoder.transform(SimpleNamespace(pixels=field, pixel=1.8, given=True)))
    np.testing.assert_allclose(*codes, rtol=1e-2, atol=1e-3)


def test_codes_do_not_depend_on_the_batch(encoder, simulated, monkeypatch):
    codes = encoder.transform(simulated)
    monkeypatch.setattr(embed, "FIELDS", 5)
    monkeypatch.setattr(embed, "BATCH", 7)
    np.testing.assert_allclose(encoder.transform(simulated), codes, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_codes_of_a_processor(encoder, simulated, monkeypatch):
    codes = encoder.transform(simulated)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    np.testing.assert_allclose(copy.deepcopy(encoder).cuda().transform(simulated), codes, rtol=1e-2, atol=1e-3)


def test_a_cutout_has_the_code_of_its_row(encoder, simulated):
    one = SimpleNamespace(
        pixels=simulated.images[3], pixel=simulated.pixel, given=True
    )  # what an encoder takes from a cut-out
    np.testing.assert_allclose(encoder.transform(one), encoder.transform(simulated[3:4]), rtol=1e-5, atol=1e-6)
    assert encoder.reconstruct(one).shape == (1, 32, 32)
    np.testing.assert_array_equal(encoder.prepared(one), encoder.prepared(simulated[3:4]))


def test_without_a_host_the_whole_code_is_about_the_centroid(encoder, simulated):
    fields = [
        SimpleNamespace(pixels=simulated.images[3], pixel=simulated.pixel, given=given) for given in (True, False)
    ]
    host, none = encoder.transform(fields)
    count = len(encoder.latents)
    np.testing.assert_allclose(none[2 * count :], host[2 * count :], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(none[count : 2 * count], none[3 * count :])


def test_images_with_different_pixels_have_the_codes_of_each(encoder, simulated):
    widths = (1.8, 2.5, 4.0, 2.5)
    fields = [
        SimpleNamespace(pixels=one, pixel=w, given=True) for one, w in zip(simulated.images, widths, strict=False)
    ]
    apart = np.concatenate([encoder.transform(one) for one in fields])
    np.testing.assert_allclose(encoder.transform(fields), apart, rtol=1e-4, atol=1e-5)
    assert not np.allclose(apart[1:], encoder.transform(simulated[1:4]), atol=0.1 * spread(apart))


def test_prepared_images_are_around_the_middle(encoder, simulated):
    both = prepare.prepare(simulated.images, simulated.pixel, encoder.recipe, (False, True))
    np.testing.assert_array_equal(encoder.prepared(simulated), both[0])


def test_reconstructions_decode_all_latents(encoder, simulated, pixels):
    rebuilt = encoder.model.decode(encoder.model.encode(pixels)[0])[:, 0].numpy()
    assert np.isfinite(rebuilt).all()
    np.testing.assert_allclose(encoder.reconstruct(simulated), rebuilt, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(embed.reconstruct(encoder.model, pixels[:, 0].numpy()), rebuilt, rtol=1e-4, atol=1e-2)


def test_images_without_a_source_are_named(encoder, simulated):
    blank = simulated.images.copy()
    blank[2] = 0
    with pytest.raises(BadInput, match=r"1 images .*sim-0002.* leave them out"):
        encoder.transform(sample.Sample(blank, simulated.table, simulated.pixel))
    assert encoder.transform(sample.Sample(blank, simulated.table, simulated.pixel)[3:6]).shape == (3, 12)
    with pytest.raises(BadInput, match="no emission"):
        encoder.prepared(SimpleNamespace(pixels=blank[2], pixel=1.8))


def test_full_codes_are_those_of_the_network(encoder, pixels):
    means, rates = latent.full_codes(encoder.model, pixels[:, 0].numpy(), blocks=encoder.model.coded)
    length = encoder.model.config.channels * sum(r * r for r in encoder.model.levels if r <= 8)
    assert means.shape == rates.shape == (24, length)
    whole, _ = latent.full_codes(encoder.model, pixels[:, 0].numpy())
    assert whole.shape == (24, encoder.model.dimensions)
    np.testing.assert_allclose(whole[:, :length], means, rtol=1e-4, atol=1e-5)
    drawn, _ = latent.full_codes(encoder.model, pixels[:, 0].numpy(), drawn=True)
    assert np.abs(drawn - whole).mean() > 0.1


@pytest.mark.slow
def test_the_trained_encoder_gives_the_codes_of_the_file(survey):
    galaxies, encoder = survey("mirabest"), embed.Encoder.from_pretrained()
    table, codes, _ = codefile.read_codes(None, "mirabest")
    some = np.arange(0, len(table), 150)
    found = encoder.transform(galaxies.named(table["name"][some]))
    assert found.shape == (len(some), embed.PARTS * len(encoder.latents))
    assert np.abs(found - codes[some]).max() < 0.05 * codes.std()


def test_rank_puts_the_highest_rate_first_and_keeps_the_order_of_equal_ones():
    assert latent.rank(np.array([[0.0, 5.0, 1.0, 0.0], [0.0, 1.0, 2.0, 0.0]])).tolist() == [1, 2, 0, 3]


def test_each_latent_belongs_to_a_block(tiny):
    coarse, fine = (tiny.config.channels * r * r for r in tiny.levels[:2])
    some = np.array([coarse, 0, coarse - 1, coarse + fine, coarse + fine - 1])
    assert latent.blocks_of(tiny, some).tolist() == [1, 0, 0, 2, 1]
    assert len(latent.blocks_of(tiny, np.arange(tiny.dimensions))) == tiny.dimensions


def test_a_full_code_has_the_values_at_their_latents_and_nothing_elsewhere(tiny):
    as_it_is = SimpleNamespace(dimensions=tiny.dimensions, decode=lambda code: code[:, None])
    whole = embed.decode(as_it_is, np.array([[1.0, 2.0, 3.0]]), CHOSEN)
    assert whole.shape == (1, tiny.dimensions)
    assert np.nan_to_num(whole[0, :4], nan=-1).tolist() == [2, -1, 3, 1]
    assert np.isnan(whole[0, 4:]).all()


def test_decoding_uses_the_half_of_the_code_about_the_middle_of_the_field(encoder, simulated):
    codes = encoder.transform(simulated)
    made = encoder.decode(codes)
    assert made.shape == (24, 32, 32)
    np.testing.assert_array_equal(made, embed.decode(encoder.model, codes[:, :3], CHOSEN))
    another = np.hstack([codes[:, :3], codes[::-1, 3:]])
    np.testing.assert_array_equal(encoder.decode(another), made)


@pytest.mark.parametrize("wrong", [np.zeros((2, 5)), np.zeros((2, 3)), np.zeros(12), np.zeros((0, 7))])
def test_codes_of_another_length_are_refused(encoder, wrong):
    with pytest.raises(BadInput, match=r"\(N, 12\)"):
        encoder.decode(wrong)
    with pytest.raises(BadInput, match=r"\(N, 2\)"):
        embed.decode(encoder.model, np.zeros((4, 3)), CHOSEN[:2])


@pytest.mark.slow
def test_pictures_of_a_row_that_is_asked_for_twice(survey):
    galaxies = survey("mirabest")
    shown, what = figures.pictures("mirabest", np.array([7, 3, 7]))
    assert what == "survey images"
    assert (shown[0] == shown[2]).all()
    table, _, _ = codefile.read_codes(None, "mirabest")
    own = embed.Encoder.from_pretrained().prepared(galaxies.named(table["name"][[7, 3]]))
    assert (shown[:2] == own).all()


def test_no_image_has_no_code_and_too_large_values_are_refused(encoder, simulated):
    assert encoder.transform(simulated[:0]).shape == (0, 12)
    bright = simulated.images[:2].astype(np.float32)
    bright[1] *= 1e36
    with pytest.raises(BadInput, match="1 images have too large values"):
        encoder.transform(sample.Sample(bright, simulated.table[:2], simulated.pixel))

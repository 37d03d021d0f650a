"""Drawn galaxies are images as prepared ones are, the same for one seed, and as ordinary as one asks for."""

import h5py
import numpy as np
import pytest
import torch
from astropy.io import fits
from PIL import Image
from test_vdvae import drawn, stir

from rgz import augment, checkpoints, density, fetch, generate, images, latents, reconstruct, sample
from rgz.errors import BadInput


@pytest.fixture
def stirred(tiny):
    return stir(tiny, 0.05).eval()


@pytest.fixture
def three(pixels):
    return pixels[:3, 0].numpy()


@pytest.fixture
def flow(stirred, simulated):
    """A flow over the codes of simulated galaxies."""
    config = density.Config(kept=12, layers=2, hidden=32, epochs=30, batch=64, dropout=0.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(generate, "SHOWN", 1024)
        return generate.prior(stirred, images.Recipe(), simulated, np.arange(len(simulated)) // 2, config)


@pytest.fixture
def weights(tmp_path, stirred):
    checkpoints.save(tmp_path / "m.safetensors", stirred, images.Recipe(), {"commit": "abc"})
    return tmp_path / "m.safetensors"


def spread(grey):
    return grey.astype(float).std(axis=0).mean()


def test_galaxies_reach_the_highest_grey_level(stirred):
    grey = generate.new(stirred, 140)
    assert grey.shape == (140, 32, 32)
    assert grey.dtype == np.uint8
    assert (grey.max((1, 2)) == 255).all()


def test_black_images_stay_black_and_others_keep_their_ratios():
    grey = np.zeros((2, 4, 4), np.uint8)
    grey[1, 0, :2] = 50, 100
    full = generate.full_peak(grey)
    assert full[0].max() == 0
    assert full[1, 0].tolist() == [128, 255, 0, 0]


def test_the_seed_names_the_galaxies(stirred):
    one = generate.new(stirred, 5, seed=1)
    assert (generate.new(stirred, 5, seed=1) == one).all()
    assert (generate.new(stirred, 2, seed=1) == one[:2]).all()  # fewer are the first of more
    assert (generate.new(stirred, 5, seed=2) != one).any((1, 2)).all()
    assert len(np.unique(one, axis=0)) == 5


def test_nobody_elses_random_numbers_change(stirred, three):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generate.new(stirred, 2, seed=1)
    generate.redrawn(stirred, three, 1, seed=1)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_low_temperature_and_truncation_make_galaxies_alike(stirred):
    free = spread(generate.new(stirred, 100))
    assert spread(generate.new(stirred, 100, temperature=0.5)) < free
    assert spread(generate.new(stirred, 100, truncation=0.5)) < free
    cold = stirred.sample(100, 1e-6)[:, 0].numpy().astype(int)  # their mean images, without grain
    assert np.ptp(cold, axis=0).max() <= 1


def test_nothing_is_drawn_beyond_the_truncation(tiny):
    """An untrained prior is the standard Gaussian at every block."""
    received = drawn(tiny)
    for temperature, truncation in ((1.0, 1.5), (0.5, 1.0)):
        received.clear()
        tiny.sample(50, temperature, truncation)
        largest = max(part.abs().max() for part in received)
        assert 0.95 * temperature * truncation < largest <= temperature * truncation + 1e-5
    received.clear()
    tiny.sample(50)
    assert max(part.abs().max() for part in received) > 3


def test_grain_makes_neighbouring_pixels_differ(stirred):
    mean, like_a_beam, grainy = (
        np.abs(np.diff(stirred.sample(20, grain=grain)[:, 0].numpy().astype(float))).mean()
        for grain in (None, 0.9, 0.0)
    )
    assert grainy > 1.3 * like_a_beam > 1.3 * 1.3 * mean


def test_a_flow_draws_codes_like_those_of_the_images(stirred, simulated, flow):
    grey = augment.batches(simulated, images.Recipe(), 1024, 0)(0)[:, 0].numpy()
    torch.manual_seed(0)
    known, _ = latents.full_codes(stirred, grey, drawn=True)
    drawn = flow.draw(400)
    assert drawn.shape == (400, stirred.dimensions)
    np.testing.assert_allclose(drawn.mean(0), known.mean(0), atol=0.3 * known.std(0).max())
    np.testing.assert_allclose(flow.whitened(drawn).std(0), 1, atol=0.25)


def test_grain_rides_on_the_mean_image(stirred, flow):
    code = np.repeat(flow.draw(1), 500, axis=0)
    (mean,) = latents.decode(stirred, code[:1], np.arange(stirred.dimensions))
    painted = generate.painted(stirred, code).astype(float)
    assert (painted.std(axis=0) > 0).all()
    inside = (mean > 100) & (mean < 155)  # what is cut at 0 and 255 has another mean
    assert inside.sum() > 50
    assert np.abs(painted.mean(axis=0) - mean)[inside].mean() < 12


def test_galaxies_from_a_flow_are_its_codes_painted(stirred, flow):
    grey = generate.new(stirred, 3, seed=2, flow=flow)
    torch.manual_seed(2)
    painted = generate.painted(stirred, flow.draw(generate.BATCH))
    np.testing.assert_array_equal(grey, generate.full_peak(painted[:3]))
    assert (grey != generate.new(stirred, 3, seed=2)).any()
    free = spread(generate.new(stirred, 100, flow=flow))
    assert spread(generate.new(stirred, 100, 0.3, flow=flow)) < free
    assert spread(generate.new(stirred, 100, truncation=0.3, flow=flow)) < free


@pytest.mark.parametrize(
    ("count", "temperature", "truncation"),
    [(0, 1, 1), (-3, 1, 1), (1, 0, 1), (1, -1, 1), (1, np.nan, 1), (1, np.inf, 1), (1, 1, 0), (1, 1, np.nan)],
)
def test_what_cannot_be_drawn_says_so(tiny, count, temperature, truncation):
    with pytest.raises(BadInput, match="positive"):
        generate.new(tiny, count, temperature, truncation)


def test_blank_images_are_drawn_again(tiny, monkeypatch):
    def mostly_blank(count, *_):
        grey = torch.zeros(count, 1, 32, 32, dtype=torch.uint8)
        grey[::3, 0, torch.randint(32, ()), 5] = 90
        return grey

    monkeypatch.setattr(tiny, "sample", mostly_blank)
    grey = generate.new(tiny, 200)
    assert len(grey) == 200
    assert (grey.max((1, 2)) == 255).all()


def test_a_model_of_blank_images_is_not_asked_for_ever(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "sample", lambda count, *_: torch.zeros(count, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(BadInput, match="blank"):
        generate.new(tiny, 1)


def test_with_nothing_left_to_draw_a_galaxy_is_its_reconstruction(stirred, three):
    again = generate.redrawn(stirred, three, len(stirred.levels), times=2)
    assert again.shape == (2, 3, 32, 32)
    rebuilt = generate.full_peak(reconstruct.rebuilt(stirred, three))
    assert (np.abs(again.astype(int) - rebuilt) <= 1).all()


def test_redrawn_galaxies_keep_their_coarse_latents(stirred, three):
    code, _ = latents.full_codes(stirred, three)
    received = drawn(stirred)
    one, another = generate.redrawn(stirred, three, 1, times=2)
    assert (one != another).any((1, 2)).all()
    for coarse in (received[0], received[3]):
        torch.testing.assert_close(coarse.flatten(1), torch.from_numpy(code[:, :4]), rtol=1e-4, atol=1e-4)
    assert (received[1] != received[4]).float().mean() > 0.99


def test_at_temperature_zero_the_rest_takes_its_prior_mean(stirred, pixels):
    code, _ = stirred.encode(pixels[:3])
    code[:, 4:] = torch.nan
    torch.testing.assert_close(stirred.vary(pixels[:3], 1, 0.0), stirred.decode(code), rtol=1e-4, atol=1e-2)


def test_more_blocks_than_there_are_cannot_be_kept(stirred, three):
    with pytest.raises(BadInput, match="3 stochastic blocks; 32 of them"):
        generate.redrawn(stirred, three, 32)


def test_the_way_between_two_galaxies_has_them_at_its_ends(stirred, three):
    way = generate.between(stirred, three[0], three[1], steps=5)
    assert way.shape == (5, 32, 32)
    ends = generate.full_peak(reconstruct.rebuilt(stirred, three[:2]))
    assert (np.abs(way[[0, -1]].astype(int) - ends) <= 1).all()
    far = np.abs(way.astype(float) - way[0]).mean((1, 2))
    assert (np.diff(far) > 0).all()
    nowhere = generate.between(stirred, three[0], three[0], steps=3).astype(int)
    assert np.ptp(nowhere, axis=0).max() <= 1


def test_hdf5_and_fits_keep_pixels_and_settings(tmp_path, three):
    settings = {"temperature": 0.5, "truncation": float("inf"), "seed": 3, "weights": "abc"}
    generate.write(three, tmp_path / "g.h5", settings)
    with h5py.File(tmp_path / "g.h5") as file:
        assert (file["images"][:] == three).all()
        assert dict(file.attrs) == settings
    generate.write(three, tmp_path / "g.fits", settings)
    pixels, header = fits.getdata(tmp_path / "g.fits", header=True)
    assert (pixels == three).all()
    assert float(header["TEMPERAT"]) == 0.5
    assert header["WEIGHTS"] == "abc"
    assert {path.name for path in tmp_path.iterdir()} == {"g.h5", "g.fits"}


def test_a_sheet_has_room_for_all_and_stands_upright(tmp_path):
    grey = np.zeros((5, 32, 32), np.uint8)
    grey[4, :8] = 255  # the first rows, which figures of the sky have at the bottom
    generate.write(grey, tmp_path / "g.png", {})
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.size == (3 * 3 * 32, 3 * 2 * 32)
        light = np.asarray(picture.convert("L"), dtype=float)
    last = light[96:, 96:192]
    assert last[-12:].mean() > 100 + last[:12].mean()
    assert light[:96].max() < 60


@pytest.mark.parametrize("name", ["g.jpg", "g"])
def test_an_unknown_ending_leaves_nothing_behind(tmp_path, three, name):
    with pytest.raises(BadInput, match=r"\.h5, \.fits or \.png"):
        generate.write(three, tmp_path / name, {})
    assert list(tmp_path.iterdir()) == []


def test_the_command_draws_what_the_library_draws(tmp_path, run, weights):
    model, *_ = checkpoints.load(weights)
    status, out, err = run("generate", 3, "--out", tmp_path / "g.h5", "--weights", weights, "--seed", 4,
                           "--temperature", 0.8, "--truncation", 2)  # fmt: skip
    assert status == 0, err
    assert "3 galaxies" in out
    with h5py.File(tmp_path / "g.h5") as file:
        assert (file["images"][:] == generate.new(model, 3, 0.8, 2.0, seed=4)).all()
        assert dict(file.attrs) == {
            "temperature": 0.8,
            "truncation": 2.0,
            "seed": 4,
            "weights": "abc",
            "flow": "none, the network's own prior",
        }


@pytest.mark.parametrize(
    ("arguments", "expected", "said"),
    [((0,), 2, "greater than"), ((1, "--seed", -1), 2, "seed"), ((1, "--temperature", 0), 1, "positive")],
)
def test_a_command_that_asks_too_little_is_refused(tmp_path, run, weights, arguments, expected, said):
    status, _, err = run("generate", *arguments, "--out", tmp_path / "g.h5", "--weights", weights)
    assert status == expected
    assert said in err
    assert not (tmp_path / "g.h5").exists()


@pytest.fixture
def fitted(tmp_path, weights, flow):
    about = {"weights_sha256": fetch.sha256(weights)}
    density.save(tmp_path / "p.safetensors", flow, about)
    return tmp_path / "p.safetensors"


def test_the_command_draws_from_a_flow(tmp_path, run, weights, fitted):
    model, *_ = checkpoints.load(weights)
    status, _, err = run("generate", 3, "--out", tmp_path / "g.h5", "--weights", weights, "--flow", fitted)
    assert status == 0, err
    with h5py.File(tmp_path / "g.h5") as file:
        expected = generate.new(model, 3, flow=density.load(fitted)[0])
        assert (file["images"][:] == expected).all()
        assert file.attrs["flow"] == fetch.sha256(fitted)


def test_a_flow_of_other_weights_is_refused(tmp_path, run, tiny, weights, fitted):
    checkpoints.save(tmp_path / "other.safetensors", tiny, images.Recipe(), {})
    status, _, err = run("generate", 3, "--out", tmp_path / "g.h5", "--weights", tmp_path / "other.safetensors",
                         "--flow", fitted)  # fmt: skip
    assert status == 1
    assert "other weights" in err
    assert not (tmp_path / "g.h5").exists()


def test_the_command_fits_what_the_library_fits(tmp_path, run, weights, simulated, monkeypatch):
    few = density.Config(kept=5, layers=1, hidden=8, epochs=1, batch=64)
    monkeypatch.setattr(generate, "SHOWN", 128)
    monkeypatch.setattr(generate.prior, "__defaults__", (few,))
    table = simulated.table.copy()
    table["split"], table["ra"], table["dec"] = "train", 10.0, np.linspace(-40, 40, len(table))
    sample.write(tmp_path / "t.h5", sample.Sample(simulated.images, table, simulated.pixel))
    status, out, err = run(
        "prior", "--weights", weights, "--data", tmp_path / "t.h5", "--out", tmp_path / "p.safetensors"
    )
    assert status == 0, err
    assert f"{len(table)} sources" in out
    flow = generate.load_prior(tmp_path / "p.safetensors", weights)
    assert flow.config == few
    assert generate.new(checkpoints.load(weights)[0], 2, flow=flow).shape == (2, 32, 32)

"""Generated galaxies are like prepared images, reproducible by seed, and less diverse at low temperature."""

import h5py
import numpy as np
import pytest
import torch
from astropy.io import fits
from PIL import Image
from test_vdvae import drawn, stir

from rgz.app import cli_look
from rgz.errors import BadInput
from rgz.features import embed
from rgz.models import checkpoint
from rgz.tasks import generate
from rgz.transforms import prepare
from studies import latent, variations


@pytest.fixture
def stirred(tiny):
    return stir(tiny, 0.05).eval()


@pytest.fixture
def three(pixels):
    return pixels[:3, 0].numpy()


@pytest.fixture
def weights(tmp_path, stirred):
    checkpoint.save(tmp_path / "m.safetensors", stirred, prepare.Recipe(size=32), {"commit": "abc"})
    return tmp_path / "m.safetensors"


def spread(grey):
    return grey.astype(float).std(axis=0).mean()


def test_galaxies_reach_the_highest_grey_level(stirred):
    grey = generate.generate(140, model=stirred)
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
    one = generate.generate(5, seed=1, model=stirred)
    assert (generate.generate(5, seed=1, model=stirred) == one).all()
    assert (generate.generate(2, seed=1, model=stirred) == one[:2]).all()  # fewer are the first of more
    assert (generate.generate(5, seed=2, model=stirred) != one).any((1, 2)).all()
    assert len(np.unique(one, axis=0)) == 5


def test_the_global_random_numbers_stay_as_they_are(stirred, three):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    generate.generate(2, seed=1, model=stirred)
    variations.resample_fine_latents(stirred, three, 1, seed=1)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)


def test_low_temperature_and_truncation_make_galaxies_alike(stirred):
    free = spread(generate.generate(100, model=stirred))
    assert spread(generate.generate(100, temperature=0.5, model=stirred)) < free
    assert spread(generate.generate(100, truncation=0.5, model=stirred)) < free
    cold = stirred.decode(torch.full((100, stirred.dimensions), torch.nan), 1e-6).numpy()  # mean images
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


def test_noise_makes_neighbouring_pixels_differ(stirred):
    code = torch.zeros(20, stirred.dimensions)
    mean, drawn = (np.abs(np.diff(stirred.decode(code, drawn=drawn)[:, 0].numpy())).mean() for drawn in (False, True))
    assert drawn > 1.3 * mean


@pytest.mark.parametrize(
    ("count", "temperature", "truncation"),
    [(0, 1, 1), (-3, 1, 1), (1, 0, 1), (1, -1, 1), (1, np.nan, 1), (1, np.inf, 1), (1, 1, 0), (1, 1, np.nan)],
)
def test_impossible_settings_are_refused(tiny, count, temperature, truncation):
    with pytest.raises(BadInput, match="positive"):
        generate.generate(count, temperature, truncation, model=tiny)


def test_blank_images_are_drawn_again(tiny, monkeypatch):
    def mostly_blank(count, *_):
        grey = torch.zeros(count, 1, 32, 32, dtype=torch.uint8)
        grey[::3, 0, torch.randint(32, ()), 5] = 90
        return grey

    monkeypatch.setattr(tiny, "sample", mostly_blank)
    grey = generate.generate(200, model=tiny)
    assert len(grey) == 200
    assert (grey.max((1, 2)) == 255).all()


def test_a_model_of_blank_images_is_refused(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "sample", lambda count, *_: torch.zeros(count, 1, 32, 32, dtype=torch.uint8))
    with pytest.raises(BadInput, match="blank"):
        generate.generate(1, model=tiny)


def test_with_all_blocks_kept_a_variation_is_the_reconstruction(stirred, three):
    again = variations.resample_fine_latents(stirred, three, len(stirred.levels), times=2)
    assert again.shape == (2, 3, 32, 32)
    expected = generate.full_peak(embed.reconstruct(stirred, three))
    assert (np.abs(again.astype(int) - expected) <= 1).all()


def test_variations_keep_the_coarse_latents(stirred, three):
    code, _ = latent.full_codes(stirred, three)
    received = drawn(stirred)
    one, another = variations.resample_fine_latents(stirred, three, 1, times=2)
    assert (one != another).any((1, 2)).all()
    received = received[-6:]  # of the two variations; before them, the images were encoded
    for coarse in (received[0], received[3]):
        torch.testing.assert_close(coarse.flatten(1), torch.from_numpy(code[:, :4]), rtol=1e-4, atol=1e-4)
    assert (received[1] != received[4]).float().mean() > 0.99


def test_more_blocks_than_there_are_cannot_be_kept(stirred, three):
    with pytest.raises(BadInput, match="3 stochastic blocks; 32 of them"):
        variations.resample_fine_latents(stirred, three, 32)


def test_an_interpolation_begins_and_ends_with_the_two_galaxies(tiny, three):
    stirred = stir(tiny, 0.3).eval()
    way = variations.interpolate(stirred, three[0], three[1], steps=5)
    assert way.shape == (5, 32, 32)
    ends = generate.full_peak(embed.reconstruct(stirred, three[:2]))
    assert (np.abs(way[[0, -1]].astype(int) - ends) <= 1).all()
    far = np.abs(way.astype(float) - way[0]).mean((1, 2))
    assert (np.diff(far) > 0).all()
    nowhere = variations.interpolate(stirred, three[0], three[0], steps=3).astype(int)
    assert np.ptp(nowhere, axis=0).max() <= 1


def test_hdf5_and_fits_keep_pixels_and_settings(tmp_path, three):
    settings = {"temperature": 0.5, "truncation": float("inf"), "seed": 3, "weights": "abc"}
    cli_look._write_galaxies(three, tmp_path / "g.h5", settings)
    with h5py.File(tmp_path / "g.h5") as file:
        assert (file["images"][:] == three).all()
        assert dict(file.attrs) == settings
    cli_look._write_galaxies(three, tmp_path / "g.fits", settings)
    pixels, header = fits.getdata(tmp_path / "g.fits", header=True)
    assert (pixels == three).all()
    assert float(header["TEMPERAT"]) == 0.5
    assert header["WEIGHTS"] == "abc"
    assert {path.name for path in tmp_path.iterdir()} == {"g.h5", "g.fits"}


def test_a_sheet_has_room_for_all_and_stands_upright(tmp_path):
    grey = np.zeros((5, 32, 32), np.uint8)
    grey[4, :8] = 255  # the first rows, which figures of the sky have at the bottom
    cli_look._write_galaxies(grey, tmp_path / "g.png", {})
    with Image.open(tmp_path / "g.png") as picture:
        assert picture.size == (3 * 3 * 32, 3 * 2 * 32)
        light = np.asarray(picture.convert("L"), dtype=float)
    last = light[96:, 96:192]
    assert last[-12:].mean() > 100 + last[:12].mean()
    assert light[:96].max() < 60


@pytest.mark.parametrize("name", ["g.jpg", "g"])
def test_an_unknown_ending_leaves_nothing_behind(tmp_path, run, name):
    status, out, err = run("generate", 3, "--out", tmp_path / name)
    assert (status, out) == (1, "")
    assert ".h5, .fits or .png" in err
    assert list(tmp_path.iterdir()) == []


def test_the_command_draws_what_the_library_draws(tmp_path, run, weights):
    model, *_ = checkpoint.load(weights)
    status, out, err = run("generate", 3, "--out", tmp_path / "g.h5", "--weights", weights, "--seed", 4,
                           "--temperature", 0.8, "--truncation", 2)  # fmt: skip
    assert status == 0, err
    assert "3 galaxies" in out
    with h5py.File(tmp_path / "g.h5") as file:
        assert (file["images"][:] == generate.generate(3, 0.8, 2.0, seed=4, model=model)).all()
        assert dict(file.attrs) == {
            "temperature": 0.8,
            "truncation": 2.0,
            "seed": 4,
            "weights": "abc",
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

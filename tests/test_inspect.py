"""``rgz look`` and ``rgz.inspect``: an answer for every image with a galaxy, and a clear refusal of every other."""

import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image
from test_cutout import fits_file, wcs_of

import rgz
from rgz import artifacts
from rgz.data import archives, cutout, fetch, simulate, training_set
from rgz.errors import BadInput
from rgz.tasks import inspect
from rgz.transforms import prepare
from studies import injected


@pytest.fixture(scope="module")
def source():
    return simulate.source("FRII", np.random.default_rng(4), size=300, snr=80)


@pytest.fixture
def galaxy(source, tmp_path):
    return fits_file(tmp_path / "galaxy.fits", source, wcs_of(source.shape, 1.8))


def test_json_has_everything(run, galaxy):
    code, out, err = run("look", galaxy, "--json", "-k", 7)
    assert code == 0, err
    said = json.loads(out)
    assert said["name"] == str(galaxy)
    assert (said["ra"], said["dec"]) == pytest.approx((150, 20), abs=1e-4)
    frii = said["frii"]
    assert 0 <= frii["low"] <= frii["probability"] <= frii["high"] <= 1
    assert frii["fitted_to"] == "MiraBest Confident"
    far = [one["separation"] for one in said["neighbours"]]
    assert far == sorted(far)
    assert len(far) == 7
    assert all((one["link"] is None) == (one["ra"] is None) for one in said["neighbours"])


@pytest.mark.slow
def test_simulated_classes_are_told_apart():
    rng, said = np.random.default_rng(1), []
    for kind in ("FRI", "FRII") * 4:
        seen = cutout.Observation(kind, simulate.source(kind, rng, size=300, snr=100), 1.8)
        said.append(cutout.centre(seen))
    p = np.array([one.frii[0] for one in inspect.inspect_all(said)])
    assert p[1::2].mean() > p[::2].mean() + 0.1


def test_many_files_one_of_them_bad(run, galaxy, tmp_path):
    (tmp_path / "bad.fits").write_text("nothing")
    code, out, err = run("look", tmp_path / "bad.fits", galaxy, tmp_path / "absent.png", "--json")
    assert code == 1
    assert json.loads(out)["name"] == str(galaxy)
    assert "bad.fits" in err
    assert "absent.png" in err


def test_table_and_figure_are_written(run, galaxy, tmp_path):
    code, out, err = run("look", galaxy, galaxy, "--table", tmp_path / "near.vot", "--plot", tmp_path / "out.png")
    assert code == 0, err
    assert "P(FRII)" in out
    table = Table.read(tmp_path / "near.vot", format="votable")
    assert len(table) == 20
    assert "query" in table.colnames
    with Image.open(tmp_path / "out.png") as figure:
        assert figure.size[0] > 600
    for option, name in (("--table", "near.xlsx"), ("--plot", "out.gif")):
        code, _, err = run("look", galaxy, option, tmp_path / name)
        assert code == 1
        assert "choose one of these endings" in err
    assert not list(tmp_path.glob("*.partial"))


def test_images_as_coarse_as_nvss_are_judged_by_nvss(run, source, tmp_path):
    y, x = np.mgrid[:100, :100] - 49.5
    rng = np.random.default_rng(0)
    blobs = 60 * np.exp(-((x - 4) ** 2 + y**2) / 4) + 80 * np.exp(-((x + 4) ** 2 + y**2) / 4)
    path = fits_file(tmp_path / "nvss.fits", blobs + rng.normal(size=blobs.shape), wcs_of(blobs.shape, 15.0))
    code, out, err = run("look", path, "--json")
    assert code == 0, err
    assert json.loads(out)["frii"]["fitted_to"] == "FR-DEEP NVSS"


def test_refusals_are_one_line_and_exit_1(run, tmp_path):
    rng = np.random.default_rng(0)
    noise = fits_file(tmp_path / "noise.fits", rng.normal(size=(100, 100)), wcs_of((100, 100), 1.8))
    for arguments in (("look",), ("look", noise), ("look", "--at", "here", "there"), ("similar", "nobody")):
        code, out, err = run(*arguments)
        assert code == 1
        assert out == ""
        assert err.startswith("rgz: ")
        assert err.count("\n") == 1


def test_a_damaged_committee_is_said(galaxy, monkeypatch, tmp_path):
    whole = tmp_path / "artifacts"
    whole.mkdir()
    for name in ("vdvae.safetensors", "codes.h5", "density.safetensors"):
        (whole / name).symlink_to(artifacts.artifact(name))
    (whole / "committees.safetensors").write_bytes(b"\x00" * 40)
    monkeypatch.setenv("RGZ_ARTIFACTS", str(whole))
    with pytest.raises(BadInput, match="make it with rgz encode"):
        rgz.inspect(rgz.open_cutout(galaxy))


def test_similar_lists_the_galaxy_itself_first(run, tmp_path):
    code, out, err = run("similar", "rgd-0100", "-k", 5, "--table", tmp_path / "near.csv")
    assert code == 0, err
    assert out.splitlines()[2].split()[0] == "rgd-0100"
    assert len(Table.read(tmp_path / "near.csv", format="ascii.csv")) == 5
    code, _, err = run("similar", "rgd-0100", "--sample", "first")
    assert code == 1
    assert "known are mirabest" in err


@pytest.mark.data
def test_an_archive_image_finds_itself(survey, tmp_path):
    sample = survey("mirabest")
    found = []
    for row in range(0, len(sample), 60):
        Image.fromarray(sample.images[row]).save(tmp_path / "one.png")
        seen = rgz.inspect(rgz.open_cutout(tmp_path / "one.png"))
        found.append(seen.neighbours["name"][0] == sample.table["name"][row])
    assert np.mean(found) > 0.85  # a source beside the middle is moved there


@pytest.mark.data
def test_a_first_field_is_the_galaxy_that_the_archive_has(tmp_path):
    if fetch.locate(training_set.FITS_FIELDS) is None:
        pytest.skip("the FITS fields of MiraBest are not here")
    hits = []
    for number, (_, data) in enumerate(archives.members(fetch.fetch(training_set.FITS_FIELDS))):
        if number % 40 == 0:
            (tmp_path / "field.fits.fz").write_bytes(data)
            seen = rgz.inspect(rgz.open_cutout(tmp_path / "field.fits.fz"))
            hits.append(bool(seen.neighbours["same"].any()))
    assert np.mean(hits) > 0.8


def test_axes_of_length_one_and_compression_change_nothing(source, tmp_path):
    plain = rgz.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8)))
    header = wcs_of(source.shape, 1.8).to_header()
    whole = np.rint(source * 1000).astype(np.int32)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(whole, header)]).writeto(tmp_path / "b.fits.fz")
    other = rgz.open_cutout(tmp_path / "b.fits.fz")
    recipe = prepare.Recipe()
    one, two = (prepare.prepare(f.pixels[None], f.pixel, recipe).astype(int) for f in (plain, other))
    assert np.abs(one - two).max() <= 2


def test_what_no_galaxy_looks_like_is_anomalous(source):
    rng = np.random.default_rng(0)
    ring = injected.inject("ring", source[None], 1, rng)[0] + rng.normal(0, 1e-3, source.shape)
    cutouts = [cutout.centre(cutout.Observation("an image", pixels, 1.8)) for pixels in (source, ring)]
    galaxy, anomaly = inspect.inspect_all(cutouts)
    assert anomaly.likelihood[2] < 5 < galaxy.likelihood[2] <= 100
    assert anomaly.likelihood[0] < galaxy.likelihood[0]
    assert "  anomalous: log-likelihood " in str(anomaly)
    assert "  not anomalous: log-likelihood " in str(galaxy)
    found = galaxy.to_dict()["log_likelihood"]
    assert found["percentile"] == pytest.approx(galaxy.likelihood[2])
    assert found["error"] > 0


@pytest.mark.parametrize(
    ("frii", "text"),
    [((0.8, 0.42, 1.0), "P(FRII) 0.80 (0.42–0.99)"), ((0.9991, 0.998, 1.0), "P(FRII) > 0.99")],
)
def test_no_class_is_called_certain(frii, text):
    assert inspect.Inspection(None, frii, "", (0, 0, 50), None).probability == text


@pytest.mark.parametrize(
    ("percentile", "text"),
    [
        (0.0, "anomalous: log-likelihood -60 ± 7 nats, below the 1st percentile of held-out galaxies"),
        (4.9, "anomalous: log-likelihood -60 ± 7 nats, below the 5th percentile of held-out galaxies"),
        (41.3, "not anomalous: log-likelihood -60 ± 7 nats, percentile 41 of held-out galaxies"),
    ],
)
def test_an_anomaly_is_below_the_fifth_percentile(percentile, text):
    assert inspect.Inspection(None, (0, 0, 0), "", (-60.0, 7.0, percentile), None).anomaly.startswith(text)

"""The contents of the public archives and of the training set; skipped without the survey images."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rgz.data import archives, datasets, fetch, loader, sample
from rgz.transforms import fields, prepare
from studies import labelled, training_set, validity

pytestmark = pytest.mark.data
HOUSE = Path(__file__).parents[1]


def separation(table, other):
    """Angle from each row to the nearest row of another table, in arcsec."""
    return sample.positions(table).match_to_catalog_sky(sample.positions(other))[1].to_value("arcsec")


def counts(table, column):
    return {str(value): int((table[column] == value).sum()) for value in set(table[column])}


def test_mirabest(survey):
    mirabest = survey("mirabest")
    assert mirabest.images.shape == (1256, 150, 150)
    known = mirabest[labelled.confident(mirabest.table)]
    assert counts(known.table, "label") == {"FRI": 397, "FRII": 436}
    assert counts(known.table, "split") == {"train": 729, "test": 104}
    row = mirabest.table[mirabest.table["name"] == "100_185.137+000.072_0.1585_0135.33"][0]
    assert (row["ra"], row["dec"], row["redshift"], row["size"]) == (185.137, 0.072, 0.1585, 135.33)
    assert mirabest.table["size"].unit == "arcsec"
    assert all(np.isfinite(mirabest.table[c]).all() for c in ("ra", "dec", "redshift", "size"))


@pytest.mark.parametrize(("name", "pixel"), [("frdeep-nvss", 15.0), ("frdeep-first", 1.8)])
def test_frdeep(survey, name, pixel):
    frdeep = survey(name)
    assert frdeep.images.shape == (600, 150, 150)
    assert counts(frdeep.table, "label") == {"FRI": 264, "FRII": 336}
    assert counts(frdeep.table, "split") == {"train": 550, "test": 50}
    assert frdeep.pixel == pixel
    known = np.isfinite(frdeep.table["ra"])
    if fetch.locate(datasets.POSITIONS) is None:
        assert not known.any()
    else:
        assert known.mean() > 0.9
        assert known[frdeep.table["split"] == "test"].sum() > 45


@pytest.fixture
def placed(survey):
    """The tables of FR-DEEP's two samples, where their positions are known."""
    if fetch.locate(datasets.POSITIONS) is None:
        pytest.skip("the positions of FR-DEEP are not here")
    return {name: survey(name).table for name in ("frdeep-nvss", "frdeep-first")}


def test_frdeep_has_the_same_galaxies_in_both_surveys(placed):
    nvss, first = (table[np.isfinite(table["ra"])] for table in placed.values())
    assert (separation(first, nvss) < 10).sum() > 450
    assert labelled.groups(nvss).max() < len(nvss)


def test_an_image_without_a_known_position_is_a_source_of_its_own(placed):
    for table in placed.values():
        group, unknown = labelled.groups(table), np.flatnonzero(~np.isfinite(table["ra"]))
        np.testing.assert_array_equal(group[unknown], unknown)
        assert len(set(group)) > 0.95 * len(table)


def test_radio_galaxy_dataset(survey):
    rgd = survey("rgd")
    assert rgd.images.shape == (2158, 300, 300)
    assert counts(rgd.table, "label") == {"FRI": 495, "FRII": 924, "compact": 391, "bent": 348}


@pytest.fixture(scope="module")
def built():
    for name in (*(archive for archive, _ in datasets.SAMPLES.values()), datasets.FITS_FIELDS, datasets.ZOO):
        if fetch.locate(name) is None:
            pytest.skip(f"{name} is not here")
    subprocess.run(
        [sys.executable, "-m", "doit", "training-set"], cwd=HOUSE, check=True
    )  # built once for tests and studies
    return sample.read(HOUSE / "runs" / "train.h5")


@pytest.mark.parametrize("name", list(datasets.SAMPLES))
def test_nothing_near_a_test_source_is_trained_on(survey, built, name):
    table = survey(name).table
    test = table[(table["split"] == "test") & np.isfinite(table["ra"])]
    if name == "mirabest":
        assert len(test) == 157
    if len(test):
        assert separation(test, built.table).min() > 30
        assert separation(built.table, test).min() > 30


def test_the_training_set_has_every_source_once(built):
    assert len(built) >= 4000
    assert (built.table["rgz_name"] != "").sum() > 500
    assert training_set.once_each(built.table, 10).all()
    assert set(built.table["label"]) == {""}
    assert 0.03 < (built.table["split"] == "valid").mean() < 0.07
    assert built.images.max() == 1
    assert np.isfinite(built.images).all()
    known = np.isfinite(np.asarray(built.table["snr"]))
    assert 2000 < known.sum() < len(built)
    assert built.table["snr"][known].min() >= 5


def test_the_same_galaxy_looks_alike_in_two_archives(survey):
    mirabest, rgd = survey("mirabest"), survey("rgd")
    partner, away, _ = sample.positions(rgd.table).match_to_catalog_sky(sample.positions(mirabest.table))
    rows = np.flatnonzero(away.to_value("arcsec") < 2)[:40]
    one, other = (
        prepare.prepare(part.images, part.pixel, prepare.Recipe())[0].reshape(len(rows), -1)
        for part in (rgd[rows], mirabest[partner[rows]])
    )
    alike = [np.corrcoef(pair)[0, 1] for pair in zip(one.astype(float), other.astype(float), strict=True)]
    assert np.median(alike) > 0.9


def test_a_field_of_mirabest_is_read_with_its_position(survey):
    survey("mirabest")
    name = "MiraBest_FIRST_FITS.tar"
    if fetch.locate(name) is None:
        pytest.skip(f"{name} is not here")
    file, data = next(archives.members(fetch.fetch(name)))
    pixels, wcs, *_ = archives.read_plane(data)
    found = datasets.MIRABEST_NAME.match(file.removesuffix(".fits.fz"))
    sky = wcs.pixel_to_world(149.5, 149.5)
    assert pixels.shape == (300, 300)
    assert abs(sky.ra.deg - float(found["ra"])) < 0.01
    assert prepare.prepare(fields.clip(fields.fill(pixels))[None], 1.8, prepare.Recipe()).max() == 255


def test_pairs_of_training_images_show_one_galaxy(built, monkeypatch):
    """Another observation is more like its own clean image than like those of the other galaxies in the batch."""
    monkeypatch.setattr(loader, "OTHER", 1.0)
    some = built[np.arange(0, len(built), len(built) // 200)]
    clean, seen = loader.batches(some, prepare.Recipe(), 64, seed=0)(1)
    unit = [part.flatten(1) - part.flatten(1).mean(1, keepdim=True) for part in (clean, seen)]
    one, other = (part / part.norm(dim=1, keepdim=True).clamp(min=1) for part in unit)
    likeness = one @ other.T  # (N, N)
    own = likeness.diagonal()
    assert own.median() > 0.8
    assert (own[:, None] >= likeness.T).float().mean() > 0.85
    assert own.mean() > likeness.mean() + 0.2


def test_strangers_are_in_no_sample_and_in_no_training_set(survey, built):
    if fetch.locate(validity.ARCHIVE) is None:
        pytest.skip("the strangers are not here")
    table = validity.strangers().table
    assert len(table) == 292
    for other in (*(survey(name).table for name in datasets.SAMPLES), built.table):
        assert separation(table, other[np.isfinite(other["ra"])]).min() > 20

"""What the real archives hold, counted. Skipped where they are not at hand."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rgz import classify, fetch, fields, images, readers, sample

pytestmark = pytest.mark.data
HOUSE = Path(__file__).parents[1]


def counts(table, column):
    return {str(value): int((table[column] == value).sum()) for value in set(table[column])}


def test_mirabest(survey):
    mirabest = survey("mirabest")
    assert mirabest.images.shape == (1256, 150, 150)
    known = mirabest[classify.confident(mirabest.table)]
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
    assert len(set(frdeep.table["object"])) == 595


def test_rows_of_one_nvss_object_show_one_field(survey):
    """Around the middle, where all radio galaxies look alike, the same neighbours at the same places, up to a shift."""
    frdeep = survey("frdeep-nvss")
    y, x = np.mgrid[:150, :150] - 74.5
    fields = np.sqrt(frdeep.images.astype(float)) * (np.hypot(x, y) > 12)
    fields /= np.maximum(np.linalg.norm(fields, axis=(1, 2), keepdims=True), 1)
    waves = np.fft.rfft2(fields)

    def likeness(one, other):
        return np.fft.irfft2(waves[one].conj() * waves[other], s=(150, 150)).max()

    row = {name: number for number, name in enumerate(frdeep.table["object"])}
    pairs = [(k, row[name]) for k, name in enumerate(frdeep.table["object"]) if row[name] != k]
    assert len(pairs) == 5
    assert min(likeness(*pair) for pair in pairs) > 0.85
    assert max(likeness(k, k + 1) for k in range(0, 598, 7)) < 0.85


def test_frdeep_objects_are_shared_between_surveys(survey):
    nvss, first = (set(survey(name).table["object"]) for name in ("frdeep-nvss", "frdeep-first"))
    assert len(nvss & first) == 539


def test_radio_galaxy_dataset(survey):
    rgd = survey("rgd")
    assert rgd.images.shape == (2158, 300, 300)
    assert counts(rgd.table, "label") == {"FRI": 495, "FRII": 924, "compact": 391, "bent": 348}


@pytest.fixture(scope="module")
def built(survey):
    for name in readers.SAMPLES:
        survey(name)
    for name in (fields.FITS_FIELDS, fields.ZOO):
        if fetch.locate(name) is None:
            pytest.skip(f"{name} is not here")
    subprocess.run(
        [sys.executable, "-m", "doit", "training-set"], cwd=HOUSE, check=True
    )  # built once for tests and studies
    return sample.read(HOUSE / "runs" / "train.h5")


@pytest.mark.parametrize("name", list(readers.SAMPLES))
def test_nothing_near_a_test_source_is_trained_on(survey, built, name):
    table = survey(name).table
    test = table[(table["split"] == "test") & np.isfinite(table["ra"])]
    if name == "mirabest":
        assert len(test) == 157
    if len(test):
        assert sample.separation(test, built.table).min() > 30
        assert sample.separation(built.table, test).min() > 30


def test_the_training_set_has_every_source_once(built):
    assert len(built) >= 4000
    assert (built.table["rgz_name"] != "").sum() > 500
    assert fields.once_each(built.table, 10).all()
    assert set(built.table["label"]) == {""}
    assert 0.03 < (built.table["split"] == "valid").mean() < 0.07
    assert built.images.max() == 1
    assert np.isfinite(built.images).all()
    known = np.isfinite(np.asarray(built.table["snr"]))
    assert 2000 < known.sum() < len(built)
    assert built.table["snr"][known].min() >= 5


def test_the_same_galaxy_looks_alike_in_two_archives(survey):
    mirabest, rgd = survey("mirabest"), survey("rgd")
    near = sample.separation(rgd.table, mirabest.table) < 2
    rows = np.flatnonzero(near)[:40]
    alike = []
    for row in rows:
        partner = np.argmin(
            (mirabest.table["ra"] - rgd.table["ra"][row]) ** 2 + (mirabest.table["dec"] - rgd.table["dec"][row]) ** 2
        )
        pair = [
            images.prepare(s.images[r], s.pixel, images.Recipe()).ravel().astype(float)
            for s, r in ((mirabest, partner), (rgd, row))
        ]
        alike.append(np.corrcoef(*pair)[0, 1])
    assert np.median(alike) > 0.9


def test_a_field_of_mirabest_is_read_with_its_position(survey):
    survey("mirabest")
    name = "MiraBest_FIRST_FITS.tar"
    if fetch.locate(name) is None:
        pytest.skip(f"{name} is not here")
    file, data = next(readers.members(fetch.fetch(name)))
    pixels, wcs = readers.read_fits(data)
    found = readers.MIRABEST_NAME.match(file.removesuffix(".fits.fz"))
    sky = wcs.pixel_to_world(149.5, 149.5)
    assert pixels.shape == (300, 300)
    assert abs(sky.ra.deg - float(found["ra"])) < 0.01
    assert images.prepare(images.clip(images.fill(pixels)), 1.8, images.Recipe()).max() == 255

"""Sources found in a field, and those that are kept for training."""

import numpy as np
import pytest
from astropy.table import Table
from astropy.wcs import WCS

from rgz.data import detect
from studies import training_set

RMS = 0.1


def field(blobs, rms=RMS):
    """A field of 200×200 pixels of 1.8″ around RA 150°, Dec 20°, with blobs (x, y, peak), already clipped."""
    y, x = np.mgrid[:200, :200]
    pixels = sum(peak * np.exp(-((x - u) ** 2 + (y - v) ** 2) / (2 * 1.3**2)) for u, v, peak in blobs)
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ("RA---TAN", "DEC--TAN"), (150, 20), (101, 101)
    wcs.wcs.cdelt = -1.8 / 3600, 1.8 / 3600
    return training_set.Field("a field", np.where(pixels >= 3 * RMS, pixels, 0).astype(np.float32), rms, wcs)


def known(*sources):
    ra, dec, reach = np.array(sources, dtype=float).reshape(-1, 3).T
    return Table({"ra": ra, "dec": dec, "reach": reach})


NONE = known()
MIDDLE = known((150, 20, 45))


def places(found, where):
    x, y = where.wcs.world_to_pixel_values(found["ra"], found["dec"])
    return sorted((round(float(a)), round(float(b))) for a, b in zip(x, y, strict=True))


def test_islands_far_apart_are_sources_each():
    where = field([(60, 60, 1), (140, 120, 2)])
    found = training_set.find(where, NONE)
    assert places(found, where) == [(60, 60), (140, 120)]
    assert sorted(found["snr"]) == pytest.approx([10, 20], rel=0.05)


def test_islands_near_each_other_are_one_source():
    where = field([(90, 100, 1), (104, 100, 1)])  # 25″
    assert places(training_set.find(where, NONE), where) == [(97, 100)]


def test_lobes_belong_to_the_catalogued_source_between_them():
    where = field([(79, 100, 1), (122, 100, 2), (150, 150, 1)])  # lobes 40″ from the middle to either side
    assert len(training_set.find(where, NONE)) == 3
    found = training_set.find(where, MIDDLE)
    assert places(found, where) == [(100, 100), (150, 150)]
    assert found["ra"].tolist().count(150.0) == 1


def test_the_faint_and_the_cut_off_are_left_out():
    where = field([(100, 100, 0.45), (20, 100, 1), (100, 185, 1), (150, 60, 0.6)])  # 4.5 rms; edge; edge; 6 rms
    assert places(training_set.find(where, NONE), where) == [(150, 60)]


def test_the_outshone_is_left_out():
    where = field([(80, 100, 1), (105, 100, 30)])  # 45″ apart
    assert places(training_set.find(where, NONE), where) == [(105, 100)]


def test_without_an_rms_there_is_no_snr():
    found = training_set.find(field([(100, 100, 1)], rms=np.nan), NONE)
    assert len(found) == 1
    assert np.isnan(found["snr"]).all()


def test_a_blank_field_has_no_sources():
    assert len(training_set.find(field([(100, 100, 0)]), MIDDLE)) == 0


def test_apart_keeps_images_free_of_the_others():
    half = detect.FIELD * 1.8 / 2 * 2**0.5  # to a corner
    tests = known((150, 20, 10), (160, 0, 80))
    dec = 20 + (half + 29) / 3600, 20 + (half + 31) / 3600, (half + 79) / 3600, (half + 81) / 3600, 0
    rows = Table({"ra": [150, 150, 160, 160, 10], "dec": dec})
    assert training_set.apart(rows, tests).tolist() == [False, True, False, True, True]


def test_neighbours_share_a_split():
    near = Table({"ra": 150 + np.arange(60) / 3600, "dec": np.full(60, 20.5)})
    assert len(set(training_set.split(near))) == 1
    ra, dec = np.mgrid[:360, :60].reshape(2, -1)
    assert 0.03 < training_set.split(Table({"ra": ra, "dec": dec})).count("valid") / len(ra) < 0.07

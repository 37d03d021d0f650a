"""Rows and images stay together, also in a file; rows of one source are recognised."""

import numpy as np
import pytest
from astropy.table import Table

from rgz.data import sample
from rgz.errors import BadInput
from studies import labelled, training_set


def test_a_file_gives_back_what_was_written(tmp_path, simulated):
    simulated.table["size"] = np.arange(24.0)
    simulated.table["size"].unit = "arcsec"
    sample.write(tmp_path / "s.h5", simulated)
    read = sample.read(tmp_path / "s.h5")
    assert (read.images == simulated.images).all()
    assert read.pixel == simulated.pixel
    assert sorted(read.table.colnames) == sorted(simulated.table.colnames)
    for name in simulated.table.colnames:
        np.testing.assert_array_equal(read.table[name], simulated.table[name])
    assert read.table["size"].unit == "arcsec"


def test_an_interrupted_write_leaves_the_old_file(tmp_path, simulated, monkeypatch):
    path = tmp_path / "s.h5"
    sample.write(path, simulated)
    before = path.read_bytes()
    monkeypatch.setattr(
        sample, "write_columns", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    with pytest.raises(BadInput, match="No space left"):
        sample.write(path, simulated)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["s.h5"]


def test_rows_and_images_must_agree(simulated):
    with pytest.raises(BadInput, match="24 images do not match 23"):
        sample.Sample(simulated.images, simulated.table[:23], 1.8)
    with pytest.raises(BadInput, match="unique"):
        sample.Sample(simulated.images[[0, 0]], simulated.table[[0, 0]], 1.8)
    with pytest.raises(BadInput, match="columns label"):
        sample.Sample(simulated.images, simulated.table["name", "ra", "dec", "confident", "split"], 1.8)


def positions(*pairs):
    return Table(rows=pairs, names=("ra", "dec"), dtype=(float, float))


def test_one_source_in_two_rows_counts_once():
    table = positions((10.0, 0.0), (20.0, 0.0), (10.0, 0.002), (20.0, 0.004))
    assert training_set.once_each(table, 10).tolist() == [True, True, False, True]
    assert labelled.groups(table).tolist() == [0, 1, 0, 3]


def test_rows_without_a_position_are_sources_of_their_own():
    table = positions((10.0, 0.0), (np.nan, np.nan), (10.0, 0.001), (np.nan, np.nan))
    assert labelled.groups(table).tolist() == [0, 1, 0, 3]
    assert labelled.groups(positions((np.nan, np.nan), (np.nan, np.nan))).tolist() == [0, 1]


def test_only_images_with_emission_in_the_middle_are_usable(simulated):
    images = simulated.images.copy()
    images[3] = 0
    images[5], images[5, :4, :4] = 0, 9  # in a corner
    found = sample.usable(sample.Sample(images, simulated.table, simulated.pixel))
    assert np.flatnonzero(~found).tolist() == [3, 5]

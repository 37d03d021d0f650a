"""The numbers of the map: the S/N in clipped images agrees with that in the unclipped fields of the same survey."""

from itertools import islice

import numpy as np
import pytest

from rgz.data import archives, datasets, fetch
from studies import map as maps


def test_the_signal_to_noise_of_a_clipped_image_is_that_in_its_field(survey, monkeypatch):
    if fetch.locate(datasets.FITS_FIELDS) is None:
        pytest.skip("the fields of FIRST are not here: set RGZ_DATA_MIRROR")
    table, members = survey("mirabest").table, archives.members
    monkeypatch.setattr(archives, "members", lambda path: islice(members(path), 30))
    found = maps.in_fields(table)
    seen = np.flatnonzero(np.isfinite(found))
    assert len(seen) >= 25
    clipped = maps.signal_to_noise("mirabest", np.asarray(table["name"])[seen])
    known = np.isfinite(clipped)
    ratio = clipped[known] / found[seen][known]
    assert known.mean() > 0.7
    assert 0.95 < np.median(ratio) < 1.1
    assert np.ptp(np.percentile(ratio, (10, 90))) < 0.3

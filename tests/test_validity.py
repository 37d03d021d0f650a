"""Nothing that is tested as a stranger was trained on, and the scores mean what they say."""

import numpy as np
import pytest
from astropy.table import Table

from studies import validity
from studies.labelled import Labelled


def known(name, count, seed, signal=2.0):
    """Labelled galaxies of one sample, FRI and FRII in turn, each observed once more."""
    rng = np.random.default_rng(seed)
    label = np.array(["FRI", "FRII"])[np.arange(count) % 2]
    codes = rng.normal(size=(count, 64)).astype(np.float32)
    codes[:, 0] += signal * (label == "FRII")
    columns = {
        "name": np.arange(count).astype(str),
        "ra": rng.uniform(0, 360, count),
        "dec": rng.uniform(-5, 60, count),
    }
    return Labelled(Table(columns | {"label": label, "sample": [name] * count}), codes, codes[:, None] + 0.01)


def together(*parts):
    tables = {name: np.concatenate([part.table[name] for part in parts]) for name in parts[0].table.colnames}
    codes, observed = (np.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "observed"))
    return Labelled(Table(tables), codes, observed)


def test_a_catalogue_left_out_is_tested_and_not_trained_on(monkeypatch):
    twins = known("mirabest", 120, 0)
    other = known("frdeep-first", 120, 1)
    other.table["ra"][:100], other.table["dec"][:100] = twins.table["ra"][:100], twins.table["dec"][:100]
    other.codes[:100], other.observed[:100] = twins.codes[:100], twins.observed[:100]
    other.table["label"][:100] = np.where(twins.table["label"][:100] == "FRI", "FRII", "FRI")  # a leak would be wrong
    everything = together(twins, other, known("rgd", 200, 2))
    shown, met = np.arange(len(everything.table)), {}

    def supervised(table, images, asked):  # the CNN takes too long for a test
        met.update(table=table, images=images, asked=asked)
        return np.full(len(asked), 0.5)

    monkeypatch.setattr(validity, "supervised", supervised)
    found = validity.left_out("mirabest", everything, everything, shown)
    rows = {(row["way"], row["metric"]): row for row in found}
    assert met["asked"].tolist() == list(range(120))
    assert met["images"].tolist() == list(range(220, 440))  # neither MiraBest nor what else shows its sources
    assert set(met["table"]["sample"]) == {"frdeep-first", "rgd"}
    assert rows[validity.NETWORK, "roc_auc"]["value"] == 0.5
    one = rows[validity.HOST, "accuracy"]
    assert one["galaxies"] == 120
    assert one["low"] <= one["value"] <= one["high"]
    assert one["value"] > 0.65
    assert rows[validity.CENTROID, "accuracy"]["value"] < 0.62  # the class is in the first half
    for other in (validity.COMPONENTS, validity.NETWORK):
        assert rows[f"{validity.HOST} − {other}", "accuracy"]["low"] < 1


def test_a_cnn_is_trained_on_the_fri_and_frii_alone(monkeypatch):
    monkeypatch.setattr(validity, "STEPS", 4)
    rng = np.random.default_rng(0)
    table = Table({"label": np.array(["FRI", "FRII", "bent"])[np.arange(96) % 3]})
    images = rng.integers(20, size=(96, 150, 150)).astype(np.uint8)
    blank = images * (table["label"] != "bent")[:, None, None]
    one, other = (validity.supervised(table, shown, images) for shown in (images, blank))
    np.testing.assert_array_equal(one, other)
    assert np.isfinite(one).all()
    assert (one != validity.supervised(table, 255 - images, images)).any()


def test_calibration_error_is_zero_for_honest_probabilities_alone():
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=20_000)
    truth = (rng.uniform(size=20_000) < probability).astype(int)
    assert validity.calibration(truth, probability) < 0.02
    bold = np.where(probability > 0.5, 0.99, 0.01)
    assert validity.calibration(truth, bold) == pytest.approx(0.99 - 0.75, abs=0.02)
    assert validity.wrong_and_sure(truth, bold) == pytest.approx(0.25, abs=0.02)
    assert np.isnan(validity.wrong_and_sure(truth, np.full(20_000, 0.6)))

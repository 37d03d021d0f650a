"""Nothing that is tested as a stranger was trained on, and the scores mean what they say."""

import numpy as np
import pytest
from astropy.table import Table

from rgz.data import datasets
from rgz.data.sample import Sample
from rgz.errors import BadInput
from studies import cnn, labelled, results, simulate, validity
from studies.labelled import Labelled


def known(name, count, seed, signal=2.0):
    """Labelled galaxies of one sample, FRI and FRII in turn, each observed once more."""
    rng = np.random.default_rng(seed)
    label = np.array(["FRI", "FRII"])[np.arange(count) % 2]
    codes = rng.normal(size=(count, 64)).astype(np.float32)
    codes[:, 0] += signal * (label == "FRII")
    columns = {
        "name": np.char.add("J", np.arange(count).astype(str)),
        "ra": rng.uniform(0, 360, count),
        "dec": rng.uniform(-5, 60, count),
    }
    return Labelled(Table(columns | {"label": label, "sample": [name] * count}), codes, codes[:, None] + 0.01)


def together(*parts):
    tables = {name: np.concatenate([part.table[name] for part in parts]) for name in parts[0].table.colnames}
    codes, observed = (np.concatenate([getattr(part, name) for part in parts]) for name in ("codes", "observed"))
    return Labelled(Table(tables), codes, observed)


@pytest.fixture
def everything():
    """Three samples, of which two show 100 galaxies in common, as different classes, and with other names."""
    twins, other = known("mirabest", 120, 0), known("frdeep-first", 120, 1)
    other.table["ra"][:100], other.table["dec"][:100] = twins.table["ra"][:100], twins.table["dec"][:100]
    other.codes[:100], other.observed[:100] = twins.codes[:100], twins.observed[:100]
    other.table["label"][:100] = np.where(twins.table["label"][:100] == "FRI", "FRII", "FRI")  # a leak would be wrong
    return together(twins, other, known("rgd", 200, 2))


def test_a_catalogue_left_out_is_tested_and_not_trained_on(everything, monkeypatch):
    monkeypatch.setattr(validity, "supervised", lambda tested, table: np.full(len(table), 0.5))
    train, test = validity.split("mirabest", everything)
    assert np.flatnonzero(test).tolist() == list(range(120))
    assert np.flatnonzero(train).tolist() == list(range(220, 440))  # nor what else shows its sources
    found = validity.left_out("mirabest", everything, everything)
    rows = {(row["way"], row["metric"]): row for row in found}
    assert rows[validity.NETWORK, "roc_auc"]["value"] == 0.5
    one = rows[validity.HOST, "accuracy"]
    assert one["galaxies"] == 120
    assert one["low"] <= one["value"] <= one["high"]
    assert one["value"] > 0.65
    assert rows[validity.CENTROID, "accuracy"]["value"] < 0.62  # the class is in the first half
    for other in (validity.COMPONENTS, validity.NETWORK):
        assert rows[f"{validity.HOST} − {other}", "accuracy"]["low"] < 1


def test_a_cnn_is_trained_on_the_fri_and_frii_of_others(everything, monkeypatch, tmp_path):
    everything.table["label"][400:] = "bent"
    archives = {name: shown(everything.table[everything.table["sample"] == name]) for name in cnn.FIRST}
    strangers = shown(known("strangers", 6, 3).table)
    strangers.table["label"][5] = "bent"
    monkeypatch.setattr(labelled, "labelled", lambda names: everything)
    monkeypatch.setattr(datasets, "load_dataset", archives.__getitem__)
    monkeypatch.setattr(validity, "strangers", lambda: strangers)
    rounds = {one.sample: one for one in cnn.of_catalogues()}
    assert [*rounds] == [*cnn.FIRST, validity.STRANGERS]
    one, last = rounds["mirabest"], rounds[validity.STRANGERS]
    assert one.names == [f"J{number}" for number in range(120)]
    assert len(one.seen) == len(one.labels) == 20 + 160  # 20 of FR-DEEP are other galaxies, and 40 of RGD are bent
    np.testing.assert_array_equal(one.seen[20:], archives["rgd"].images[:160])
    assert (last.names, len(last.seen), len(last.held_out)) == (["J0", "J1", "J2", "J3", "J4"], 400, 5)
    assert last.options == {"epochs": cnn.STEPS * cnn.BATCH / 400}

    monkeypatch.setattr(results, "FOLDER", tmp_path)
    results.write("cnn_catalogues", [{"sample": "mirabest", "name": name, "probability": 0.9} for name in one.names])
    table = everything.table[:120]
    assert (validity.supervised("mirabest", table) == 0.9).all()
    with pytest.raises(BadInput, match="complete it with python -m doit cnn-catalogues"):
        validity.supervised("rgd", table)


def shown(table):
    """A sample of simulated images with this table."""
    columns = table["name", "ra", "dec", "label"]
    columns["confident"], columns["split"] = True, "train"
    return Sample(simulate.sources(6).images[np.arange(len(table)) % 6], columns, 1.8)


def test_calibration_error_is_zero_for_honest_probabilities_alone():
    rng = np.random.default_rng(0)
    probability = rng.uniform(size=20_000)
    truth = (rng.uniform(size=20_000) < probability).astype(int)
    assert validity.calibration(truth, probability) < 0.02
    bold = np.where(probability > 0.5, 0.99, 0.01)
    assert validity.calibration(truth, bold) == pytest.approx(0.99 - 0.75, abs=0.02)
    assert validity.wrong_and_sure(truth, bold) == pytest.approx(0.25, abs=0.02)
    assert np.isnan(validity.wrong_and_sure(truth, np.full(20_000, 0.6)))

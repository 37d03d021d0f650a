"""The study of classification: tidy rows of every sample, baselines, and what a score rests on."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from scipy.spatial.distance import pdist
from sklearn.naive_bayes import GaussianNB

from rgz.data import datasets, sample
from studies import baselines, classification, encode, labelled, metrics, results, simulate
from studies.classifiers import Features

FAST = {"Gaussian naive Bayes": GaussianNB()}


def catalogue(count=120, seed=0):
    rng = np.random.default_rng(seed)
    return Table(
        {
            "name": [f"g{i}" for i in range(count)],
            "ra": rng.uniform(0, 360, count),
            "dec": rng.uniform(-5, 60, count),
            "label": [("FRI", "FRII")[i % 2] for i in range(count)],
            "confident": np.ones(count, bool),
            "size": rng.uniform(10, 100, count),
            "split": ["test" if i >= count - 20 else "train" for i in range(count)],
        }
    )


def features(table, signal, dimensions=6, seed=1):
    values = np.random.default_rng(seed).normal(size=(len(table), dimensions))
    values[:, 0] += signal * metrics.is_frii(table)
    return Features("test features", values)


def test_baselines_describe_every_image(simulated):
    found = baselines.describe(simulated)
    assert [f.name for f in found] == list(baselines.BASELINES)
    assert all(f.values.shape[0] == len(simulated) and np.isfinite(f.values).all() for f in found)


@pytest.fixture
def codes(tmp_path, monkeypatch):
    """A codes file of made-up galaxies, archives of images with their names, and what a CNN says of MiraBest."""
    for name in ("CLASSIFIERS", "BRIEF", "SVM", "UNCALIBRATED"):
        monkeypatch.setattr(classification, name, FAST)
    monkeypatch.setattr(classification, "REPEATS", dict.fromkeys(classification.SAMPLES, 1))
    monkeypatch.setattr(classification.label_efficiency, "__defaults__", ((10, 50), 2))
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    groups, archives = {}, {}
    for number, name in enumerate({**classification.SAMPLES, "rgd": ""}):
        table = catalogue(seed=number)
        made = simulate.sources(12, seed=number)
        archives[name] = sample.Sample(made.images[np.arange(len(table)) % 12], table, made.pixel)
        if name == "mirabest":
            table["confident"][:30] = False
            table["label"] = ["hybrid"] * 10 + list(table["label"][10:])
            code = np.random.default_rng(1).normal(size=(len(table), 12))
            code[:, 0] += 3 * (table["label"] == "FRII")
        else:
            code = np.tile(features(table, 3.0).values, 2)
        groups[name] = table, code, code[:, None], {}
    monkeypatch.setattr(datasets, "load_dataset", archives.__getitem__)
    encode.write_codes(tmp_path / "codes.h5", groups, {"blocks": np.array([0, 0, 3])})
    table, _ = classification.known(tmp_path / "codes.h5", "mirabest")
    results.write("cnn", held_out(table))
    return tmp_path / "codes.h5"


def held_out(table):
    """Rows of a CNN that is right about nine in ten galaxies, for every round."""
    labels, test = metrics.is_frii(table), np.asarray(table["split"]) == "test"
    parts = {f"fold {k}": rows for k, (_, rows) in enumerate(labelled.folds(labels, labelled.groups(table), 1))}
    probability = np.where(np.arange(len(labels)) % 10 == 0, 1 - labels, labels)
    return [
        {"sample": "mirabest", "round": part, "name": table["name"][row], "probability": probability[row]}
        for part, rows in (parts | {"official": np.flatnonzero(test)}).items()
        for row in rows
    ]


@pytest.mark.slow
def test_tables_have_codes_baselines_and_the_cnn_and_twice_the_same(codes):
    found, again = ({name: pd.DataFrame(rows) for name, rows in classification.study(codes).items()} for _ in range(2))
    for name, table in found.items():
        pd.testing.assert_frame_equal(table, again[name])
    rows = found["classification"]
    kinds = {classification.CODE, baselines.BEST, classification.RANGE, classification.WITH_RANGE}
    per_sample = rows.groupby("sample")["features"].unique()
    assert set(per_sample["MiraBest Confident"]) == {
        *kinds,
        *baselines.BASELINES,
        classification.SIZE,
        classification.CNN,
    }
    assert set(per_sample["FR-DEEP NVSS"]) == kinds
    assert found["samples"].set_index("sample")["n"].to_dict() == {
        "MiraBest Confident": 90,
        "FR-DEEP NVSS": 120,
        "FR-DEEP FIRST": 120,
    }
    assert (rows.groupby(["sample", "features", "classifier", "protocol"])["metric"].count() == 5).all()
    cnn = rows[(rows["features"] == classification.CNN) & (rows["metric"] == "accuracy")].set_index("protocol")["value"]
    assert cnn["cross-validation"] == pytest.approx(0.9)
    lead = rows[(rows["protocol"] == "difference from CNN") & (rows["metric"] == "accuracy")]
    assert set(lead["sample"]) == {"MiraBest Confident"}
    own = rows[rows["protocol"] == "cross-validation"].set_index(["sample", "features", "metric"])["value"]
    for _, row in lead.iterrows():
        assert row["low"] <= row["value"] <= row["high"]
        assert row["value"] == pytest.approx(own["MiraBest Confident", row["features"], "accuracy"] - 0.9)
    blocks = found["blocks"].drop_duplicates("blocks")
    assert list(zip(blocks["blocks"], blocks["dimensions"], strict=True)) == [(4, 12)]
    uncertain = found["uncertain"].set_index(["group", "metric"])
    assert uncertain.loc[("hybrid", "called_frii"), "n"] == 10
    assert uncertain.loc[("uncertain", "accuracy"), "n"] == 20
    assert set(found["transfer"]["direction"]) == {"FIRST to NVSS", "NVSS to FIRST", "MiraBest to RGD"}
    assert set(found["transfer"]["protocol"]) == {"transferred", "aligned", "same sample"}


def test_the_pca_of_averaged_views_sees_what_the_code_averages(simulated):
    """A mirror image, whose brighter half is found again, gives the same features."""
    few = simulated[:6]
    mirrored = sample.Sample(few.images[:, :, ::-1].copy(), few.table, few.pixel)
    function, _ = baselines.BASELINES[baselines.BEST]
    one, other = (function(s) / 255 for s in (few, mirrored))
    assert one.shape == (6, 4 * 64 * 64)
    np.testing.assert_allclose(one, other, atol=0.02)
    (described,) = baselines.describe(few, (baselines.BEST,))
    np.testing.assert_allclose(pdist(described.values), pdist(one), rtol=1e-4)


def test_joined_takes_the_first_round_of_each_row():
    rounds = [(None, np.array([0, 2])), (None, np.array([1])), (None, np.array([0, 1]))]
    found = classification.joined(rounds, [np.array([0.1, 0.2]), np.array([0.3]), np.array([0.8, 0.9])], 4)
    np.testing.assert_array_equal(found, [0.1, 0.3, 0.2, np.nan])


def test_a_cnn_on_other_galaxies_is_not_compared(codes):
    table, _ = classification.known(codes, "mirabest")
    assert classification.of_cnn(table, "mirabest") is not None
    assert classification.of_cnn(table[1:], "mirabest") is None  # other folds
    assert classification.of_cnn(table, "frdeep-nvss") is None


def test_more_labels_are_better():
    table = catalogue(200)
    rows = classification.label_efficiency(features(table, 2.5), table, (10, 150), 5)
    few, many = (row["value"] for row in rows if row["metric"] == "accuracy")
    assert few < many


def test_a_transfer_keeps_a_source_on_one_side(monkeypatch):
    here, there = catalogue(100), catalogue(100)
    there["dec"] += 4 / 3600
    there["ra"][:5] = np.nan
    asked = []

    def spy(_, labels, rounds, classifiers):
        asked.append(rounds)
        return {name: [np.full(len(test), 0.5) for _, test in rounds] for name in classifiers}

    monkeypatch.setattr(classification, "predict", spy)
    classification.transfer((here, features(here, 1)), (there, features(there, 1)))
    away, aligned, home = asked
    assert aligned is away
    assert len(away) == 5
    for train, test in away:
        assert (train < 100).all()
        assert (test >= 100).all()
        assert not set(train) & set(test - 100 + 5)  # five had no position
        assert len(train) == 100 - len(test)
    for train, test in home:
        assert (train >= 100).all()
        assert not set(train) & set(test)


def test_galaxies_beyond_a_catalogue_are_in_none_of_its_places():
    here, there = catalogue(30), catalogue(30)
    there["dec"][:20] += np.where(np.arange(20) < 12, 15, 25) / 3600
    table, kept = classification.beyond(here, (there, features(there, 1)))
    assert list(table["name"]) == [f"g{i}" for i in range(12, 20)]
    np.testing.assert_array_equal(kept.values, features(there, 1).values[12:20])


def test_the_peak_over_threshold_is_that_of_the_source_in_the_middle(simulated):
    few = simulated[:3]
    images = few.images.astype(float)
    images[:, 0, 0] = 1000.0  # another source, far away
    expected = [np.log(255 / image[image > 0].min()) for image in few.images]
    np.testing.assert_allclose(baselines.peak_over_threshold(replace(few, images=images))[:, 0], expected)

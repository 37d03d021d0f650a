"""Scores mean what they say: no fold sees its test rows, and shuffled labels score as chance."""

import json

import numpy as np
import pytest
from astropy.table import Table
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression

from rgz import classify, latents, report
from rgz.errors import BadInput

FAST = {"logistic regression": LogisticRegression()}


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
    values[:, 0] += signal * classify.is_frii(table)
    return classify.Features("test features", values)


def evaluated(table, signal, **options):
    test = np.asarray(table["split"]) == "test"
    return classify.evaluate(features(table, signal), classify.is_frii(table), classify.groups(table), test, **options)


def test_scores_of_a_known_confusion():
    truth, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    found = classify.scores(truth, predicted.astype(float), predicted)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert (found["specificity"], found["recall"]) == (0.75, 0.5)


def test_every_classifier_finds_a_clear_signal():
    for row in evaluated(catalogue(), 6.0, repeats=1):
        assert row["cross_validation"]["accuracy"][0] > 0.9, row["classifier"]
        assert row["official"]["roc_auc"] > 0.9, row["classifier"]


def test_shuffled_labels_score_as_chance():
    table = catalogue(400)
    table["label"] = np.random.default_rng(5).permutation(table["label"])
    (row,) = evaluated(table, 0.0, repeats=10, classifiers=FAST)
    assert row["cross_validation"]["accuracy"][0] == pytest.approx(0.5, abs=0.05)
    assert row["cross_validation"]["roc_auc"][0] == pytest.approx(0.5, abs=0.05)


def test_the_positive_class_is_frii():
    table = catalogue()
    (row,) = classify.evaluate(
        features(table, 0),
        classify.is_frii(table),
        classify.groups(table),
        np.arange(120) >= 100,
        1,
        {"always FRII": DummyClassifier(strategy="constant", constant=1)},
    )
    assert row["cross_validation"]["recall"][0] == 1
    assert row["cross_validation"]["specificity"][0] == 0


def test_folds_keep_a_source_on_one_side():
    table = catalogue()
    for row in range(0, 60, 2):
        table["ra"][row + 1], table["dec"][row + 1] = table["ra"][row], table["dec"][row] + 0.001
    group = classify.groups(table)
    assert len(set(group)) == 90
    labels, seen = classify.is_frii(table), np.zeros(len(table), int)
    for train, held_out in classify.folds(labels, group, repeats=2):
        assert not set(group[train]) & set(group[held_out])
        seen[held_out] += 1
    assert (seen == 2).all()


def test_a_transform_sees_training_rows_only():
    table, seen = catalogue(), []

    class Spy:
        def get_params(self, deep=False):
            return {}

        def fit(self, values):
            seen.append(set(values[:, 0]))
            return self

        def transform(self, values):
            assert len(values) in (len(seen[-1]), 120 - len(seen[-1]))
            return values

    values = np.arange(120.0)[:, None] * np.ones(2)
    classify.evaluate(
        classify.Features("spied", values, Spy()),
        classify.is_frii(table),
        classify.groups(table),
        np.arange(120) >= 100,
        1,
        FAST,
    )
    assert [len(s) for s in seen] == [96] * 5 + [100]


def test_labels_other_than_fri_and_frii_are_refused():
    with pytest.raises(BadInput, match="hybrid"):
        classify.is_frii(Table({"label": ["FRI", "hybrid"]}))


def test_baselines_describe_every_image(simulated):
    found = classify.baselines(simulated)
    assert [f.name for f in found] == list(classify.BASELINES)
    assert all(f.values.shape[0] == len(simulated) and np.isfinite(f.values).all() for f in found)


@pytest.fixture
def codes(tmp_path, monkeypatch):
    """A codes file of made-up galaxies, and no survey image anywhere."""
    monkeypatch.delenv("RGZ_DATA_MIRROR", raising=False)
    monkeypatch.setenv("RGZ_CACHE", str(tmp_path / "no-cache"))
    monkeypatch.setattr(classify, "CLASSIFIERS", FAST)
    table = catalogue()
    code = features(table, 3.0).values
    latents.write_codes(
        tmp_path / "codes.h5", {"mirabest": (table, {"code": code, "code_views": np.abs(code)}, {})}, {}
    )
    return tmp_path / "codes.h5"


def test_a_report_without_images_carries_the_baselines_over(codes, run, tmp_path):
    status, out, _ = run("report", "--codes", codes, "--out", tmp_path / "r.json", "--repeats", 1)
    assert status == 0
    written = json.loads((tmp_path / "r.json").read_text())
    assert {r["features"] for r in written["rows"]} == {*report.VARIANTS.values(), report.SIZE, *classify.BASELINES}
    assert out.count("†") == len(classify.BASELINES) + 1
    assert written["sample"]["n"] == 120


def test_a_report_twice_is_the_same_file(codes, run, tmp_path):
    for name in ("a.json", "b.json"):
        run("report", "--codes", codes, "--out", tmp_path / name, "--repeats", 1)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_results_that_are_no_results(tmp_path):
    (tmp_path / "r.json").write_text("[1, 2")
    with pytest.raises(BadInput, match="rgz report"):
        report.read(tmp_path / "r.json")


def test_pooled_components_do_not_depend_on_the_order_of_views():
    views = np.random.default_rng(0).normal(size=(30, 4, 12))
    fitted = classify.FourViewPCA(3).fit(views)
    assert fitted.transform(views).shape == (30, fitted.n_components)
    np.testing.assert_allclose(fitted.transform(views), fitted.transform(views[:, [2, 0, 3, 1]]), atol=1e-12)

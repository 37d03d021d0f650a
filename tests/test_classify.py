"""Scores mean what they say: no fold sees its test rows, and shuffled labels score as chance."""

import json

import numpy as np
import pytest
from astropy.table import Table
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier
from sklearn.metrics import roc_auc_score
from sklearn.naive_bayes import GaussianNB

from rgz import artifacts
from rgz.data import datasets, sample, simulate
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.tasks import classify
from studies import baselines, classification, evidence

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
    values[:, 0] += signal * classify.is_frii(table)
    return classify.Features("test features", values)


def evaluated(table, signal, **options):
    test = np.asarray(table["split"]) == "test"
    return classify.evaluate(features(table, signal), classify.is_frii(table), classify.groups(table), test, **options)


def test_scores_of_a_known_confusion():
    truth, probability = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1.0, 1, 0.4])
    found = classify.scores(truth, probability)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert (found["specificity"], found["recall"]) == (0.75, 0.5)
    assert found["brier"] == pytest.approx((1 + 0.36) / 6)


def test_the_roc_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, probability = rng.integers(2, size=200), np.round(rng.random(200), 1)  # with ties
    assert classify.scores(truth, probability)["roc_auc"] == pytest.approx(roc_auc_score(truth, probability))
    value, low, high = classify.bootstrap(truth, probability)["roc_auc"]
    assert low < value < high
    assert high - low == pytest.approx(4 * 0.041, rel=0.2)  # Hanley & McNeil 1982: 0.041 for two classes of a hundred


def test_every_classifier_finds_a_clear_signal():
    for row in evaluated(catalogue(), 6.0, repeats=1):
        assert row["cross_validation"]["accuracy"][0] > 0.9, row["classifier"]
        assert row["official"]["roc_auc"][0] > 0.9, row["classifier"]


@pytest.mark.slow
def test_shuffled_labels_score_as_chance():
    """Whatever a classifier picks, scales and calibrates, it does on training folds: on real codes labels drawn by lot are lost."""
    table, code, _ = codefile.read_codes(artifacts.artifact("codes.h5"), "mirabest", "code_views")
    code = code[classify.confident(table)]
    features = classify.Features("shuffled", code, PCA(60, svd_solver="covariance_eigh"))
    drawn = [
        np.random.default_rng(lot).permutation(np.arange(len(code)) % 2) for lot in range(3)
    ]  # one lot may be lucky
    found = [classify.evaluate(features, labels, np.arange(len(code)), None, repeats=1) for labels in drawn]
    for rows in zip(*found, strict=True):
        for metric in ("accuracy", "roc_auc"):
            mean = np.mean([row["cross_validation"][metric][0] for row in rows])
            assert mean == pytest.approx(0.5, abs=0.05), (rows[0]["classifier"], metric)


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
    found = baselines.describe(simulated)
    assert [f.name for f in found] == list(baselines.BASELINES)
    assert all(f.values.shape[0] == len(simulated) and np.isfinite(f.values).all() for f in found)


@pytest.fixture
def codes(tmp_path, monkeypatch):
    """A codes file of made-up galaxies, and archives of images with their names."""
    monkeypatch.setattr(classify, "CLASSIFIERS", FAST)
    monkeypatch.setattr(classify, "BRIEF", FAST)
    monkeypatch.setattr(evidence, "BRIEF", FAST)
    monkeypatch.setattr(evidence, "MACHINE", FAST)
    monkeypatch.setattr(evidence, "UNCALIBRATED", FAST)
    monkeypatch.setattr(evidence.learning_curve, "__defaults__", ((10, 50), 2))
    groups, archives = {}, {}
    for number, name in enumerate(classification.SAMPLES):
        table = catalogue(seed=number)
        made = simulate.sources(12, seed=number)
        archives[name] = sample.Sample(made.images[np.arange(len(table)) % 12], table, made.pixel)
        if name == "mirabest":
            table["confident"][:30] = False
            table["label"] = ["hybrid"] * 10 + list(table["label"][10:])
            code = np.random.default_rng(1).normal(size=(len(table), 6))
            code[:, 0] += 3 * (table["label"] == "FRII")
        else:
            table["object"], code = table["name"], features(table, 3.0).values
        groups[name] = table, {"code": code, "code_views": np.abs(code)}, {}
    monkeypatch.setattr(datasets, "load_dataset", archives.__getitem__)
    codefile.write_codes(tmp_path / "codes.h5", groups, {"blocks": np.array([0, 0, 3])})
    return tmp_path / "codes.h5"


def test_results_have_codes_and_baselines_of_every_sample(codes, run, tmp_path):
    status, out, _ = run("classify", "--codes", codes, "--out", tmp_path / "r.json", "--repeats", 1)
    assert status == 0
    written = json.loads((tmp_path / "r.json").read_text())
    kinds = {*classification.VARIANTS.values(), baselines.BEST}
    assert {r["features"] for r in classification.rows(written, "mirabest")} == {
        *kinds,
        classification.SIZE,
        *baselines.BASELINES,
    }
    assert {r["features"] for r in classification.rows(written, "frdeep-nvss")} == kinds
    assert all(title in out for title in kinds)
    assert written["samples"]["MiraBest Confident"]["n"] == 90
    told = [(row["blocks"], row["dimensions"]) for row in written["behind"]["blocks"]]
    assert told == [(1, 4), (4, 6)]
    shown = classification.floors(written, {"accuracy": 0.76, "roc_auc": 0.86})
    assert {len(column) for column in shown.values()} == {2}
    quoted = classification.quoted(written)
    assert quoted["mirabest-n"] == 90
    assert (
        quoted["mirabest-own-accuracy"]
        == classification.best(written, "VDVAE code, 12 views")["cross_validation"]["accuracy"][0]
    )
    assert quoted["hybrid-n"] == 10


@pytest.mark.slow
def test_results_twice_are_the_same_file(codes, run, tmp_path):
    for name in ("a.json", "b.json"):
        run("classify", "--codes", codes, "--out", tmp_path / name, "--repeats", 1)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_results_that_are_no_results(tmp_path):
    (tmp_path / "r.json").write_text("[1, 2")
    with pytest.raises(BadInput, match="rgz classify"):
        classification.read(tmp_path / "r.json")


def test_pooled_components_do_not_depend_on_the_order_of_views():
    views = np.random.default_rng(0).normal(size=(30, 4, 12))
    fitted = baselines.PooledPCA(3).fit(views)
    assert fitted.transform(views).shape == (30, fitted.n_components)
    np.testing.assert_allclose(fitted.transform(views), fitted.transform(views[:, [2, 0, 3, 1]]), atol=1e-12)


def test_a_difference_has_an_interval_around_it():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=400)
    good, bad = (np.clip(truth + rng.normal(0, width, 400), 0, 1) for width in (0.4, 1.2))
    value, low, high = classify.difference(truth, good, bad, 200)["accuracy"]
    assert 0 < low < value < high
    assert classify.difference(truth, good, good, 50)["roc_auc"] == [0, 0, 0]


def test_joined_takes_the_first_round_of_each_row():
    rounds = [(None, np.array([0, 2])), (None, np.array([1])), (None, np.array([0, 1]))]
    found = classify.joined(rounds, [np.array([0.1, 0.2]), np.array([0.3]), np.array([0.8, 0.9])], 4)
    np.testing.assert_array_equal(found, [0.1, 0.3, 0.2, np.nan])


def test_more_labels_are_better():
    table = catalogue(200)
    few, many = evidence.learning_curve(features(table, 2.5), classify.is_frii(table), np.arange(200), (10, 150), 5)
    assert few["accuracy"][0] < many["accuracy"][0]


def test_a_transfer_keeps_an_object_on_one_side(monkeypatch):
    here, there = catalogue(100), catalogue(100, seed=3)
    for table in (here, there):
        table["object"] = table["name"]
    asked = []

    def spy(_, labels, rounds, classifiers):
        asked.append(rounds)
        return {name: [np.full(len(test), 0.5) for _, test in rounds] for name in classifiers}

    monkeypatch.setattr(evidence, "predict", spy)
    evidence.transfer((here, features(here, 1)), (there, features(there, 1)))
    away, aligned, at_home = asked
    assert aligned is away
    assert len(away) == 10
    for train, test in away:
        assert (train < 100).all()
        assert (test >= 100).all()
        assert not set(train) & set(test - 100)
    for train, test in at_home:
        assert (train >= 100).all()
        assert not set(train) & set(test)


def test_a_committee_agrees_with_its_discriminant_and_knows_how_sure_it_is():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    values = rng.normal(size=(200, 6)) + labels[:, None]
    weights = classify.bootstrap_ensemble(values, labels, np.arange(200), members=40)
    each = 1 / (1 + np.exp(-(values @ weights[:, :-1].T + weights[:, -1])))
    one = classify.CLASSIFIERS["linear discriminant"].fit(values, labels).predict_proba(values)[:, 1]
    np.testing.assert_allclose(each.mean(axis=1), one, atol=0.1)
    near = np.abs(one - 0.5) < 0.2
    assert each[near].std(axis=1).mean() > each[np.abs(one - 0.5) > 0.45].std(axis=1).mean()
    np.testing.assert_array_equal(weights, classify.bootstrap_ensemble(values, labels, np.arange(200), members=40))


def test_a_committee_of_few_galaxies_has_both_classes_in_every_draw():
    values, labels = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 0, 1, 1, 1])
    assert np.isfinite(classify.bootstrap_ensemble(values, labels, np.arange(5), members=30)).all()

"""Classifiers find a signal that is there, and none that is not: nothing is fitted to test rows."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from rgz.features import codes as codefile
from studies import classifiers, labelled, metrics

LABELS = np.arange(120) % 2
HALVES = [(np.arange(0, 80), np.arange(80, 120))]


def test_every_classifier_finds_a_clear_signal():
    values = np.random.default_rng(1).normal(size=(120, 6))
    values[:, 0] += 6 * LABELS
    features = classifiers.Features("test features", values)
    for name, (probability,) in classifiers.predict(features, LABELS, HALVES).items():
        scores = metrics.scores(LABELS[80:], probability)
        assert scores["accuracy"] > 0.9, name
        assert scores["roc_auc"] > 0.9, name


@pytest.mark.slow
def test_shuffled_labels_score_as_chance():
    """Settings and calibration are fitted to training folds: random labels of real codes cannot be predicted."""
    table, code, _ = codefile.read_codes(None, "mirabest")
    code = code[labelled.confident(table)]
    features = classifiers.Features("shuffled", code, PCA(12, svd_solver="covariance_eigh"))
    found: dict[str, list] = {}
    for seed in range(3):  # a single permutation may score well by chance
        labels = np.random.default_rng(seed).permutation(np.arange(len(code)) % 2)
        train, test = next(labelled.folds(labels, np.arange(len(code)), repeats=1, splits=2))
        for name, (probability,) in classifiers.predict(features, labels, [(train, test)]).items():
            scores = metrics.scores(labels[test], probability)
            found.setdefault(name, []).append([scores[key] for key in ("accuracy", "roc_auc")])
    for name, values in found.items():
        np.testing.assert_allclose(np.mean(values, axis=0), 0.5, atol=0.05, err_msg=name)


def test_a_transform_is_fitted_to_training_rows_only():
    seen = []

    class Spy:
        def get_params(self, deep=False):
            return {}

        def fit(self, values):
            seen.append(values[:, 0].tolist())
            return self

        def transform(self, values):
            return values

    values = np.arange(120.0)[:, None] * np.ones(2)
    one = {"linear discriminant": classifiers.CLASSIFIERS["linear discriminant"]}
    classifiers.predict(classifiers.Features("spied", values, Spy()), LABELS, HALVES, one)
    assert seen == [list(range(80))]

"""Scores and their intervals are those of known examples and of scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from studies import metrics


def test_scores_of_a_known_confusion():
    truth, probability = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1.0, 1, 0.4])
    found = metrics.scores(truth, probability)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert (found["specificity"], found["recall"]) == (0.75, 0.5)
    assert found["brier"] == pytest.approx((1 + 0.36) / 6)


def test_the_roc_auc_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    truth, probability = rng.integers(2, size=200), np.round(rng.random(200), 1)  # with ties
    assert metrics.scores(truth, probability)["roc_auc"] == pytest.approx(roc_auc_score(truth, probability))
    value, low, high = metrics.bootstrap(truth, probability)["roc_auc"]
    assert low < value < high
    assert high - low == pytest.approx(4 * 0.041, rel=0.2)  # Hanley & McNeil 1982: 0.041 for two classes of a hundred


def test_a_difference_has_an_interval_around_it():
    rng = np.random.default_rng(0)
    truth = rng.integers(2, size=400)
    good, bad = (np.clip(truth + rng.normal(0, width, 400), 0, 1) for width in (0.4, 1.2))
    value, low, high = metrics.difference(truth, good, bad)["accuracy"]
    assert 0 < low < value < high
    assert metrics.difference(truth, good, good)["roc_auc"] == [0, 0, 0]

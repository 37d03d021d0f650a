"""Labels, sources and folds are what they should be, and the bootstrap ensemble knows its uncertainty."""

import numpy as np
import pytest
from astropy.table import Table
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from rgz.errors import BadInput
from rgz.tasks import classify


def test_folds_keep_a_source_on_one_side():
    rng = np.random.default_rng(0)
    labels = ["FRI", "FRII"] * 60
    table = Table({"ra": rng.uniform(0, 360, 120), "dec": rng.uniform(-5, 60, 120), "label": labels})
    for row in range(0, 60, 2):
        table["ra"][row + 1], table["dec"][row + 1] = table["ra"][row], table["dec"][row] + 0.001
    group = classify.groups(table)
    assert len(set(group)) == 90
    labels, seen = classify.is_frii(table), np.zeros(len(table), int)
    for train, held_out in classify.folds(labels, group, repeats=2):
        assert not set(group[train]) & set(group[held_out])
        seen[held_out] += 1
    assert (seen == 2).all()


def test_labels_other_than_fri_and_frii_are_refused():
    with pytest.raises(BadInput, match="hybrid"):
        classify.is_frii(Table({"label": ["FRI", "hybrid"]}))


def test_confident_galaxies_are_certain_fri_and_frii():
    table = Table({"label": ["FRI", "FRII", "hybrid", "FRI"], "confident": [True, True, True, False]})
    assert classify.confident(table).tolist() == [True, True, False, False]
    assert classify.is_frii(table[:2]).tolist() == [0, 1]


def test_the_ensemble_agrees_with_its_discriminant_and_scatters_where_it_is_uncertain():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    values = rng.normal(size=(200, 6)) + labels[:, None]
    weights = classify.bootstrap_ensemble(values, labels, np.arange(200), members=40)
    each = 1 / (1 + np.exp(-(values @ weights[:, :-1].T + weights[:, -1])))
    one = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(values, labels).predict_proba(values)[:, 1]
    np.testing.assert_allclose(each.mean(axis=1), one, atol=0.1)
    near = np.abs(one - 0.5) < 0.2
    assert each[near].std(axis=1).mean() > each[np.abs(one - 0.5) > 0.45].std(axis=1).mean()
    np.testing.assert_array_equal(weights, classify.bootstrap_ensemble(values, labels, np.arange(200), members=40))


def test_an_ensemble_of_few_galaxies_has_both_classes_in_every_member():
    values, labels = np.random.default_rng(0).normal(size=(5, 3)), np.array([0, 0, 1, 1, 1])
    assert np.isfinite(classify.bootstrap_ensemble(values, labels, np.arange(5), members=30)).all()

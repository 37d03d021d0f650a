"""Labels, sources and folds are what they should be, and the classifier is the one that its module describes."""

import numpy as np
import pytest
from astropy.table import Table
from safetensors.numpy import save
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from rgz.data.sample import source_table
from rgz.errors import BadInput
from rgz.tasks import classify
from studies import encode, labelled, metrics


def test_folds_keep_a_source_on_one_side():
    rng = np.random.default_rng(0)
    labels = ["FRI", "FRII"] * 60
    table = Table({"ra": rng.uniform(0, 360, 120), "dec": rng.uniform(-5, 60, 120), "label": labels})
    for row in range(0, 60, 2):
        table["ra"][row + 1], table["dec"][row + 1] = table["ra"][row], table["dec"][row] + 0.001
    group = labelled.groups(table)
    assert len(set(group)) == 90
    labels, seen = metrics.is_frii(table), np.zeros(len(table), int)
    for train, held_out in labelled.folds(labels, group, repeats=2):
        assert not set(group[train]) & set(group[held_out])
        seen[held_out] += 1
    assert (seen == 2).all()


def test_labels_other_than_fri_and_frii_are_refused():
    with pytest.raises(BadInput, match="hybrid"):
        metrics.is_frii(Table({"label": ["FRI", "hybrid"]}))


def test_confident_galaxies_are_certain_fri_and_frii():
    table = Table({"label": ["FRI", "FRII", "hybrid", "FRI"], "confident": [True, True, True, False]})
    assert labelled.confident(table).tolist() == [True, True, False, False]
    assert metrics.is_frii(table[:2]).tolist() == [0, 1]


def known(count=240, features=6, seed=0):
    """Labelled galaxies of three classes, each seen once more, with a code that tells the class."""
    rng = np.random.default_rng(seed)
    label = np.array(["FRI", "FRII", "bent"])[np.arange(count) % 3]
    codes = rng.normal(size=(count, features)) + 2 * (label[:, None] == np.array(["FRI", "FRII", "bent"] * 2))
    table = Table({"ra": np.arange(count) * 1.0, "dec": np.zeros(count), "label": label, "sample": ["s"] * count})
    return labelled.Labelled(table, codes.astype(np.float32), (codes + 0.1)[:, None].astype(np.float32))


def test_a_classifier_is_the_kernel_machine_of_scikit_learn():
    few = known(60)
    few = labelled.Labelled(few.table, few.codes, few.observed[:, :0])
    machine = make_pipeline(
        StandardScaler(),
        Nystroem(gamma=1 / 6, n_components=60, random_state=0),
        LogisticRegression(C=30, max_iter=2000),
    ).fit(few.codes.astype(float), few.table["label"])
    np.testing.assert_allclose(
        labelled.fit(few).predict_proba(few.codes), machine.predict_proba(few.codes.astype(float)), atol=2e-3
    )


def test_a_classifier_finds_classes_and_its_sets_hold_nine_in_ten():
    classifier, new = labelled.fit(known()), known(900, seed=1)
    assert classifier.classes == ("FRI", "FRII", "bent")
    probability = classifier.predict_proba(new.codes)
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-5)
    own = np.asarray(new.table["label"])[:, None] == np.array(classifier.classes)
    assert (probability.argmax(1) == own.argmax(1)).mean() > 0.75
    inside = classifier.sets(probability)
    assert inside.any(1).all()
    assert 0.85 < inside[own].mean() < 0.95


def test_all_classes_weigh_the_same_and_so_do_all_sources():
    rare = known()
    rows = np.r_[np.flatnonzero(rare.table["label"] == "FRI")[:10], np.flatnonzero(rare.table["label"] != "FRI")]
    again = np.concatenate([rows, np.repeat(rows[-1:], 200)])  # one source in 200 images
    alike = labelled.fit(rare[rows]).predict_proba(rare.codes), labelled.fit(rare[again]).predict_proba(rare.codes)
    assert np.abs(alike[0] - alike[1]).mean() < 0.05
    assert alike[0].mean(0) == pytest.approx(1 / 3, abs=0.1)


def test_observations_that_do_not_show_the_source_are_left_out():
    some = known()
    some.observed[::2] = np.nan
    assert np.isfinite(labelled.fit(some).predict_proba(some.codes)).all()


def test_a_classifier_comes_back_from_its_file(tmp_path):
    first = labelled.fit(known(), first=2)
    (tmp_path / "c.safetensors").write_bytes(save(first.tensors("a") | labelled.fit(known(seed=3)).tensors("b")))
    again = classify.Classifier.from_pretrained("a", tmp_path / "c.safetensors")
    np.testing.assert_array_equal(again.predict_proba(known().codes), first.predict_proba(known().codes))
    assert (again.first, again.classes, again.threshold) == (2, first.classes, pytest.approx(first.threshold))
    with pytest.raises(BadInput, match="no classifiers"):
        classify.Classifier.from_pretrained("absent", tmp_path / "c.safetensors")


def test_sources_of_contradictory_classes_are_not_labelled(tmp_path):
    label, place = ["FRI", "FRII", "bent", "hybrid", "FRI"], [10.0, 20.0, 10.0005, 40.0, 50.0]
    table = source_table(list("abcde"), place, [0.0] * 5, label, [True] * 4 + [False], ["train"] * 5)
    code = np.arange(10, dtype=np.float32).reshape(5, 2)
    encode.write_codes(tmp_path / "c.h5", {"one": (table, code, code[:, None], {})}, {})
    found = labelled.labelled(("one",), tmp_path / "c.h5")
    assert list(found.table["name"]) == ["b"]
    np.testing.assert_array_equal(found.observed[0, 0], found.codes[0])

"""What the measures of a search measure, on galaxies where the answer is known."""

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from rgz.data import datasets, simulate
from rgz.data.sample import prepared
from rgz.features import codes as codefile
from rgz.features import descriptors, metric
from rgz.features.embed import Encoder
from rgz.transforms import perturb, prepare
from studies import results, similarity


@pytest.fixture(scope="module")
def galaxies():
    """MiraBest and RGD show the same galaxies, FIRST and NVSS too, and the codes say so: a table of four samples."""
    rng = np.random.default_rng(0)
    n = 60
    label = np.array(["FRI", "FRII"])[rng.integers(0, 2, n)]
    ra, dec = rng.uniform(0, 360, n), rng.uniform(-60, 60, n)
    parts = {"mirabest": (ra, dec, ""), "rgd": (ra, dec + 2 / 3600, ""), "frdeep-first": None, "frdeep-nvss": None}
    rows = []
    for sample, place in parts.items():
        for i in range(n):
            known = (place[0][i], place[1][i], "") if place else (np.nan, np.nan, f"object {i}")
            rows.append((f"{sample} {i}", sample, *known, label[i], True))
    table = Table(rows=rows, names=("name", "sample", "ra", "dec", "object", "label", "confident"))
    own = rng.normal(size=(n, 16)) + 6 * (label == "FRII")[:, None]
    return table, np.vstack([own] * 4).astype(np.float32)


def measured(table, vectors, changed):
    return pd.DataFrame(similarity.measure(table, vectors, changed)).set_index(["question", "k"])


def test_perfect_codes_answer_everything(galaxies):
    table, vectors = galaxies
    found = measured(table, vectors, {"nothing": (np.arange(60), vectors[:60])})
    numbers = found[["value", "low", "high"]]
    for question in ("same galaxy", "itself", "other survey"):
        assert (numbers.loc[question] == 1).all(axis=None), question
    assert (found.loc["class", "value"] > 0.99).all()
    assert (found["n"] == 60).all()
    assert found.index.unique().tolist() == [
        ("same galaxy", 1),
        ("same galaxy", 10),
        ("itself", 1),
        ("class", 10),
        ("other survey", 1),
        ("other survey", 10),
    ]


def test_codes_that_know_nothing_find_by_chance(galaxies):
    table, vectors = galaxies
    rng = np.random.default_rng(1)
    noise = rng.normal(size=vectors.shape).astype(np.float32)
    found = measured(table, noise, {"all": (np.arange(60), rng.normal(size=(60, 16)).astype(np.float32))})["value"]
    assert (found.loc["same galaxy", 1] < 0.15).all()
    assert (found.loc["itself"] < 0.15).all()
    assert found.loc["class"].between(0.35, 0.65).all()


def test_the_same_source_is_a_trivial_match(galaxies):
    table, _ = galaxies
    first, second = table[:60], table[60:120]
    same = similarity.same_sky(first, second)
    np.testing.assert_array_equal(same, np.eye(60, dtype=bool))
    order = np.tile(np.arange(60), (60, 1))
    label = np.asarray(first["label"])
    found = similarity.precision_at_k(order, ~same, label, label, k=1)
    assert found[0] == (label[0] == label[1])  # the nearest is itself, so the second counts
    assert (similarity.same_sky(table[120:180], table[180:]) == np.eye(60, dtype=bool)).all()


@pytest.mark.parametrize("kind", similarity.PERTURBED)
def test_perturbed_images_still_show_the_galaxy(simulated, kind):
    rows, sample = similarity.perturbed(simulated[:12], kind, prepare.Recipe())
    assert len(rows) == len(sample) >= 11
    for row, image in zip(rows, sample.images, strict=True):
        before = simulated.images[row].astype(float)
        assert image.shape == before.shape
        if not kind.startswith("noise"):
            assert image.sum() == pytest.approx(before.sum(), rel=0.1)
            assert image.max() == pytest.approx(before.max(), rel=0.1)


def test_perturbations_do_what_they_say():
    rng = np.random.default_rng(0)
    image = prepare.clip(simulate.source("FRII", rng, snr=100))
    np.testing.assert_array_equal(perturb.mirror(perturb.mirror(image, rng), rng), image)
    there = np.unravel_index(image.argmax(), image.shape)
    moved = np.unravel_index(perturb.shift(image, rng).argmax(), image.shape)
    assert np.abs(np.subtract(there, moved)).sum() == 2
    higher = perturb.raise_threshold(image, rng)
    assert (higher > 0).sum() < (image > 0).sum()
    assert set(np.unique(higher)) <= set(np.unique(image))
    far = [perturb.simulate_distance(image, rng) for _ in range(10)]
    assert all(0 < one.sum() < image.sum() and one.max() < image.max() for one in far)
    assert all(prepare.length(one, 1.8, prepare.Recipe()) < prepare.length(image, 1.8, prepare.Recipe()) for one in far)
    again = perturb.add_noise(image, rng, (5, 5))
    assert (again > 0).sum() < (image > 0).sum()
    assert perturb.rotate_randomly(np.zeros((40, 40)), rng).sum() == 0


def test_perturbations_are_the_same_each_time(simulated):
    one, other = (similarity.perturbed(simulated[:5], "turned", prepare.Recipe())[1].images for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.fixture
def archives(monkeypatch):
    """Four small archives: the first two show the same galaxies, each of which has its place on the sky."""
    found = {}
    for number, name in enumerate(datasets.SAMPLES):
        one = simulate.sources(8, seed=5 if name in ("mirabest", "rgd") else number)
        one.table["name"] = [f"{name} {row}" for row in range(8)]
        one.table["ra"], one.table["dec"] = 10.0 * np.arange(8), np.full(8, 5.0)
        if name.startswith("frdeep"):
            one.table["object"] = [f"object {row}" for row in range(8)]
        found[name] = one
    monkeypatch.setattr(datasets, "load_dataset", found.__getitem__)
    return found


@pytest.mark.slow
def test_the_study_asks_all_features_in_all_metrics(archives, tiny, simulated, tmp_path):
    recipe, chosen = prepare.Recipe(), np.array([3, 130, 7, 300])
    encoder = Encoder(tiny.eval(), recipe, chosen, descriptors.principal(prepared(simulated, recipe), 3))

    def describe(one):
        return encoder.transform(one, "search")

    whole = {name: describe(one) for name, one in archives.items()}
    groups = {name: (archives[name].table, {"code": code, "code_compared": code}, {}) for name, code in whole.items()}
    codes = np.vstack(list(whole.values()))
    changes, alone = descriptors.changes(describe, recipe, simulated), descriptors.alone(chosen)
    spaces = {
        codefile.BASIS: encoder.basis,
        codefile.SPACE: descriptors.space(codes, changes, alone),
        codefile.ALONE: metric.invariant(codes[:, :alone], changes[:, :alone], kept=5),
    }
    codefile.write_codes(tmp_path / "c.h5", groups, {"latents": chosen}, spaces)
    found = pd.DataFrame(similarity.study(encoder, tmp_path / "c.h5", simulated))
    asked = found.drop_duplicates(["features", "metric_space"])
    assert asked["features"].value_counts().to_dict() == {
        similarity.TOGETHER: 2,
        similarity.CODES: 6,
        similarity.COMPONENTS: 6,
        "pixels, aligned": 2,
        "pixels, sky orientation": 2,
    }
    assert not found.duplicated(["features", "metric_space", "question", "pair", "k"]).any()
    sizes = asked[asked["metric_space"] == "invariant, cosine"].set_index("features")["dimensions"]
    assert (sizes[similarity.TOGETHER], sizes[similarity.CODES]) == (64 + 18, 5)
    own = found[(found["pair"] == "mirabest → rgd") & (found["question"] == "same galaxy")]
    assert (own["value"] == 1).all()  # the very same images
    itself = found[found["question"] == "itself"].set_index(["features", "metric_space", "pair"])["value"]
    assert set(itself.index.get_level_values("pair")) == set(similarity.PERTURBED)
    assert itself["pixels, aligned", "unscaled, cosine", "mirrored"] == 1


def test_numbers_tell_which_images_show_one_galaxy(archives):
    assert similarity.seen_twice(archives["frdeep-first"], archives["frdeep-nvss"])["pairs"] == 8


def test_committed_results_have_every_feature_and_question():
    found = results.read("similarity")
    assert set(found["question"]) == {"same galaxy", "itself", "class", "other survey"}
    assert {similarity.TOGETHER, similarity.CODES, similarity.COMPONENTS} < set(found["features"])
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()

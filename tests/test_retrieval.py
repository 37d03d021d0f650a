"""What the measures of a search measure, on galaxies where the answer is known."""

import numpy as np
import pandas as pd
import pytest
import torch
from astropy.table import Table

from rgz.data import datasets
from rgz.features.embed import PARTS, Encoder
from rgz.transforms import fields
from rgz.transforms.prepare import Recipe, prepare
from studies import encode, results, similarity, simulate
from studies.encode import changes


@pytest.fixture(scope="module")
def galaxies():
    """MiraBest and RGD show the same galaxies, FIRST and NVSS too, and so do their codes: a table of four samples."""
    rng = np.random.default_rng(0)
    n = 60
    label = np.array(["FRI", "FRII"])[rng.integers(0, 2, n)]
    ra, dec = rng.uniform(0, 360, n), rng.uniform(-60, 60, n)
    apart = {"mirabest": 0, "rgd": 2, "frdeep-first": 60, "frdeep-nvss": 62}  # arcsec
    rows = [
        (f"{sample} {i}", sample, ra[i], dec[i] + arcsec / 3600, label[i], True)
        for sample, arcsec in apart.items()
        for i in range(n)
    ]
    table = Table(rows=rows, names=("name", "sample", "ra", "dec", "label", "confident"))
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


def test_a_row_without_a_position_is_no_other_galaxy():
    lost = Table({"ra": [np.nan, 10.0], "dec": [np.nan, 5.0]})
    np.testing.assert_array_equal(similarity.same_sky(lost, lost), [[False, False], [False, True]])


@pytest.mark.parametrize("kind", similarity.PERTURBED)
def test_perturbed_images_still_show_the_galaxy(simulated, kind):
    rows, sample = similarity.perturbed(simulated[:12], kind)
    again = similarity.perturbed(simulated[:12], kind)[1]
    np.testing.assert_array_equal(sample.images, again.images)
    assert len(rows) == len(sample) >= 11
    for row, image in zip(rows, sample.images, strict=True):
        before = simulated.images[row].astype(float)
        assert image.shape == before.shape
        if not kind.startswith("noise"):
            assert image.sum() == pytest.approx(before.sum(), rel=0.1)
            assert image.max() == pytest.approx(before.max(), rel=0.1)


def test_perturbations_do_what_they_say():
    rng = np.random.default_rng(0)
    image = fields.clip(simulate.source("FRII", rng, snr=100))
    changed = similarity.PERTURBED
    np.testing.assert_array_equal(changed["mirrored"](changed["mirrored"](image, rng), rng), image)
    there = np.unravel_index(image.argmax(), image.shape)
    moved = np.unravel_index(changed["shifted"](image, rng).argmax(), image.shape)
    assert np.abs(np.subtract(there, moved)).sum() == 2
    again = changed["noise, peak at 5 σ"](image, rng)
    assert (again > 0).sum() < (image > 0).sum()
    turned = changed["turned"](image, rng)
    assert turned[turned > 0].min() >= image[image > 0].min()
    assert changed["turned"](np.zeros((40, 40)), rng).sum() == 0


def test_components_project_images_onto_their_principal_axes(simulated):
    pixels = prepare(simulated.images, simulated.pixel, Recipe())[0]
    found = similarity.Components(pixels, 5).means(torch.from_numpy(pixels).float()[:, None])
    flat = pixels.reshape(24, -1) - pixels.reshape(24, -1).mean(0)
    axes = np.linalg.svd(flat, full_matrices=False)[2]
    own = np.abs(flat @ axes[:5].T)
    np.testing.assert_allclose(np.abs(found.numpy()), own, rtol=0.02, atol=0.002 * own.max())


def test_images_on_the_sky_keep_their_orientation_and_size(simulated):
    """A FIRST image is cut out of its field; one with pixels twice as wide shows the same part of the sky."""
    field = simulated.images[:2].astype(float)
    own = similarity.on_the_sky(field, 1.8, Recipe())
    middle = fields.crop(field, 64)
    np.testing.assert_allclose(own, 255 * np.sqrt(middle / middle.max((1, 2), keepdims=True)), atol=1)
    wide = fields.crop(field.repeat(2, axis=1).repeat(2, axis=2), 150)
    rough = similarity.on_the_sky(wide, 0.9, Recipe())
    assert np.corrcoef(rough.ravel(), own.ravel())[0, 1] > 0.95


@pytest.fixture
def archives(monkeypatch):
    """Four small archives: the first two show the same galaxies, each of which has its place on the sky."""
    found = {}
    for number, name in enumerate(datasets.SAMPLES):
        one = simulate.sources(8, seed=5 if name in ("mirabest", "rgd") else number)
        one.table["name"] = [f"{name} {row}" for row in range(8)]
        one.table["ra"], one.table["dec"] = 10.0 * np.arange(8), np.full(8, 5.0)
        found[name] = one
    monkeypatch.setattr(datasets, "load_dataset", found.__getitem__)
    return found


@pytest.mark.slow
def test_the_study_asks_all_features_in_all_metrics(archives, tiny, simulated, tmp_path):
    chosen = np.array([3, 1, 2, 0])
    encoder = Encoder(tiny.eval(), Recipe(tiny.config.size), chosen)
    whole = {name: encoder.transform(one) for name, one in archives.items()}
    groups = {name: (archives[name].table, code, code[:, None], {}) for name, code in whole.items()}
    space = encode.invariant(np.vstack(list(whole.values())), changes(encoder, simulated), PARTS)
    encode.write_codes(tmp_path / "c.h5", groups, {"latents": chosen}, space)
    found = pd.DataFrame(similarity.study(encoder, tmp_path / "c.h5", simulated))
    asked = found.drop_duplicates(["features", "metric_space"])
    assert asked["features"].value_counts().to_dict() == {
        similarity.CODES: 4,
        similarity.COMPONENTS: 4,
        similarity.ALIGNED: 1,
        similarity.SKY: 1,
    }
    assert not found.duplicated(["features", "metric_space", "question", "pair", "k"]).any()
    sizes = asked.set_index(["features", "metric_space"])["dimensions"]
    assert sizes[similarity.CODES, "invariant, cosine"] == 4 * 4
    assert sizes[similarity.COMPONENTS, "unscaled, cosine"] == 4 * 4
    own = found[(found["pair"] == "mirabest → rgd") & (found["question"] == "same galaxy")]
    assert (own["value"] == 1).all()  # the very same images
    itself = found[found["question"] == "itself"].set_index(["features", "metric_space", "pair"])["value"]
    assert set(itself.index.get_level_values("pair")) == set(similarity.PERTURBED)
    assert itself[similarity.ALIGNED, "unscaled, cosine", "mirrored"] == 1


def test_positions_tell_which_images_show_one_galaxy(archives):
    assert similarity.seen_twice(archives["frdeep-first"], archives["frdeep-nvss"])["pairs"] == 8


def test_committed_results_have_every_feature_and_question():
    found = results.read("similarity")
    assert set(found["question"]) == {"same galaxy", "itself", "class", "other survey"}
    features = {similarity.CODES, similarity.COMPONENTS, similarity.ALIGNED, similarity.SKY}
    assert set(found["features"]) == features
    assert (found["low"] <= found["value"]).all()
    assert (found["value"] <= found["high"]).all()

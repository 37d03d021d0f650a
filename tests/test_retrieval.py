"""What the measures of a search measure, on galaxies where the answer is known."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.table import Table

from rgz import plots
from rgz.data import datasets, simulate
from rgz.data.sample import prepared
from rgz.features import codes as codefile
from rgz.features import descriptors, metric
from rgz.transforms import perturb, prepare
from studies import classification, similarity


@pytest.fixture(scope="module")
def galaxies():
    """A table of four samples in which MiraBest and RGD, FIRST and NVSS show the same galaxies, and codes that say so."""
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


def test_perfect_codes_answer_everything(galaxies):
    table, vectors = galaxies
    found = similarity.measure(table, vectors, {"nothing": (np.arange(60), vectors[:60])})
    assert all(three == [1, 1, 1] for both in found["same"].values() for three in both)
    assert all(three == [1, 1, 1] for both in found["surveys"].values() for three in both)
    assert found["itself"]["nothing"] == [1, 1, 1]
    assert all(three[0] > 0.99 for three in found["kind"].values())


def test_codes_that_know_nothing_are_not_praised(galaxies):
    table, vectors = galaxies
    rng = np.random.default_rng(1)
    noise = rng.normal(size=vectors.shape).astype(np.float32)
    found = similarity.measure(table, noise, {"all": (np.arange(60), rng.normal(size=(60, 16)).astype(np.float32))})
    assert all(both[0][0] < 0.15 for both in found["same"].values())
    assert found["itself"]["all"][0] < 0.15
    assert all(0.35 < three[0] < 0.65 for three in found["kind"].values())


def test_the_same_source_does_not_count_as_kin(galaxies):
    table, _ = galaxies
    first, second = table[:60], table[60:120]
    same = similarity.same_sky(first, second)
    np.testing.assert_array_equal(same, np.eye(60, dtype=bool))
    order = np.tile(np.arange(60), (60, 1))
    label = np.asarray(first["label"])
    found = similarity.kin(order, ~same, label, label, k=1)
    assert found[0] == (label[0] == label[1])  # the nearest is itself, so the second counts
    assert (similarity.same_sky(table[120:180], table[180:]) == np.eye(60, dtype=bool)).all()


def test_the_interval_holds_the_share():
    value, low, high = similarity.share(np.arange(100) < 80)
    assert value == 0.8
    assert 0.68 < low < value < high < 0.9


@pytest.mark.parametrize("kind", similarity.ALTERED)
def test_altered_images_still_show_the_galaxy(simulated, kind):
    rows, sample = similarity.alter(simulated[:12], kind, prepare.Recipe())
    assert len(rows) == len(sample) >= 11
    for row, image in zip(rows, sample.images, strict=True):
        before = simulated.images[row].astype(float)
        assert image.shape == before.shape
        if not kind.startswith("noise"):
            assert image.sum() == pytest.approx(before.sum(), rel=0.1)
            assert image.max() == pytest.approx(before.max(), rel=0.1)


def test_alterations_do_what_they_say():
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


def test_alterations_are_the_same_each_time(simulated):
    one, other = (similarity.alter(simulated[:5], "turned", prepare.Recipe())[1].images for _ in range(2))
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


def test_the_study_asks_all_features_in_all_spaces(archives, tiny, simulated, tmp_path):
    recipe, chosen, model = prepare.Recipe(), np.array([3, 130, 7, 300]), tiny.eval()
    basis = descriptors.principal(prepared(simulated, recipe), 3)

    def describe(one):
        return descriptors.describe(model, recipe, one, chosen, basis)

    whole = {name: describe(one) for name, one in archives.items()}
    groups = {name: (archives[name].table, {"code": code, "code_compared": code}, {}) for name, code in whole.items()}
    codes = np.vstack(list(whole.values()))
    changes, alone = descriptors.changes(describe, recipe, simulated), descriptors.alone(chosen)
    spaces = {
        codefile.BASIS: basis,
        codefile.SPACE: descriptors.space(codes, changes, alone),
        codefile.ALONE: metric.invariant(codes[:, :alone], changes[:, :alone], kept=5),
    }
    codefile.write_codes(tmp_path / "c.h5", groups, {"latents": chosen}, spaces)
    found = similarity.study(model, recipe, tmp_path / "c.h5", simulated)
    asked = {(row["features"], row["space"]): row for row in found["rows"]}
    learned = [key for key in asked if key[1].startswith("tolerant")]
    assert {features for features, _ in learned} == {similarity.TOGETHER, similarity.CODES, similarity.COMPONENTS}
    assert len(asked) == len(found["rows"]) == 2 + 6 + 6 + 2 + 2
    assert [
        asked[features, "tolerant, cosine"]["dimensions"] for features in (similarity.TOGETHER, similarity.CODES)
    ] == [64 + 18, 5]
    for row in found["rows"]:
        assert row["same"]["mirabest → rgd"][0][0] == 1  # the very same images
        assert set(row["itself"]) == set(found["altered"]) == set(similarity.ALTERED)
    assert asked["pixels, posed", "as they are, cosine"]["itself"]["mirrored"][0] == 1
    assert found["seen_twice"]["pairs"] == 8
    assert similarity.table(found).count("tolerant") == 6 * (len(similarity.columns(found)) - 2)


@pytest.mark.parametrize("question", ["same", "itself", "kind"])
def test_a_figure_shows_every_kind_of_features(question):
    found = classification.read()["retrieval"]
    groups = similarity.bars(found, question)
    assert {name.rsplit(",", 1)[0] for name in groups} == {row["features"] for row in found["rows"]}
    group = groups[f"{similarity.TOGETHER}, tolerant"]
    row = next(r for r in found["rows"] if (r["features"], r["space"]) == (similarity.TOGETHER, "tolerant, cosine"))
    first = next(iter(row[question].values()))
    value, low, high = first[0] if question == "same" else first
    assert next(iter(group.values())) == pytest.approx([value, (high - low) / 2])
    shown = plots.dots(groups, "share")
    assert len(shown.get_legend().get_texts()) == len(groups)
    plt.close(shown.figure)
    with pytest.raises(ValueError, match="told apart"):
        plots.dots({str(n): group for n in range(8)}, "share")

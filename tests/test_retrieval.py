"""What the measures of a search measure, on galaxies where the answer is known."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from astropy.table import Table

from rgz import altered, compared, images, latents, plots, readers, report, retrieval, similar, synthetic
from rgz.sample import prepared


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
    found = retrieval.measure(table, vectors, {"nothing": (np.arange(60), vectors[:60])})
    assert all(three == [1, 1, 1] for both in found["same"].values() for three in both)
    assert all(three == [1, 1, 1] for both in found["surveys"].values() for three in both)
    assert found["itself"]["nothing"] == [1, 1, 1]
    assert all(three[0] > 0.99 for three in found["kind"].values())


def test_codes_that_know_nothing_are_not_praised(galaxies):
    table, vectors = galaxies
    rng = np.random.default_rng(1)
    noise = rng.normal(size=vectors.shape).astype(np.float32)
    found = retrieval.measure(table, noise, {"all": (np.arange(60), rng.normal(size=(60, 16)).astype(np.float32))})
    assert all(both[0][0] < 0.15 for both in found["same"].values())
    assert found["itself"]["all"][0] < 0.15
    assert all(0.35 < three[0] < 0.65 for three in found["kind"].values())


def test_the_same_source_does_not_count_as_kin(galaxies):
    table, _ = galaxies
    first, second = table[:60], table[60:120]
    same = retrieval.same_sky(first, second)
    np.testing.assert_array_equal(same, np.eye(60, dtype=bool))
    order = np.tile(np.arange(60), (60, 1))
    label = np.asarray(first["label"])
    found = retrieval.kin(order, ~same, label, label, k=1)
    assert found[0] == (label[0] == label[1])  # the nearest is itself, so the second counts
    assert (retrieval.same_sky(table[120:180], table[180:]) == np.eye(60, dtype=bool)).all()


def test_the_interval_holds_the_share():
    value, low, high = retrieval.share(np.arange(100) < 80)
    assert value == 0.8
    assert 0.68 < low < value < high < 0.9


@pytest.mark.parametrize("kind", retrieval.ALTERED)
def test_altered_images_still_show_the_galaxy(simulated, kind):
    rows, sample = retrieval.alter(simulated[:12], kind, images.Recipe())
    assert len(rows) == len(sample) >= 11
    for row, image in zip(rows, sample.images, strict=True):
        before = simulated.images[row].astype(float)
        assert image.shape == before.shape
        if not kind.startswith("noise"):
            assert image.sum() == pytest.approx(before.sum(), rel=0.1)
            assert image.max() == pytest.approx(before.max(), rel=0.1)


def test_alterations_do_what_they_say():
    rng = np.random.default_rng(0)
    image = images.clip(synthetic.source("FRII", rng, snr=100))
    np.testing.assert_array_equal(altered.mirrored(altered.mirrored(image, rng), rng), image)
    there = np.unravel_index(image.argmax(), image.shape)
    moved = np.unravel_index(altered.shifted(image, rng).argmax(), image.shape)
    assert np.abs(np.subtract(there, moved)).sum() == 2
    higher = altered.clipped_higher(image, rng)
    assert (higher > 0).sum() < (image > 0).sum()
    assert set(np.unique(higher)) <= set(np.unique(image))
    far = [altered.farther(image, rng) for _ in range(10)]
    assert all(0 < one.sum() < image.sum() and one.max() < image.max() for one in far)
    assert all(images.length(one, 1.8, images.Recipe()) < images.length(image, 1.8, images.Recipe()) for one in far)
    again = altered.observed_again(image, rng, (5, 5))
    assert (again > 0).sum() < (image > 0).sum()
    assert altered.turned(np.zeros((40, 40)), rng).sum() == 0


def test_alterations_are_the_same_each_time(simulated):
    one, other = (retrieval.alter(simulated[:5], "turned", images.Recipe())[1].images for _ in range(2))
    np.testing.assert_array_equal(one, other)


@pytest.fixture
def archives(monkeypatch):
    """Four small archives: the first two show the same galaxies, each of which has its place on the sky."""
    found = {}
    for number, name in enumerate(readers.SAMPLES):
        one = synthetic.sources(8, seed=5 if name in ("mirabest", "rgd") else number)
        one.table["name"] = [f"{name} {row}" for row in range(8)]
        one.table["ra"], one.table["dec"] = 10.0 * np.arange(8), np.full(8, 5.0)
        if name.startswith("frdeep"):
            one.table["object"] = [f"object {row}" for row in range(8)]
        found[name] = one
    monkeypatch.setattr(readers, "load", found.__getitem__)
    return found


def test_the_study_asks_all_features_in_all_spaces(archives, tiny, simulated, tmp_path):
    recipe, chosen, model = images.Recipe(), np.array([3, 130, 7, 300]), tiny.eval()
    basis = compared.principal(prepared(simulated, recipe), 3)

    def describe(one):
        return compared.describe(model, recipe, one, chosen, basis)

    whole = {name: describe(one) for name, one in archives.items()}
    groups = {name: (archives[name].table, {"code": code, "code_compared": code}, {}) for name, code in whole.items()}
    codes = np.vstack(list(whole.values()))
    changes, alone = compared.changes(describe, recipe, simulated), compared.alone(chosen)
    spaces = {
        compared.BASIS: basis,
        compared.SPACE: compared.space(codes, changes, alone),
        compared.ALONE: similar.tolerant(codes[:, :alone], changes[:, :alone], kept=5),
    }
    latents.write_codes(tmp_path / "c.h5", groups, {"latents": chosen}, spaces)
    found = retrieval.study(model, recipe, tmp_path / "c.h5", simulated)
    asked = {(row["features"], row["space"]): row for row in found["rows"]}
    learned = [key for key in asked if key[1].startswith("tolerant")]
    assert {features for features, _ in learned} == {retrieval.TOGETHER, retrieval.CODES, retrieval.COMPONENTS}
    assert len(asked) == len(found["rows"]) == 2 + 6 + 6 + 2 + 2
    assert [
        asked[features, "tolerant, cosine"]["dimensions"] for features in (retrieval.TOGETHER, retrieval.CODES)
    ] == [64 + 18, 5]
    for row in found["rows"]:
        assert row["same"]["mirabest → rgd"][0][0] == 1  # the very same images
        assert set(row["itself"]) == set(found["altered"]) == set(retrieval.ALTERED)
    assert asked["pixels, posed", "as they are, cosine"]["itself"]["mirrored"][0] == 1
    assert found["seen_twice"]["pairs"] == 8
    assert retrieval.table(found).count("tolerant") == 6 * (len(retrieval.columns(found)) - 2)


@pytest.mark.parametrize("question", ["same", "itself", "kind"])
def test_a_figure_shows_every_kind_of_features(question):
    found = report.read()["retrieval"]
    groups = retrieval.bars(found, question)
    assert {name.rsplit(",", 1)[0] for name in groups} == {row["features"] for row in found["rows"]}
    group = groups[f"{retrieval.TOGETHER}, tolerant"]
    row = next(r for r in found["rows"] if (r["features"], r["space"]) == (retrieval.TOGETHER, "tolerant, cosine"))
    first = next(iter(row[question].values()))
    value, low, high = first[0] if question == "same" else first
    assert next(iter(group.values())) == pytest.approx([value, (high - low) / 2])
    shown = plots.dots(groups, "share")
    assert len(shown.get_legend().get_texts()) == len(groups)
    plt.close(shown.figure)
    with pytest.raises(ValueError, match="told apart"):
        plots.dots({str(n): group for n in range(8)}, "share")

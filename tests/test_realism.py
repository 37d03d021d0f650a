"""Measures of realism on images whose properties are known by hand; samplers; and the rows of the study."""

import math
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from rgz.data import loader
from rgz.models.likelihood import mixture_sample
from rgz.transforms import prepare
from studies import generation, metrics, realism, simulate

Y, X = np.mgrid[:32, :32]
RECIPE = prepare.Recipe(size=32)


def stretched(light):
    """Grey levels of brightness (H, W)."""
    return prepare.stretch(torch.from_numpy(light)).numpy().astype(np.uint8)


def spots(*places, width=2.0):
    """One prepared image of Gaussian spots, equally bright, at places (row, column)."""
    return stretched(sum(np.exp(-((Y - y) ** 2 + (X - x) ** 2) / (2 * width**2)) for y, x in places))


def measured(grey):
    return {name: values[0] for name, values in realism.properties(grey[None]).items()}


@pytest.fixture
def grey(galaxies):
    return galaxies[:24]


@pytest.fixture(scope="module")
def galaxies():
    """Prepared simulated images, (160, 32, 32), in an order that says nothing."""
    sample = simulate.sources(160, seed=6)
    return prepare.prepare(sample.images, sample.pixel, RECIPE)[0]


@pytest.fixture(scope="module")
def noise():
    """Images (160, 32, 32) of noise with the grey levels of sources."""
    return (255 * np.random.default_rng(0).random((160, 32, 32)) ** 3).round().astype(np.uint8)


def test_a_gaussian_has_the_properties_of_a_gaussian():
    found = measured(spots((16, 16), width=3.0))
    assert list(found) == list(realism.PROPERTIES)
    assert found["total flux"] == pytest.approx(2 * math.pi * 9, rel=0.01)
    assert found["peak"] == pytest.approx((1 + 2 * math.exp(-1 / 18)) ** 2, rel=0.01)
    assert found["peaks"] == 1
    assert found["size"] == pytest.approx(2 * 3 * math.sqrt(2 * math.log(100)), abs=1.5)
    assert found["concentration"] == pytest.approx(5 * math.log10(math.sqrt(math.log(5) / math.log(1.25))), abs=0.1)


def test_what_is_the_same_turned_by_half_has_no_asymmetry():
    middle, beside = spots((15.5, 15.5)), spots((15.5, 9))
    assert measured(middle)["asymmetry"] == pytest.approx(0, abs=1e-9)
    assert measured(spots((10, 8), (21, 23)))["asymmetry"] == pytest.approx(0, abs=1e-9)
    assert measured(beside)["asymmetry"] == pytest.approx(1, abs=0.01)  # nothing lies on itself
    assert 0.1 < measured(spots((15.5, 15.5), (15.5, 9)))["asymmetry"] < 0.9


def test_two_spots_are_two_peaks_and_as_large_as_they_are_apart():
    near, far = (measured(spots((16, 16 - half), (16, 16 + half))) for half in (5, 9))
    assert near["peaks"] == far["peaks"] == 2
    assert far["size"] - near["size"] == pytest.approx(8, abs=0.1)
    assert far["total flux"] == pytest.approx(2 * measured(spots((16, 16)))["total flux"], rel=0.01)


def test_a_faint_spot_is_no_peak():
    for ratio, count in ((0.03, 1), (0.08, 2)):
        light = (spots((16, 8)) / 255.0) ** 2 + ratio * (spots((16, 24)) / 255.0) ** 2
        assert measured(stretched(light))["peaks"] == count


def test_a_flat_top_is_one_peak():
    assert measured(spots((15.5, 15.5)))["peaks"] == 1  # four pixels share it
    block = np.zeros((32, 32), np.uint8)
    block[10:20, 12:22] = 255
    assert measured(block)["peaks"] == 1


def test_a_mirrored_image_has_the_same_properties(grey):
    expected = realism.properties(grey)
    for view in (grey[:, ::-1], grey[:, :, ::-1], grey[:, ::-1, ::-1]):
        for name, values in realism.properties(view).items():
            np.testing.assert_allclose(values, expected[name], rtol=0.02, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(("across", "down", "ring"), [(5, 0, 5), (0, 9, 9), (3, 4, 5), (1, 0, 1), (16, 0, 16)])
def test_a_wave_has_its_power_in_its_ring(across, down, ring):
    light = (1 + np.cos(2 * np.pi * (across * X + down * Y) / 32)) / 2
    power = realism.power(255 * np.sqrt(light)[None])[0]
    assert power.shape == (16,)
    assert power.argmax() == ring - 1
    assert np.delete(power, ring - 1).max() < 1e-9 * power.max()


def test_an_even_image_has_no_power_and_noise_has_as_much_everywhere(noise):
    assert realism.power(np.full((2, 32, 32), 255, np.uint8)).max() == 0
    white = realism.power(noise).mean(0)
    np.testing.assert_allclose(white / white.mean(), 1, atol=0.25)


def test_a_resolved_source_is_shown_more_often(simulated):
    some = simulated[:6]
    shown, rows = realism.augmented(some, RECIPE, 0)
    resolved = prepare.lengths(some.images, some.pixel) > loader.EXTENDED
    assert np.bincount(rows).tolist() == [2 * loader.REPEATS if one else 2 for one in resolved]
    assert (np.diff(rows) >= 0).all()
    assert shown.shape == (len(rows), 32, 32)
    assert (shown.max((1, 2)) == 255).all()
    np.testing.assert_array_equal(realism.augmented(some, RECIPE, 0)[0], shown)


def test_an_interval_contains_the_value_and_shrinks_with_numbers():
    values = np.random.default_rng(0).normal(3, 1, 1600)
    few, many = (metrics.interval(np.mean, values[:count]) for count in (100, 1600))
    for value, low, high in (few, many):
        assert low < value < high
    assert (few[2] - few[1]) / (many[2] - many[1]) == pytest.approx(4, rel=0.25)
    assert few[2] - few[1] == pytest.approx(2 * 1.96 / 10, rel=0.25)


def test_images_of_one_source_stay_together():
    grouped = realism.by_source(np.arange(6.0), np.array([0, 0, 0, 1, 2, 2]))
    np.testing.assert_array_equal(grouped, [[0, 1, 2], [3, np.nan, np.nan], [4, 5, np.nan]])


def test_the_order_of_images_does_not_matter():
    grouped = realism.by_source(np.arange(5.0), np.array([0, 1, 0, 1, 1]))
    assert [sorted(row[np.isfinite(row)]) for row in grouped] == [[0, 2], [1, 3, 4]]


@pytest.mark.slow
def test_halves_of_one_sample_cannot_be_told_apart(galaxies):
    parts = [galaxies[start::4] for start in range(4)]
    both = np.concatenate([*parts[:2]]), np.concatenate([*parts[2:]])
    found = realism.two_sample_test((both[0][:50], both[1][:50]), both[0][50:], np.arange(30), both[1][50:], epochs=6)
    assert set(found) == {"network_auc", "forest_auc", "properties_auc"}
    for value, low, high in found.values():
        assert low < value < high
        assert 0.25 < value < 0.75
        assert low < 0.55
        assert high > 0.45


@pytest.mark.slow
def test_noise_is_told_from_galaxies(galaxies, noise):
    taught, source = (galaxies[:60], noise[:60]), np.repeat(np.arange(20), 2)
    found = realism.two_sample_test(taught, galaxies[60:100], source, noise[60:100], epochs=6)
    for value, low, _ in found.values():
        assert value > 0.95
        assert low > 0.9


def test_training_a_classifier_leaves_the_global_random_state(grey):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    said = realism.by_network(grey[:8], grey[8:16], grey[16:], 1)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    np.testing.assert_array_equal(realism.by_network(grey[:8], grey[8:16], grey[16:], 1), said)


def test_a_mirrored_copy_is_found(grey):
    made = np.stack([grey[5], grey[7, ::-1], grey[2, :, ::-1], grey[9, ::-1, ::-1], grey[3].T])
    distance = realism.nearest(made, grey)
    assert distance[:4].max() == 0
    assert distance[4] > 1


def test_distances_are_in_grey_levels():
    distance = realism.nearest(np.full((1, 32, 32), 17, np.uint8), np.full((1, 32, 32), 10, np.uint8))
    assert distance == pytest.approx(7)


def test_class_scores_of_one_class_and_of_two():
    assert realism.class_score(np.full(9, 0.3)) == pytest.approx(1)
    assert realism.class_score(np.repeat([0.0, 1.0], 50)) == pytest.approx(2, abs=1e-3)
    assert 1 < realism.class_score(np.repeat([0.2, 0.8], 50)) < 2


def test_precision_and_coverage_of_codes():
    rng = np.random.default_rng(0)
    real = rng.normal(size=(200, 2))
    found = realism.coverage(real, rng.normal(size=(200, 2)))
    assert min(found.values()) > 0.8
    assert realism.coverage(real, 50 + real) == {"precision": 0, "coverage": 0}
    found = realism.coverage(real, 0.01 * real + real.mean(0))  # all alike, and among the real ones
    assert found["precision"] > 0.9
    assert found["coverage"] < 0.2


def compared(held_out, made):
    """Rows of the comparison by metric and item; the chance of a distance is a third at any size."""
    chance = {name: np.array([0.0, 1.0]) for name in realism.PROPERTIES}
    rows, quantiles = generation.compare(held_out, np.arange(len(held_out)), made, chance)
    assert len(quantiles) == 25 * len(realism.PROPERTIES)
    return pd.DataFrame(rows).set_index(["metric", "item"]).sort_index()


def test_a_sample_is_like_itself(grey):
    found = compared(grey, grey)
    assert found.loc[["ks", "energy"], "value"].to_numpy() == pytest.approx(np.zeros(12))
    assert found.loc["power", "value"].to_numpy() == pytest.approx(np.ones(16))
    assert found.loc["grey_levels", "value"].item() == 0
    assert (found.loc["ks", "p"] == 1).all()


def test_other_images_are_not_like_a_sample(grey, noise):
    found = compared(grey[:12], noise[:12])
    assert found.loc[("ks", "total flux"), "value"] == 1
    assert found.loc[("ks", "total flux"), "p"] == pytest.approx(2 / 3)
    assert found.loc[("energy", "total flux"), "value"] > 1
    assert found.loc["grey_levels", "value"].item() > 0.3
    power = found.loc["power"]
    assert (power["low"] < power["value"]).all()
    assert (power["value"] < power["high"]).all()
    assert power.loc["16", "value"] > 10


def test_the_energy_distance_has_no_unit(grey, monkeypatch):
    once = compared(grey[:12], grey[12:]).loc[("energy", "size"), "value"]
    own = realism.properties
    monkeypatch.setattr(realism, "properties", lambda g: {name: 9 * values for name, values in own(g).items()})
    assert compared(grey[:12], grey[12:]).loc[("energy", "size"), "value"] == pytest.approx(once)


def test_chance_is_as_large_as_samples_are_small(galaxies):
    reference, known = realism.properties(galaxies[:40]), realism.properties(galaxies[40:])
    few, many = (generation.ks_by_chance(reference, known, np.arange(120), count, draws=40) for count in (10, 60))
    assert set(few) == set(realism.PROPERTIES)
    for name, distances in few.items():
        assert distances.shape == (40,)
        assert distances.mean() > many[name].mean()


@pytest.fixture
def plain(monkeypatch):
    """Few images of each way, and an autoencoder that draws anything."""
    for name, count in {"COUNT": 20, "TRAINING": 12, "COMPONENTS": 4}.items():
        monkeypatch.setattr(generation, name, count)
    one_component = torch.tensor([0.0, -0.2, -2.0]).reshape(1, 3, 1, 1)
    return SimpleNamespace(
        dimensions=3,
        decode=lambda code, drawn: mixture_sample(one_component.expand(len(code), -1, 32, 32)),
    )


def test_every_way_makes_as_many_galaxies_as_are_judged(tiny, galaxies, plain):
    found = dict(generation.ways(tiny.eval(), plain, galaxies[:32]))
    real = ["reconstructions", "coarse latents of real galaxies"]
    assert list(found) == ["VDVAE, own prior", "VDVAE, T = 0.7", "plain VAE", *real]
    for way, made in found.items():
        assert made.shape == (32, 32, 32), way
        assert made.dtype == np.uint8, way
        assert (made.max((1, 2)) == 255).all(), way


@pytest.mark.slow
def test_the_study_has_a_row_for_every_way_and_metric(tiny, plain, monkeypatch):
    sources = simulate.sources(48, seed=3)
    monkeypatch.setattr(generation, "fr_classifier", lambda _: lambda grey: np.arange(len(grey)) % 2)
    for function, default in ((generation.ks_by_chance, 40), (realism.by_forest, 20), (realism.two_sample_test, 2)):
        monkeypatch.setattr(function, "__defaults__", (default,))  # draws, trees and epochs
    tables = generation.study(tiny.eval(), plain, RECIPE, sources[:40], sources[40:])
    found = {name: pd.DataFrame(rows) for name, rows in tables.items()}
    rows = found["generation"]
    assert list(rows) == ["way", "metric", "item", "value", "low", "high", "p"]
    assert rows[rows["way"] != "held out"]["way"].value_counts().to_list() == [3 + 12 + 16 + 1 + 5] * 6
    held_out = rows[rows["way"] == "held out"].set_index("metric")["value"]
    assert set(held_out.index) == {"class_score", "sources", "images", "judged"}
    assert held_out["sources"] == 8
    assert found["generation_quantiles"]["way"].nunique() == 7

"""Injected anomalies can be prepared and are what they say; detectors are judged as they deserve."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from scipy import ndimage

from rgz.models import flow
from rgz.transforms.prepare import Recipe, prepare
from studies import anomalies, injected

KINDS = list(injected.KINDS)


@pytest.fixture(scope="module")
def hosts(simulated):
    return simulated.images[:6]


def anomalous(kind, hosts, count=4, seed=0):
    return injected.inject(kind, hosts, count, np.random.default_rng(seed))


def to_one(image):
    return image / image.max()


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_is_a_clipped_field_that_can_be_prepared(kind, hosts):
    made = anomalous(kind, hosts)
    assert made.shape == (4, *hosts.shape[1:])
    assert np.isfinite(made).all()
    assert (made >= 0).all()
    grey = prepare(made, 1.8, Recipe())[0]
    assert grey.shape == (4, 64, 64)
    assert (grey.max((1, 2)) == 255).all()


@pytest.mark.parametrize("kind", KINDS)
def test_an_anomaly_is_no_longer_its_host(kind, hosts):
    before = hosts.copy()
    for image in anomalous(kind, hosts):
        assert min(np.abs(to_one(image) - to_one(host.astype(float))).max() for host in hosts) > 0.1
    assert (hosts == before).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_determines_the_anomalies(kind, hosts):
    assert (anomalous(kind, hosts) == anomalous(kind, hosts)).all()
    assert (anomalous(kind, hosts, seed=1) != anomalous(kind, hosts)).any((1, 2)).all()
    assert len(np.unique(anomalous(kind, hosts[:1]), axis=0)) == 4  # one host is enough


def test_a_ring_is_dark_in_its_middle(hosts):
    for image in anomalous("ring", hosts, 10):
        assert image[73:77, 73:77].mean() < 0.2 * image.max()
        y, x = np.nonzero(image > 0.3 * image.max())
        turn = np.sort(np.arctan2(y - 74.5, x - 74.5))
        assert np.diff(turn).max() < np.radians(90)  # all the way around


def test_two_jets_are_alike_when_turned_by_half(hosts):
    for image in anomalous("spiral", hosts, 10):
        assert np.corrcoef(image.ravel(), image[::-1, ::-1].ravel())[0, 1] > 0.8


def test_points_are_many(hosts):
    for image in anomalous("points", hosts, 10):
        assert ndimage.label(image > 0.2 * image.max())[1] >= 5


def test_noise_is_everywhere(hosts):
    lit = (anomalous("noise", hosts, 10) > 0).mean((1, 2))
    assert lit == pytest.approx(np.full(10, 0.16), abs=0.03)  # of a Gaussian above one standard deviation


def test_stripes_cross_the_whole_field(hosts):
    made = anomalous("stripes", hosts, 10)
    for corner in (made[:, :30, :30], made[:, -30:, -30:]):
        lit = (corner > 0).mean((1, 2))
        assert np.median(lit) > 0.05
        assert lit.max() < 0.6


def test_a_saturated_row_is_as_bright_as_can_be(hosts):
    for image in anomalous("saturated", hosts, 10):
        full = image == image.max()
        assert full.all(0).any() or full.all(1).any()


def test_halves_mirror_each_other(hosts):
    for image in anomalous("mirrored halves", hosts, 10):
        np.testing.assert_array_equal(image, image[:, ::-1])
    odd = injected.KINDS["mirrored halves"](hosts[0, :149, :149], np.random.default_rng(0))
    np.testing.assert_array_equal(odd, odd[:, ::-1])


def test_two_galaxies_shine_more_than_either(hosts):
    rng = np.random.default_rng(0)
    for host, other in pairwise(hosts):
        both = injected.KINDS["two galaxies"](host.astype(float), rng, other.astype(float))
        assert (both >= to_one(host.astype(float)) - 1e-9).all()
        assert both.sum() > 1.1 * to_one(host.astype(float)).sum()


def judged(normal, odd):
    """Rows of a detector's scores, by metric."""
    return pd.DataFrame(anomalies.measure(normal, odd)).set_index("metric")


def auc(normal, odd):
    return judged(normal, odd).loc["auc", "value"]


def test_a_perfect_detector_and_its_opposite():
    low, high = np.arange(100.0), 100 + np.arange(30.0)
    right, wrong = judged(low, high), judged(high[:30], low[:30])
    assert right.loc["auc", ["value", "low", "high"]].tolist() == pytest.approx([1, 1, 1])
    assert right.loc[["recall", "top_20", "top_100"], "value"].tolist() == [1, 1, 0.3]
    assert (right["anomalous"] == 30).all()
    assert (right["normal"] == 100).all()
    assert wrong.loc["auc", ["value", "low", "high"]].tolist() == pytest.approx([0, 0, 0])
    assert wrong.loc[["recall", "top_20"], "value"].tolist() == [0, 0]


def test_chance_is_half_within_its_interval():
    rng = np.random.default_rng(1)
    value, low, high = judged(rng.normal(size=200), rng.normal(size=100)).loc["auc", ["value", "low", "high"]]
    assert low < 0.5 < high
    assert low < value < high
    assert high - low < 0.2


def test_what_is_not_finite_ranks_highest():
    normal = np.linspace(0, 1, 40)
    for value in (np.nan, np.inf):
        assert auc(normal, np.full(3, value)) == pytest.approx(1)
        assert auc(np.full(3, value), normal) == pytest.approx(0)


def test_a_detector_that_says_the_same_of_all_has_half():
    found = judged(np.ones(300), np.ones(100))["value"]
    assert found["auc"] == pytest.approx(0.5)
    assert found["recall"] == pytest.approx(0.25, abs=0.15)
    assert auc(np.full(9, np.nan), np.full(9, np.nan)) == pytest.approx(0.5)


def test_every_detector_finds_what_is_far_away():
    rng = np.random.default_rng(0)
    for name, score in anomalies.detectors(rng.normal(size=(300, 3))).items():
        near, far = score(rng.normal(size=(100, 3))), score(10 + rng.normal(size=(10, 3)))
        assert near.shape == (100,), name
        assert auc(near, far) > 0.99, name


def test_noise_is_more_complex_than_nothing(pixels):
    galaxy = pixels[0, 0].numpy()
    noise = np.random.default_rng(0).integers(0, 256, galaxy.shape).astype(np.uint8)
    blank, simple, most = anomalies.complexity(np.stack([np.zeros_like(galaxy), galaxy, noise]))
    assert blank < simple < most
    assert most >= galaxy.size


def test_mixtures_win_where_there_are_two_clouds():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((500, 1)) < 0.5, -3, 3) + rng.normal(size=(500, 2))
    rows = anomalies.baseline_densities(values[:400], np.arange(400), values[400:])
    found = pd.DataFrame(rows).pivot(index="fold", columns="model", values="nats")
    assert list(found.index) == [0, 1, 2, 3, 4]
    assert (found["mixture of Gaussians"] > found["Gaussian"] + 0.3).all()


@pytest.mark.slow
def test_a_detector_leads_by_its_mean_over_kinds():
    rng = np.random.default_rng(0)
    usual, odd = rng.normal(size=200), {"near": rng.normal(1, 1, 100), "far": rng.normal(9, 1, 50)}
    normal = {"MAF": usual, "same": 7 * usual, "blind": rng.normal(size=200), "lost": np.full(200, np.nan)}
    scored = {
        kind: {
            "MAF": strange,
            "same": 7 * strange,
            "blind": rng.normal(size=len(strange)),
            "lost": np.full(len(strange), np.nan),
        }
        for kind, strange in odd.items()
    }
    rows = anomalies.paired_auc_difference(normal, scored)
    found = pd.DataFrame(rows).set_index("detector")[["value", "low", "high"]]
    assert (found.loc["same"] == 0).all()  # the same galaxies are drawn for both
    own = np.mean([auc(usual, strange) for strange in odd.values()])
    other = np.mean([auc(normal["blind"], kind["blind"]) for kind in scored.values()])
    value, low, high = found.loc["blind"]
    assert value == pytest.approx(own - other)
    assert 0.2 < low < value < high
    assert found.loc["lost", "value"] == pytest.approx(own - 0.5)


def test_percentiles_of_a_calibrated_density_are_uniform():
    values = np.random.default_rng(0).normal(size=(200, 1))
    config = flow.Config(kept=1, layers=1, hidden=4)
    one = flow.FlowEnsemble(config, np.zeros(1), np.eye(1), (flow.Flow(config).eval(),), np.zeros(0))
    found = anomalies.uniformity(one, values)
    assert found["uniform_p"] > 0.01
    assert found["uniform_calibrated"] + found["uniform_asked"] == 200
    rows = anomalies.likelihoods(one, values)
    assert rows[0] == {"model": "flow", "fold": 0, "nats": pytest.approx(rows[1]["nats"])}

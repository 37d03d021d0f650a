"""Planted oddities are images that can be prepared, and odd in the way they say; detectors are judged as they deserve."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table
from scipy import ndimage

from rgz import anomalies, images, oddities

KINDS = list(oddities.KINDS)


@pytest.fixture(scope="module")
def hosts(simulated):
    return simulated.images[:6]


def planted(kind, hosts, count=4, seed=0):
    return oddities.plant(kind, hosts, count, np.random.default_rng(seed))


def to_one(image):
    return image / image.max()


@pytest.mark.parametrize("kind", KINDS)
def test_an_oddity_is_a_clipped_field_that_can_be_prepared(kind, hosts):
    made = planted(kind, hosts)
    assert made.shape == (4, *hosts.shape[1:])
    assert np.isfinite(made).all()
    assert (made >= 0).all()
    for image in made:
        grey = images.prepare(image, 1.8, images.Recipe())
        assert grey.shape == (32, 32)
        assert grey.max() == 255


@pytest.mark.parametrize("kind", KINDS)
def test_an_oddity_is_no_longer_its_host(kind, hosts):
    before = hosts.copy()
    for image in planted(kind, hosts):
        assert min(np.abs(to_one(image) - to_one(host.astype(float))).max() for host in hosts) > 0.1
    assert (hosts == before).all()


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_names_the_oddities(kind, hosts):
    assert (planted(kind, hosts) == planted(kind, hosts)).all()
    assert (planted(kind, hosts, seed=1) != planted(kind, hosts)).any((1, 2)).all()
    assert len(np.unique(planted(kind, hosts[:1]), axis=0)) == 4  # one host is enough


def test_a_ring_is_dark_in_its_middle(hosts):
    for image in planted("ring", hosts, 10):
        assert image[73:77, 73:77].mean() < 0.2 * image.max()
        y, x = np.nonzero(image > 0.3 * image.max())
        turn = np.sort(np.arctan2(y - 74.5, x - 74.5))
        assert np.diff(turn).max() < np.radians(90)  # all the way around


def test_two_jets_are_alike_when_turned_by_half(hosts):
    for image in planted("spiral", hosts, 10):
        assert np.corrcoef(image.ravel(), image[::-1, ::-1].ravel())[0, 1] > 0.8


def test_points_are_many(hosts):
    for image in planted("points", hosts, 10):
        assert ndimage.label(image > 0.2 * image.max())[1] >= 5


def test_noise_is_everywhere(hosts):
    lit = (planted("noise", hosts, 10) > 0).mean((1, 2))
    assert lit == pytest.approx(np.full(10, 0.16), abs=0.03)  # of a Gaussian above one standard deviation


def test_stripes_cross_the_whole_field(hosts):
    made = planted("stripes", hosts, 10)
    for corner in (made[:, :30, :30], made[:, -30:, -30:]):
        lit = (corner > 0).mean((1, 2))
        assert np.median(lit) > 0.05
        assert lit.max() < 0.6


def test_a_saturated_row_is_as_bright_as_can_be(hosts):
    for image in planted("saturated", hosts, 10):
        full = image == image.max()
        assert full.all(0).any() or full.all(1).any()


def test_halves_mirror_each_other(hosts):
    for image in planted("mirrored halves", hosts, 10):
        np.testing.assert_array_equal(image, image[:, ::-1])
    odd = oddities.KINDS["mirrored halves"](hosts[0, :149, :149], np.random.default_rng(0))
    np.testing.assert_array_equal(odd, odd[:, ::-1])


def test_two_galaxies_shine_more_than_either(hosts):
    rng = np.random.default_rng(0)
    for host, other in pairwise(hosts):
        both = oddities.KINDS["two galaxies"](host.astype(float), rng, other.astype(float))
        assert (both >= to_one(host.astype(float)) - 1e-9).all()
        assert both.sum() > 1.1 * to_one(host.astype(float)).sum()


def test_a_perfect_detector_and_its_opposite():
    low, high = np.arange(100.0), 100 + np.arange(30.0)
    right, wrong = anomalies.judged(low, high), anomalies.judged(high[:30], low[:30])
    assert right["auc"] == pytest.approx([1, 1, 1])
    assert (right["recall"], right["top_20"], right["top_100"]) == (1, 1, 0.3)
    assert (right["odd"], right["normal"]) == (30, 100)
    assert wrong["auc"] == pytest.approx([0, 0, 0])
    assert (wrong["recall"], wrong["top_20"]) == (0, 0)


def test_chance_is_half_within_its_interval():
    rng = np.random.default_rng(1)
    value, low, high = anomalies.judged(rng.normal(size=200), rng.normal(size=100))["auc"]
    assert low < 0.5 < high
    assert low < value < high
    assert high - low < 0.2


def test_what_is_not_finite_is_the_oddest():
    normal = np.linspace(0, 1, 40)
    for value in (np.nan, np.inf):
        assert anomalies.judged(normal, np.full(3, value))["auc"][0] == pytest.approx(1)
        assert anomalies.judged(np.full(3, value), normal)["auc"][0] == pytest.approx(0)


def test_a_detector_that_says_the_same_of_all_has_half():
    said = anomalies.judged(np.ones(300), np.ones(100))
    assert said["auc"][0] == pytest.approx(0.5)
    assert said["recall"] == pytest.approx(0.25, abs=0.15)
    assert anomalies.judged(np.full(9, np.nan), np.full(9, np.nan))["auc"][0] == pytest.approx(0.5)


def test_every_detector_finds_what_is_far_away():
    rng = np.random.default_rng(0)
    for name, score in anomalies.detectors(rng.normal(size=(300, 3))).items():
        near, far = score(rng.normal(size=(100, 3))), score(10 + rng.normal(size=(10, 3)))
        assert near.shape == (100,), name
        assert anomalies.judged(near, far)["auc"][0] > 0.99, name


def test_noise_is_more_complex_than_nothing(pixels):
    galaxy = pixels[0, 0].numpy()
    noise = np.random.default_rng(0).integers(0, 256, (32, 32)).astype(np.uint8)
    blank, simple, most = anomalies.complexity(np.stack([np.zeros_like(galaxy), galaxy, noise]))
    assert blank < simple < most
    assert most >= 32 * 32


def test_mixtures_win_where_there_are_two_clouds():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((500, 1)) < 0.5, -3, 3) + rng.normal(size=(500, 2))
    rows = anomalies.rivals(values[:400], np.arange(400), values[400:])
    assert [row["fold"] for row in rows] == [0, 1, 2, 3, 4]
    assert all(row["mixture of Gaussians"] > row["Gaussian"] + 0.3 for row in rows)


@pytest.fixture
def found():
    rows = [
        {"task": kind + ending, "detector": name, "auc": [auc, auc - 0.1, auc + 0.1]}
        for ending, lift in (("", 0.0), (", among resolved", 0.05))
        for number, kind in enumerate(KINDS)
        for name, auc in (("MAF", 0.6 + lift + 0.02 * number), ("Gaussian", 0.5 + lift))
    ]
    rows += [{"task": "hybrids", "detector": "MAF", "auc": [0.123, 0.1, 0.2]}]
    rows += [{"task": "hybrids", "detector": name, "auc": [auc] * 3} for name, auc in (("LOF", 0.4), ("Gaussian", 0.3))]
    return {"rows": rows, "ahead": {"Gaussian": [0.17, 0.1, 0.2]}}


def test_means_are_over_planted_kinds(found):
    assert anomalies.means(found) == pytest.approx({"MAF": 0.67, "Gaussian": 0.5})
    assert anomalies.means(found, ", among resolved") == pytest.approx({"MAF": 0.72, "Gaussian": 0.55})


def test_the_table_has_every_task(found):
    text = anomalies.table(found)
    assert all(kind in text for kind in KINDS)
    lines = text.splitlines()
    (hybrids,) = (line for line in lines if line.startswith("hybrids"))
    assert hybrids.split() == ["hybrids", "0.123", "(0.100–0.200)", "0.400", "(0.400–0.400)", "LOF"]
    assert lines[-2].split() == ["MAF", "0.6700"]
    assert lines[-1].split() == ["Gaussian", "0.5000", "+0.1700", "(+0.1000", "to", "+0.2000)"]


def test_a_detector_is_ahead_by_its_mean_over_kinds():
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
    found = anomalies.ahead(normal, scored)
    assert found["same"] == [0, 0, 0]  # the same galaxies are drawn for both
    own = np.mean([anomalies.judged(usual, strange)["auc"][0] for strange in odd.values()])
    other = np.mean([anomalies.judged(normal["blind"], kind["blind"])["auc"][0] for kind in scored.values()])
    value, low, high = found["blind"]
    assert value == pytest.approx(own - other)
    assert 0.2 < low < value < high
    assert found["lost"][0] == pytest.approx(own - 0.5)


def test_the_least_likely_come_first():
    likely = np.array([3.0, -5.0, 1.0, -np.inf])
    flows = SimpleNamespace(log_likelihood=lambda code: likely[code[:, 0]], percentile=lambda value: 10 * value)
    table = Table({"name": ["a", "b", "c", "d"]})
    least = anomalies.least(flows, {"some": (table, np.arange(4)[:, None])}, count=3)["some"]
    assert list(least["name"]) == ["d", "b", "c"]
    assert list(least["row"]) == [3, 1, 2]
    assert list(least["percentile"][1:]) == [-50, 10]
    assert table.colnames == ["name"]

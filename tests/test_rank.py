"""A person's scores rank the galaxies that have none, and bad tables of scores are said."""

import json

import numpy as np
import pytest
from astropy.table import Table

from rgz.errors import BadInput
from rgz.tasks import rank
from studies.metrics import auc


@pytest.fixture(scope="module")
def known():
    """Features of galaxies, of which those with a high first number are interesting, and scores of all."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(300, 16))
    return rank.features(codes, rng.normal(size=(300, 3))), np.where(codes[:, 0] > 0.8, 5.0, 1.0)


def some(scores, count, seed=0):
    rows = np.random.default_rng(seed).permutation(len(scores))[:count]
    return np.where(np.isin(np.arange(len(scores)), rows), scores, np.nan)


def test_more_scores_rank_better_and_shuffled_ones_are_chance(known):
    x, scores = known
    shuffled = np.random.default_rng(1).permutation(scores)
    found = {}
    for name, given in {"few": some(scores, 20), "many": some(scores, 150), "chance": some(shuffled, 150)}.items():
        rest, expected = ~np.isfinite(given), rank.predict(x, given)
        assert np.isfinite(expected).all()
        found[name] = auc(expected[rest & (scores > 3)], expected[rest & (scores < 3)])
    assert found["many"] > 0.9
    assert found["many"] > found["few"] > 0.6
    assert abs(found["chance"] - 0.5) < 0.15


def test_features_do_not_depend_on_units():
    rng = np.random.default_rng(0)
    codes, plain = rng.normal(size=(30, 4)), rng.uniform(1, 9, size=(30, 2))
    one = rank.features(codes, plain)
    np.testing.assert_allclose(rank.features(7 * codes - 3, np.exp(plain)), one, atol=1e-12)
    assert (one**2).sum(1).mean() == pytest.approx(2)
    plain[3, 0], plain[:, 1] = np.nan, np.nan
    assert np.isfinite(rank.features(codes, plain)).all()
    assert np.isfinite(rank.features(np.zeros((5, 4)), np.full((5, 2), -np.inf))).all()


def test_proposals_are_new_and_half_of_them_promising(known):
    x, scores = known
    given = some(scores, 100)
    nats = np.random.default_rng(2).normal(size=300)
    first = rank.propose(x, nats, np.full(300, np.nan), 10)
    assert first[:5] == list(np.argsort(nats)[:5])
    asked = rank.propose(x, nats, given, 10)
    assert len(set(asked)) == 10
    assert not np.isfinite(given[asked]).any()
    assert scores[asked[:5]].mean() > 3
    assert len(rank.propose(x, nats, some(scores, 297), 10)) == 3
    with pytest.raises(BadInput, match="two different scores"):
        rank.predict(x, np.where(np.arange(300) < 9, 2.0, np.nan))


@pytest.fixture
def results(tmp_path):
    rng = np.random.default_rng(0)
    with (tmp_path / "results.jsonl").open("w") as stream:
        for number in range(40):
            row = {"file": f"{number}.fits", "status": "ok", "code": list(rng.normal(size=4)), "area_over_point": 2.0}
            row |= {
                "peak_over_noise": None if number == 3 else 9.0 + number,
                "log_likelihood": {"nats": -200.0 - number},
            }
            print(json.dumps(row), file=stream)
        print(json.dumps({"file": "bad.fits", "status": "refused"}), file=stream)
    return tmp_path / "results.jsonl"


def test_the_command_ranks_and_proposes(run, results):
    code, out, err = run("rank", results, "-n", 4)
    assert code == 0, err
    assert out.splitlines()[2].split()[:2] == ["39.fits", "239.00"]
    assert len(out.split("to score next:")[1].split()) == 4
    scores = results.with_name("scores.csv")
    Table({"file": ["1.fits", "2.fits", "5.fits"], "score": [1, 5, 1]}).write(scores)
    code, out, err = run("rank", results, "--scores", scores, "--output", results.with_name("ranking.csv"))
    assert code == 0, err
    assert out.splitlines()[2].split()[0] == "2.fits"
    ranking = Table.read(results.with_name("ranking.csv"))
    assert len(ranking) == 40
    assert (np.diff(ranking["expected"]) <= 0).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,score\n99.fits,1\n", "99.fits, which is not among"),
        ("file,score\n1.fits,good\n", "not a table of scores"),
        ("name\nx\n", "not a table of scores"),
        ("file,score\n1.fits,3\n", "two different scores"),
    ],
)
def test_bad_scores_are_one_line(run, results, content, message):
    path = results.with_name("scores.csv")
    path.write_text(content)
    code, out, err = run("rank", results, "--scores", path)
    assert (code, out) == (1, "")
    assert message in err
    assert err.count("\n") == 1


def test_results_without_codes_are_one_line(run, tmp_path):
    (tmp_path / "a.csv").write_text("file,status\na,ok\n")
    for name in ("a.csv", "absent.jsonl"):
        code, out, err = run("rank", tmp_path / name)
        assert (code, out) == (1, "")
        assert "--codes" in err
        assert err.count("\n") == 1

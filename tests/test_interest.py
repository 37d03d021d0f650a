"""Pictures are clipped at their noise, and rankings are judged as they deserve."""

import numpy as np
import pytest

from rgz.data import fetch
from rgz.tasks import rank
from studies import interest


@pytest.mark.parametrize("filled", [0.0, 0.3])
def test_the_noise_of_a_picture_is_that_of_its_sky(filled):
    rng = np.random.default_rng(0)
    grey = np.maximum(rng.normal(0, 10, (200, 200)), 0)
    grey[: round(200 * filled)] = 200
    assert interest._rms(grey, float((grey == 0).mean())) == pytest.approx(10, rel=0.05)


def test_quality_is_one_for_a_perfect_ranking_and_half_for_none():
    odd = np.arange(400) < 40
    assert interest.quality(odd, -np.arange(400)) == dict.fromkeys(interest.METRICS, 1)
    assert interest.quality(odd, np.random.default_rng(0).normal(size=400))["auc"] == pytest.approx(0.5, abs=0.1)
    assert interest.quality(odd, np.arange(400))["recall_top_50"] == 0


def test_scores_that_were_given_are_not_judged():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(300, 8))
    score, x = np.where(codes[:, 0] > 1, 5.0, 1.0), rank.features(codes, rng.normal(size=(300, 2)))
    random, proposed = (interest.active(x, rng.normal(size=300), score, 60, how, seed=0) for how in (False, True))
    assert random["auc"] > 0.75
    assert proposed["found"] > random["found"] + 0.1
    nothing = interest.active(x, rng.normal(size=300), rng.permutation(score), 60, False, seed=0)
    assert nothing["auc"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.data
def test_every_meerkat_source_can_be_encoded():
    if fetch.locate(interest.MEERKAT) is None:
        pytest.skip("the MeerKAT sources are not here")
    cutouts, table = interest.sources()
    assert len(cutouts) == len(table["score"]) == 544
    assert all(one.pixels.shape == (64, 64) and (one.pixels > 0).any() for one in cutouts)
    assert np.isfinite(interest.plain(cutouts[:40])).all()

r"""Rank galaxies by what interests you: a few dozen scores of yours, and a regression on the codes.

No density knows what a person finds interesting. In this *active* mode (after Astronomaly, Lochner & Bassett 2021,
arXiv:2010.11202), you score some galaxies, say from 1 (dull) to 5. A Gaussian process then predicts the scores of all
others and proposes which to score next. Its features are the numbers of a code, and the ranks of three plain numbers
that are not in it: area over that of a point source, S/N, and log-likelihood. Codes and plain numbers are scaled to
have a total variance of one each. The covariance of two scores is :math:`\exp(-d^2 / 2)` for the distance :math:`d`
between features, and each score has independent noise of the same variance.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from rgz.errors import BadInput

__all__ = ["features", "predict", "propose"]

SCATTER = 1.0  # variance of a score at fixed features, over that of scores at different ones


def features(codes: NDArray[np.floating], plain: NDArray[np.floating]) -> NDArray[np.float64]:
    """Features (N, D + P) of galaxies from their codes (N, D) and plain numbers (N, P), NaN where unknown."""
    usual = [np.median(column[~np.isnan(column)]) if not np.isnan(column).all() else 0.0 for column in plain.T]
    plain = np.where(np.isnan(plain), usual, plain)
    parts = [codes.astype(float), rankdata(plain, axis=0)]
    scales = [np.maximum(part.std(0), 1e-9) * np.sqrt(part.shape[1]) for part in parts]
    return np.hstack([(part - part.mean(0)) / scale for part, scale in zip(parts, scales, strict=True)])


def predict(known: NDArray[np.float64], scores: NDArray[np.floating]) -> NDArray[np.float64]:
    """Expected score (N,) of every galaxy, from features (N, K) and scores (N,), NaN where there is none yet.

    Raises :class:`rgz.errors.BadInput` if there are fewer than two different scores.
    """
    from sklearn.gaussian_process import GaussianProcessRegressor  # its import takes half a second
    from sklearn.gaussian_process.kernels import RBF

    given = np.isfinite(scores)
    if len(set(scores[given])) < 2:
        raise BadInput("a ranking needs at least two different scores: score some galaxies high and others low")
    process = GaussianProcessRegressor(RBF(1.0), alpha=SCATTER, optimizer=None, normalize_y=True)
    return np.asarray(process.fit(known[given], scores[given]).predict(known))


def propose(
    known: NDArray[np.float64], nats: NDArray[np.floating], scores: NDArray[np.floating], count: int, seed: int = 0
) -> list[int]:
    """Which ``count`` galaxies without a score to score next: half of them the most promising ones, half at random.

    Promising are high expected scores or, before there are different scores, low log-likelihoods ``nats`` (N,).
    """
    free = np.flatnonzero(~np.isfinite(scores))
    try:
        promise = predict(known, scores)
    except BadInput:
        promise = -np.asarray(nats)
    best = free[np.argsort(-promise[free], kind="stable")][: count - count // 2]
    others = np.random.default_rng([seed, len(free)]).permutation(np.setdiff1d(free, best))
    return [*map(int, best), *map(int, others[: count // 2])]

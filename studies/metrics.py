"""Scores of probabilities of FRII, the area under the ROC curve, and bootstrap intervals.

The positive class is FRII: *recall* is the fraction of FRII found, *specificity* the fraction of FRI found. Every
interval is a 95 % bootstrap interval: galaxies are drawn with replacement, and the central 95 % of the statistic are
taken.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from rgz.errors import BadInput

__all__ = ["METRICS", "auc", "bootstrap", "difference", "interval", "is_frii", "scores"]

METRICS = ("accuracy", "roc_auc", "specificity", "recall", "brier")
SEED, DRAWS = 0, 1000


def is_frii(table: Table) -> NDArray[np.int64]:
    """Labels as integers, 1 for FRII and 0 for FRI; raises :class:`rgz.errors.BadInput` for any other label."""
    labels = np.asarray(table["label"])
    if others := sorted(set(labels) - {"FRI", "FRII"}):
        raise BadInput(f"labels must be FRI or FRII; there are also: {', '.join(map(repr, others))}")
    return np.asarray(labels == "FRII", dtype=int)


def scores(truth: NDArray[Any], probability: NDArray[Any]) -> dict[str, float]:
    """Accuracy, ROC-AUC, specificity, recall and Brier score, from labels (N,), 1 for FRII, and probabilities (N,).

    >>> scores(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.9]))["specificity"]
    0.5
    """
    return {name: float(value[0]) for name, value in _weighted(truth, probability, np.ones((1, len(truth)))).items()}


def _weighted(truth: NDArray[Any], probability: NDArray[Any], weights: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """The :func:`scores` (draws,) of galaxies counted ``weights`` (draws, N) times; NaN where a class is empty.

    ROC-AUC is the fraction of pairs of an FRII and an FRI in which the FRII has the higher probability; ties count
    half.
    """
    right, frii = (probability >= 0.5) == truth, truth == 1
    one, two = weights[:, frii], weights[:, ~frii]
    order = np.sign(probability[frii, None] - probability[~frii])
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": weights @ right / weights.sum(1),
            "roc_auc": ((one @ (0.5 + 0.5 * order)) * two).sum(1) / (one.sum(1) * two.sum(1)),
            "specificity": two @ right[~frii] / two.sum(1),
            "recall": one @ right[frii] / one.sum(1),
            "brier": weights @ (probability - truth) ** 2 / weights.sum(1),
        }


def _draws(count: int) -> NDArray[np.int64]:
    """How often each of ``count`` galaxies is drawn, with replacement, in each draw: (draws, count)."""
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), DRAWS)


def _limits(values: NDArray[Any]) -> list[float]:
    return [float(v) for v in np.nanpercentile(values, (2.5, 97.5))]


def bootstrap(truth: NDArray[Any], probability: NDArray[Any]) -> dict[str, list[float]]:
    """Each of the :func:`scores` with its 95 % interval: ``[value, low, high]``."""
    drawn = _weighted(truth, probability, _draws(len(truth)))
    return {name: [value, *_limits(drawn[name])] for name, value in scores(truth, probability).items()}


def difference(truth: NDArray[Any], one: NDArray[Any], other: NDArray[Any]) -> dict[str, list[float]]:
    """Difference of the scores of two methods on the same galaxies, each with its 95 % interval."""
    weights = np.vstack([np.ones(len(truth)), _draws(len(truth))])  # the same galaxies for both
    first, second = (_weighted(truth, probability, weights) for probability in (one, other))
    found = {name: first[name] - second[name] for name in METRICS}
    return {name: [float(value[0]), *_limits(value[1:])] for name, value in found.items()}


def auc(high: NDArray[Any], low: NDArray[Any]) -> float:
    """ROC-AUC of scores that should be high (any shape, NaN ignored) and scores (M,) that should be low."""
    low = np.sort(low)
    below, upto = (np.searchsorted(low, high[np.isfinite(high)], side) for side in ("left", "right"))
    return float((below + upto).mean() / (2 * len(low)))


def interval(statistic: Callable[..., float], *arrays: NDArray[Any], draws: int = 200) -> list[float]:
    """A statistic of arrays (N, …) and its 95 % bootstrap interval over their rows: ``[value, low, high]``.

    Rows may have any shape, which :func:`scipy.stats.bootstrap` does not support.
    """
    rng = np.random.default_rng(SEED)
    drawn = [statistic(*(a[rng.integers(len(a), size=len(a))] for a in arrays)) for _ in range(draws)]
    return [float(statistic(*arrays)), *_limits(np.array(drawn))]

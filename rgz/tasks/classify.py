"""FRI or FRII: labels, groups and folds for a classifier on codes, and the bootstrap ensemble of :func:`rgz.inspect`.

The positive class is FRII. All images of one source are in the same fold.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import StratifiedGroupKFold
from threadpoolctl import threadpool_limits

from rgz.data.sample import same_source
from rgz.data.training_set import SAME_SOURCE
from rgz.errors import BadInput
from rgz.progress import progress

SEED = 0
COMMITTEES = ("mirabest", "frdeep-nvss")
"""Samples to which bootstrap ensembles are fitted, for images with the resolution of FIRST and with that of NVSS."""


def confident(table: Table) -> NDArray[np.bool_]:
    """Mask of the FRI and FRII for which the experts were certain of the class."""
    return np.asarray(table["confident"]) & np.isin(table["label"], ("FRI", "FRII"))


def is_frii(table: Table) -> NDArray[np.int64]:
    """Labels as integers, 1 for FRII and 0 for FRI; raises :class:`rgz.errors.BadInput` for any other label."""
    labels = np.asarray(table["label"])
    if others := sorted(set(labels) - {"FRI", "FRII"}):
        raise BadInput(f"labels must be FRI or FRII; there are also: {', '.join(map(repr, others))}")
    return np.asarray(labels == "FRII", dtype=int)


def groups(table: Table) -> NDArray[np.int64]:
    """One integer per source, shared by rows within 10″ of each other."""
    return same_source(table, SAME_SOURCE)


def folds(
    labels: NDArray[Any], group: NDArray[Any], repeats: int = 10, splits: int = 5
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Row numbers of training and test folds: stratified, grouped, reshuffled in each repeat."""
    for repeat in range(repeats):
        yield from StratifiedGroupKFold(splits, shuffle=True, random_state=SEED + repeat).split(labels, labels, group)


def bootstrap_ensemble(
    values: NDArray[Any], labels: NDArray[Any], group: NDArray[Any], members: int = 100
) -> NDArray[np.float64]:
    """Weights (members, D + 1) of linear discriminants, each fitted to sources drawn with replacement.

    The last weight is the offset. A member's probability of FRII is the logistic function of the weights times a code,
    plus the offset. Each class is resampled separately, so that every member has both.
    """
    rng, weights = np.random.default_rng(SEED), np.empty((members, values.shape[1] + 1))
    rows = {one: np.flatnonzero(group == one) for one in np.unique(group)}
    classes = [[rows[one] for one in np.unique(group[labels == kind])] for kind in (0, 1)]
    with threadpool_limits(1):  # matrices this small gain nothing from more threads
        for row in progress(weights, desc="fitting the bootstrap ensemble", unit="member"):
            drawn = np.concatenate([own[one] for own in classes for one in rng.integers(len(own), size=len(own))])
            fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(values[drawn], labels[drawn])
            row[:-1], row[-1] = fitted.coef_[0], fitted.intercept_[0]
    return weights

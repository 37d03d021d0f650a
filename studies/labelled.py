"""Labelled galaxies: groups, folds, and the classifier of :func:`rgz.inspect` fitted to them.

This classifier is fitted to all labelled samples of FIRST together, and to other observations of the same galaxies
(:func:`rgz.transforms.perturb.observe`), so that it holds for galaxies that are fainter, smaller or less well placed
than those of one catalogue. All images of a source have together the weight of one galaxy. All classes have the same
weight. Sources to which catalogues give different classes are left out.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from rgz.data.sample import SAME_SOURCE, disputed, same_source
from rgz.features import codes as codefile
from rgz.tasks.classify import CLASSES, Classifier

SEED = 0
FOLDS = 5
COVERAGE = 0.9  # of the sets
LANDMARKS, STRENGTH = 1000, 30.0  # number of kernels, and inverse strength of the penalty on their weights


def confident(table: Table) -> NDArray[np.bool_]:
    """Mask of the FRI and FRII for which the experts were certain of the class."""
    return np.asarray(table["confident"]) & np.isin(table["label"], ("FRI", "FRII"))


def groups(table: Table) -> NDArray[np.int64]:
    """One integer per source, shared by rows within 10″ of each other."""
    return same_source(table, SAME_SOURCE)


def folds(
    labels: NDArray[Any], group: NDArray[Any], repeats: int = 10, splits: int = FOLDS
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Row numbers of training and test folds: stratified, grouped, reshuffled in each repeat."""
    for repeat in range(repeats):
        yield from StratifiedGroupKFold(splits, shuffle=True, random_state=SEED + repeat).split(labels, labels, group)


@dataclass(frozen=True)
class Labelled:
    """Galaxies of known class: a table with ``sample`` and ``label``, codes (N, D), and codes of other observations
    (N, K, D), NaN where an observation does not show the source."""

    table: Table
    codes: NDArray[np.float32]
    observed: NDArray[np.float32]

    def __getitem__(self, rows: Any) -> "Labelled":
        """The galaxies of a mask or of a list of integers."""
        return Labelled(self.table[rows], self.codes[rows], self.observed[rows])


def labelled(names: tuple[str, ...], path: Path | None = None) -> Labelled:
    """The galaxies of some samples of a codes file whose class is certain, without sources of contradictory classes."""
    tables, codes, observed = [], [], []
    for name in names:
        table, code, _ = codefile.read_codes(path, name)
        tables.append(table["name", "ra", "dec", "label", "confident"])
        tables[-1]["sample"] = name
        codes.append(code)
        observed.append(codefile.read_observed(path, name))
    found = Labelled(vstack(tables), np.concatenate(codes), np.concatenate(observed))
    found = found[np.asarray(found.table["confident"]) & np.isin(found.table["label"], CLASSES)]
    return found[disputed(found.table, SAME_SOURCE) == ""]


def fit(known: Labelled, first: int = 0) -> Classifier:
    """A classifier on the numbers of codes from ``first`` on, of the classes that the galaxies have.

    With fewer than five sources of a class, nothing is held out, and sets exclude no class.
    """
    label, group = np.asarray(known.table["label"]), groups(known.table)
    if min(len(set(group[label == one])) for one in set(label)) < FOLDS:
        return fit_alone(known, first)
    held_out = np.empty(len(label))
    for train, test in folds(label, group, repeats=1):
        one = fit_alone(known[train], first)
        own = label[test][:, None] == np.array(one.classes)
        held_out[test] = one.predict_proba(known.codes[test])[own]
    return replace(fit_alone(known, first), threshold=float(np.quantile(held_out, 1 - COVERAGE)))


def fit_alone(known: Labelled, first: int) -> Classifier:
    """Like :func:`fit`, with sets that exclude no class."""
    label, group = np.asarray(known.table["label"]), groups(known.table)
    classes = tuple(one for one in CLASSES if one in label)
    share = 1 / np.bincount(group)[group]
    total = {one: share[label == one].sum() for one in classes}
    share *= np.array([sum(total.values()) / len(classes) / total[one] for one in label])
    every = np.concatenate([known.codes[:, None], known.observed], axis=1)[:, :, first:]  # (N, 1 + K, D)
    seen = np.isfinite(every).all(2)
    row, _ = np.nonzero(seen)
    values, weight = every[seen].astype(float), (share / seen.sum(1))[row]
    centre, scale = values.mean(0), np.maximum(values.std(0), np.finfo(np.float32).tiny)
    count = min(LANDMARKS, len(values))
    kernels = Nystroem(gamma=1 / values.shape[1], n_components=count, random_state=SEED)
    features = kernels.fit_transform((values - centre) / scale)
    target = (label[row][:, None] == np.array(classes)).argmax(1)
    model = LogisticRegression(C=STRENGTH, max_iter=2000).fit(features, target, sample_weight=weight)
    weights, offset = kernels.normalization_.T @ model.coef_.T, model.intercept_
    if len(classes) == 2:  # scikit-learn gives the odds of the second class alone
        weights, offset = (np.concatenate([0 * part, part], -1) for part in (weights, offset))
    centre, scale, weights, offset = (np.asarray(part, np.float32) for part in (centre, scale, weights, offset))
    return Classifier(classes, first, 0.0, centre, scale, kernels.components_.astype(np.float16), weights, offset)

r"""Classes of radio galaxies: labels, groups and folds, and the classifier of :func:`rgz.inspect`.

The classifier is a logistic regression on Gaussian kernels between a code and a thousand landmarks, which are codes of
labelled galaxies (Nyström approximation, Williams & Seeger 2001):

.. math:: p(y \mid x) = \mathrm{softmax}_y\Bigl(b_y + \sum_m w_{ym}\, e^{-\lVert x - x_m \rVert^2 / D}\Bigr)

for codes :math:`x` of :math:`D` numbers, each divided by its standard deviation. It is fitted to all labelled samples
of FIRST together, and to other observations of the same galaxies (:func:`rgz.transforms.perturb.observe`), so that it
holds for galaxies that are fainter, smaller or less well placed than those of one catalogue. All images of a source
have together the weight of one galaxy. All classes have the same weight, since nobody knows how frequent they are among
the galaxies of a reader. Sources to which catalogues give different classes are left out.

The *set* of a galaxy contains the classes that are not excluded: those with a probability above a threshold. In
cross-validation, nine of ten training galaxies have a probability above this threshold for their true class
(cross-conformal prediction, Vovk 2015). The most probable class is always in the set.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import softmax

from rgz import artifacts
from rgz.data.sample import SAME_SOURCE, same_source
from rgz.errors import as_bad_input
from rgz.features import codes as codefile

SEED = 0
CLASSES = ("FRI", "FRII", "bent", "compact")
COVERAGE = 0.9  # of the sets
FOLDS = 5
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
    from sklearn.model_selection import StratifiedGroupKFold  # slow to import, and rgz look does not need it

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
    group, label = groups(found.table), np.asarray(found.table["label"])
    several = [one for one in np.unique(group) if len(set(label[group == one])) > 1]
    return found[~np.isin(group, several)]


@dataclass(frozen=True)
class Classifier:
    """Class probabilities of codes; made by :func:`fit` or :meth:`from_pretrained`."""

    classes: tuple[str, ...]  # names of the C classes
    first: int  # the numbers of a code from this one on are used, D of them
    threshold: float  # smallest probability of a class in a set
    centre: NDArray[np.float32]  # mean of each number, (D,)
    scale: NDArray[np.float32]  # standard deviation of each number, (D,)
    landmarks: NDArray[np.float16]  # scaled codes of galaxies, (M, D)
    weights: NDArray[np.float32]  # of the kernels, (M, C)
    offset: NDArray[np.float32]  # (C,)

    @classmethod
    def from_pretrained(cls, kind: str = "host", path: Path | None = None) -> "Classifier":
        """A classifier of :data:`rgz.tasks.encode.CLASSIFIERS`, of the trained network or of another file."""
        path = artifacts.artifact("classifier.safetensors") if path is None else path
        with as_bad_input(f"{path} holds no classifiers for these codes", "make it with rgz encode"):
            tensors = load_file(path)
            values = {name.partition("/")[2]: value for name, value in tensors.items() if name.startswith(f"{kind}/")}
            first, threshold = int(values.pop("first")), float(values.pop("threshold"))
            found = cls(CLASSES[: len(values["offset"])], first, threshold, **values)
            (count, size), classes = found.landmarks.shape, len(found.classes)
            shapes = {"centre": (size,), "scale": (size,), "weights": (count, classes), "offset": (classes,)}
            if any(getattr(found, name).shape != shape for name, shape in shapes.items()):
                raise ValueError("its tensors do not go together")
            return found

    def tensors(self, kind: str) -> dict[str, NDArray[Any]]:
        """What :meth:`from_pretrained` reads from a file."""
        values = {name: np.asarray(value) for name, value in asdict(self).items() if name != "classes"}
        return {f"{kind}/{name}": value for name, value in values.items()}

    def predict_proba(self, codes: NDArray[Any]) -> NDArray[np.float64]:
        """Probabilities (N, C) of codes (N, D)."""
        x = (codes[:, self.first :] - self.centre) / self.scale
        landmarks = self.landmarks.astype(np.float32)
        squares = (x**2).sum(1)[:, None] + (landmarks**2).sum(1) - 2 * x @ landmarks.T
        kernels = np.exp(-np.maximum(squares, 0) / x.shape[1])  # (N, M)
        return np.asarray(softmax(kernels @ self.weights + self.offset, axis=1))

    def sets(self, probabilities: NDArray[Any]) -> NDArray[np.bool_]:
        """Which classes are in the set of each galaxy, (N, C), of probabilities (N, C); the likeliest always is."""
        return np.asarray((probabilities >= self.threshold) | (probabilities == probabilities.max(1, keepdims=True)))


def fit(known: Labelled, first: int = 0) -> Classifier:
    """A classifier on the numbers of codes from ``first`` on, of the classes that the galaxies have.

    With fewer than five sources of a class, nothing is held out, and sets exclude no class.
    """
    label, group = np.asarray(known.table["label"]), groups(known.table)
    if min(len(set(group[label == one])) for one in set(label)) < FOLDS:
        return _fitted(known, first)
    held_out = np.empty(len(label))
    for train, test in folds(label, group, repeats=1):
        one = _fitted(known[train], first)
        own = label[test][:, None] == np.array(one.classes)
        held_out[test] = one.predict_proba(known.codes[test])[own]
    return replace(_fitted(known, first), threshold=float(np.quantile(held_out, 1 - COVERAGE)))


def _fitted(known: Labelled, first: int) -> Classifier:
    from sklearn.kernel_approximation import Nystroem
    from sklearn.linear_model import LogisticRegression

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

"""FRI or FRII? Simple classifiers on codes, measured so that the number means something.

The positive class is FRII: *recall* is the share of FRII found, *specificity* the share of FRI found. Two protocols
stand side by side. The authors' split of MiraBest Confident has 104 test images, so one image is a whole point and the
binomial standard error near 90 % is three; ten times repeated 5-fold cross-validation over all 833 is steadier. A source
that appears twice stays on one side of every fold. Everything is fitted on training folds only: scaling, components,
each classifier's own settings, which an inner cross-validation picks, and the sigmoid that makes a probability of a score
(Platt 1999), for which a further inner cross-validation scores the training fold.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from joblib import Parallel, delayed
from scipy.special import expit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from rgz.data.sample import same_source
from rgz.data.training_set import SAME_SOURCE
from rgz.errors import BadInput
from rgz.progress import progress

__all__ = [
    "BRIEF",
    "CLASSIFIERS",
    "COMMITTEES",
    "METRICS",
    "Features",
    "bootstrap",
    "bootstrap_ensemble",
    "confident",
    "difference",
    "evaluate",
    "folds",
    "groups",
    "is_frii",
    "joined",
    "predict",
    "scores",
    "spread",
]

POSITIVE = "FRII"
METRICS = ("accuracy", "roc_auc", "specificity", "recall", "brier")
SEED = 0
COMMITTEES = ("mirabest", "frdeep-nvss")
"""Samples whose galaxies a committee is taught with, the first for images as fine as FIRST's, the other for images like NVSS's."""


def _tuned(estimator, **grid):
    return GridSearchCV(estimator, grid, scoring="roc_auc", cv=3)


def _calibrated(estimator):
    return CalibratedClassifierCV(estimator, method="sigmoid", cv=3, ensemble=False)


def _components(estimator):
    """The classifier on principal components, for densities that need fewer numbers than a code has."""
    return make_pipeline(PCA(svd_solver="covariance_eigh"), estimator)


_logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, solver="newton-cholesky"))
_discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")

CLASSIFIERS = {
    "logistic regression": _tuned(_logistic, logisticregression__C=[0.001, 0.01, 0.1]),
    "k-nearest neighbours": _calibrated(_tuned(KNeighborsClassifier(weights="distance"), n_neighbors=[5, 11, 21])),
    "Gaussian naive Bayes": _calibrated(_tuned(_components(GaussianNB()), pca__n_components=[0.6, 0.8])),
    "linear discriminant": _discriminant,
    "quadratic discriminant": _calibrated(
        _tuned(_components(QuadraticDiscriminantAnalysis(reg_param=0.1)), pca__n_components=[0.8, 0.95])
    ),
    "linear support vectors": _calibrated(
        _tuned(make_pipeline(StandardScaler(), SVC(kernel="linear")), svc__C=[0.003, 0.03])
    ),
    "support vector machine": _calibrated(_tuned(SVC(), C=[1, 3, 10])),
    "random forest": _calibrated(RandomForestClassifier(48, min_samples_leaf=4, random_state=SEED)),
    "gradient boosting": HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=8, min_samples_leaf=10, max_bins=32, random_state=SEED
    ),
    "stack of four": StackingClassifier(
        [
            ("logistic", _logistic),
            ("discriminant", _discriminant),
            ("vectors", SVC(C=5)),
            ("neighbours", KNeighborsClassifier(11, weights="distance")),
        ],
        LogisticRegression(),
        cv=3,
    ),
}
"""Name to scikit-learn estimator with ``predict_proba``; settings are picked by inner cross-validation on the training fold."""

BRIEF = {name: CLASSIFIERS[name] for name in ("logistic regression", "k-nearest neighbours", "support vector machine")}
"""The classifiers for features that codes are compared with."""


@dataclass(frozen=True)
class Features:
    """One way to describe a galaxy by numbers: values (N, D), and what is fitted to training rows before a classifier."""

    name: str
    values: np.ndarray
    transform: object | None = None

    @property
    def dimensions(self) -> int:
        """How many numbers a classifier sees of each galaxy."""
        return getattr(self.transform, "n_components", None) or self.values.shape[1]


def confident(table: Table) -> np.ndarray:
    """Mask of MiraBest Confident: FRI and FRII whose class was not in doubt."""
    return np.asarray(table["confident"]) & np.isin(table["label"], ("FRI", "FRII"))


def is_frii(table: Table) -> np.ndarray:
    """Labels as integers, 1 for FRII and 0 for FRI.

    Raises
    ------
    BadInput
        A row is neither.
    """
    labels = np.asarray(table["label"])
    if odd := sorted(set(labels) - {"FRI", "FRII"}):
        raise BadInput(f"labels are FRI and FRII here; these came too: {', '.join(map(repr, odd))}")
    return (labels == POSITIVE).astype(int)


def groups(table: Table) -> np.ndarray:
    """One integer a source: rows within 10″ of each other share it, and rows of one ``object`` where the table has that."""
    if "object" in table.colnames:
        return np.unique(table["object"], return_inverse=True)[1]
    return same_source(table, SAME_SOURCE)


def folds(
    labels: np.ndarray, group: np.ndarray, repeats: int = 10, splits: int = 5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers of training and test folds: stratified, grouped, shuffled anew in each repeat."""
    for repeat in range(repeats):
        yield from StratifiedGroupKFold(splits, shuffle=True, random_state=SEED + repeat).split(labels, labels, group)


def scores(truth: np.ndarray, probability: np.ndarray) -> dict[str, float]:
    """Accuracy, ROC-AUC, specificity, recall and Brier score of labels (N,) and probabilities of FRII (N,).

    >>> scores(np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.7, 0.9]))["specificity"]
    0.5
    """
    return {name: float(value[0]) for name, value in _weighted(truth, probability, np.ones((1, len(truth)))).items()}


def _weighted(truth: np.ndarray, probability: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """The :func:`scores` (draws,) of galaxies that count ``weights`` (draws, N) times; NaN where a class has none.

    ROC-AUC is the share of pairs of an FRII and an FRI in which the FRII has the higher probability, ties for a half.
    """
    right, frii = (probability >= 0.5) == truth, truth == 1
    one, two = weights[:, frii], weights[:, ~frii]
    ahead = probability[frii, None] - probability[~frii]
    with np.errstate(invalid="ignore"):
        return {
            "accuracy": weights @ right / weights.sum(1),
            "roc_auc": ((one @ (0.5 + 0.5 * np.sign(ahead))) * two).sum(1) / (one.sum(1) * two.sum(1)),
            "specificity": two @ right[~frii] / two.sum(1),
            "recall": one @ right[frii] / one.sum(1),
            "brier": weights @ (probability - truth) ** 2 / weights.sum(1),
        }


def _draws(count: int, draws: int) -> np.ndarray:
    """How often each of ``count`` galaxies is drawn, with replacement, in each draw: (draws, count)."""
    return np.random.default_rng(SEED).multinomial(count, np.full(count, 1 / count), draws)


def spread(truth: np.ndarray, rounds: list, probabilities: list[np.ndarray]) -> dict[str, list[float]]:
    """Mean and standard deviation over folds of each of the :func:`scores`; ``rounds`` as :func:`folds` gives them."""
    each = [scores(truth[test], p) for (_, test), p in zip(rounds, probabilities, strict=True)]
    return {name: [float(f([one[name] for one in each])) for f in (np.mean, np.std)] for name in METRICS}


def bootstrap(truth: np.ndarray, probability: np.ndarray, draws: int = 1000) -> dict[str, list[float]]:
    """Each of the :func:`scores` with its 95 % interval over test galaxies drawn with replacement: ``[value, low, high]``."""
    drawn = _weighted(truth, probability, _draws(len(truth), draws))
    return {name: [value, *_interval(drawn[name])] for name, value in scores(truth, probability).items()}


def difference(truth: np.ndarray, one: np.ndarray, other: np.ndarray, draws: int = 1000) -> dict[str, list[float]]:
    """How far the scores of one set of probabilities are above another's on the same galaxies: ``[value, low, high]``.

    The 95 % interval is over galaxies drawn with replacement, the same for both.
    """
    weights = np.vstack([np.ones(len(truth)), _draws(len(truth), draws)])
    first, second = (_weighted(truth, probability, weights) for probability in (one, other))
    ahead = {name: first[name] - second[name] for name in METRICS}
    return {name: [float(value[0]), *_interval(value[1:])] for name, value in ahead.items()}


def _interval(values: np.ndarray) -> list[float]:
    return [float(v) for v in np.nanpercentile(values, (2.5, 97.5))]


def joined(rounds: list, probabilities: list[np.ndarray], count: int) -> np.ndarray:
    """Probabilities of ``count`` rows, each from the first round that held it out; NaN where none did."""
    found = np.full(count, np.nan)
    for (_, test), probability in zip(rounds, probabilities, strict=False):
        new = np.isnan(found[test])
        found[test[new]] = probability[new]
    return found


def predict(
    features: Features, labels: np.ndarray, rounds: list, classifiers: dict | None = None
) -> dict[str, list[np.ndarray]]:
    """Probability of FRII of each held-out row, by classifiers fitted to the training rows of each round.

    Rounds run side by side inside ``joblib.parallel_config(n_jobs=…)``.

    Parameters
    ----------
    labels
        (N,) integers, 1 for FRII.
    rounds
        Pairs of row numbers, training and held out.

    Returns
    -------
    dict
        Classifier to one array a round.
    """
    classifiers = CLASSIFIERS if classifiers is None else classifiers
    done = Parallel(return_as="generator")(delayed(_one_round)(features, labels, classifiers, *rows) for rows in rounds)
    found = list(progress(done, desc=features.name, total=len(rounds), unit="fold"))
    return {name: [one[name] for one in found] for name in classifiers}


def _one_round(features, labels, classifiers, train, held_out) -> dict[str, np.ndarray]:
    seen, unseen = features.values[train], features.values[held_out]
    if features.transform is not None:
        transform = clone(features.transform).fit(seen)
        seen, unseen = transform.transform(seen), transform.transform(unseen)
    return {name: _probability(clone(one).fit(seen, labels[train]), unseen) for name, one in classifiers.items()}


def _probability(model, values: np.ndarray) -> np.ndarray:
    """Probability of FRII of each row; of a machine that only decides, the logistic function of its decision."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(values)[:, 1]
    return expit(model.decision_function(values))


def bootstrap_ensemble(values: np.ndarray, labels: np.ndarray, group: np.ndarray, members: int = 100) -> np.ndarray:
    """Weights (members, D + 1) of linear discriminants, each fitted to sources drawn with replacement; the offset comes last.

    Each class is drawn for itself, so that no draw lacks one. The logistic function of a code's product with a row of weights,
    plus the offset, is that member's probability of FRII.
    """
    rng, weights = np.random.default_rng(SEED), np.empty((members, values.shape[1] + 1))
    rows = {one: np.flatnonzero(group == one) for one in np.unique(group)}
    classes = [[rows[one] for one in np.unique(group[labels == kind])] for kind in (0, 1)]
    for row in progress(weights, desc="fitting the committee", unit="member"):
        drawn = np.concatenate([own[one] for own in classes for one in rng.integers(len(own), size=len(own))])
        fitted = clone(_discriminant).fit(values[drawn], labels[drawn])
        row[:-1], row[-1] = fitted.coef_[0], fitted.intercept_[0]
    return weights


def evaluate(
    features: Features,
    labels: np.ndarray,
    group: np.ndarray,
    test: np.ndarray | None,
    repeats: int = 10,
    classifiers: dict | None = None,
    rival: np.ndarray | None = None,
) -> list[dict]:
    """Every classifier on one kind of features, by cross-validation and on the official split.

    Parameters
    ----------
    labels, group, test
        (N,) integers, source numbers, and the mask of the official test rows, None where these are not to be looked at.
    rival
        (N,) probabilities of another method, each from the fold of the first repeat that held the galaxy out.

    Returns
    -------
    list of dict
        One a classifier: ``features``, ``dimensions``, ``classifier``, ``cross_validation`` as :func:`spread` gives it,
        ``official`` (if asked for) as :func:`bootstrap` does, and with a rival ``ahead``, as :func:`difference` has it.
    """
    validated = list(folds(labels, group, repeats))
    official = [] if test is None else [(np.flatnonzero(~test), np.flatnonzero(test))]
    rows = []
    for name, found in predict(features, labels, validated + official, classifiers).items():
        row = {"features": features.name, "dimensions": features.dimensions, "classifier": name}
        row["cross_validation"] = spread(labels, validated, found[: len(validated)])
        if official:
            row["official"] = bootstrap(labels[test], found[-1])
        if rival is not None:
            row["ahead"] = difference(labels, joined(validated, found, len(labels)), rival)
        rows.append(row)
    return rows

"""FRI or FRII? Simple classifiers on codes, measured so that the number means something.

The positive class is FRII: *recall* is the share of FRII found, *specificity* the share of FRI found. Two protocols
stand side by side. The authors' split of MiraBest Confident has 104 test images, so one image is a whole point and the
binomial standard error near 90 % is three; ten times repeated 5-fold cross-validation over all 833 is steadier. A source
that appears twice stays on one side of every fold. Everything is fitted on training folds only: scaling, PCA and
each classifier's own setting, which an inner cross-validation picks.

Codes are judged beside features that need no network at all, on the same folds (``BASELINES``): principal components
of the pixels, as they come and posed, and the radial profile of the Fourier amplitudes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from astropy.table import Table
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator, TransformerMixin, clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from tqdm import tqdm

from rgz import images
from rgz.errors import BadInput
from rgz.fields import SAME_SOURCE
from rgz.sample import Sample, prepared, same_source

__all__ = [
    "BASELINES",
    "CLASSIFIERS",
    "Features",
    "baselines",
    "confident",
    "decision",
    "evaluate",
    "folds",
    "groups",
    "is_frii",
    "scores",
]

POSITIVE = "FRII"
SEED = 0


def _tuned(estimator, **grid):
    return GridSearchCV(estimator, grid, scoring="roc_auc", cv=3)


CLASSIFIERS = {
    "logistic regression": _tuned(
        make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky")),
        logisticregression__C=[0.001, 0.01, 0.1],
    ),
    "k-nearest neighbours": _tuned(KNeighborsClassifier(weights="distance"), n_neighbors=[5, 11, 21, 41]),
    "support vector machine": _tuned(SVC(random_state=SEED), C=[1, 3, 10]),
    "random forest": RandomForestClassifier(200, min_samples_leaf=2, random_state=SEED),
}
"""Name to scikit-learn estimator; settings are picked by inner cross-validation on the training fold."""


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
    """One integer a source: rows within 10″ of each other share it, rows without a position stand alone."""
    return same_source(table, SAME_SOURCE)


def folds(
    labels: np.ndarray, group: np.ndarray, repeats: int = 10, splits: int = 5
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Row numbers of training and test folds: stratified, grouped, shuffled anew in each repeat."""
    for repeat in range(repeats):
        yield from StratifiedGroupKFold(splits, shuffle=True, random_state=SEED + repeat).split(labels, labels, group)


def scores(truth: np.ndarray, score: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    """Accuracy, ROC-AUC, specificity and recall of one test fold; the positive class is FRII."""
    return {
        "accuracy": float((predicted == truth).mean()),
        "roc_auc": float(roc_auc_score(truth, score)),
        "specificity": float((predicted[truth == 0] == 0).mean()),
        "recall": float((predicted[truth == 1] == 1).mean()),
    }


def decision(model, values: np.ndarray) -> np.ndarray:
    """Score of each row (N,), the higher the more FRII: distance from the boundary, or the probability where there is none."""
    return model.decision_function(values) if hasattr(model, "decision_function") else model.predict_proba(values)[:, 1]


def evaluate(
    features: Features,
    labels: np.ndarray,
    group: np.ndarray,
    test: np.ndarray | None,
    repeats: int = 10,
    classifiers: dict | None = None,
) -> list[dict]:
    """Every classifier on one kind of features, by cross-validation and on the official split.

    Folds run side by side inside ``joblib.parallel_config(n_jobs=…)``.

    Parameters
    ----------
    labels, group, test
        (N,) integers, source numbers, and the mask of the official test rows, None where these are not to be looked at.

    Returns
    -------
    list of dict
        One a classifier: ``features``, ``dimensions``, ``classifier``, and under ``cross_validation`` and ``official``
        (if asked for) the four scores. Cross-validated scores are ``[mean, standard deviation over folds]``.
    """
    classifiers = CLASSIFIERS if classifiers is None else classifiers
    official = [] if test is None else [(np.flatnonzero(~test), np.flatnonzero(test))]
    rounds = [*folds(labels, group, repeats), *official]
    done = Parallel(return_as="generator")(delayed(_one_round)(features, labels, classifiers, *rows) for rows in rounds)
    found = list(tqdm(done, desc=features.name, total=len(rounds), unit="fold", leave=False, disable=None))
    validated = found[: len(rounds) - len(official)]
    rows = []
    for name in classifiers:
        spread = {
            key: [float(f([one[name][key] for one in validated])) for f in (np.mean, np.std)]
            for key in validated[0][name]
        }
        row = {"features": features.name, "dimensions": features.dimensions, "classifier": name}
        rows.append(row | {"cross_validation": spread} | ({"official": found[-1][name]} if official else {}))
    return rows


def _one_round(features, labels, classifiers, train, held_out) -> dict[str, dict[str, float]]:
    """Fit everything to the training rows, score every classifier on those held out."""
    seen, unseen = features.values[train], features.values[held_out]
    if features.transform is not None:
        transform = clone(features.transform).fit(seen)
        seen, unseen = transform.transform(seen), transform.transform(unseen)
    found = {}
    for name, estimator in classifiers.items():
        model = clone(estimator).fit(seen, labels[train])
        found[name] = scores(labels[held_out], decision(model, unseen), model.predict(unseen))
    return found


class FourViewPCA(TransformerMixin, BaseEstimator):
    """Principal components of the four mirrored views (N, 4, pixels), pooled as the codes are: (N, 2 × components)."""

    def __init__(self, components: int = 32):
        self.components = components

    def fit(self, values, _labels=None):
        """Fit the components to all views of the rows given."""
        self.pca_ = PCA(self.components, svd_solver="covariance_eigh").fit(values.reshape(-1, values.shape[-1]))
        return self

    def transform(self, values):
        """Project each view, then pool."""
        return images.pool(np.stack([self.pca_.transform(values[:, view]) for view in range(values.shape[1])]))

    @property
    def n_components(self):
        """Numbers a galaxy is described by."""
        return 2 * self.components


def _plain(sample: Sample, size: int = 128) -> np.ndarray:
    """Centre crop averaged by two, no pose, no stretch: (N, 4096)."""
    pixels = images.crop(sample.images, size).astype(np.float32)
    return pixels.reshape(len(pixels), size // 2, 2, size // 2, 2).mean((2, 4)).reshape(len(pixels), -1)


def _posed(sample: Sample, recipe: images.Recipe, view: images.Pose = images.Pose()) -> np.ndarray:
    """Prepared images, (N, size²)."""
    return prepared(sample, recipe, view).reshape(len(sample), -1).astype(np.float32)


def _four_views(sample: Sample) -> np.ndarray:
    """Prepared images in their four mirrored views, (N, 4, size²)."""
    return np.stack([_posed(sample, images.Recipe(), view) for view in images.VIEWS], axis=1)


def _fourier(sample: Sample) -> np.ndarray:
    """Radial mean and standard deviation of the log Fourier amplitude in rings one frequency wide, (N, 64)."""
    pixels = _plain(sample).reshape(-1, 64, 64)
    amplitude = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(pixels), axes=(1, 2)))).reshape(len(pixels), -1)
    y, x = np.mgrid[-32:32, -32:32]
    ring = np.minimum(np.hypot(x, y).astype(int), 31).ravel()
    count = np.bincount(ring)
    mean, square = (
        np.stack([np.bincount(ring, row) / count for row in values]) for values in (amplitude, amplitude**2)
    )
    return np.hstack([mean, np.sqrt(np.maximum(square - mean**2, 0))])


PCA_32 = PCA(32, svd_solver="randomized", random_state=SEED)
BASELINES: dict[str, tuple[Callable[[Sample], np.ndarray], object | None]] = {
    "Fourier amplitudes": (_fourier, None),
    "PCA, pixels as they come": (_plain, PCA_32),
    "PCA, posed, 230″": (lambda s: _posed(s, images.Recipe(64, narrowest=230.4, widest=230.4, radius=115.2)), PCA_32),
    "PCA, posed, 115″": (lambda s: _posed(s, images.Recipe(64, narrowest=115.2, widest=115.2)), PCA_32),
    "PCA, posed, 115″ in 32²": (lambda s: _posed(s, images.Recipe(narrowest=115.2, widest=115.2)), PCA_32),
    "PCA, posed, own length": (lambda s: _posed(s, images.Recipe()), PCA_32),
    "PCA, own length, 4 views": (_four_views, FourViewPCA(32)),
}
"""Name to a function of a sample and a transform fitted on training rows."""


def baselines(sample: Sample) -> list[Features]:
    """The features that need no network, of a sample of 1.8″ pixels; grey levels are scaled to 0 … 1."""
    return [
        Features(name, function(sample) / (255 if transform is not None else 1), transform)
        for name, (function, transform) in BASELINES.items()
    ]

"""The classifiers of the comparison, and their predictions on held-out folds.

Everything is fitted on training folds only. This includes scaling, principal components, the hyperparameters of each
classifier (by an inner cross-validation), and the sigmoid that converts a score to a probability (Platt 1999), by
another one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from rgz.progress import progress
from studies.labelled import SEED


def _tuned(estimator: Any, **grid: Any) -> Any:
    return GridSearchCV(estimator, grid, scoring="roc_auc", cv=3)


def _calibrated(estimator: Any) -> Any:
    return CalibratedClassifierCV(estimator, method="sigmoid", cv=3, ensemble=False)


def _components(estimator: Any) -> Any:
    """The classifier on principal components, for density-based classifiers that need fewer features than a code
    has."""
    return make_pipeline(PCA(svd_solver="covariance_eigh"), estimator)


_logistic = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, solver="newton-cholesky"))
_discriminant = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")

CLASSIFIERS: dict[str, Any] = {
    "logistic regression": _calibrated(_tuned(_logistic, logisticregression__C=[0.001, 0.01, 0.1])),
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
"""Name to scikit-learn estimator; hyperparameters are chosen by an inner cross-validation on the training fold."""

BRIEF = {name: CLASSIFIERS[name] for name in ("logistic regression", "k-nearest neighbours", "support vector machine")}
"""The classifiers for baseline features."""


@dataclass(frozen=True)
class Features:
    """One kind of features: values (N, D), and a transform fitted to training rows before a classifier."""

    name: str
    values: NDArray[Any]
    transform: Any = None

    @property
    def dimensions(self) -> int:
        """Number of features of a galaxy that a classifier uses."""
        return int(getattr(self.transform, "n_components", None) or self.values.shape[1])


def predict(
    features: Features,
    labels: NDArray[Any],
    rounds: Sequence[tuple[NDArray[Any], NDArray[Any]]],
    classifiers: dict[str, Any] | None = None,
) -> dict[str, list[NDArray[Any]]]:
    """Probabilities of FRII of held-out rows, by classifiers fitted to the training rows of each round.

    Labels (N,) are 1 for FRII, and ``rounds`` pairs of row numbers, training and held out. The result has for each
    classifier one array per round. Rounds run in parallel inside ``joblib.parallel_config(n_jobs=…)``.
    """
    classifiers = CLASSIFIERS if classifiers is None else classifiers
    done = Parallel(return_as="generator")(delayed(_one_round)(features, labels, classifiers, *rows) for rows in rounds)
    found = list(progress(done, desc=features.name, total=len(rounds), unit="fold"))
    return {name: [one[name] for one in found] for name in classifiers}


def _one_round(
    features: Features, labels: NDArray[Any], classifiers: dict[str, Any], train: NDArray[Any], held_out: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    seen, unseen = features.values[train], features.values[held_out]
    if features.transform is not None:
        transform = clone(features.transform)
        if len(seen) < features.dimensions:  # of few rows there are fewer principal components
            transform.set_params(n_components=len(seen))
        transform.fit(seen)
        seen, unseen = transform.transform(seen), transform.transform(unseen)
    return {name: _probability(clone(one).fit(seen, labels[train]), unseen) for name, one in classifiers.items()}


def _probability(model: Any, values: NDArray[Any]) -> NDArray[Any]:
    """Probability of FRII of each row; for a classifier without probabilities, the logistic function of its decision
    function."""
    if hasattr(model, "predict_proba"):
        return np.asarray(model.predict_proba(values)[:, 1])
    return np.asarray(expit(model.decision_function(values)))

r"""Classes of radio galaxies: the classifier of :func:`rgz.inspect`.

The classifier is a logistic regression on Gaussian kernels between a code and a thousand landmarks, which are codes of
labelled galaxies (Nyström approximation, Williams & Seeger 2001):

.. math:: p(y \mid x) = \mathrm{softmax}_y\Bigl(b_y + \sum_m w_{ym}\, e^{-\lVert x - x_m \rVert^2 / D}\Bigr)

for codes :math:`x` of :math:`D` numbers, each divided by its standard deviation. It is fitted to all labelled samples
of FIRST together and to other observations of the same galaxies (``studies/labelled.py``), so that it holds for
galaxies that are fainter, smaller or less well placed than those of one catalogue. All classes have the same weight,
since nobody knows how frequent they are among the galaxies of a reader.

The *set* of a galaxy contains the classes that are not excluded: those with a probability above a threshold. In
cross-validation, nine of ten training galaxies have a probability above this threshold for their true class
(cross-conformal prediction, Vovk 2015). The most probable class is always in the set.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from scipy.special import softmax

from rgz import artifacts
from rgz.errors import as_bad_input

CLASSES = ("FRI", "FRII", "bent", "compact")


@dataclass(frozen=True)
class Classifier:
    """Class probabilities of codes; made by :meth:`from_pretrained`."""

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
        """The classifier ``host``, ``centroid`` or ``coarse``, of the trained network or of another file.

        ``host`` is for images whose middle is the position of the host galaxy; ``centroid`` does not depend on the
        middle; ``coarse`` is for images with the resolution of NVSS.
        """
        path = artifacts.artifact("classifier.safetensors") if path is None else path
        with as_bad_input(f"{path} holds no classifiers for these codes", "make it with rgz study codes"):
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

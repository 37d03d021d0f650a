"""Metrics in which codes are compared: unscaled, standardised, or invariant (within-class whitening)."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import block_diag

from rgz.errors import BadInput

FLOOR = 0.003
"""Added to the covariance of changes, in units of its mean variance. It was chosen by how many other observations of
training sources find their source, in a metric from other sources."""


@dataclass(frozen=True)
class Metric:
    """A linear map of codes, followed by a comparison by angle or by Euclidean distance.

    With ``cosine`` each of the ``parts`` of a vector, which have the same number of components, is scaled to the same
    length, and the vector to unit length. The cosine of two vectors is then the mean of those of their parts.
    """

    centre: NDArray[Any]  # subtracted from a code, (D,)
    matrix: NDArray[Any]  # by which it is then multiplied, (D, K)
    cosine: bool  # whether angles are compared
    parts: int = 1

    def transform(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Codes (N, D) mapped to (N, K); raises :class:`rgz.errors.BadInput` for a wrong length or non-finite codes."""
        codes = np.asarray(codes, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != len(self.centre):
            raise BadInput(f"codes here have shape (N, {len(self.centre)}); these have {codes.shape}")
        if not np.isfinite(codes).all():
            raise BadInput("codes to compare must be finite, but these are not: check the images they come from")
        vectors: NDArray[np.float32] = (codes - self.centre.astype(np.float32)) @ self.matrix.astype(np.float32)
        if self.cosine:
            parts = vectors.reshape(len(vectors), self.parts, vectors.shape[1] // self.parts)
            length = np.linalg.norm(parts, axis=2, keepdims=True) * np.sqrt(np.float32(self.parts))
            vectors = (parts / np.maximum(length, np.finfo(np.float32).tiny)).reshape(vectors.shape)
        return vectors

    @property
    def about_centroid(self) -> "Metric":
        """The same metric for the second half of a code, or for all of it if it has fewer than four parts."""
        if self.parts < 4:
            return self
        numbers, half = (size // 2 for size in self.matrix.shape)  # parts are mapped one by one
        matrix = self.matrix[numbers:, half:]
        return replace(self, centre=self.centre[numbers:], matrix=matrix, parts=self.parts // 2)


def plain(codes: NDArray[Any], cosine: bool = True) -> Metric:
    """Codes (N, D) unscaled, with their mean subtracted."""
    return Metric(codes.mean(axis=0), np.eye(codes.shape[1]), cosine)


def whitened(codes: NDArray[Any], cosine: bool = True) -> Metric:
    """Codes (N, D) standardised: mean subtracted, each column divided by its standard deviation."""
    spread = codes.std(axis=0)
    return Metric(codes.mean(axis=0), np.diag(1 / np.where(spread > 0, spread, 1)), cosine)


def invariant(codes: NDArray[Any], changes: NDArray[Any], parts: int = 1) -> Metric:
    r"""Within-class whitening: directions in which perturbations change a galaxy count less.

    Codes are standardised first. Let :math:`S_w` be the covariance of the changes. Standardised codes are multiplied by
    :math:`(S_w + \epsilon)^{-1/2}`, as in linear discriminant analysis with each galaxy as its own class (Fisher 1936,
    doi:10.1111/j.1469-1809.1936.tb02137.x); :math:`\epsilon` is :data:`FLOOR`.

    ``codes`` (N, D) are those of many galaxies, and ``changes`` (M, D) those of perturbed images minus those of the
    images. Each of the ``parts`` of a code, which have the same length, is whitened by itself.
    """
    if codes.shape[1] % parts:
        raise BadInput(f"codes of {codes.shape[1]} numbers do not have {parts} parts of equal length")
    whole = whitened(codes)
    each = np.split((changes - changes.mean(axis=0)) @ whole.matrix, parts, axis=1)
    return Metric(whole.centre, whole.matrix @ block_diag(*map(_whitening, each)), True, parts)


def _whitening(changes: NDArray[Any]) -> NDArray[Any]:
    """The symmetric matrix (D, D) that makes the covariance of changes (M, D) nearly the identity."""
    within = np.atleast_2d(np.cov(changes.T))
    if not np.trace(within) > 0:
        raise BadInput(
            "the changes of a part of the codes are all the same, or not finite: no metric can be fitted to them"
        )
    within = within / np.trace(within) * len(within) + FLOOR * np.eye(len(within))
    values, vectors = np.linalg.eigh(within)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)

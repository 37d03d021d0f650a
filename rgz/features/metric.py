"""Metrics in which codes are compared: a linear map, and an angle or a distance."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgz.errors import BadInput


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

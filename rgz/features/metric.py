"""How codes are compared."""

from dataclasses import dataclass

import numpy as np

from rgz.errors import BadInput

__all__ = ["Metric", "invariant", "plain", "whitened"]


@dataclass(frozen=True)
class Metric:
    """Where codes are compared: made by :func:`plain`, :func:`whitened`, :func:`invariant`,
    :func:`rgz.features.descriptors.space` or, of images, :func:`rgz.features.descriptors.principal`.

    Parameters
    ----------
    centre
        What is subtracted from a code, (D,).
    matrix
        What it is then multiplied by, (D, K).
    cosine
        Whether vectors are brought to unit length, so that angles are compared.
    """

    centre: np.ndarray
    matrix: np.ndarray
    cosine: bool

    def transform(self, codes: np.ndarray) -> np.ndarray:
        """Codes (N, D) as they are compared, (N, K) float32.

        Raises
        ------
        BadInput
            They have another length than the space is for, or are not finite.
        """
        codes = np.asarray(codes, dtype=np.float32)
        if codes.ndim != 2 or codes.shape[1] != len(self.centre):
            raise BadInput(f"codes here have shape (N, {len(self.centre)}); these have {codes.shape}")
        if not np.isfinite(codes).all():
            raise BadInput(
                "codes that are compared have to be finite; one here is not: look at the image it comes from"
            )
        vectors = (codes - self.centre.astype(np.float32)) @ self.matrix.astype(np.float32)
        if self.cosine:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return vectors


def plain(codes: np.ndarray, cosine: bool = True) -> Metric:
    """Codes (N, D) as they are, about their mean."""
    return Metric(codes.mean(axis=0), np.eye(codes.shape[1]), cosine)


def whitened(codes: np.ndarray, cosine: bool = True) -> Metric:
    """Each number of codes (N, D) divided by its standard deviation."""
    spread = codes.std(axis=0)
    return Metric(codes.mean(axis=0), np.diag(1 / np.where(spread > 0, spread, 1)), cosine)


def invariant(
    codes: np.ndarray, changes: np.ndarray, kept: int = 64, floor: float = 0.3, cosine: bool = True
) -> Metric:
    r"""The directions in which galaxies differ most, measured by how much each changes while the galaxy stays the same.

    With the covariance :math:`S_w` of the changes and that of the codes, :math:`S_t`, both of whitened codes, the directions are
    the ``kept`` first solutions of :math:`S_t v = \lambda\,(S_w + \epsilon) v`: Fisher's discriminants with each galaxy a class
    of its own (Fisher 1936, doi:10.1111/j.1469-1809.1936.tb02137.x).

    Parameters
    ----------
    codes
        Codes of many galaxies, (N, D).
    changes
        Codes of altered images minus codes of the images, (M, D).
    floor
        :math:`\epsilon`, in units of the mean variance of the changes.
    """
    whole = whitened(codes, cosine)
    ones = np.diagonal(whole.matrix)
    within = np.cov(((changes - changes.mean(axis=0)) * ones).T)
    within = within / np.trace(within) * len(within) + floor * np.eye(len(within))
    values, vectors = np.linalg.eigh(within)
    flat = ones[:, None] * (vectors / np.sqrt(values)) @ vectors.T
    spread, directions = np.linalg.eigh(np.cov(((codes - whole.centre) @ flat).T))
    return Metric(whole.centre, flat @ directions[:, np.argsort(-spread)[:kept]], cosine)

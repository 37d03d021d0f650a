"""The codes file: one HDF5 group per sample, with its table and its codes in the same order, and the metric."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from rgz import artifacts
from rgz.data.sample import check_size, read_columns
from rgz.errors import BadInput, as_bad_input
from rgz.features import metric

CODES = ("code", "observed")
SPACE = "space"
"""Group of a codes file with the metric of the search."""


@contextmanager
def _opened(path: Path | None) -> Iterator[h5py.File]:
    """A codes file, by default that of the repository; any error while reading it becomes a :class:`BadInput`."""
    path = artifacts.artifact("codes.h5") if path is None else path
    problem = as_bad_input(f"{path} is not a readable codes file", "make it again with rgz study codes")
    with problem, h5py.File(path, "r") as file:
        check_size(file)
        yield file


def chosen(path: Path | None = None) -> NDArray[np.intp]:
    """Indices of the latents in a code, (D,)."""
    with _opened(path) as file:
        latents = np.asarray(file.attrs["latents"])
        if latents.ndim != 1 or latents.dtype.kind not in "iu" or latents.min() < 0:
            raise ValueError("its latents are no indices")
        return latents.astype(np.intp)


def read_space(path: Path | None = None) -> metric.Metric:
    """The metric in which codes are compared."""
    with _opened(path) as file:
        group = file[SPACE]
        centre, matrix = group["centre"][()], group["matrix"][()]
        cosine, parts = bool(group.attrs["cosine"]), int(group.attrs["parts"])
        whole = matrix.ndim == 2 and centre.shape == matrix.shape[:1] and np.isfinite(matrix).all()
        if not whole or parts < 1 or matrix.shape[1] % parts:
            raise ValueError(f"its metric has {parts} parts, a centre {centre.shape} and a matrix {matrix.shape}")
        return metric.Metric(centre, matrix, cosine, parts)


def read_codes(path: Path | None, name: str) -> tuple[Table, NDArray[Any], dict[str, Any]]:
    """Table, codes (N, D) float32 and attributes of one sample; None is the codes file of the repository.

    Raises :class:`rgz.errors.BadInput` if the file is missing or damaged, or has no such sample.
    """
    with _opened(path) as file:
        known = [group for group in file if "code" in file[group]]
        if name not in known:
            raise BadInput(f"{path} has no codes of {name}: it has {', '.join(known) or 'none'}")
        group = file[name]
        table, code = read_columns(group, [key for key in group if key not in CODES]), group["code"][()]
        if code.ndim != 2 or len(code) != len(table):
            raise ValueError(f"{name} has codes of shape {code.shape} for {len(table)} galaxies")
        return table, code, dict(file.attrs) | dict(group.attrs)


def read_observed(path: Path | None, name: str) -> NDArray[np.float32]:
    """Codes (N, K, D) of K other observations of each galaxy of a sample, NaN where one does not show the source."""
    with _opened(path) as file:
        return np.asarray(file[name]["observed"][()])

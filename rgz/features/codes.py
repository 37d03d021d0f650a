"""The codes file: one HDF5 group per sample, with its table and its codes in the same order."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from rgz import artifacts
from rgz.data.sample import CHECKED, read_columns, write_columns
from rgz.errors import BadInput, first_line
from rgz.features import metric

SPACE, ALONE, BASIS = "space", "space_alone", "basis"
"""Groups of a codes file with the metric of the search, the metric without components, and the principal components."""


def write_codes(
    path: Path,
    groups: dict[str, tuple[Table, dict[str, NDArray[Any]], dict[str, Any]]],
    attributes: dict[str, Any],
    spaces: dict[str, metric.Metric] | None = None,
) -> None:
    """Write codes of several samples, and the metrics in which they are compared, to one HDF5 file.

    Parameters
    ----------
    groups
        Sample name to its table, its codes by variant (``code``, ``code_…``), (N, ·) each, and its attributes. Codes
        are rounded to eleven binary digits, retrieval descriptors to a 16th of their standard deviation, which hardly
        changes a search.
    attributes
        Provenance: strings, numbers and arrays are stored unchanged, anything else as JSON.
    spaces
        The metrics of :func:`read_space`, by name.
    """
    with artifacts.atomic(path) as partial, h5py.File(partial, "w") as file:
        _set_attributes(file, attributes)
        for name, (table, codes, about) in groups.items():
            group = file.create_group(name)
            write_columns(group, table)
            for key, code in codes.items():
                rounded = _stepped(code) if key == "code_compared" else _rounded(code)
                group.create_dataset(key, data=rounded, **CHECKED)
            _set_attributes(group, about)
        for name, space in (spaces or {}).items():
            group = file.create_group(name)
            group.create_dataset("centre", data=space.centre.astype(np.float32), **CHECKED)
            group.create_dataset("matrix", data=_rounded(space.matrix), **CHECKED)
            group.attrs["cosine"] = space.cosine


def _rounded(values: NDArray[Any]) -> NDArray[np.float32]:
    """Single precision, rounded to the eleven binary digits of half precision, which halves the size of the file."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 2**11) / 2**11, exponent), dtype=np.float32)


def _stepped(values: NDArray[Any]) -> NDArray[np.float32]:
    """Columns of (N, D) rounded to steps of at most a 16th of their standard deviation; the file is five times
    smaller."""
    spread = values.std(axis=0)
    step = 2.0 ** np.floor(np.log2(np.where(spread > 0, spread, 1) / 16))
    return np.asarray(np.rint(values / step) * step, dtype=np.float32)


def _set_attributes(place: h5py.Group, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        place.attrs[key] = value if isinstance(value, str | int | float | np.ndarray) else json.dumps(value)


@contextmanager
def _opened(path: Path | None) -> Iterator[h5py.File]:
    """A codes file, by default that of the repository; any error while reading it becomes a :class:`BadInput`."""
    path = artifacts.artifact("codes.h5") if path is None else path
    try:
        with h5py.File(path, "r") as file:
            yield file
    except BadInput:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and more on damaged files
        reason = f"is not a readable codes file ({first_line(error)})"
        raise BadInput(f"{path} {reason}: make it again with rgz encode") from error


def chosen(path: Path | None = None) -> NDArray[np.intp]:
    """Indices of the latents in a code, (D,)."""
    with _opened(path) as file:
        latents: NDArray[np.intp] = file.attrs["latents"]
        return latents


def read_space(name: str, path: Path | None = None) -> metric.Metric:
    """The metric ``SPACE`` or ``ALONE`` of a codes file, or its ``BASIS``."""
    with _opened(path) as file:
        group = file[name]
        return metric.Metric(group["centre"][()], group["matrix"][()], bool(group.attrs["cosine"]))


def read_codes(path: Path | None, name: str, variant: str = "code") -> tuple[Table, NDArray[Any], dict[str, Any]]:
    """Table, codes (N, D) float32 and attributes of one sample; see :func:`read_variants`."""
    table, codes, about = read_variants(path, name, (variant,))
    return table, codes[variant], about


def read_variants(
    path: Path | None, name: str, variants: Sequence[str]
) -> tuple[Table, dict[str, NDArray[Any]], dict[str, Any]]:
    """Table, codes (N, ·) float32 by variant, and attributes of one sample; None is the codes file of the repository.

    Raises
    ------
    BadInput
        The file is missing or damaged, or has no such sample or variant.
    """
    with _opened(path) as file:
        known = [f"{group}/{key}" for group in file for key in file[group] if key.startswith("code")]
        for variant in variants:
            if f"{name}/{variant}" not in known:
                raise BadInput(f"{path} has no {name}/{variant}: it has {', '.join(known) or 'no codes'}")
        group = file[name]
        table = read_columns(group, [key for key in group if not key.startswith("code")])
        return table, {variant: group[variant][()] for variant in variants}, dict(file.attrs) | dict(group.attrs)

"""The codes file: one group a sample, row for row."""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
from astropy.table import Table

from rgz import artifacts
from rgz.data import datasets
from rgz.data.sample import CHECKED, read_columns, write_columns
from rgz.errors import BadInput, first_line
from rgz.features import metric

__all__ = ["chosen", "read_codes", "read_space", "read_variants", "write_codes"]

SPACE, ALONE, BASIS = "space", "space_alone", "basis"
"""Names in a codes file of the space to search in, of the same for codes without components, and of what components are."""


def read_space(name: str, path: Path | None = None) -> metric.Metric:
    """The space ``SPACE`` or ``ALONE`` of a codes file, or its ``BASIS``; the committed one by default.

    Raises
    ------
    BadInput
        The file has none.
    """
    path = artifacts.artifact("codes.h5") if path is None else path
    try:
        with h5py.File(path, "r") as file:
            group = file[name]
            return metric.Metric(group["centre"][()], group["matrix"][()], bool(group.attrs["cosine"]))
    except (OSError, KeyError) as error:
        raise BadInput(f"{path} does not say how its codes are compared: make it again with rgz encode") from error


def chosen(path: Path | None = None) -> np.ndarray:
    """Which latents make the codes of a file, (D,); the committed one by default."""
    return read_codes(artifacts.artifact("codes.h5") if path is None else path, next(iter(datasets.SAMPLES)))[2][
        "latents"
    ]


def write_codes(
    path: Path,
    groups: dict[str, tuple[Table, dict[str, np.ndarray], dict]],
    attributes: dict,
    spaces: dict[str, metric.Metric] | None = None,
):
    """Write codes of several samples to one HDF5 file, and the spaces in which to compare them.

    Parameters
    ----------
    groups
        Sample name to its table, its datasets (``code``, ``code_…``; one row a table row) and its attributes. Codes are
        rounded to eleven binary digits, those compared in a search to a 16th of their spread: it finds the same.
    attributes
        How all were made: strings and numbers as they are, anything else as JSON.
    spaces
        Those of :func:`read_space`, by name.
    """
    with artifacts.atomic(path) as partial, h5py.File(partial, "w") as file:
        _set(file, attributes)
        for name, (table, codes, about) in groups.items():
            group = file.create_group(name)
            write_columns(group, table)
            for key, code in codes.items():
                group.create_dataset(key, data=(_stepped if key == "code_compared" else _rounded)(code), **CHECKED)
            _set(group, about)
        for name, space in (spaces or {}).items():
            group = file.create_group(name)
            group.create_dataset("centre", data=space.centre.astype(np.float32), **CHECKED)
            group.create_dataset("matrix", data=_rounded(space.matrix), **CHECKED)
            group.attrs["cosine"] = space.cosine


def _rounded(values: np.ndarray) -> np.ndarray:
    """Rounded to eleven binary digits, as many as half precision has, kept in single precision: half the file."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 2**11) / 2**11, exponent).astype(np.float32)


def _stepped(values: np.ndarray) -> np.ndarray:
    """Each column of values (N, D) rounded to a power of two, at most a 16th of its spread: a fifth of the file."""
    spread = values.std(axis=0)
    step = 2.0 ** np.floor(np.log2(np.where(spread > 0, spread, 1) / 16))
    return (np.rint(values / step) * step).astype(np.float32)


def _set(place, attributes):
    for key, value in attributes.items():
        place.attrs[key] = value if isinstance(value, str | int | float | np.ndarray) else json.dumps(value)


def read_codes(path: Path, name: str, variant: str = "code") -> tuple[Table, np.ndarray, dict]:
    """Table, codes (N, D) float32 and attributes of one sample in a codes file; raises as :func:`read_variants` does."""
    table, codes, about = read_variants(path, name, (variant,))
    return table, codes[variant], about


def read_variants(path: Path, name: str, variants: Sequence[str]) -> tuple[Table, dict[str, np.ndarray], dict]:
    """Table, several codes (N, ·) float32 by their names, and attributes of one sample in a codes file.

    Raises
    ------
    BadInput
        The file is missing or damaged, or has no such sample or variant.
    """
    try:
        with h5py.File(path, "r") as file:
            for variant in variants:
                if name not in file or variant not in file[name]:
                    known = [f"{group}/{key}" for group in file for key in file[group] if key.startswith("code")]
                    raise BadInput(f"{path} has no {name}/{variant}: it has {', '.join(known) or 'no codes'}")
            group = file[name]
            table = read_columns(group, [key for key in group if not key.startswith("code")])
            return table, {variant: group[variant][()] for variant in variants}, dict(file.attrs) | dict(group.attrs)
    except BadInput:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and more on damaged files
        raise BadInput(
            f"{path} is not a readable codes file ({first_line(error)}): make it again with rgz encode"
        ) from error

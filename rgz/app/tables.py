"""Tables of files and positions as input of ``rgz look``, and its results as a file."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table
from numpy.typing import NDArray

from rgz import artifacts
from rgz.data import archives
from rgz.errors import BadInput, as_bad_input
from rgz.tasks import search

__all__ = ["LINES", "Item", "coded", "codes", "items", "numbers", "results", "saved", "scores", "written"]

LINES = ".jsonl", ".json"
FILE = "file", "filename", "path"
Item = tuple[Path | None, tuple[str, str] | None]  # an image, and RA and Dec of the host galaxy; not both are None


def written(path: Path, form: str | None) -> str:
    """Ending that stands for the format of a file of results: ``form`` without its dot, or that of the name."""
    ending = f".{form}" if form else path.suffix.lower()
    if ending not in LINES:
        search.ending(path.with_suffix(ending))
    return ending


def items(path: Path, alone: bool = True) -> list[Item] | None:
    """Files and positions that a table lists; None if ``path`` is no table.

    Columns are found by name, in any case: ``file``, ``filename`` or ``path``, and ``ra`` and ``dec``, in degrees, in
    the unit of the column, or as text. Files are looked for beside the table. A FITS file is a table if it is
    ``alone`` and has no image. Raises :class:`BadInput` if the table is damaged or has none of these columns.
    """
    form = search.FORMATS.get(path.suffix.lower())
    if form is None or not path.is_file() or (form == "fits" and (not alone or _has_image(path))):
        return None
    with as_bad_input(f"{path} is not a readable table", "save it as CSV, ECSV, VOTable, FITS or Parquet"):
        table = _table(path, form)
        table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
        known = [_text(table[name]) if name in table.colnames else [""] * len(table) for name in ("ra", "dec")]
        file = next((name for name in FILE if name in table.colnames), None)
        files = _text(table[file]) if file else [""] * len(table)
    if file is None and not any(ra and dec for ra, dec in zip(*known, strict=True)):
        raise BadInput(
            f"{path} has the columns {', '.join(table.colnames)}: it needs ra and dec, or file, or all three"
        )
    rows = zip(files, *known, strict=True)
    return [(path.parent / one if one else None, (ra, dec) if ra or dec else None) for one, ra, dec in rows]


def _table(path: Path, form: str) -> Table:
    """The table in a file; raises ValueError for a FITS header of more columns than the standard allows."""
    if form == "fits":
        with path.open("rb") as stream:
            archives.open_fits(stream)
    return Table.read(path, format=form)


def _has_image(path: Path) -> bool:
    """Whether a FITS file has an image; True if it cannot be read, which is then said of the image."""
    try:
        problem = as_bad_input(f"{path} is damaged", "fetch it again")
        with problem, path.open("rb") as stream, archives.open_fits(stream) as units:
            return any(unit.is_image and len(unit.shape) > 1 for unit in units)
    except BadInput:
        return True


def _text(column: Column) -> list[str]:
    """The values as text, empty where there is none; angles in degrees."""
    if column.dtype.kind in "iuf" and column.unit not in (None, u.deg):
        column = MaskedColumn(column.quantity.to_value(u.deg), mask=getattr(column, "mask", False))
    values = (value.decode() if isinstance(value, bytes) else str(value) for value in column.tolist())
    return ["" if value in ("None", "nan") else value.strip() for value in values]


@contextmanager
def saved(path: Path | None, form: str | None) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that takes results one by one; ``path`` then has them all, as JSON lines or as a table.

    In a table, probabilities and numbers of codes are columns, and lists are text. Raises :class:`BadInput` if the file
    cannot be written.
    """
    if path is None:
        yield lambda row: None
    elif (ending := written(path, form)) in LINES:
        with artifacts.atomic(path) as partial, partial.open("w", encoding="utf-8") as stream:
            yield lambda row: print(json.dumps(row, ensure_ascii=False), file=stream)
    else:
        rows: list[dict[str, Any]] = []
        yield lambda row: rows.append(_flat(row))
        search.write(Table(rows), path, search.FORMATS[ending])


def coded(path: Path) -> Table:
    """The results in a file, one row a galaxy, with the numbers of its code as columns ``code_000`` and so on.

    Raises :class:`BadInput` if the file is damaged or has no codes.
    """
    with as_bad_input(f"{path} has no results with codes", "make it with rgz look FILES --output FILE --codes"):
        if path.suffix.lower() in LINES:
            table = Table([_flat(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()])
        else:
            table = _table(path, search.ending(path))
        table = table[np.asarray(table["status"]).astype(str) != "refused"]
        if not np.isfinite(numbers(table, *codes(table))).all():
            raise ValueError("it has no codes")
        return table


def codes(table: Table) -> list[str]:
    """Names of the columns of the code."""
    return [name for name in table.colnames if name.startswith("code_")]


def numbers(table: Table, *names: str) -> NDArray[np.float64]:
    """Columns of a table as numbers, (N, columns), NaN where unknown."""
    return np.stack([np.ma.filled(np.ma.asarray(table[name], float), np.nan) for name in names], axis=1)


def results(path: Path) -> tuple[NDArray[np.str_], NDArray[np.float64], NDArray[np.float64]]:
    """Files (N,), codes (N, D) and plain numbers (N, 3), as of :mod:`rgz.tasks.rank`, of :func:`coded` results."""
    table = coded(path)
    with as_bad_input(f"{path} has no results with codes", "make it with rgz look FILES --output FILE --codes"):
        plain = numbers(table, "area_over_point", "peak_over_noise", "log_likelihood_nats")
        plain[:, 2] = np.nan_to_num(plain[:, 2], nan=-np.inf)
        return np.asarray(table["file"]).astype(str), numbers(table, *codes(table)), plain


def scores(path: Path, files: NDArray[np.str_]) -> NDArray[np.float64]:
    """Scores (N,) of files (N,) from a table with the columns ``file`` and ``score``; NaN where it has none.

    Raises :class:`BadInput` if the table is damaged, or scores no file or another one.
    """
    with as_bad_input(f"{path} is not a table of scores", "give it the columns file and score, a number"):
        table = _table(path, search.ending(path))
        given = dict(zip(_text(table["file"]), map(float, _text(table["score"])), strict=True))
    if unknown := sorted(set(given) - set(files)):
        raise BadInput(f"{path} scores {unknown[0]}, which is not among the results: name files as they do")
    return np.array([given.get(file, np.nan) for file in files])


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """The known values of a result, as text and numbers."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= {f"{key}_{name}": one for name, one in value.items()}
        elif key == "code":
            found |= {f"code_{number:03d}": one for number, one in enumerate(value)}
        elif isinstance(value, list):
            found[key] = "; ".join(one["name"] if isinstance(one, dict) else one for one in value)
        else:
            found[key] = value
    return {key: value for key, value in found.items() if value is not None}

"""Tables of files and positions as input of ``rgz look``, and its results as a file."""

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.table import Column, MaskedColumn, Table
from astropy.utils.xml.iterparser import get_xml_iterator
from numpy.typing import NDArray

from rgz import artifacts
from rgz.data import archives
from rgz.errors import BadInput, as_bad_input

try:
    import fcntl
except ImportError:  # on Windows, where two processes that write one file are not told apart
    fcntl = None  # type: ignore[assignment]

__all__ = [
    "FILE",
    "FORMATS",
    "IDS",
    "Item",
    "catalogue",
    "coded",
    "ending",
    "items",
    "numbers",
    "saved",
    "scores",
    "text",
    "write",
]

FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv", ".vot": "votable", ".xml": "votable", ".parquet": "parquet"}
FORMATS |= {".fits": "fits"}
"""Ending of a file name to the format of a table."""
LINES = ".jsonl", ".json"
IDS = "id", "name", "source_id", "source_name"
FILE = "file", "filename", "path"
PLACES = {"raj2000": "ra", "_raj2000": "ra", "ra_icrs": "ra", "ra_deg": "ra"}  # as catalogues name positions
PLACES |= {name.replace("ra", "de"): "dec" for name in PLACES} | {"dec_deg": "dec"}
PACKED = b"\x1f\x8b", b"\x1f\x9d", b"BZh", b"\xfd7zXZ"  # which astropy would unpack, to any size
LARGEST = 1 << 26  # values in a Parquet file, if it has fewer bytes than values
NUMBERS = "ra", "dec", "area_over_point", "peak_over_noise", "anomaly_percentile", "log_likelihood_nats"  # of results
Item = tuple[Path | None, tuple[str, str] | None]  # an image, and RA and Dec of the host galaxy; not both are None


def ending(path: Path, lines: bool = False) -> str:
    """The format in which a table is read from, or written to, a file of this name; of results, also ``json`` lines.

    Raises :class:`BadInput` if its ending is not in :data:`FORMATS`, or it is Parquet and pyarrow is not installed.
    """
    form = "json" if lines and path.suffix.lower() in LINES else FORMATS.get(path.suffix.lower())
    if form is None:
        raise BadInput(f"{path}: the name of a table ends in {', '.join(FORMATS)}; choose one of these endings")
    if form == "parquet" and find_spec("pyarrow") is None:
        raise BadInput(f"{path}: Parquet needs pyarrow: pip install pyarrow, or write .vot or .csv")
    return form


def write(table: Table, path: Path) -> None:
    """Write a table to a file, atomically, in the format of its :func:`ending`."""
    form = ending(path)
    if form == "fits":  # which has ASCII alone
        for name in [one for one in table.colnames if table[one].dtype.kind == "U"]:
            plain = [str(one).replace("″", '"').encode("ascii", "replace") for one in table[name].tolist()]
            table[name] = MaskedColumn(plain, mask=getattr(table[name], "mask", False))
    with artifacts.atomic(path) as partial:
        table.write(partial, format=form, overwrite=True)


def items(path: Path, alone: bool = True) -> list[Item] | None:
    """Files and positions that a table lists; None if ``path`` is no table.

    Columns are found by name, in any case: ``file``, ``filename`` or ``path``, and ``ra`` and ``dec`` (or names such as
    ``RAJ2000``), in degrees, in the unit of the column, or as text. Files are looked for beside the table. A FITS file
    is a table if it is ``alone`` and has no image. Raises :class:`BadInput` if the table is damaged or has none of
    these columns.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None or not path.is_file() or (form == "fits" and (not alone or _has_image(path))):
        return None
    with as_bad_input(f"{path} is not a readable table", "save it as CSV, ECSV, VOTable, FITS or Parquet"):
        table = catalogue(path, form)
        known = [text(table[name]) if name in table.colnames else [""] * len(table) for name in ("ra", "dec")]
        file = next((name for name in FILE if name in table.colnames), None)
        files = text(table[file]) if file else [""] * len(table)
    if file is None and not any(ra and dec for ra, dec in zip(*known, strict=True)):
        raise BadInput(
            f"{path} has the columns {', '.join(table.colnames)}: it needs ra and dec, or file, or all three"
        )
    if not len(table):
        raise BadInput(f"{path} has no rows: give a table of files or positions")
    rows = zip(files, *known, strict=True)
    return [(path.parent / one if one else None, (ra, dec) if ra or dec else None) for one, ra, dec in rows]


def catalogue(path: Path, form: str) -> Table:
    """The table in a file, with the names of its columns in lower case.

    Raises ValueError if it takes more memory than the file has bytes, or reads other files.
    """
    with path.open("rb") as stream:
        if not (start := stream.read(6)):
            raise ValueError("it is empty")
        if start.startswith(PACKED):
            raise ValueError("it is compressed: unpack it first")
        stream.seek(0)
        if form == "fits":
            archives.open_fits(stream)
    if form == "parquet":
        from pyarrow import parquet

        known = parquet.read_metadata(path)
        if known.num_rows * known.num_columns > max(LARGEST, path.stat().st_size):
            raise ValueError(f"it claims {known.num_rows} rows of {known.num_columns} columns")
    if form == "votable":
        with get_xml_iterator(str(path)) as events:
            if any(start and tag == "STREAM" and "href" in found for start, tag, found, _ in events):
                raise ValueError("its data are in another file, which is not read")
    options: dict[str, Any] = {"encoding": "utf-8-sig"} if form.startswith("ascii") else {}  # Excel begins with a mark
    if form == "ascii.csv":  # where 1E5 and 007 can be names
        patterns = ["".join(f"[{one}{one.upper()}]" for one in name) for name in (*IDS, *FILE)]
        options["converters"] = dict.fromkeys(patterns, str)
    table = Table.read(path, format=form, **options)
    table.rename_columns(table.colnames, [name.lower() for name in table.colnames])
    for name, place in PLACES.items():
        if name in table.colnames and place not in table.colnames:
            table.rename_column(name, place)
    for column in table.itercols():
        if str(getattr(column, "unit", "")).lower() in ("degrees", "degree", "deg"):  # as some catalogues write it
            column.unit = u.deg
    return table


def _has_image(path: Path) -> bool:
    """Whether a FITS file has an image, or has no table, or cannot be read, which is then said of the image."""
    try:
        problem = as_bad_input(f"{path} is damaged", "fetch it again")
        with problem, path.open("rb") as stream:
            if stream.read(6).startswith(PACKED):
                return True
            stream.seek(0)
            units = archives.open_fits(stream)
            tables = any(unit.header.get("XTENSION") in ("TABLE", "BINTABLE") for unit in units)
            return not tables or any(unit.is_image and len(unit.shape) > 1 for unit in units)
    except BadInput:
        return True


def text(column: Column) -> list[str]:
    """The values as text, empty where there is none; angles in degrees."""
    if column.dtype.kind in "iuf" and column.unit not in (None, u.deg):
        column = MaskedColumn(column.quantity.to_value(u.deg), mask=getattr(column, "mask", False))
    values = (value.decode() if isinstance(value, bytes) else str(value) for value in column.tolist())
    return ["" if value in ("None", "nan") else value.strip() for value in values]


@contextmanager
def saved(
    path: Path | None, request: Any = ""
) -> Iterator[tuple[list[dict[str, Any]], Callable[[dict[str, Any]], None]]]:
    """The results that an interrupted run of the same ``request`` left, and a function that takes further ones.

    ``path`` then has all of them, as JSON lines or as a table; until then they are in a file beside it, line by line.
    In a table, probabilities and numbers of codes are columns, and lists are text. Raises :class:`BadInput` if the file
    cannot be written, or another process writes the same one.
    """
    if path is None:
        yield [], lambda row: None
        return
    form = ending(path, lines=True)
    unfinished = path.with_name(f"{path.name}.{hashlib.sha256(repr(request).encode()).hexdigest()[:12]}.unfinished")
    if path.exists():
        print(f"{path} will be replaced", file=sys.stderr)
    with _opened(unfinished, path) as stream:
        rows = _whole(stream)
        if rows:
            print(f"going on after {len(rows)} galaxies of an interrupted run", file=sys.stderr)

        def save(row: dict[str, Any]) -> None:
            line = json.dumps(row, ensure_ascii=False).encode() + b"\n"
            while line:  # a full disk takes a part, and then raises
                line = line[stream.write(line) :]

        try:
            yield rows, save
        except BadInput:
            unfinished.unlink()
            raise
        if form == "json":
            with artifacts.atomic(path) as copy:
                shutil.copyfile(unfinished, copy)
        else:
            write(Table([_flat(row) for row in _whole(stream)]), path)
    unfinished.unlink(missing_ok=True)


def _opened(unfinished: Path, path: Path) -> FileIO:
    """The file of incomplete results, locked while this process runs."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        stream = unfinished.open("a+b", buffering=0)
    except OSError as error:
        raise BadInput(f"cannot write {path} ({error.strerror or error}): choose another folder") from error
    try:
        if fcntl is not None:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        stream.close()
        raise BadInput(f"{path} is being written by another process: wait for it, or choose another name") from error
    return stream


def _whole(stream: FileIO) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; an incomplete line at its end is cut off."""
    stream.seek(0)
    data = stream.read()
    stream.truncate(data.rfind(b"\n") + 1)
    with as_bad_input(f"{stream.name} is damaged", "remove it"):
        return [json.loads(line) for line in data[: data.rfind(b"\n") + 1].splitlines()]


def coded(path: Path) -> tuple[Table, NDArray[np.float64]]:
    """The results in a file: one row a galaxy that was not refused, and their codes (N, D).

    The table has at least the columns ``file``, ``class`` (empty if there is none) and ``NUMBERS`` (NaN where
    unknown). Raises :class:`BadInput` if the file is damaged or has no codes.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist: make it with rgz look FILES --output {path} --codes")
    with as_bad_input(f"{path} has no results with codes", "make it with rgz look FILES --output FILE --codes"):
        if path.suffix.lower() in LINES:
            table = Table([_flat(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()])
        else:
            table = catalogue(path, ending(path))
        if missing := {"file", "status"} - set(table.colnames):
            raise ValueError(f"it has no {' and no '.join(sorted(missing))}")
        table = table[np.asarray(table["status"]).astype(str) != "refused"]
        code = [name for name in table.colnames if name.startswith("code_")]
        if not code or not np.isfinite(codes := numbers(table, *code)).all():
            raise ValueError("it has no codes")
        found = Table({"class": [""] * len(table)} | dict.fromkeys(NUMBERS, [np.nan] * len(table)))
        for name in {"file", "class"} & set(table.colnames):
            found[name] = np.ma.filled(table[name].astype(str), "")
        for name in set(NUMBERS) & set(table.colnames):
            found[name] = numbers(table, name)[:, 0]
        return found, codes


def numbers(table: Table, *names: str) -> NDArray[np.float64]:
    """Columns of a table as numbers, (N, columns), NaN where unknown."""
    return np.stack([np.ma.filled(np.ma.asarray(table[name], float), np.nan) for name in names], axis=1)


def scores(path: Path, files: NDArray[np.str_]) -> NDArray[np.float64]:
    """Scores (N,) of files (N,) from a table with the columns ``file`` and ``score``; NaN where it has none.

    Raises :class:`BadInput` if the table is damaged, or scores no file or another one.
    """
    with as_bad_input(f"{path} is not a table of scores", "give it the columns file and score, a number"):
        table = catalogue(path, ending(path))
        given = dict(zip(text(table["file"]), map(float, text(table["score"])), strict=True))
    if unknown := sorted(set(given) - set(files)):
        raise BadInput(
            f"{path} scores {unknown[0]}, which is not among the results: name files as they do ({files[0]})"
        )
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

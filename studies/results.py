"""The results: one tidy CSV file per table, one row per measurement, read with pandas.

The first line of a file is a comment with the version of rgz and the files from which the numbers were computed.
"""

import signal
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pandas as pd

import rgz
from rgz import artifacts
from rgz.errors import BadInput, first_line

FOLDER = Path(__file__).resolve().parents[1] / "results"
INTERVAL = ("value", "low", "high")
Row = dict[str, Any]


def tidy(about: Row, measured: Mapping[str, Sequence[float]], columns: Sequence[str] = INTERVAL) -> list[Row]:
    """One row per metric: ``about``, the metric's name, and its values under the names ``columns``.

    >>> tidy({"n": 3}, {"accuracy": [0.8, 0.1]}, ("value", "spread"))
    [{'n': 3, 'metric': 'accuracy', 'value': 0.8, 'spread': 0.1}]
    """
    return [
        about | {"metric": metric} | dict(zip(columns, numbers, strict=True)) for metric, numbers in measured.items()
    ]


def write(name: str, rows: pd.DataFrame | Iterable[Row], inputs: Iterable[Path] = ()) -> None:
    """Write rows to ``results/NAME.csv`` with four decimals, atomically; ``inputs`` are the files they come from."""
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    made = ", ".join(f"{path.name} {artifacts.sha256(path)[:12]}" for path in inputs)
    comment = f"# made by rgz {rgz.__version__}" + (f" from {made}" if made else "")
    text = table.convert_dtypes().round(4).to_csv(index=False, lineterminator="\n")
    with artifacts.atomic(FOLDER / f"{name}.csv") as partial:
        partial.write_text(f"{comment}\n{text}", encoding="utf-8")


def append(name: str, row: Row) -> None:
    """Add a row to ``results/NAME.csv``, which is created if missing; a new column is empty in older rows."""
    known = [read(name)] if (FOLDER / f"{name}.csv").exists() else []
    write(name, pd.concat([*known, pd.DataFrame([row])]))


def read(name: str) -> pd.DataFrame:
    """The table ``results/NAME.csv``; raises :class:`rgz.errors.BadInput` if it is missing or damaged."""
    path = FOLDER / f"{name}.csv"
    try:
        text = path.read_text(encoding="utf-8")
        if not text.endswith("\n"):
            raise ValueError("its last line is incomplete")
        first, _, rest = text.partition("\n")
        table = pd.read_csv(StringIO(rest if first.startswith("#") else text))
        if "\0" in text or len(table.columns) < 2:
            raise ValueError("it has no columns")
        return table
    except (OSError, ValueError) as error:
        raise BadInput(
            f"{path} is not a table of results ({first_line(error)}): restore it with git, or delete it and run doit"
        ) from error


def run(main: Callable[[], None]) -> None:
    """Run a study as a program; an unusable input gives one line on stderr and exit status 1, Ctrl-C 130."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which removes temporary files
    try:
        main()
    except BadInput as error:
        sys.exit(" ".join(str(error).split()))
    except KeyboardInterrupt:
        sys.exit(130)

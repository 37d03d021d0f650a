"""Progress bars for steps that take more than a second; in a log file, one line a bar, written every twenty seconds."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(
    iterable: Iterable[Any] | None = None, desc: str | None = None, total: float | None = None, **options: Any
) -> Any:
    """A tqdm bar, which disappears from a terminal when it is done.

    >>> [2 * n for n in progress(range(3), "doubling", unit="number")]
    [0, 2, 4]
    """
    terminal = sys.stderr.isatty()
    pace = {} if terminal else {"mininterval": 20.0, "maxinterval": 60.0}
    return tqdm(iterable, desc, total, **({"leave": not terminal, "delay": 1.0} | pace | options))


def close() -> None:
    """Close bars that Ctrl-C left open, so that the next message begins a line."""
    for bar in list(getattr(tqdm, "_instances", ())):
        bar.close()

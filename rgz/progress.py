"""Progress bars for steps that take more than a second; in a log file, one line every twenty seconds."""

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

__all__ = ["progress"]


class progress(tqdm):  # type: ignore[misc]  # tqdm has no types
    """A tqdm bar that disappears from a terminal when done, and that prints whole lines elsewhere.

    >>> [2 * n for n in progress(range(3), "doubling", unit="number")]
    [0, 2, 4]
    """

    def __init__(
        self, iterable: Iterable[Any] | None = None, desc: str | None = None, total: float | None = None, **options: Any
    ):
        self.terminal = sys.stderr.isatty()
        pace = {} if self.terminal else {"mininterval": 20.0, "maxinterval": 60.0}
        super().__init__(iterable, desc, total, **({"leave": False, "delay": 1.0} | pace | options))

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Draw the bar, or print it as a line."""
        if self.terminal:
            return bool(super().display(msg, pos))
        if msg is None:
            print(self, file=sys.stderr, flush=True)
        return True

    def close(self) -> None:
        """Remove the bar from the terminal."""
        if not self.terminal and not self.disable:  # type: ignore[has-type]
            self.disable = True  # tqdm would overwrite the last line of a log
            self._decr_instances(self)
        super().close()

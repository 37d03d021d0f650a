"""Progress of whatever takes more than a second: a bar on a terminal, a line every twenty seconds in a log."""

import sys

from tqdm import tqdm

__all__ = ["progress"]


class progress(tqdm):
    """A tqdm bar that leaves nothing behind on a terminal, and that writes whole lines where there is none.

    >>> [2 * n for n in progress(range(3), "doubling", unit="number")]
    [0, 2, 4]
    """

    def __init__(self, iterable=None, desc=None, total=None, **options):
        self.terminal = sys.stderr.isatty()
        pace = {} if self.terminal else {"mininterval": 20.0, "maxinterval": 60.0}
        super().__init__(iterable, desc, total, **({"leave": False, "delay": 1.0} | pace | options))

    def display(self, msg=None, pos=None):
        """Draw the bar, or write it as a line."""
        if self.terminal:
            return super().display(msg, pos)
        if msg is None:
            print(self, file=sys.stderr, flush=True)
        return True

    def close(self):
        """End the bar; in a log there is nothing to wipe away."""
        if not self.terminal and not self.disable:
            self.disable = True
            self._decr_instances(self)
        super().close()

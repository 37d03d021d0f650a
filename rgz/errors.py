"""The error for unusable input: its message says what was expected, what was found, and what to do.

Every problem with an input (a truncated file, an image without a source, a wrong hash) raises :class:`BadInput`. The
command line prints its message in one line and exits with status 1; any other exception is a bug with a traceback.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten


class BadInput(ValueError):
    """An input cannot be used; the message says why and what to do, without characters that cannot be printed."""

    def __init__(self, message: str):
        super().__init__("".join(one if one.isprintable() else " " for one in message))  # files choose some of them


def first_line(error: Exception) -> str:
    """The first line of an exception's message, its words up to 120 characters; its type if it has no message."""
    return shorten((str(error).splitlines() or [type(error).__name__])[0], 120, placeholder=" …").rstrip(".")


@contextmanager
def as_bad_input(problem: str, advice: str) -> Iterator[None]:
    """Turn any exception of the block into a :class:`BadInput` that reads ``problem (reason): advice``.

    Warnings of the libraries that read the file are not shown: what is wrong with it is said in one line, or in a note.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except BadInput:
        raise
    except Exception as error:  # readers of damaged files raise almost anything
        if isinstance(error.__cause__, KeyboardInterrupt):  # Ctrl-C in compiled code, such as the lock of h5py
            raise error.__cause__ from None
        raise BadInput(f"{problem} ({first_line(error)}): {advice}") from error

"""What went wrong, in one line: what was expected, what came, and what to do about it.

Every fault of an input (a file that is cut short, an image without a source, a hash that does not match) is a
:class:`BadInput`. The command line prints its message alone and exits with status 1; anything else is a bug in
``rgz`` and keeps its traceback.
"""

__all__ = ["BadInput", "first_line"]


class BadInput(ValueError):
    """An input cannot be used; the message says why and what would mend it."""


def first_line(error: Exception) -> str:
    """The first line of an exception's message, cut to 120 characters; its type where it has no message."""
    return (str(error).splitlines() or [type(error).__name__])[0][:120]

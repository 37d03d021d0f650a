"""What went wrong, in one line: what was expected, what came, and what to do about it.

Every fault of an input (a file that is cut short, an image without a source, a hash that does not match) is a
:class:`BadInput`. The command line prints its message alone and exits with status 1; anything else is a bug in
:mod:`rgz` and keeps its traceback.
"""

__all__ = ["BadInput"]


class BadInput(ValueError):
    """An input cannot be used; the message says why and what would mend it."""

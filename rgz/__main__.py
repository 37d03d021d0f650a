"""The ``rgz`` command, also ``python -m rgz``: Ctrl-C ends it with one line and status 130, also while it starts."""

import os
import signal
import sys
from types import FrameType

__all__ = ["main"]


def _stop(_signal: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt; during an import, which may swallow or print it, end the process at once."""
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            os.write(2, b"\n" * ("tqdm" in sys.modules) + b"rgz: stopped\n")  # there may be a bar on the line
            os._exit(130)
        frame = frame.f_back
    raise KeyboardInterrupt


def main() -> None:
    """Run the command line."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a job in the background ignores it
        signal.signal(signal.SIGINT, _stop)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # which removes temporary files
    from rgz.app import cli

    try:
        cli.main()
    except SystemExit as ended:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if ended.code != 130:
            raise
        os._exit(130)  # at once, without waiting for a thread that reads or downloads


if __name__ == "__main__":
    main()

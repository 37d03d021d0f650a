"""How a file came to be: versions, commit, and whatever its maker adds; everything as plain JSON values."""

import platform
import subprocess
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path

import rgz

__all__ = ["describe"]


def describe(**further) -> dict:
    """Versions of rgz, Python, torch and numpy, the commit of the working tree, and ``further`` entries."""
    about = {
        "rgz": rgz.__version__,
        "python": platform.python_version(),
        "torch": version("torch"),
        "numpy": version("numpy"),
        "commit": _commit(),
    }
    return about | {key: asdict(value) if is_dataclass(value) else value for key, value in further.items()}


def _commit() -> str:
    """Short hash of the commit that the code is at, ``-dirty`` where it was changed, or ``unknown`` outside a clone."""
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"

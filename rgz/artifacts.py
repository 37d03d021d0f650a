"""Where things live: public data, the download cache, what training made.

Each place has one environment variable that moves it, so that a cluster, a container or a class room can put it
where there is room.

======================  ==========================================================  =====================
variable                what is there                                               default
======================  ==========================================================  =====================
``RGZ_DATA_MIRROR``     a folder that already holds the public archives             none
``RGZ_CACHE``           archives downloaded by ``rgz data fetch``                   the user's cache folder
``RGZ_ARTIFACTS``       weights, codes and results                                  ``artifacts/`` here
======================  ==========================================================  =====================
"""

import hashlib
import os
import platform
import subprocess
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from importlib.metadata import version
from pathlib import Path

import platformdirs

import rgz
from rgz.errors import BadInput

__all__ = ["artifact", "artifacts", "atomic", "cache", "describe", "mirror", "sha256"]


def mirror() -> Path | None:
    """The folder named by ``RGZ_DATA_MIRROR``, or None when it is unset.

    Raises
    ------
    BadInput
        The variable names a folder that does not exist.
    """
    named = os.environ.get("RGZ_DATA_MIRROR")
    if not named:
        return None
    folder = Path(named).expanduser()
    if not folder.is_dir():
        raise BadInput(f"RGZ_DATA_MIRROR is {named!r}, which is not a folder: unset it, or name the folder of archives")
    return folder


def cache() -> Path:
    """The folder that downloads go to; it need not exist yet."""
    return Path(os.environ.get("RGZ_CACHE") or platformdirs.user_cache_dir("rgz"))


def artifacts() -> Path:
    """The folder of weights, codes and results; it need not exist yet."""
    return Path(os.environ.get("RGZ_ARTIFACTS") or Path(__file__).resolve().parents[1] / "artifacts")


def artifact(name: str) -> Path:
    """Path of one existing artifact, such as ``"codes.h5"``.

    Raises
    ------
    BadInput
        It is not there: the package was installed without the repository around it.
    """
    path = artifacts() / name
    if not path.is_file():
        raise BadInput(f"{path} is missing: run from a clone of the repository, or set RGZ_ARTIFACTS to its artifacts/")
    return path


@contextmanager
def atomic(path: Path):
    """Give a temporary name beside ``path`` to write to; rename it to ``path`` only when all went well.

    A reader never sees half a file, and a failed write leaves the older file as it was.

    Raises
    ------
    BadInput
        The folder cannot be written to, or the disk is full.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except OSError as error:
        raise BadInput(
            f"cannot write {path} ({error.strerror or error}): free some space or choose another folder"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


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


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

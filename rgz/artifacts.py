"""Paths of files: public data, the download cache, trained weights and codes.

Each folder can be moved by an environment variable.

======================  ==========================================================  =======================
variable                folder of                                                   default
======================  ==========================================================  =======================
``RGZ_DATA_MIRROR``     public archives that are already on this machine            none
``RGZ_CACHE``           archives downloaded by ``rgz data fetch``                   the user's cache folder
``RGZ_ARTIFACTS``       weights and codes, all made from one network                ``artifacts/`` of the clone,
                                                                                    else the installed package
======================  ==========================================================  =======================
"""

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from glob import escape
from importlib.metadata import version
from pathlib import Path
from typing import Any

import rgz
from rgz.errors import BadInput


def mirror() -> Path | None:
    """The folder named by ``RGZ_DATA_MIRROR``, or None if it is unset; raises :class:`BadInput` if it is no folder."""
    named = os.environ.get("RGZ_DATA_MIRROR", "")
    if named and not Path(named).expanduser().is_dir():
        raise BadInput(f"RGZ_DATA_MIRROR is {named!r}, which is not a folder: unset it, or name the folder of archives")
    return Path(named).expanduser() if named else None


def cache() -> Path:
    """The folder that downloads go to; it need not exist yet."""
    import pooch  # its import takes a tenth of a second

    return Path(os.environ.get("RGZ_CACHE") or pooch.os_cache("rgz"))


def clone() -> Path | None:
    """Root of the clone of the repository that this code is run from, or None for an installed package."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "dodo.py").is_file() else None


def artifacts() -> Path:
    """The folder that weights and codes are written to; it need not exist yet."""
    return Path(os.environ.get("RGZ_ARTIFACTS") or (clone() or Path()) / "artifacts")


def artifact(name: str) -> Path:
    """Path of trained weights or codes, such as ``"codes.h5"``; files of different folders are never mixed.

    Raises :class:`BadInput` if the folder has no such file.
    """
    own = os.environ.get("RGZ_ARTIFACTS") or clone()
    path = (artifacts() if own else Path(__file__).with_name("weights")) / name
    if not path.is_file():
        raise BadInput(f"{path} is missing: set RGZ_ARTIFACTS to a folder that has it, such as the clone's artifacts/")
    return path


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path to write to, renamed to ``path`` only if no error occurs: a file is never incomplete.

    Raises :class:`BadInput` if the folder cannot be written to, or the disk is full.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        sweep(path.parent, f"{escape(path.name)}.*.partial")
        yield partial
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, path)
    except OSError as error:
        reason = f"cannot write {path} ({error.strerror or error})"
        raise BadInput(f"{reason}: free some space or choose another folder") from error
    finally:
        with suppress(OSError):
            partial.unlink()


def sweep(folder: Path, pattern: str) -> None:
    """Remove temporary files of processes that were killed: those that have not changed for an hour."""
    for old in folder.glob(pattern):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > 3600:
                old.unlink()


def describe(**further: Any) -> dict[str, Any]:
    """Versions of rgz, Python, torch and numpy, the hash of the commit of a clone, and ``further`` entries."""
    commit, command = "unknown", ["git", "-C", str(clone()), "describe", "--always", "--dirty", "--exclude=*"]
    with suppress(OSError, subprocess.SubprocessError):
        commit = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    versions = {"python": platform.python_version(), "torch": version("torch"), "numpy": version("numpy")}
    return {"rgz": rgz.__version__} | versions | {"commit": commit} | further


def sha256(path: Path) -> str:
    """Hexadecimal sha256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()

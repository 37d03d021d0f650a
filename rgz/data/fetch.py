"""Find or download the public archives; their sha256 is checked before they are read.

A file is looked for in the folder named by ``RGZ_DATA_MIRROR``, then in the download cache, then on the network.
"""

import csv
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pooch

from rgz import artifacts
from rgz.errors import BadInput, first_line
from rgz.progress import progress


class PublicFile(NamedTuple):
    """One public archive: name, sha256, where it is published, its content, and the reference.

    ``doi`` is empty for files that were compiled from a public folder or table; only a mirror has them.
    """

    name: str
    sha256: str
    doi: str
    about: str
    source: str

    @property
    def url(self) -> str | None:
        """Address that :mod:`pooch` downloads from."""
        return f"doi:{self.doi}/{self.name}" if self.doi else None


with open(Path(__file__).with_name("archives.csv"), encoding="utf-8", newline="") as _stream:
    REGISTRY = {row["name"]: PublicFile(**row) for row in csv.DictReader(_stream)}


@lru_cache
def _sha256(path: Path, _modified: int) -> str:
    """Hash of a file, computed once a process and again if the file changes."""
    return artifacts.sha256(path)


def locate(name: str) -> Path | None:
    """Path of a public file on this machine, its hash checked; None if it has to be downloaded.

    Raises :class:`BadInput` if the name is not in the registry, or the mirror's copy has another hash than registered.
    """
    if name not in REGISTRY:
        raise BadInput(f"no public file is called {name!r}: known are {', '.join(REGISTRY)}")
    mirror, expected = artifacts.mirror(), REGISTRY[name].sha256
    for folder in (mirror, artifacts.cache()):
        if folder is not None and (path := folder / name).is_file():
            if _sha256(path, path.stat().st_mtime_ns) == expected:
                return path
            if folder is mirror:
                raise BadInput(f"{path} does not have the sha256 {expected[:12]}… of {name}: replace or remove it")
    return None


def fetch(name: str) -> Path:
    """Path of a public file from the mirror, the cache or the network, its hash checked.

    Raises :class:`BadInput` if the file is nowhere, the network cannot be reached, the download has another hash, or
    the cache cannot be written to. No partial file is left.
    """
    if (path := locate(name)) is not None:
        return path
    file, folder = REGISTRY[name], artifacts.cache()
    hint = "set RGZ_DATA_MIRROR to a folder that has it"
    if file.url is None:
        raise BadInput(f"{name} is not published as one file ({file.source}): {hint}")
    known = {"registry": {name: f"sha256:{file.sha256}"}, "urls": {name: file.url}}
    import requests  # noqa: F401, it takes a while, in which pooch would have a temporary file

    artifacts.sweep(folder, "tmp*")  # which pooch downloads to
    try:
        with progress(desc=name, total=1, unit="B", unit_scale=True) as bar:  # pooch knows the total
            return Path(pooch.create(folder, base_url="", retry_if_failed=2, **known).fetch(name, progressbar=bar))
    except (OSError, ValueError) as error:  # ValueError: wrong hash, or no such file in the archive
        reason = f"{name} cannot be downloaded to {folder} ({first_line(error)})"
        raise BadInput(f"{reason}: try again later, set RGZ_CACHE to another folder, or {hint}") from None

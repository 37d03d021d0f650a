"""The public archives, found or fetched, and never trusted before their hash is checked.

A file is looked for in three places, in this order: the folder named by ``RGZ_DATA_MIRROR``, the download cache,
the network. Whatever answers, its sha256 must be the one in ``REGISTRY``. Downloads show a progress bar, are
tried again when the server is busy, and appear under their final name only once they are whole and right.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pooch

from rgz import artifacts
from rgz.artifacts import sha256
from rgz.errors import BadInput, first_line

__all__ = ["REGISTRY", "PublicFile", "fetch", "locate"]


@dataclass(frozen=True)
class PublicFile:
    """One public archive: what it is called, what it must hash to, where it is published.

    ``url`` is None for the two files that were put together from a public folder or table rather than published
    in this very form; they are found in a mirror only.
    """

    name: str
    sha256: str
    url: str | None
    about: str
    source: str


REGISTRY = {
    file.name: file
    for file in (
        PublicFile(
            "MiraBest_F_batches.tar.gz",
            "5ad6b8fbe982e4f7ae52d3f88dd2e6cb03de0c4f7c00b00b92608c6e78a5243b",
            "doi:10.5281/zenodo.4288837/MiraBest_F_batches.tar.gz",
            "MiraBest: 1256 FIRST images, FRI, FRII and hybrids",
            "Porter & Scaife 2023, arXiv:2305.11108, doi:10.5281/zenodo.4288837",
        ),
        PublicFile(
            "NVSS_PNG_dataset.tar.gz",
            "37ef88b83a8177454002dd2dea3075d54b9b60a31ada44caa922dfbd8fbb2248",
            "doi:10.5281/zenodo.4255826/NVSS_PNG_dataset.tar.gz",
            "FR-DEEP NVSS: 600 images, FRI and FRII",
            "Tang, Scaife & Leahy 2019, arXiv:1903.11921, doi:10.5281/zenodo.4255826",
        ),
        PublicFile(
            "FIRST_PNG_dataset.tar.gz",
            "9bacbcc771a0b7d373ae1340e290bc1950531ed4fa1fa17d5d3d14295c9b2c48",
            "doi:10.5281/zenodo.4255826/FIRST_PNG_dataset.tar.gz",
            "FR-DEEP FIRST: 600 images, FRI and FRII",
            "Tang, Scaife & Leahy 2019, arXiv:1903.11921, doi:10.5281/zenodo.4255826",
        ),
        PublicFile(
            "galaxy_data_h5.zip",
            "1f9656a9fe2519857a5b7c7498f60087a6af73d8015b85559418ce30cc212c52",
            "doi:10.5281/zenodo.7120632/galaxy_data_h5.zip",
            "Radio Galaxy Dataset: 2158 FIRST images, FRI, FRII, compact and bent",
            "Griese et al. 2023, doi:10.5281/zenodo.7120632",
        ),
        PublicFile(
            "MiraBest_FIRST_FITS.tar",
            "ae58438c00d7a4f0488af96b46b721daf344b254770e307ce6fd3455dc9dac37",
            None,
            "the 1255 FIRST fields behind MiraBest, as FITS",
            "folder FITS of the MiraBest repository, github.com/fmporter/MiraBest",
        ),
        PublicFile(
            "rgz_dr1_sources.csv.gz",
            "a414da25027ad9b6fc6d2b8391c38e79750b09e73128eebc8e9237c5938e7474",
            None,
            "50,637 Radio Galaxy Zoo DR1 positions",
            "Wong et al. 2024, arXiv:2412.14502, doi:10.5281/zenodo.14195049",
        ),
    )
}


@lru_cache
def _sha256_of_state(path: Path, size: int, modified: int) -> str:
    """The hash of a file in one state, so that a file is read once a process, not once a question."""
    return sha256(path)


def _matches(path: Path, file: PublicFile) -> bool:
    state = path.stat()
    return _sha256_of_state(path, state.st_size, state.st_mtime_ns) == file.sha256


def _registered(name: str) -> PublicFile:
    try:
        return REGISTRY[name]
    except KeyError:
        raise BadInput(f"no public file is called {name!r}: known are {', '.join(REGISTRY)}") from None


def locate(name: str) -> Path | None:
    """Where a public file lies on this machine, its hash checked; None when it has to be fetched.

    Raises
    ------
    BadInput
        The name is not in the registry, or the mirror's copy does not have the registered hash.
    """
    file = _registered(name)
    folder = artifacts.mirror()
    if folder is not None and (path := folder / name).is_file():
        if not _matches(path, file):
            raise BadInput(f"{path} does not have the sha256 {file.sha256[:12]}… of {name}: replace or remove it")
        return path
    path = artifacts.cache() / name
    return path if path.is_file() and _matches(path, file) else None


def fetch(name: str) -> Path:
    """Path of a public file, from the mirror, the cache or the network, its hash checked.

    Raises
    ------
    BadInput
        No place has the file, the network cannot be reached, what came has another hash, or the cache cannot be
        written to. Nothing is left half-written.
    """
    if (path := locate(name)) is not None:
        return path
    file = _registered(name)
    hint = "set RGZ_DATA_MIRROR to a folder that has it"
    if file.url is None:
        raise BadInput(f"{name} has no download of its own ({file.source}): {hint}")
    folder = artifacts.cache()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        puller = pooch.create(
            folder, base_url="", registry={name: f"sha256:{file.sha256}"}, urls={name: file.url}, retry_if_failed=2
        )
        return Path(puller.fetch(name, downloader=pooch.DOIDownloader(progressbar=True, timeout=30)))
    except PermissionError as error:
        raise BadInput(
            f"the cache {folder} cannot be written to: set RGZ_CACHE to a folder of yours, or {hint}"
        ) from error
    except OSError as error:  # requests' errors are OSErrors too
        if not isinstance(error, ConnectionError) and error.errno is not None:
            raise BadInput(f"the cache {folder} cannot be used ({error.strerror}): set RGZ_CACHE, or {hint}") from error
        raise BadInput(f"{name} could not be downloaded ({first_line(error)}): try again later, or {hint}") from error
    except ValueError as error:  # pooch: the hash of the download does not match, or the archive has no such file
        raise BadInput(
            f"{name} was not what {file.url} should give ({first_line(error)}): try again later, or {hint}"
        ) from error

"""Find or download the public archives; their sha256 is checked before they are read.

A file is looked for in the folder named by ``RGZ_DATA_MIRROR``, then in the download cache, then on the network.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pooch

from rgz import artifacts
from rgz.errors import BadInput, first_line

__all__ = ["REGISTRY", "PublicFile", "fetch", "locate"]


@dataclass(frozen=True)
class PublicFile:
    """One public archive: name, sha256, where it is published, its content, and the reference.

    ``doi`` is None for files that were compiled from a public folder or table; only a mirror has them.
    """

    name: str
    sha256: str
    doi: str | None
    about: str
    source: str

    @property
    def url(self) -> str | None:
        """Address that :mod:`pooch` downloads from."""
        return self.doi and f"doi:{self.doi}/{self.name}"


_FRDEEP = "Tang, Scaife & Leahy 2019, arXiv:1903.11921, doi:10.5281/zenodo.4255826"
REGISTRY = {
    file.name: file
    for file in (
        PublicFile(
            "MiraBest_F_batches.tar.gz",
            "5ad6b8fbe982e4f7ae52d3f88dd2e6cb03de0c4f7c00b00b92608c6e78a5243b",
            "10.5281/zenodo.4288837",
            "MiraBest: 1256 FIRST images, FRI, FRII and hybrids",
            "Porter & Scaife 2023, arXiv:2305.11108, doi:10.5281/zenodo.4288837",
        ),
        PublicFile(
            "NVSS_PNG_dataset.tar.gz",
            "37ef88b83a8177454002dd2dea3075d54b9b60a31ada44caa922dfbd8fbb2248",
            "10.5281/zenodo.4255826",
            "FR-DEEP NVSS: 600 images, FRI and FRII",
            _FRDEEP,
        ),
        PublicFile(
            "FIRST_PNG_dataset.tar.gz",
            "9bacbcc771a0b7d373ae1340e290bc1950531ed4fa1fa17d5d3d14295c9b2c48",
            "10.5281/zenodo.4255826",
            "FR-DEEP FIRST: 600 images, FRI and FRII",
            _FRDEEP,
        ),
        PublicFile(
            "galaxy_data_h5.zip",
            "1f9656a9fe2519857a5b7c7498f60087a6af73d8015b85559418ce30cc212c52",
            "10.5281/zenodo.7120632",
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
        PublicFile(
            "frdeep_positions.csv.gz",
            "1381bed2e4637592f1215d8c7e4cfa68b46884218e2e97d9e814e4b4ac3e9ad3",
            None,
            "positions of 1,182 of the 1,200 images of FR-DEEP",
            "found by comparing images with the fields of FR-DEEP v2, github.com/HongmingTang060313/FRDEEP_v2.0",
        ),
        PublicFile(
            "first_unseen.h5",
            "6b405969cc582229f3c878573a7b5bc909c94beeabc59526545aaae0580315f1",
            None,
            "293 FIRST galaxies of four classes, far from all training sources: for evaluation alone",
            "data.zip of github.com/kiryteo/RG_Classification_code",
        ),
        PublicFile(
            "meerkat_interest.h5",
            "33c24222e9d2596f1037c7d2581ab6a97b378827e122192ae24933daeb846a9b",
            None,
            "544 MeerKAT sources with a human score of interest: for evaluation alone",
            "Lochner & Rudnick 2024, arXiv:2411.04188, doi:10.5281/zenodo.14440674",
        ),
    )
}


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
    try:
        return Path(pooch.create(folder, base_url="", retry_if_failed=2, **known).fetch(name, progressbar=True))
    except (OSError, ValueError) as error:  # ValueError: wrong hash, or no such file in the archive
        reason = f"{name} cannot be downloaded to {folder} ({first_line(error)})"
        raise BadInput(f"{reason}: try again later, set RGZ_CACHE to another folder, or {hint}") from error

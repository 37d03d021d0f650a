"""The four public samples of labelled radio galaxies.

Three of them are stored as Python pickles, which are read without running any code in them
(:func:`rgz.data.archives.unpickle`).
"""

import io
import re
from collections import Counter
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
from astropy.table import Table

from rgz.data import fetch
from rgz.data.archives import content, read_batches
from rgz.data.sample import Sample, source_table
from rgz.errors import BadInput, as_bad_input

FIRST_PIXEL = 1.8  # arcsec
NVSS_PIXEL = 15.0  # arcsec
POSITIONS = "frdeep_positions.csv.gz"
"""File with the positions of the galaxies of FR-DEEP."""
FITS_FIELDS, ZOO = "MiraBest_FIRST_FITS.tar", "rgz_dr1_sources.csv.gz"
"""Files with the FIRST fields behind MiraBest, and with the sources of Radio Galaxy Zoo DR1."""
RADIO_GALAXY_LABELS = ("FRI", "FRII", "compact", "bent")
MIRABEST_NAME = re.compile(
    r"^(?P<code>[123][01][0-4])_(?P<ra>\d{3}\.\d+)(?P<dec>[+-]\d+\.\d+)_(?P<z>[\d.]+)_(?P<size>[\d.]+)$", re.M
)


def _mirabest(path: Path) -> Sample:
    """MiraBest, whose file names have the form ``code_RA±Dec_redshift_size``, in degrees and arcsec.

    Digits of the code: class (1 FRI, 2 FRII, 3 hybrid), confidence (0 certain, 1 uncertain), and morphology (0
    standard, 1 double-double, 2 wide-angle tail, 3 diffuse, 4 head-tail): Porter & Scaife 2023, Table 1.
    """
    images, _, files, splits = read_batches(path)
    stems = [PurePosixPath(file).stem for file in files]
    code, ra, dec, redshift, size = zip(*MIRABEST_NAME.findall("\n".join(stems)), strict=True)
    labels = [{"1": "FRI", "2": "FRII", "3": "hybrid"}[one[0]] for one in code]
    table = source_table(stems, ra, dec, labels, [one[1] == "0" for one in code], splits)
    table["redshift"], table["size"] = np.array(redshift, float), np.array(size, float)
    table["size"].unit = "arcsec"
    table["morphology"] = code
    return Sample(images, table, FIRST_PIXEL)


def _frdeep(path: Path, name: str, pixel: float) -> Sample:
    """FR-DEEP: class 0 is FRI, 1 is FRII; some file names repeat; positions are in another file, where it is here."""
    images, classes, files, splits = read_batches(path)
    stems, count = [], Counter[str]()
    for file in files:
        stem = PurePosixPath(file).stem.rstrip("_")
        count[stem] += 1
        stems.append(stem if count[stem] == 1 else f"{stem}-{count[stem]}")
    place: dict[str, tuple[float, float]] = {}
    if (known := fetch.locate(POSITIONS)) is not None:
        rows = Table.read(known, format="ascii.csv").iterrows("sample", "name", "ra", "dec")
        place = {stem: (ra, dec) for sample, stem, ra, dec in rows if sample == name}
    ra, dec = np.transpose([place.get(stem, (np.nan, np.nan)) for stem in stems])
    labels = [("FRI", "FRII")[c] for c in classes]
    return Sample(images, source_table(stems, ra, dec, labels, np.ones(len(stems)), splits), pixel)


def _radio_galaxy_dataset(path: Path) -> Sample:
    """The Radio Galaxy Dataset: one HDF5 group per source, with image and position."""
    data = content(path, str(path))
    known = as_bad_input(f"{path} does not hold the Radio Galaxy Dataset", "fetch it again")
    with known, h5py.File(io.BytesIO(data) if isinstance(data, bytes) else data, "r") as file:
        groups = [file[f"data_{i}"] for i in range(len(file))]
        images = np.stack([group["Img"][()] for group in groups])
        ra, dec, catalogue = ([group["Img"].attrs[key] for group in groups] for key in ("RA", "DEC", "Source"))
        labels = [RADIO_GALAXY_LABELS[int(group["Label_literature"][()])] for group in groups]
        splits = [group["Split_literature"].asstr()[()] for group in groups]
    table = source_table([f"rgd-{i:04d}" for i in range(len(labels))], ra, dec, labels, np.ones(len(labels)), splits)
    table["catalogue"] = np.array(catalogue, str)
    return Sample(images, table, FIRST_PIXEL)


SAMPLES = {
    "mirabest": ("MiraBest_F_batches.tar.gz", _mirabest),
    "frdeep-nvss": ("NVSS_PNG_dataset.tar.gz", lambda path: _frdeep(path, "frdeep-nvss", NVSS_PIXEL)),
    "frdeep-first": ("FIRST_PNG_dataset.tar.gz", lambda path: _frdeep(path, "frdeep-first", FIRST_PIXEL)),
    "rgd": ("galaxy_data_h5.zip", _radio_galaxy_dataset),
}


def load_dataset(name: str) -> Sample:
    """One of the samples ``mirabest``, ``frdeep-nvss``, ``frdeep-first``, ``rgd``, downloaded if necessary.

    Raises :class:`BadInput` if there is no such sample, or its archive cannot be found, downloaded or read.
    """
    if name not in SAMPLES:
        raise BadInput(f"no sample is called {name!r}: known are {', '.join(SAMPLES)}")
    archive, reader = SAMPLES[name]
    return reader(fetch.fetch(archive))

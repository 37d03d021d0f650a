"""The four public samples of labelled radio galaxies.

Three of them are stored as Python pickles, which are read without running any code in them
(:func:`rgz.data.archives.unpickle`).
"""

import io
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from rgz.data import fetch
from rgz.data.archives import members, read_batches
from rgz.data.sample import Sample, source_table, unique
from rgz.errors import BadInput, as_bad_input
from rgz.transforms.prepare import crop

__all__ = ["FIRST_PIXEL", "NVSS_PIXEL", "SAMPLES", "load_dataset", "placed"]

FIRST_PIXEL = 1.8  # arcsec
NVSS_PIXEL = 15.0  # arcsec
IDENTICAL = 0.998  # cosine between images of one galaxy; between point-like images of two galaxies it is below 0.99
MIDDLE, MOVED = 100, 8  # pixels: the part of two images that is compared, and the largest shift between them
RADIO_GALAXY_LABELS = ("FRI", "FRII", "compact", "bent")
MIRABEST_NAME = re.compile(
    r"(?P<code>[123][01][0-4])_(?P<ra>\d{3}\.\d+)(?P<dec>[+-]\d+\.\d+)_(?P<z>[\d.]+)_(?P<size>[\d.]+)$"
)
FRDEEP_TWICE = {  # galaxies that have two catalogue numbers, found by comparing the fields
    "FRI CoNFIG 30": "FRI FRICAT 163",
    "FRI CoNFIG 44": "FRI FRICAT 154",
    "FRI CoNFIG 15": "FRI FRICAT 151",
    "FRI FRICAT 110": "FRI FRICAT 109",  # neighbours in one field
    "FRI FRICAT 169": "FRI FRICAT 168",
    "FRII CoNFIG 182": "FRII CoNFIG 134",
}


def _mirabest(path: Path) -> Sample:
    """MiraBest. A file name has the form ``code_RA±Dec_redshift_size``, with degrees and the largest angular size in
    arcsec.

    The first digit of the code is the class (1 FRI, 2 FRII, 3 hybrid), the second the confidence (0 certain, 1
    uncertain). The third is the morphology (0 standard, 1 double-double, 2 wide-angle tail, 3 diffuse, 4 head-tail):
    Porter & Scaife 2023, Table 1.
    """
    images, _, files, splits = read_batches(path)
    stems = [PurePosixPath(file).stem for file in files]
    found = [match for stem in stems if (match := MIRABEST_NAME.match(stem))]
    if len(found) < len(stems):
        wrong = next(stem for stem in stems if not MIRABEST_NAME.match(stem))
        raise BadInput(f"{path.name}: {wrong!r} does not have the form code_RA±Dec_redshift_size")
    code, ra, dec, redshift, size = zip(*(match.groups() for match in found), strict=True)
    labels = [{"1": "FRI", "2": "FRII", "3": "hybrid"}[one[0]] for one in code]
    table = source_table(stems, ra, dec, labels, [one[1] == "0" for one in code], splits)
    table["redshift"], table["size"] = np.array(redshift, float), np.array(size, float)
    table["size"].unit = "arcsec"
    table["morphology"] = code
    return Sample(images, table, FIRST_PIXEL)


def _frdeep(path: Path, pixel: float) -> Sample:
    """FR-DEEP: class 0 is FRI, 1 is FRII; the archive gives no positions, and some FIRST file names repeat.

    File names differ between the two surveys. Class, catalogue and number are joined in the column ``object``, which is
    the same for one galaxy in both surveys.
    """
    images, classes, files, splits = read_batches(path)
    stems = [PurePosixPath(file).stem.rstrip("_") for file in files]
    unknown, labels = np.full(len(stems), np.nan), [("FRI", "FRII")[c] for c in classes]
    table = source_table(unique(stems), unknown, unknown, labels, np.ones(len(stems)), splits)
    objects = []
    for label, stem in zip(labels, stems, strict=True):
        catalogue, number = "FRICAT" if "FRICAT" in stem else "CoNFIG", re.split("[^0-9]", stem)[0]
        objects.append(f"{label} {catalogue} {number}")
    table["object"] = [FRDEEP_TWICE.get(one, one) for one in objects]
    return Sample(images, table, pixel)


def _radio_galaxy_dataset(path: Path) -> Sample:
    """The Radio Galaxy Dataset: one HDF5 group per source, with image and position."""
    (_, data), *_ = members(path)
    known = as_bad_input(f"{path} does not hold the Radio Galaxy Dataset", "fetch it again")
    with known, h5py.File(io.BytesIO(data), "r") as file:
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
    "frdeep-nvss": ("NVSS_PNG_dataset.tar.gz", lambda path: _frdeep(path, NVSS_PIXEL)),
    "frdeep-first": ("FIRST_PNG_dataset.tar.gz", lambda path: _frdeep(path, FIRST_PIXEL)),
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


def placed(sample: Sample, known: Sample) -> Sample:
    """The sample with missing positions filled in from ``known``, for galaxies whose image is in both.

    Two images of one survey are the same if the cosine between their central parts is above ``IDENTICAL`` for a shift
    of up to ``MOVED`` pixels. Archives cut out one galaxy around slightly different positions, which limits the
    accuracy of the position.
    """
    size = MIDDLE + 2 * MOVED  # padded, because a discrete Fourier transform is periodic
    steps = np.r_[: MOVED + 1, -MOVED:0]

    def spectra(images: NDArray[Any]) -> NDArray[np.complex64]:
        whole = crop(images, MIDDLE).astype(np.float32)
        norm = np.sqrt((whole**2).sum(axis=(1, 2), keepdims=True))
        return np.fft.rfft2(whole / np.maximum(norm, np.finfo(np.float32).tiny), (size, size)).astype(np.complex64)

    table = sample.table.copy()
    lost = np.flatnonzero(~np.isfinite(np.asarray(table["ra"], float)))
    own, others = spectra(sample.images[lost]), spectra(known.images)
    here, there = (np.abs(one).reshape(len(one), -1) for one in (own, others))  # a shift does not change amplitudes
    twin = (here @ there.T).argmax(axis=1)
    moved = np.fft.irfft2(own * others[twin].conj(), (size, size))[:, steps][:, :, steps]
    found = moved.max(axis=(1, 2)) > IDENTICAL
    for column in ("ra", "dec"):
        table[column][lost[found]] = known.table[column][twin[found]]
    return replace(sample, table=table)

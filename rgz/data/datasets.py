"""From the archives of other people to a :class:`~rgz.data.sample.Sample`.

Three of the archives hold CIFAR-style batches, which are Python pickles: files that could run any command when
opened the usual way. :func:`unpickle` admits nothing but numpy arrays, numbers, strings, lists and dicts. Archives
are read in memory, member by member, and never unpacked to disk, so nothing in one can land outside its folder.
"""

import io
import re
from dataclasses import replace
from pathlib import Path, PurePosixPath

import h5py
import numpy as np
from astropy.table import Table

from rgz.data import fetch
from rgz.data.archives import members, read_batches
from rgz.data.sample import Sample, unique
from rgz.errors import BadInput, first_line
from rgz.transforms.prepare import crop

__all__ = ["SAMPLES", "load_dataset", "placed"]

FIRST_PIXEL = 1.8  # arcsec
NVSS_PIXEL = 15.0  # arcsec
IDENTICAL = 0.998  # cosine between images of one galaxy; those of different ones, points apart, hardly reach 0.99
MIDDLE, MOVED = 100, 8  # pixels: what of two images is compared, and how far apart their middles may be


def _table(names, ra, dec, label, confident, split, **further) -> Table:
    table = Table(
        {
            "name": names,
            "ra": np.asarray(ra, float),
            "dec": np.asarray(dec, float),
            "label": label,
            "confident": np.asarray(confident, bool),
            "split": split,
            **further,
        }
    )
    table["ra"].unit = table["dec"].unit = "deg"
    return table


MIRABEST_NAME = re.compile(
    r"(?P<code>[123][01][0-4])_(?P<ra>\d{3}\.\d+)(?P<dec>[+-]\d+\.\d+)_(?P<z>[\d.]+)_(?P<size>[\d.]+)$"
)


def _mirabest(path: Path) -> Sample:
    """MiraBest. A file name reads ``code_RA±Dec_redshift_size``: degrees, degrees, largest angular size in arcsec.

    The first digit of the code is the class (1 FRI, 2 FRII, 3 hybrid), the second the confidence (0 yes, 1 no), the
    third the shape (0 standard, 1 double-double, 2 wide-angle tail, 3 diffuse, 4 head-tail). Porter & Scaife 2023,
    Table 1.
    """
    images, _, files, splits = read_batches(path)
    stems = [PurePosixPath(file).stem for file in files]
    found = [MIRABEST_NAME.match(stem) for stem in stems]
    if None in found:
        raise BadInput(f"{path.name}: {stems[found.index(None)]!r} does not read code_RA±Dec_redshift_size")
    table = _table(
        stems,
        [m["ra"] for m in found],
        [m["dec"] for m in found],
        [{"1": "FRI", "2": "FRII", "3": "hybrid"}[m["code"][0]] for m in found],
        [m["code"][1] == "0" for m in found],
        splits,
        redshift=[float(m["z"]) for m in found],
        size=[float(m["size"]) for m in found],
        morphology=[m["code"] for m in found],
    )
    table["size"].unit = "arcsec"
    return Sample(images, table, FIRST_PIXEL)


FRDEEP_TWICE = {  # the same sky twice, found by comparing the fields; by catalogue number
    "FRI CoNFIG 30": "FRI FRICAT 163",
    "FRI CoNFIG 44": "FRI FRICAT 154",
    "FRI CoNFIG 15": "FRI FRICAT 151",
    "FRI FRICAT 110": "FRI FRICAT 109",  # neighbours in one field
    "FRI FRICAT 169": "FRI FRICAT 168",
    "FRII CoNFIG 182": "FRII CoNFIG 134",
}


def _frdeep(path: Path, pixel: float) -> Sample:
    """FR-DEEP: class 0 is FRI, 1 is FRII; the archive gives no positions, and some FIRST file names repeat.

    Names differ between the two surveys. Their number, catalogue and class make the column ``object``, the same for what is
    one galaxy in both.
    """
    images, classes, files, splits = read_batches(path)
    stems = [PurePosixPath(file).stem.rstrip("_") for file in files]
    unknown, labels = np.full(len(stems), np.nan), [("FRI", "FRII")[c] for c in classes]
    objects = [
        f"{label} {'FRICAT' if 'FRICAT' in stem else 'CoNFIG'} {re.match('[0-9]*', stem)[0]}"
        for stem, label in zip(stems, labels, strict=True)
    ]
    table = _table(unique(stems), unknown, unknown, labels, np.ones(len(stems)), splits)
    table["object"] = [FRDEEP_TWICE.get(one, one) for one in objects]
    return Sample(images, table, pixel)


RADIO_GALAXY_LABELS = ("FRI", "FRII", "compact", "bent")


def _radio_galaxy_dataset(path: Path) -> Sample:
    """The Radio Galaxy Dataset: one HDF5 group a source, image and position inside."""
    (_, data), *_ = members(path)
    try:
        with h5py.File(io.BytesIO(data), "r") as file:
            groups = [file[f"data_{i}"] for i in range(len(file))]
            images = np.stack([group["Img"][()] for group in groups])
            attributes = [dict(group["Img"].attrs) for group in groups]
            labels = [RADIO_GALAXY_LABELS[int(group["Label_literature"][()])] for group in groups]
            splits = [group["Split_literature"].asstr()[()] for group in groups]
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and more on damaged files
        raise BadInput(
            f"{path} does not hold the Radio Galaxy Dataset ({first_line(error)}): fetch it again"
        ) from error
    ra, dec = ([float(a[key]) for a in attributes] for key in ("RA", "DEC"))
    names = [f"rgd-{i:04d}" for i in range(len(groups))]
    return Sample(
        images,
        _table(names, ra, dec, labels, np.ones(len(names)), splits, catalogue=[str(a["Source"]) for a in attributes]),
        FIRST_PIXEL,
    )


SAMPLES = {
    "mirabest": ("MiraBest_F_batches.tar.gz", _mirabest),
    "frdeep-nvss": ("NVSS_PNG_dataset.tar.gz", lambda path: _frdeep(path, NVSS_PIXEL)),
    "frdeep-first": ("FIRST_PNG_dataset.tar.gz", lambda path: _frdeep(path, FIRST_PIXEL)),
    "rgd": ("galaxy_data_h5.zip", _radio_galaxy_dataset),
}


def load_dataset(name: str) -> Sample:
    """One of the samples ``mirabest``, ``frdeep-nvss``, ``frdeep-first``, ``rgd``, fetched if need be.

    Raises
    ------
    BadInput
        There is no such sample, or its archive cannot be found, fetched or read.
    """
    if name not in SAMPLES:
        raise BadInput(f"no sample is called {name!r}: known are {', '.join(SAMPLES)}")
    archive, reader = SAMPLES[name]
    return reader(fetch.fetch(archive))


def placed(sample: Sample, known: Sample) -> Sample:
    """A sample in which galaxies without a place have that of the galaxy of ``known`` whose image is theirs.

    Two images of one survey are the same where the cosine between their middles, one of them moved by up to ``MOVED`` pixels either
    way, is above ``IDENTICAL``: archives cut one galaxy out about slightly different places. So the place is as good as that.
    """
    size = MIDDLE + 2 * MOVED  # room to move without coming in again on the other side
    steps = np.r_[: MOVED + 1, -MOVED:0]

    def spectra(pictures: np.ndarray) -> np.ndarray:
        whole = crop(pictures, MIDDLE).astype(np.float32)
        length = np.sqrt((whole**2).sum(axis=(1, 2), keepdims=True))
        return np.fft.rfft2(whole / np.maximum(length, np.finfo(np.float32).tiny), (size, size)).astype(np.complex64)

    table = sample.table.copy()
    lost = np.flatnonzero(~np.isfinite(np.asarray(table["ra"], float)))
    own, others = spectra(sample.images[lost]), spectra(known.images)
    here, there = (np.abs(one).reshape(len(one), -1) for one in (own, others))  # which a move does not change
    twin = (here @ there.T).argmax(axis=1)
    moved = np.fft.irfft2(own * others[twin].conj(), (size, size))[:, steps][:, :, steps]
    found = moved.max(axis=(1, 2)) > IDENTICAL
    for column in ("ra", "dec"):
        table[column][lost[found]] = known.table[column][twin[found]]
    return replace(sample, table=table)

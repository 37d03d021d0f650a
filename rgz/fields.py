"""What a model may be trained on: FIRST sources, each once, and none that it will be tested on.

The same patch of sky appears in several archives. Training and evaluation therefore meet here, on the sky and not by file
name: a source within 30″ of one in MiraBest's official test batch stays out of training, whatever archive it comes
from, and sources within 10″ of each other count as one.
"""

import hashlib

import numpy as np
from astropy.table import Table, vstack

from rgz import images, readers, sample

__all__ = ["KEEP_AWAY", "SAME_SOURCE", "once_each", "training_sample"]

KEEP_AWAY = 30.0  # arcsec
SAME_SOURCE = 10.0  # arcsec
FIELD = 110  # pixels: room to turn a 64-pixel crop by any angle and shift it
VALIDATION = 0.05


def once_each(table: Table, arcsec: float) -> np.ndarray:
    """Mask of the rows that come first among those within ``arcsec`` of each other."""
    return sample.same_source(table, arcsec) == np.arange(len(table))


def _split(name: str) -> str:
    """``valid`` for one name in twenty, the same ones on every machine."""
    return "valid" if int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) < VALIDATION * 2**32 else "train"


def training_sample() -> sample.Sample:
    """The unlabelled FIRST images of MiraBest and the Radio Galaxy Dataset, once each, away from MiraBest's test batch.

    110×110 pixels of 1.8″, uint8. The ``split`` column marks one in twenty for validation. Labels are not carried along.
    """
    mirabest, rgd = readers.load("mirabest"), readers.load("rgd")
    test = mirabest.table[mirabest.table["split"] == "test"]
    table = vstack([s.table[list(sample.COLUMNS)] for s in (mirabest, rgd)])
    pixels = np.concatenate([images.crop(s.images, FIELD) for s in (mirabest, rgd)])
    both = sample.Sample(pixels, table, mirabest.pixel)
    both = sample.away_from(both, test, KEEP_AWAY)
    both = both[[images.has_source(image, both.pixel, images.Recipe()) for image in both.images]]
    both = both[once_each(both.table, SAME_SOURCE)]
    both.table["label"] = ""
    both.table["split"] = [_split(name) for name in both.table["name"]]
    return both

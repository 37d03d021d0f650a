"""Codes of the training sources, which take five minutes on one core, in a file of ``runs/``."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgz import artifacts
from rgz.app.training import TRAINING_SET, splits
from rgz.errors import as_bad_input
from rgz.features.embed import Encoder
from studies import results

FILE = Path("runs/training_codes.npy")


def read() -> NDArray[np.float64]:
    """The codes (N, D), one row per training source; raises :class:`rgz.errors.BadInput` if they are missing."""
    with as_bad_input(f"{FILE} cannot be read", "make it with python -m doit training-codes"):
        found: NDArray[Any] = np.load(FILE)
        return found.astype(float)


def main() -> None:
    """Compute and write them."""
    seen, _ = splits(TRAINING_SET)
    codes = Encoder.from_pretrained().transform(seen)
    with artifacts.atomic(FILE) as partial, open(partial, "wb") as stream:
        np.save(stream, codes)


if __name__ == "__main__":
    results.run(main)

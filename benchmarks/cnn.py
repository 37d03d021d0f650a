"""Train the CNN on the folds on which codes are judged, and keep what it says of every held-out galaxy.

One round of 5-fold cross-validation and the official split, on MiraBest Confident and on both FR-DEEP samples: 18 networks,
about half an hour on two cores. ``rgz classify`` compares the codes with what is kept. Rounds that are in the file stay.

    python benchmarks/cnn.py
"""

import argparse
from pathlib import Path

import numpy as np
from astropy.table import Table, vstack

from rgz import classify, cnn, latents, paths, readers

SAMPLES = ("frdeep-nvss", "mirabest", "frdeep-first")


def rounds(table: Table):
    """Name, training rows and held-out rows of each round."""
    labels, test = classify.is_frii(table), np.asarray(table["split"]) == "test"
    for number, (train, held_out) in enumerate(classify.folds(labels, classify.groups(table), repeats=1)):
        yield f"fold {number}", train, held_out
    yield "official", np.flatnonzero(~test), np.flatnonzero(test)


def main(out: Path, epochs: int):
    """Train what is missing in ``out``."""
    found = Table.read(out, format="ascii.csv") if out.exists() else None
    for name in SAMPLES:
        known, _, _ = latents.read_codes(paths.artifact("codes.h5"), name)
        known = known[classify.confident(known)]  # the rows, in the order, on which codes are judged
        images, labels = readers.load(name).named(known["name"]).images, classify.is_frii(known)
        for number, (part, train, held_out) in enumerate(rounds(known)):
            if found is not None and ((found["sample"] == name) & (found["round"] == part)).any():
                continue
            probability = cnn.predict(cnn.train(images[train], labels[train], epochs, seed=number), images[held_out])
            rows = Table({"name": known["name"][held_out], "probability": np.round(probability, 4)})
            rows["sample"], rows["round"] = name, part
            found = rows if found is None else vstack([found, rows])
            with paths.atomic(out) as partial:
                found["sample", "round", "name", "probability"].write(partial, format="ascii.csv", overwrite=True)
            print(name, part, classify.scores(labels[held_out], probability), flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("artifacts/cnn.csv"), help="table to complete")
    parser.add_argument("--epochs", type=int, default=60, help="passes through the training images")
    asked = parser.parse_args()
    main(asked.out, asked.epochs)

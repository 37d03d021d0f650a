"""Fit the flow ensemble for anomaly detection: log-likelihoods (nats) and percentiles among the validation sources.

It takes five minutes on two cores. ``python -m studies.density --out FILE`` writes another file than that of the
repository.
"""

import argparse
from pathlib import Path

from rgz import artifacts
from rgz.app.training import TRAINING_SET, splits
from rgz.data.sample import cells
from rgz.features.embed import Encoder
from rgz.models import flow as flows
from studies import results


def fit(path: Path, out: Path) -> str:
    """Fit and calibrate it with the two splits of the training set ``path``; returns what was written, as text."""
    seen, held_out = splits(path)
    encoder = Encoder.from_pretrained()
    codes, unseen = (encoder.transform(part).astype(float) for part in (seen, held_out))
    about_centroid = encoder.transform(held_out, hosts=False).astype(float)
    fitted = flows.calibrate(flows.fit_ensemble(codes, cells(seen.table)), unseen, about_centroid)
    about = artifacts.describe(
        weights_sha256=artifacts.sha256(artifacts.artifact("vdvae.safetensors")),
        codes_sha256=artifacts.sha256(artifacts.artifact("codes.h5")),
        training_set_sha256=artifacts.sha256(path),
        sources=len(seen),
        unseen=len(held_out),
    )
    flows.save(out, fitted, about)
    return f"{out}: {len(fitted.flows)} flows, fitted to {len(seen)} sources, calibrated with {len(held_out)}"


def main() -> None:
    """Fit it to the training set that the command line names."""
    parser = argparse.ArgumentParser(description="Fit the flow ensemble for anomaly detection.")
    parser.add_argument("--out", type=Path, help="file to write; by default artifacts/density.safetensors")
    parser.add_argument("--data", type=Path, default=TRAINING_SET, help="training set")
    given = parser.parse_args()
    print(fit(given.data, given.out or artifacts.artifacts() / "density.safetensors"))


if __name__ == "__main__":
    results.run(main)

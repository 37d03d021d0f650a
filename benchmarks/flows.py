"""Is our flow as good as another library's? The same codes and folds, nflows beside zuko.

Both flows have as many autoregressive steps and as wide networks; each is stopped by the same held-out fold of the training
sources. Each has the learning rate, of the same three, that is best for it on the first of these folds. Only then
are both judged on the validation sources, which neither they nor the autoencoder have seen. Ten minutes to encode, ten to fit.

    pip install -e .[test]
    python benchmarks/flows.py
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import zuko
from torch import Tensor, nn

from rgz import artifacts
from rgz.app.cli_data import sources
from rgz.data import training_set
from rgz.features import codes
from rgz.models import checkpoint
from rgz.models import flow as flows
from studies import anomalies, classification

RATES = (1e-3, 3e-3, 1e-2)


class Zuko(nn.Module):
    """zuko's masked autoregressive flow, as wide and as deep as a :class:`rgz.models.flow.Flow`."""

    def __init__(self, config: flows.Config):
        super().__init__()
        hidden = [config.hidden] * (1 + config.blocks)
        self.flow = zuko.flows.MAF(config.kept, transforms=config.layers, hidden_features=hidden, residual=True)

    def forward(self, values: Tensor) -> Tensor:
        """Log-likelihood, nats, (N,), of whitened codes (N, kept)."""
        return self.flow().log_prob(values)


def run(data: Path, out: Path):
    """Fit both to every fold, and add a line for each to the table."""
    config = flows.Config()
    model, recipe, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    everything = sources(data)
    seen, unseen = (everything[everything.table["split"] == split] for split in ("train", "valid"))
    taught, known = (anomalies.codes_of(model, recipe, part, codes.chosen()) for part in (seen, unseen))
    groups = training_set.cells(seen.table)
    centre, matrix = flows.whitening(taught, config.kept)
    values, asked = (taught - centre) @ matrix, torch.from_numpy(((known - centre) @ matrix).astype(np.float32))
    each = list(flows.folds(values, groups))
    for name, make in (("nflows", flows.Flow), ("zuko", Zuko)):
        best = max(
            (replace(config, learning_rate=rate) for rate in RATES), key=lambda c: _reached(values, each[0], c, make)
        )
        for fold, (rows, stop) in enumerate(each):
            start = time.perf_counter()
            flow, _ = flows.fit_flow(values[rows], values[stop], best, fold, make)
            with torch.no_grad():
                nats = flow(asked).mean().item()
            line = {"fold": fold, "flow": name, "learning_rate": best.learning_rate, "nats": round(nats, 3)}
            line["seconds"] = round(time.perf_counter() - start)
            classification.add_line(line, out)
            print(line, flush=True)


def _reached(values: np.ndarray, fold: tuple[np.ndarray, np.ndarray], config: flows.Config, make) -> float:
    """Nats on the fold that stops a flow."""
    rows, stop = fold
    return flows.fit_flow(values[rows], values[stop], config, 0, make)[1]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("runs/train.h5"), help="made by rgz data build")
    parser.add_argument("--out", type=Path, default=Path("artifacts/flows.csv"), help="table to add lines to")
    asked = parser.parse_args()
    run(asked.data, asked.out)

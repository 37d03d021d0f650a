"""Comparison of our flow (nflows) with that of another library (zuko), on the same codes and folds.

Both flows have the same number of autoregressive steps, the same width of their networks and the same dropout in their
residual blocks. Each is stopped early on the same held-out fold of the training sources, and has the best of three
learning rates on the first of these folds. Both are then tested on the validation sources, on which neither they nor
the autoencoder were trained.

The rows of zuko are withdrawn from ``results/flows.csv``: they were measured without dropout, which the flow of nflows
had, so the two could not be compared. This module measures both again with dropout, in ten minutes to encode and ten to
fit.
"""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import zuko
from numpy.typing import NDArray
from torch import Tensor, nn

from rgz.data import training_set
from rgz.features.embed import Encoder
from rgz.models import flow as flows
from studies import inputs, results

RATES = (1e-3, 3e-3, 1e-2)


class Zuko(nn.Module):
    """zuko's masked autoregressive flow, as wide and deep as a :class:`rgz.models.flow.Flow`, with the same dropout."""

    def __init__(self, config: flows.Config):
        super().__init__()
        self.flow = zuko.flows.MAF(
            config.kept,
            transforms=config.layers,
            hidden_features=[config.hidden] * (1 + config.blocks),
            residual=True,
            activation=lambda: nn.Sequential(nn.ReLU(), nn.Dropout(config.dropout)),
        )

    def forward(self, values: Tensor) -> Tensor:
        """Log-likelihood, nats, (N,), of whitened codes (N, kept)."""
        likelihood: Tensor = self.flow().log_prob(values)
        return likelihood


def compare(
    values: NDArray[Any],
    groups: NDArray[Any],
    asked: NDArray[Any],
    config: flows.Config,
    make: Callable[..., nn.Module],
) -> list[results.Row]:
    """Mean log-likelihoods of whitened codes ``asked`` (M, kept) under flows fitted to folds of ``values`` (N, ·)."""
    each, rows = list(flows.folds(values, groups)), []
    seen, stop = each[0]
    best = max(
        (replace(config, learning_rate=rate) for rate in RATES),
        key=lambda one: flows.fit_flow(values[seen], values[stop], one, 0, make)[1],
    )
    for fold, (seen, stop) in enumerate(each):
        start = time.perf_counter()
        flow, _ = flows.fit_flow(values[seen], values[stop], best, fold, make)
        with torch.no_grad():
            nats = flow(torch.from_numpy(asked.astype(np.float32))).mean().item()
        row = {"fold": fold, "learning_rate": best.learning_rate, "dropout": best.dropout, "nats": nats}
        rows.append(row | {"seconds": round(time.perf_counter() - start)})
    return rows


def main() -> None:
    """Fit both flows to every fold, and write ``results/flows.csv``."""
    config, encoder = flows.Config(), Encoder.from_pretrained()
    seen, unseen = inputs.training_set()
    taught, known = (encoder.transform(part, "density").astype(float) for part in (seen, unseen))
    centre, matrix = flows.whitening(taught, config.kept)
    values, asked = (taught - centre) @ matrix, (known - centre) @ matrix
    groups, rows = training_set.cells(seen.table), []
    for name, make in (("nflows", flows.Flow), ("zuko", Zuko)):
        rows += [{"flow": name} | row for row in compare(values, groups, asked, config, make)]
    results.write("flows", rows, [inputs.TRAINING_SET])


if __name__ == "__main__":
    results.run(main)

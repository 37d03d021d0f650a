"""``rgz fit``: flows fitted to the codes of the training set, for generation and for anomaly detection."""

from pathlib import Path
from typing import Annotated

import typer

from rgz import artifacts
from rgz.app.cli_data import TRAINING_SET, TrainingSet, Weights, sources

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="Fit flows to the codes of the training set.")


@app.command()
def prior(
    weights: Weights = None,
    path: TrainingSet = TRAINING_SET,
    out: Annotated[Path | None, typer.Option(help="File to write; by default in the folder of the weights.")] = None,
) -> None:
    """Fit the flow from which rgz generate samples codes; five minutes on two cores.

    Example: rgz fit prior --weights runs/small/vdvae.safetensors
    """
    from rgz.data import training_set
    from rgz.models import checkpoint
    from rgz.models import flow as flows
    from rgz.tasks import generate

    out = out or (weights.parent if weights else artifacts.artifacts()) / "prior.safetensors"
    weights = weights or artifacts.artifact("vdvae.safetensors")
    model, recipe, _ = checkpoint.load(weights)
    known = sources(path)
    seen = known[known.table["split"] == "train"]
    fitted = generate.fit_prior(model, recipe, seen, training_set.cells(seen.table))
    about = artifacts.describe(
        weights_sha256=artifacts.sha256(weights), training_set_sha256=artifacts.sha256(path), sources=len(seen)
    )
    flows.save(out, fitted, about)
    typer.echo(f"{out}: a flow over {fitted.config.kept} principal components, fitted to {len(seen)} sources")


@app.command()
def density(
    path: TrainingSet = TRAINING_SET,
    out: Annotated[Path | None, typer.Option(help="File to write; by default artifacts/density.safetensors.")] = None,
) -> None:
    """Fit the flow ensemble for anomaly detection: log-likelihoods (nats) and percentiles; ten minutes on two cores.

    Percentiles are relative to the validation sources.

    Example: rgz fit density --out runs/small/density.safetensors
    """
    from rgz.data import training_set
    from rgz.features.embed import Encoder
    from rgz.models import flow as flows

    out, known = out or artifacts.artifacts() / "density.safetensors", sources(path)
    seen, held_out = (known[known.table["split"] == split] for split in ("train", "valid"))
    encoder = Encoder.from_pretrained()
    codes, unseen = (encoder.transform(part, features="density").astype(float) for part in (seen, held_out))
    fitted = flows.calibrate(flows.fit_ensemble(codes, training_set.cells(seen.table)), unseen)
    about = artifacts.describe(
        weights_sha256=artifacts.sha256(artifacts.artifact("vdvae.safetensors")),
        codes_sha256=artifacts.sha256(artifacts.artifact("codes.h5")),
        training_set_sha256=artifacts.sha256(path),
        sources=len(seen),
        unseen=len(held_out),
    )
    flows.save(out, fitted, about)
    typer.echo(f"{out}: {len(fitted.flows)} flows, fitted to {len(seen)} sources, calibrated with {len(held_out)}")

"""The verbs for new galaxies and odd ones: ``rgz generate``, ``rgz prior``, ``rgz realism``, ``rgz density``."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["density", "generate", "prior", "realism"]


def generate(
    count: Annotated[int, typer.Argument(min=1, help="How many galaxies.")],
    out: Annotated[Path, typer.Option(help="File to write: .h5 or .fits for the pixels, .png for a sheet to look at.")],
    temperature: Annotated[
        float, typer.Option(help="Below 1 more ordinary galaxies, above 1 stranger ones; more than 0.")
    ] = 1.0,
    truncation: Annotated[
        float, typer.Option(help="Standard deviations beyond which no noise is drawn; more than 0.")
    ] = float("inf"),
    seed: Annotated[int, typer.Option(min=0, help="The same seed draws the same galaxies.")] = 0,
    weights: Annotated[
        Path | None, typer.Option(help="Weights; the committed ones, and their flow, when left out.")
    ] = None,
    flow: Annotated[
        Path | None, typer.Option(help="Made by rgz prior; without one, weights of yours draw from their own prior.")
    ] = None,
):
    """Draw galaxies that nobody has seen: posed, 32 × 32 pixels, the square root of brightness in 256 grey levels.

    Example: rgz generate 64 --out galaxies.png
    """
    from rgz import artifacts
    from rgz.models import checkpoint
    from rgz.tasks import generate as making

    making.check_ending(out)
    if weights is None:
        weights, flow = artifacts.artifact("vdvae.safetensors"), flow or artifacts.artifact("prior.safetensors")
    model, _, about = checkpoint.load(weights)
    codes = None if flow is None else making.load_prior(flow, weights)
    drawn = making.new(model, count, temperature, truncation, seed=seed, flow=codes)
    settings = {
        "temperature": temperature,
        "truncation": truncation,
        "seed": seed,
        "weights": about.get("commit", "unknown"),
        "flow": artifacts.sha256(flow) if flow else "none, the network's own prior",
    }
    making.write(drawn, out, settings)
    typer.echo(f"{out}: {count} galaxies, temperature {temperature:g}, seed {seed}")


def prior(
    weights: Annotated[Path | None, typer.Option(help="Weights; the committed ones when left out.")] = None,
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Safetensors file to write; prior.safetensors beside the weights when left out.")
    ] = None,
):
    """Fit a flow to the codes of training images, for rgz generate to draw from; five minutes on two cores."""
    from rgz import artifacts
    from rgz.app.cli_data import sources
    from rgz.data import training_set as training_set_
    from rgz.models import checkpoint
    from rgz.models import flow as flows
    from rgz.tasks import generate as making

    if out is None:
        out = (weights.parent if weights else artifacts.artifacts()) / "prior.safetensors"
    weights = weights or artifacts.artifact("vdvae.safetensors")
    model, recipe, _ = checkpoint.load(weights)
    known = sources(training_set)
    seen = known[known.table["split"] == "train"]
    groups = training_set_.cells(seen.table)
    fitted = making.prior(model, recipe, seen, groups)
    about = artifacts.describe(
        weights_sha256=artifacts.sha256(weights), training_set_sha256=artifacts.sha256(training_set), sources=len(seen)
    )
    flows.save(out, fitted, about)
    typer.echo(f"{out}: a flow over {fitted.config.kept} numbers, from {len(seen)} sources")


def realism(
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
    out: Annotated[Path | None, typer.Option(help="JSON file to add to; artifacts/results.json when left out.")] = None,
):
    """Measure how real generated galaxies look."""
    from rgz import artifacts
    from rgz.app.cli_data import sources
    from rgz.models import checkpoint
    from rgz.tasks import generate as making
    from studies import classification, generation

    files = {name: artifacts.artifact(f"{name}.safetensors") for name in ("vdvae", "plain", "prior")}
    (model, recipe, _), (plain, _, _) = (checkpoint.load(files[name]) for name in ("vdvae", "plain"))
    flow = making.load_prior(files["prior"], files["vdvae"])
    found = generation.study(model, flow, plain, recipe, sources(training_set))
    found["sha256"] = {name: artifacts.sha256(file) for name, file in files.items()}
    classification.write({"generation": found}, out or artifacts.artifacts() / "results.json")
    typer.echo(generation.table(found))


def density(
    training_set: Annotated[Path, typer.Option("--data", help="Made by rgz data build; built when missing.")] = Path(
        "runs/train.h5"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Safetensors file to write; artifacts/density.safetensors when left out.")
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="JSON file to add to; artifacts/results.json when left out.")
    ] = None,
):
    """Fit flows to the codes of the training sources, and measure what they say of odd galaxies; ten minutes on two cores."""
    import numpy as np
    from scipy import stats

    from rgz import artifacts
    from rgz.app.cli_data import sources
    from rgz.data import training_set as training_set_
    from rgz.features import codes as codefile
    from rgz.models import checkpoint
    from rgz.models import flow as flows
    from studies import anomalies, classification

    weights, codes = artifacts.artifact("vdvae.safetensors"), artifacts.artifact("codes.h5")
    out = out or artifacts.artifacts() / "density.safetensors"
    model, recipe, _ = checkpoint.load(weights)
    everything = sources(training_set)
    seen, unseen = (everything[everything.table["split"] == split] for split in ("train", "valid"))
    taught, known = (anomalies.codes_of(model, recipe, part, codefile.chosen()) for part in (seen, unseen))
    groups = training_set_.cells(seen.table)
    fitted = flows.fit_ensemble(taught, groups)
    values, asked = fitted.whitened(taught), fitted.whitened(known)
    typer.echo("fitting Gaussians to the same folds", err=True)
    nats = {
        "flows": [float(v) for v in fitted.member_scores(known).mean(axis=1)],
        "together": float(fitted.score_samples(known).mean()),
        "rivals": anomalies.rivals(values, groups, asked),
    }
    order = np.random.default_rng(0).permutation(len(known))
    half, rest = np.array_split(order, 2)
    ranks = [
        flows.calibrate(fitted, known[half]).percentile(fitted.score_samples(known[part])) for part in (half, rest)
    ]
    uniform = {"p": float(stats.ks_2samp(*ranks).pvalue), "calibrated": len(half), "asked": len(rest)}
    fitted = flows.calibrate(fitted, known)
    about = artifacts.describe(
        weights_sha256=artifacts.sha256(weights),
        codes_sha256=artifacts.sha256(codes),
        training_set_sha256=artifacts.sha256(training_set),
        sources=len(seen),
        unseen=len(unseen),
        nats=nats,
        uniform=uniform,
    )
    flows.save(out, fitted, about)
    fitted, _ = flows.load(out)  # what is measured is what is kept
    found = anomalies.study(model, recipe, fitted, unseen, taught, known, anomalies.committed(codes))
    found |= {"nats": nats, "uniform": uniform, "density_sha256": artifacts.sha256(out)}
    classification.write({"anomalies": found}, results or artifacts.artifacts() / "results.json")
    typer.echo(anomalies.table(found))

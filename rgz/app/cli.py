"""The ``rgz`` command. ``rgz COMMAND --help`` explains each command and gives an example.

rgz look, rank, similar, generate          inspect, rank, compare and generate galaxies
rgz survey                                 all sources of a catalogue, on many cores
rgz explorer                               a web page with a map of your own galaxies
rgz data fetch                             the public archives
rgz train, encode, fit                     the network, its codes, and the flows fitted to them
rgz study                                  the measurements behind the book
"""

import subprocess
import sys
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Literal

import typer

import rgz
from rgz import artifacts
from rgz.app import cli_data, cli_look, survey
from rgz.app.cli_data import TRAINING_SET, TrainingSet, Weights
from rgz.errors import BadInput

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Radio galaxies in the latent space of a very deep variational autoencoder.",
)
for verb in (cli_look.look, cli_look.rank, cli_look.similar, cli_look.generate, cli_look.explorer):
    app.command()(verb)
app.command()(survey.survey)
app.add_typer(cli_data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(rgz.__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    preset: Annotated[str, typer.Option(help="deep (the network of the book) or tiny (for tests).")] = "deep",
    steps: Annotated[int, typer.Option(min=1, help="Number of optimizer steps of the whole schedule.")] = 6000,
    batch: Annotated[int, typer.Option(min=2, help="Images in a batch, an even number.")] = 64,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of initial weights, batches and noise.")] = 0,
    path: TrainingSet = TRAINING_SET,
    out: Annotated[
        Path | None, typer.Option(help="Output folder; by default runs/PRESET, with --start runs/finer.")
    ] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    start: Annotated[
        Path | None, typer.Option(help="VDVAE whose codes are kept: only the decoder finer than 8 × 8 is trained on.")
    ] = None,
) -> None:
    """Train a VDVAE on unlabelled images; the same command resumes an interrupted run. Minutes on a GPU, a day on
    two cores.

    Example: rgz train --device cuda --batch 256 --steps 5823
    """
    from rgz.app import training
    from rgz.models.train import Schedule

    schedule = Schedule(steps=steps, batch=batch, seed=seed)
    model, origin = training.network(preset, start, seed)
    weights = (out or Path("runs") / ("finer" if start else preset)) / "vdvae.safetensors"
    bits = training.run(model, origin, path, weights, schedule, device)
    typer.echo(f"{weights}: {steps} steps, {bits} bits/dim on validation images")


@app.command()
def encode(
    weights: Weights = None,
    out: Annotated[Path | None, typer.Option(help="HDF5 file to write; by default artifacts/codes.h5.")] = None,
    path: TrainingSet = TRAINING_SET,
) -> None:
    """Encode all samples into codes.h5, and fit the classifiers to them; twenty minutes on two cores.

    Codes are posterior means of latents; they have no unit.

    Example: rgz encode --weights runs/deep/vdvae.safetensors --out runs/deep/codes.h5
    """
    from rgz.tasks import encode as encoding

    out = out or artifacts.artifacts() / "codes.h5"
    counts = encoding.encode(weights or artifacts.artifact("vdvae.safetensors"), cli_data.sources(path), out)
    typer.echo(f"{out}: {', '.join(f'{name} {n}' for name, n in counts.items())}")


@app.command()
def fit(
    path: TrainingSet = TRAINING_SET,
    out: Annotated[Path | None, typer.Option(help="File to write; by default artifacts/density.safetensors.")] = None,
) -> None:
    """Fit the flow ensemble for anomaly detection: log-likelihoods (nats) and percentiles; five minutes on two cores.

    Percentiles are relative to the validation sources.

    Example: rgz fit --out runs/deep/density.safetensors
    """
    from rgz.data.sample import cells
    from rgz.features.embed import Encoder
    from rgz.models import flow as flows

    out = out or artifacts.artifacts() / "density.safetensors"
    seen, held_out = cli_data.splits(path)
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
    typer.echo(f"{out}: {len(fitted.flows)} flows, fitted to {len(seen)} sources, calibrated with {len(held_out)}")


@app.command()
def study(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Names of steps in dodo.py, such as classification; by default all studies."),
    ] = None,
    fresh: Annotated[bool, typer.Option(help="Run them even if their inputs have not changed.")] = False,
) -> None:
    """Run studies of the book in a clone of the repository, one a core; seconds to half an hour each.

    A study whose inputs have not changed is not run again. python -m doit list shows all.

    Example: rgz study classification --fresh
    """
    root = artifacts.clone()
    if root is None or find_spec("doit") is None:
        raise BadInput("studies need a clone of the repository and its packages: pip install -e '.[book]' there")
    words = [sys.executable, "-m", "studies.steps", *(names or ()), *["--fresh"] * fresh]
    with subprocess.Popen(words, cwd=root) as running:  # it ends its steps on Ctrl-C, which run would not wait for
        raise typer.Exit(running.wait())


def main() -> None:
    """Run the command line; an unusable input gives one line on stderr and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # not every terminal has ″ and σ
    try:
        app()
    except BadInput as error:
        typer.echo("rgz: " + " ".join(str(error).split()), err=True)
        sys.exit(1)
    except OSError as error:  # a full disk, say
        typer.echo(f"rgz: the output cannot be written ({error.strerror or error})", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, SystemExit) as stop:
        if (status := getattr(stop, "code", 130)) == 130:  # which typer makes of Ctrl-C
            typer.echo("rgz: stopped", err=True)
        sys.exit(status)

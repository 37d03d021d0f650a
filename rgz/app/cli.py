"""The ``rgz`` command. Each verb reads files and writes files; ``rgz VERB --help`` gives an example.

rgz look, similar, generate, explorer      for people with a galaxy, or without one
rgz data fetch, check, build, cutouts      the archives and the training set
rgz train, encode, fit prior, fit density  the network and what is fitted to its codes
rgz study                                  the measurements behind the book
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

import rgz
from rgz import artifacts
from rgz.app import cli_data, cli_fit, cli_look
from rgz.app.cli_data import TRAINING_SET, TrainingSet, Weights
from rgz.errors import BadInput

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Radio galaxies in the latent space of a very deep variational autoencoder.",
)
for verb in (cli_look.look, cli_look.similar, cli_look.generate, cli_look.explorer):
    app.command()(verb)
app.add_typer(cli_data.app, name="data")
app.add_typer(cli_fit.app, name="fit")


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
    preset: Annotated[
        str,
        typer.Option(help="tiny (tests), small (two cores), base64 (a GPU), imagenet64 (several), plain (baseline)."),
    ] = "small",
    steps: Annotated[int, typer.Option(min=1, help="Optimizer steps of the whole schedule.")] = 6000,
    minutes: Annotated[float, typer.Option(min=0, help="Checkpoint and stop after this many minutes.")] = float("inf"),
    seed: Annotated[int, typer.Option(min=0, help="Seed of initial weights, batches and noise.")] = 0,
    path: TrainingSet = TRAINING_SET,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; by default runs/PRESET.")] = None,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="Where to train.")] = "cpu",
    accumulate: Annotated[int, typer.Option(min=1, help="Parts to split a batch into, to save memory.")] = 1,
    tensorboard: Annotated[bool, typer.Option(help="Write the log for TensorBoard too.")] = False,
) -> None:
    """Train a VDVAE on unlabelled images; the same command resumes an interrupted run. Under an hour on two cores.

    The plain preset is a non-hierarchical VAE, to compare with.

    Examples: rgz train --minutes 30;  torchrun --nproc-per-node 2 -m rgz train
    """
    from rgz.app import training
    from rgz.models.train import Schedule

    schedule = Schedule(steps=steps, seed=seed, accumulate=accumulate)
    folder = out or Path("runs") / preset
    weights, done, about = training.run(
        preset, path, folder, schedule, device, minutes=minutes, tensorboard=tensorboard
    )
    if about:
        bits = about["validation"]["bits_per_dimension"]
        typer.echo(f"{weights}: step {done} of {steps}, {bits} bits/dim on held-out images")
        if done < steps:
            typer.echo("not finished: run the same command again to continue")


@app.command()
def encode(
    weights: Weights = None,
    out: Annotated[Path | None, typer.Option(help="HDF5 file to write; by default artifacts/codes.h5.")] = None,
    dimensions: Annotated[int, typer.Option(min=1, help="Number of latents to keep, the most variable ones.")] = 64,
    path: TrainingSet = TRAINING_SET,
) -> None:
    """Encode all samples into codes.h5, and fit the FRI/FRII classifiers beside it; half an hour on two cores.

    Codes are posterior means of latents, which have no unit.

    Example: rgz encode --weights runs/small/vdvae.safetensors --out runs/small/codes.h5
    """
    from rgz.tasks import encode as encoding

    out = out or artifacts.artifacts() / "codes.h5"
    counts = encoding.encode(
        weights or artifacts.artifact("vdvae.safetensors"), cli_data.sources(path), out, dimensions
    )
    typer.echo(f"{out}: {', '.join(f'{name} {n}' for name, n in counts.items())}; {dimensions} latents")


@app.command()
def study(
    name: Annotated[str, typer.Argument(help="Step of dodo.py, such as classification.")],
    fresh: Annotated[bool, typer.Option(help="Run it even if its inputs have not changed.")] = False,
) -> None:
    """Run one study of the book in a clone of the repository; seconds to half an hour. python -m doit list names them.

    Example: rgz study classification --fresh
    """
    root = artifacts.clone()
    if root is None or find_spec("doit") is None:
        raise BadInput("studies need a clone of the repository and its packages: pip install -e '.[book]' there")
    for command in (["forget", name],) * fresh + ([name],):
        status = subprocess.run([sys.executable, "-m", "doit", *command], cwd=root).returncode
        if status:
            raise typer.Exit(status)


def main() -> None:
    """Run the command line; an unusable input is one line on stderr and exit status 1."""
    try:
        app()
    except BadInput as error:
        typer.echo("rgz: " + " ".join(str(error).split()), err=True)
        sys.exit(1)
    except KeyboardInterrupt:
        typer.echo("rgz: stopped", err=True)
        sys.exit(130)

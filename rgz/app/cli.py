"""The ``rgz`` command. ``rgz COMMAND --help`` explains each command and gives an example.

rgz look, rank, similar, generate          inspect, rank, compare and generate galaxies
rgz survey                                 all sources of a catalogue, on many cores
rgz explorer                               a web page with a map of your own galaxies
rgz data fetch                             the public archives
rgz train, encode                          the network, and the codes of the samples
rgz study                                  flows, and the measurements behind the book
"""

import subprocess
import sys
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

import rgz
from rgz import artifacts
from rgz.app import cli_look, survey, training
from rgz.errors import BadInput

__all__ = ["app", "main"]

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Radio galaxies in the latent space of a very deep variational autoencoder.",
)
data = typer.Typer(no_args_is_help=True, help="The public archives.")
app.add_typer(data, name="data")
for verb in (cli_look.look, cli_look.rank, cli_look.similar, cli_look.generate, cli_look.explorer):
    app.command()(verb)
app.command()(survey.survey)
app.command()(training.train)


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


@data.command("fetch")
def fetch_files(
    names: Annotated[list[str] | None, typer.Argument(help="Files to fetch; by default all available ones.")] = None,
) -> None:
    """Find or download the public archives, check their sha256, and print where they are.

    Looks for a file in $RGZ_DATA_MIRROR, then in the cache ($RGZ_CACHE), then on the network; 130 MB in all.

    Example: rgz data fetch MiraBest_F_batches.tar.gz
    """
    from rgz.data import fetch

    for name in names or fetch.REGISTRY:
        if not names and fetch.REGISTRY[name].url is None and fetch.locate(name) is None:
            found = f"not on this machine, and not published as one file: {fetch.REGISTRY[name].source}"
        else:
            path = fetch.fetch(name)
            found = f"{path} ({path.stat().st_size / 1e3:,.0f} kB, sha256 checked)"
        typer.echo(f"{name}\n    {found}\n    {fetch.REGISTRY[name].about}")


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
    _in_clone("studies.steps", *(names or ()), *["--fresh"] * fresh)


@app.command()
def encode(
    weights: Annotated[Path | None, typer.Option(help="Weights of the network; by default the trained ones.")] = None,
    out: Annotated[Path | None, typer.Option(help="File to write; by default artifacts/codes.h5.")] = None,
    path: Annotated[Path, typer.Option("--data", help="Training set, for the metric.")] = training.TRAINING_SET,
) -> None:
    """Encode all samples in a clone of the repository, and fit metric and classifiers to their codes; minutes.

    Your own galaxies are encoded by rgz look --codes.

    Example: rgz encode --weights runs/deep/vdvae.safetensors --out codes.h5
    """
    files = {"--weights": weights, "--out": out, "--data": path}
    _in_clone("studies.encode", *(f"{name}={file.absolute()}" for name, file in files.items() if file))


def _in_clone(module: str, *words: str) -> None:
    root = artifacts.clone()
    if root is None or find_spec("doit") is None:
        raise BadInput("this command needs a clone of the repository and its packages: pip install -e '.[book]' there")
    with subprocess.Popen([sys.executable, "-m", module, *words], cwd=root) as running:
        raise typer.Exit(running.wait())  # run would not wait for it on Ctrl-C


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
            if "tqdm" in sys.modules:
                from rgz import progress

                progress.close()
            typer.echo("rgz: stopped", err=True)
        sys.exit(status)

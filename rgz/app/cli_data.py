"""The verbs of ``rgz data``: find, check and put together what everything else starts from."""

from pathlib import Path
from typing import Annotated

import typer

from rgz.errors import BadInput

__all__ = ["app", "build", "sources"]

app = typer.Typer(no_args_is_help=True, help="The public archives and the training set.")


@app.command("fetch")
def fetch_files(
    names: Annotated[
        list[str] | None, typer.Argument(help="Files to fetch; all that have a download when left out.")
    ] = None,
):
    """Find or download the public archives, check their sha256, and say what is where.

    A file is looked for in $RGZ_DATA_MIRROR, then in the cache ($RGZ_CACHE), then on the network.

    Example: rgz data fetch MiraBest_F_batches.tar.gz
    """
    from rgz.data import fetch

    for name in names or fetch.REGISTRY:
        file = fetch.REGISTRY.get(name)
        if not names and file.url is None and fetch.locate(name) is None:
            typer.echo(f"{name}\n    not here, and without a download of its own: {file.source}\n    {file.about}")
            continue
        path = fetch.fetch(name)
        typer.echo(
            f"{name}\n    {path} ({path.stat().st_size / 1e6:.1f} MB, sha256 checked)\n    {fetch.REGISTRY[name].about}"
        )


@app.command("check")
def check_files(
    files: Annotated[
        list[Path],
        typer.Argument(help="FITS images, archives of batches, samples, codes (.h5), weights (.safetensors)."),
    ],
):
    """Read files as rgz reads them and say what is in each; the first that cannot be used ends with exit status 1."""
    from rgz.app import check

    for path in files:
        typer.echo(f"{path}: {check.describe(path)}")


@app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")] = Path("runs/train.h5"),
    cutouts: Annotated[Path | None, typer.Option(help="Folder of rgz data cutouts, to be taken in too.")] = None,
):
    """Put together the training set: unlabelled FIRST sources, once each, none within 30″ of a test split.

    Sources are looked for in every field of MiraBest and the Radio Galaxy Dataset; some two minutes.
    """
    from rgz.data import download as downloads
    from rgz.data import fetch, sample
    from rgz.data import training_set as training_set_

    extra = cutouts and downloads.collect(cutouts, downloads.read_catalogue(fetch.fetch(training_set_.ZOO)))
    built = training_set_.training_sample(extra)
    sample.write(out, built)
    held_out = int((built.table["split"] == "valid").sum())
    known = int((built.table["rgz_name"] != "").sum())
    typer.echo(f"{out}: {len(built)} sources, {known} of them in Radio Galaxy Zoo DR1; {held_out} for validation")


@app.command("cutouts")
def download(
    folder: Annotated[Path, typer.Option(help="Folder of the images, one FITS file a source.")] = Path("runs/first"),
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only the first so many sources; all 50,637 when left out.")
    ] = None,
    service: Annotated[
        str | None, typer.Option(help="Address of another server that takes the form of the FIRST cut-out server.")
    ] = None,
):
    """Cut the sources of Radio Galaxy Zoo DR1 out of the FIRST survey, one request at a time.

    All of them take about a day. Stop when you like: the same command goes on from there, asks for nothing that is in
    the folder, and tries again what is listed in its failures.csv.

    Example, a minute: rgz data cutouts --limit 30
    """
    from rgz.data import download as downloads
    from rgz.data import fetch
    from rgz.data import training_set as training_set_

    table = downloads.read_catalogue(fetch.fetch(training_set_.ZOO))[:limit]
    failures = downloads.download(table, folder, service or downloads.SERVICE)
    listed = f"{len(failures)} could not be had, see {folder / downloads.FAILURES}"
    if len(failures) == len(table):
        raise BadInput(f"{folder}: none of {len(table)} sources: {listed}")
    typer.echo(f"{folder}: {len(table) - len(failures)} of {len(table)} sources" + (f"; {listed}" if failures else ""))


def sources(training_set: Path):
    """The training set, built first where it is missing."""
    from rgz.data import sample

    if not training_set.exists():
        build(training_set)
    return sample.read(training_set)

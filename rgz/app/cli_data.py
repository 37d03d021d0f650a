"""``rgz data``: find, download and check the public archives, and build the training set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rgz.errors import BadInput

if TYPE_CHECKING:
    from rgz.data.sample import Sample

__all__ = ["TRAINING_SET", "TrainingSet", "Weights", "app", "sources"]

app = typer.Typer(no_args_is_help=True, help="The public archives and the training set.")

TRAINING_SET = Path("runs/train.h5")
TrainingSet = Annotated[Path, typer.Option("--data", help="Training set from rgz data build; built if missing.")]
Weights = Annotated[Path | None, typer.Option(help="Weights of the network; by default those of the repository.")]


@app.command("fetch")
def fetch_files(
    names: Annotated[list[str] | None, typer.Argument(help="Files to fetch; by default all available ones.")] = None,
) -> None:
    """Find or download the public archives, check their sha256, and print where they are.

    Looks for a file in $RGZ_DATA_MIRROR, then in the cache ($RGZ_CACHE), then on the network; 130 MB in all.

    Example: rgz data fetch MiraBest_F_batches.tar.gz
    """
    from rgz.data import fetch

    for name in names or fetch.REGISTRY:
        file = fetch.REGISTRY.get(name)
        if not names and file is not None and file.url is None and fetch.locate(name) is None:
            typer.echo(
                f"{name}\n    not on this machine, and not published as one file: {file.source}\n    {file.about}"
            )
            continue
        path = fetch.fetch(name)
        size = path.stat().st_size / 1e6
        typer.echo(f"{name}\n    {path} ({size:.1f} MB, sha256 checked)\n    {fetch.REGISTRY[name].about}")


@app.command("check")
def check_files(
    files: Annotated[list[Path], typer.Argument(help="FITS images, tar archives, samples or codes (.h5), or weights.")],
) -> None:
    """Describe each file in one line; stops with exit status 1 at the first file that rgz cannot use.

    Example: rgz data check galaxy.fits runs/deep/vdvae.safetensors
    """
    from rgz.app import check

    for path in files:
        typer.echo(f"{path}: {check.describe(path)}")


@app.command("build")
def build(
    out: Annotated[Path, typer.Option(help="HDF5 file to write.")] = TRAINING_SET,
    cutouts: Annotated[Path | None, typer.Option(help="Folder of rgz data cutouts, to include them.")] = None,
) -> None:
    """Build the training set: unlabelled FIRST sources, none within 30″ of a test galaxy; about two minutes.

    Sources are detected in all fields of MiraBest and the Radio Galaxy Dataset.

    Example: rgz data build --cutouts runs/first
    """
    from rgz.data import download, fetch, sample, training_set

    zoo = fetch.fetch(training_set.ZOO)
    extra = None if cutouts is None else download.collect(cutouts, download.read_catalogue(zoo))
    built = training_set.training_sample(extra)
    sample.write(out, built)
    held_out = int((built.table["split"] == "valid").sum())
    known = int((built.table["rgz_name"] != "").sum())
    typer.echo(f"{out}: {len(built)} sources, {known} of them in Radio Galaxy Zoo DR1; {held_out} for validation")


@app.command("cutouts")
def download_cutouts(
    folder: Annotated[Path, typer.Option(help="Folder for the images, one FITS file per source.")] = Path("runs/first"),
    limit: Annotated[int | None, typer.Option(min=1, help="Number of sources; by default all 50,637.")] = None,
    service: Annotated[
        str | None, typer.Option(help="URL of a server with the same interface as the FIRST cut-out server.")
    ] = None,
) -> None:
    """Download FIRST images of the sources in Radio Galaxy Zoo DR1, 4.6′ wide, one at a time; about a day for all.

    You can stop at any time. The same command continues, skips images in the folder, and retries failed ones.

    Example, a minute: rgz data cutouts --limit 30
    """
    from rgz.data import download, fetch, training_set

    table = download.read_catalogue(fetch.fetch(training_set.ZOO))[:limit]
    failures = download.download(table, folder, service or download.SERVICE)
    listed = f"{len(failures)} could not be downloaded, see {folder / download.FAILURES}"
    if len(failures) == len(table):
        raise BadInput(f"{folder}: none of {len(table)} sources: {listed}")
    typer.echo(f"{folder}: {len(table) - len(failures)} of {len(table)} sources" + (f"; {listed}" if failures else ""))


def sources(path: Path) -> "Sample":
    """The training set, built first if the file is missing."""
    from rgz.data import sample

    if not path.exists():
        build(path)
    return sample.read(path)

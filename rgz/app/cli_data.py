"""``rgz data``: find or download the public archives, and build the training set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rgz.errors import BadInput

if TYPE_CHECKING:
    from rgz.data.sample import Sample

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
        if not names and fetch.REGISTRY[name].url is None and fetch.locate(name) is None:
            found = f"not on this machine, and not published as one file: {fetch.REGISTRY[name].source}"
        else:
            path = fetch.fetch(name)
            found = f"{path} ({path.stat().st_size / 1e6:.1f} MB, sha256 checked)"
        typer.echo(f"{name}\n    {found}\n    {fetch.REGISTRY[name].about}")


@app.command("build")
def build(out: Annotated[Path, typer.Option(help="HDF5 file to write.")] = TRAINING_SET) -> None:
    """Build the training set: unlabelled FIRST sources, none within 30″ of a test galaxy; about two minutes.

    Sources are detected in all fields of MiraBest and the Radio Galaxy Dataset.

    Example: rgz data build --out runs/train.h5
    """
    from rgz.data import sample, training_set

    built = training_set.training_sample()
    sample.write(out, built)
    held_out = int((built.table["split"] == "valid").sum())
    known = int((built.table["rgz_name"] != "").sum())
    typer.echo(f"{out}: {len(built)} sources, {known} of them in Radio Galaxy Zoo DR1; {held_out} for validation")


def sources(path: Path) -> "Sample":
    """The training set, built first if the file is missing."""
    from rgz.data import sample

    if not path.exists():
        build(path)
    return sample.read(path)


def splits(path: Path) -> tuple["Sample", "Sample"]:
    """Training and validation sources; raises :class:`BadInput` if there are none of one."""
    known = sources(path)
    seen, held_out = (known[known.table["split"] == split] for split in ("train", "valid"))
    if not len(seen) or not len(held_out):
        raise BadInput(
            f"{path} has {len(seen)} train and {len(held_out)} valid rows, and both are needed: rgz data build"
        )
    return seen, held_out

"""``rgz data``: find or download the public archives; and the training set of other commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rgz.errors import BadInput

if TYPE_CHECKING:
    from rgz.data.sample import Sample

app = typer.Typer(no_args_is_help=True, help="The public archives.")

TRAINING_SET = Path("runs/train.h5")
TrainingSet = Annotated[Path, typer.Option("--data", help="Training set, as written by rgz.data.sample.write.")]
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


def sources(path: Path) -> "Sample":
    """The training set; raises :class:`rgz.errors.BadInput` if the file is missing or damaged."""
    from rgz.data import sample

    if not path.exists():
        raise BadInput(
            f"{path} is missing: rgz study training-set makes it in a clone; or give another one with --data"
        )
    return sample.read(path)


def splits(path: Path) -> tuple["Sample", "Sample"]:
    """Training and validation sources; raises :class:`rgz.errors.BadInput` if there are none of one."""
    known = sources(path)
    seen, held_out = (known[known.table["split"] == split] for split in ("train", "valid"))
    if not len(seen) or not len(held_out):
        raise BadInput(f"{path} has {len(seen)} train and {len(held_out)} valid rows: give a file with both")
    return seen, held_out

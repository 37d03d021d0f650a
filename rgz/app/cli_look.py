"""The commands that need no training: look, similar, generate, explorer."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rgz import artifacts
from rgz.app.cli_data import Weights
from rgz.errors import BadInput

if TYPE_CHECKING:
    from rgz.data.cutout import Cutout
    from rgz.tasks.inspect import Inspection

__all__ = ["explorer", "generate", "look", "similar"]

K = Annotated[int, typer.Option("-k", min=1, help="Number of similar galaxies.")]
TableFile = Annotated[Path | None, typer.Option("--table", help="Write the list: .csv, .ecsv, .vot or .parquet.")]


def look(
    files: Annotated[list[Path] | None, typer.Argument(help="FITS or grey-scale PNG or JPEG images.")] = None,
    at: Annotated[
        tuple[str, str] | None,
        typer.Option(help="RA and Dec of the galaxy, in degrees or as 10:02:00 +02:15:00.", metavar="RA DEC"),
    ] = None,
    pixel: Annotated[float | None, typer.Option(min=0.01, help="Pixel width in arcsec without WCS (PNG: 1.8).")] = None,
    hdu: Annotated[str | None, typer.Option(help="Number or name of the HDU of a FITS file to read.")] = None,
    plane: Annotated[int | None, typer.Option(min=0, help="Plane of a FITS cube to read, from 0.")] = None,
    k: K = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per galaxy, one per line.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Plot the galaxies and similar ones: .png, .pdf or .svg.")] = None,
    table: TableFile = None,
) -> None:
    """Inspect your own galaxies: FRI or FRII, how anomalous, and the most similar galaxies.

    Pixels may be up to 20″ wide. Without a file, an image of the position is downloaded from FIRST or NVSS.

    Examples: rgz look galaxy.fits --plot galaxy.png;  rgz look --at 187.70593 12.39112
    """
    from astropy.table import vstack

    from rgz.tasks import search

    if table:
        search.ending(table)
    if plot and plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise BadInput(f"{plot}: figures are written as .png, .pdf or .svg; choose one of these endings")
    cutouts, refused = _cutouts(files or [], at, pixel, hdu, plane)
    from rgz.tasks import inspect  # torch, which takes seconds

    found = inspect.inspect_all(cutouts, k) if cutouts else []
    if found and table:
        tables = [one.neighbours.copy() for one in found]
        for one, near in zip(found, tables, strict=True):
            near.add_column(one.cutout.name, name="query", index=0)
        search.write(vstack(tables, metadata_conflicts="silent"), table)
    if found and plot:
        _draw(found, plot)
    for one in found:
        typer.echo(json.dumps(one.to_dict(), ensure_ascii=False) if as_json else str(one))
    if refused:
        raise BadInput("; ".join(refused))


def _cutouts(
    files: list[Path], at: tuple[str, str] | None, pixel: float | None, hdu: str | None, plane: int | None
) -> tuple[list["Cutout"], list[str]]:
    """Cutouts of the files, or of a position, and the reasons why other files cannot be used."""
    from rgz.data import cutout

    place = cutout.parse_position(*at) if at else None
    if not files:
        if place is None:
            raise BadInput("no input: give an image, or a position with --at RA DEC")
        return [cutout.download_cutout(*place)], []
    found, refused = [], []
    for path in files:
        try:
            found.append(cutout.open_cutout(path, place, pixel, hdu, plane))
        except BadInput as error:
            refused.append(str(error))
    return found, refused


def _draw(found: list["Inspection"], path: Path) -> None:
    from rgz import plots
    from rgz.tasks import inspect

    names = [f"{one.cutout.name}: {one.probability}" for one in found]
    canvas = plots.lookalikes(names, *inspect.pictures(found))[0, 0].figure
    with artifacts.atomic(path) as partial:
        canvas.savefig(partial, format=path.suffix[1:].lower(), dpi=150)


def similar(
    name: Annotated[str, typer.Argument(help="Name of a galaxy in one of the samples, such as rgd-0001.")],
    k: K = 10,
    sample: Annotated[list[str] | None, typer.Option(help="Sample to search (repeatable); by default all.")] = None,
    table: TableFile = None,
) -> None:
    """List the galaxies most similar to one that is in the samples.

    The separation is the cosine distance (1 − cos) between codes in the metric of the search, from 0 (identical) to 2.
    Rows marked as the same show the galaxy itself, which may be in several samples.

    Example: rgz similar rgd-0001 --sample mirabest
    """
    from rgz.data import datasets
    from rgz.tasks import search

    if unknown := sorted(set(sample or ()) - set(datasets.SAMPLES)):
        raise BadInput(f"no sample is called {', '.join(unknown)}: known are {', '.join(datasets.SAMPLES)}")
    index = search.SearchIndex.from_pretrained()
    row = index.row(name)
    found = (index.of(*sample) if sample else index).query_vector(index.vectors[row], k, index.table[row])
    if table:
        search.write(found, table)
    found["separation"].info.format = ".3f"
    shown = found["name", "sample", "label", "separation", "same", "link"].pformat(max_lines=-1, max_width=-1)
    typer.echo("\n".join(shown))


def generate(
    count: Annotated[int, typer.Argument(min=1, help="Number of galaxies.")],
    out: Annotated[Path, typer.Option(help="File to write: .h5 or .fits (pixels), or .png (all images on one sheet).")],
    temperature: Annotated[float, typer.Option(help="Below 1: more typical samples; above 1: more diverse.")] = 1.0,
    truncation: Annotated[float, typer.Option(help="Truncate the noise at this many σ (above 0).")] = float("inf"),
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="The same seed gives the same galaxies.")] = 0,
    weights: Weights = None,
) -> None:
    """Generate new galaxies: 64 × 64 pixels in canonical orientation, square root of brightness in 256 grey levels.

    Example: rgz generate 64 --out galaxies.png
    """
    from rgz.app import gallery
    from rgz.models import checkpoint
    from rgz.tasks import generate as generation

    gallery.check_ending(out)
    model, _, about = checkpoint.load(weights or artifacts.artifact("vdvae.safetensors"))
    drawn = generation.generate(count, temperature, truncation, seed, model)
    settings: dict[str, Any] = {"temperature": temperature, "truncation": truncation, "seed": seed}
    settings |= {"weights": about.get("commit", "unknown")}
    gallery.write(drawn, out, settings)
    typer.echo(f"{out}: {count} galaxies, temperature {temperature:g}, seed {seed}")


def explorer(
    out: Annotated[Path, typer.Option(help="Folder to write the page into.")] = Path("_build/explorer"),
) -> None:
    """Build the explorer, a web page of at most 3 MB with all galaxies on a map; it needs a clone of the repository.

    Example: rgz explorer --out page
    """
    from rgz.app import explorer as explorers

    size = explorers.build(out)
    typer.echo(f"{out / 'index.html'}: {size / 1e6:.2f} MB")

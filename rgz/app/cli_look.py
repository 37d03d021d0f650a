"""The verbs for people who come with a galaxy: ``rgz look``, ``rgz similar``, ``rgz explorer``."""

from pathlib import Path
from typing import Annotated

import typer

from rgz.errors import BadInput

__all__ = ["explorer", "look", "similar"]


def similar(
    name: Annotated[str, typer.Argument(help="Name of a galaxy in one of the samples.")],
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    sample: Annotated[
        list[str] | None, typer.Option(help="Sample to look in, may be repeated; all when left out.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Write the list too: .csv, .ecsv, .vot or .parquet.")] = None,
):
    """List the galaxies most like one of the samples' own.

    Example: rgz similar rgd-0001 --sample mirabest
    """
    from rgz.data import datasets
    from rgz.tasks import search

    index = search.index()
    row = index.row(name)
    if unknown := sorted(set(sample or ()) - set(datasets.SAMPLES)):
        raise BadInput(f"no sample is called {', '.join(unknown)}: known are {', '.join(datasets.SAMPLES)}")
    found = (index.of(*sample) if sample else index).query_vector(index.vectors[row], k, index.table[row])
    if table:
        search.write(found, table)
    typer.echo(
        "\n".join(found["name", "sample", "label", "separation", "same", "link"].pformat(max_lines=-1, max_width=-1))
    )


def look(
    files: Annotated[list[Path] | None, typer.Argument(help="FITS or PNG images of galaxies.")] = None,
    at: Annotated[
        tuple[str, str] | None,
        typer.Option(
            help="RA and Dec, degrees or 10:02:00 +02:15:00: of the galaxy in the image, or to get an image of."
        ),
    ] = None,
    pixel: Annotated[
        float | None, typer.Option(min=0.01, help="Width of a pixel in arcsec, of images that do not say; 1.8 for PNG.")
    ] = None,
    k: Annotated[int, typer.Option("-k", min=1, help="How many neighbours.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a galaxy and line.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the galaxies and their neighbours: .png, .pdf or .svg.")
    ] = None,
    table: Annotated[Path | None, typer.Option(help="Write all neighbours: .csv, .ecsv, .vot or .parquet.")] = None,
):
    """Look at galaxies of your own: FRI or FRII, what is most like them, what the network keeps of them.

    Images are FITS or grey PNG, of any pixel width; without a file the place given by --at is asked for in FIRST, then NVSS.

    Examples: rgz look galaxy.fits --plot galaxy.png;  rgz look --at 187.70593 12.39112
    """
    import json

    from rgz import artifacts
    from rgz.data import cutout
    from rgz.tasks import inspect, search

    if table:
        search.ending(table)
    if plot and plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise BadInput(f"{plot}: figures are drawn as .png, .pdf or .svg; choose one of these endings")
    if not files and not at:
        raise BadInput("nothing to look at: name an image, or a place with --at RA DEC")
    place = cutout.place(*at) if at else None
    fields, refused = [], []
    for source in files or [None]:
        try:
            seen = cutout.open_cutout(source, pixel) if source else cutout.download(*place)
            fields.append(cutout.centre(seen, place))
        except BadInput as error:
            refused.append(str(error))
    found = inspect.inspect(fields, k) if fields else []
    if found and table:
        search.write(inspect.neighbours(found), table)
    if found and plot:
        from rgz import plots

        own, near, titles = inspect.pictures(found)
        names = [f"{one.field.name}: {inspect.probability(one.frii)}" for one in found]
        canvas = plots.lookalikes(names, own, near, titles)[0, 0].figure
        with artifacts.atomic(plot) as partial:
            canvas.savefig(partial, format=plot.suffix[1:].lower(), dpi=150)
    for one in found:
        typer.echo(json.dumps(inspect.as_dict(one), ensure_ascii=False) if as_json else inspect.text(one))
    if refused:
        raise BadInput("; ".join(refused))


def explorer(
    out: Annotated[Path, typer.Option(help="Folder to write the page into.")] = Path("_build/explorer"),
    page: Annotated[Path, typer.Option(help="Folder of the hand-written page.")] = Path(__file__).resolve().parents[2]
    / "book"
    / "explorer",
):
    """Build the explorer: a page with all galaxies on a map and the nearest of each, that needs no server."""
    from rgz.app import explorer as explorer_

    size = explorer_.build(out, page)
    typer.echo(f"{out / 'index.html'}: {size / 1e6:.2f} MB")

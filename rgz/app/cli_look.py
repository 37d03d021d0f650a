"""The commands that need no training: look, rank, similar, generate, explorer."""

import json
import logging
import os
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import rgz
from rgz import artifacts
from rgz.errors import BadInput

if TYPE_CHECKING:
    import numpy as np
    from astropy.table import Table
    from numpy.typing import NDArray

    from rgz.app.tables import Item
    from rgz.data.cutout import Cutout
    from rgz.tasks.inspect import Inspection

    Answer = tuple[dict[str, Any], str, Inspection | None]

__all__ = ["explorer", "generate", "look", "rank", "similar"]

PLOTTED = 50  # galaxies, at most, in one figure
TOGETHER = 16  # galaxies that are encoded together
WORTH_A_PROCESS, MOST_PROCESSES = 50, 8  # galaxies, which take as long as its start
Files = Annotated[
    list[Path] | None, typer.Argument(help="Images (FITS, PNG, JPEG), folders of them, or tables with ra and dec.")
]
Position = Annotated[
    tuple[str, str] | None,
    typer.Option(
        help="RA and Dec of the host galaxy, in degrees or as 10:02:00 +02:15:00; without, the shape alone decides.",
        metavar="RA DEC",
    ),
]
K = Annotated[int, typer.Option("-k", min=1, help="Number of similar galaxies.")]
TableFile = Annotated[
    Path | None, typer.Option("--table", help="Write the list: .csv, .ecsv, .vot, .fits or .parquet.")
]
Weights = Annotated[Path | None, typer.Option(help="Weights of the network; by default those of the repository.")]
Output = Annotated[Path | None, typer.Option(help="Write the results: .jsonl, .csv, .ecsv, .vot, .fits or .parquet.")]


def look(
    files: Files = None,
    at: Position = None,
    pixel: Annotated[float | None, typer.Option(min=0.01, help="Pixel width, arcsec, if there is no WCS.")] = None,
    hdu: Annotated[str | None, typer.Option(help="Number or name of the HDU of a FITS file to read.")] = None,
    plane: Annotated[int | None, typer.Option(min=0, help="Plane of a FITS cube to read, from 0.")] = None,
    k: K = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per file, one per line.")] = False,
    plot: Annotated[Path | None, typer.Option(help="Plot the first 50 galaxies: .png, .pdf or .svg.")] = None,
    table: TableFile = None,
    output: Output = None,
    codes: Annotated[bool, typer.Option("--codes", help="Add the code of each galaxy to the results.")] = False,
    strict: Annotated[bool, typer.Option(help="Exit with status 1 if any file cannot be used.")] = False,
) -> None:
    """Inspect your own galaxies: their class, how anomalous they are, and the most similar galaxies.

    Pixels may be up to 20″ wide. Without a file, an image of the position is downloaded from FIRST or NVSS. Results are
    given as they come; files that cannot be used are listed, with the reason. A table (CSV, ECSV, VOTable, FITS,
    Parquet) has the columns ra and dec of the host galaxies and, if the images are not to be downloaded, file, relative
    to the folder of the table. With --output, the same command resumes an interrupted run.

    Examples: rgz look galaxy.fits --plot galaxy.png;  rgz look --at 187.70593 12.39112;  rgz look folder --json;
    rgz look sources.csv --output results.vot
    """
    from astropy.table import vstack

    from rgz.app import tables

    _check_endings(table, plot)
    asked, refused = _listed(files or [], at), 0
    near, kept = list["Table"](), list["Inspection"]()
    how = (pixel, hdu, plane), k, codes, bool(table or plot)
    request = _request(asked, *how, os.getpid() if table or plot else 0) if output else None
    with tables.saved(output, request) as (done, save):
        known: Iterator[Answer] = ((row, "", None) for row in done)
        for number, (row, text, one) in enumerate(chain(known, _answers(asked, len(done), *how))):
            if bad := row["status"] == "refused":
                refused += 1
                if len(asked) == 1:
                    raise BadInput(row["notes"][0])
            if one and table:
                one.neighbours.add_column(one.cutout.name, name="query", index=0)
                near.append(one.neighbours)
            kept += [one] if one and plot and len(kept) < PLOTTED else []
            if number >= len(done):
                save(row)
            if as_json:
                typer.echo(json.dumps(row, ensure_ascii=False))
            elif bad or not output:
                typer.echo(f"rgz: {row['notes'][0]}" if bad else text, err=bad)
        if refused == len(asked):
            raise BadInput(f"none of these {refused} files can be used")
    if table:
        tables.write(vstack(near, metadata_conflicts="silent"), table)
    if plot:
        _draw(kept, plot)
    if refused or output:
        typer.echo(f"{len(asked) - refused} answered, {refused} refused", err=True)
    if refused and strict:
        raise typer.Exit(1)


def _check_endings(table: Path | None, plot: Path | None) -> None:
    """Raise :class:`BadInput` if a file could not be written, before anything is computed."""
    from rgz.app import tables

    if table:
        tables.ending(table)
    if plot and plot.suffix.lower() not in (".png", ".pdf", ".svg"):
        raise BadInput(f"{plot}: figures are written as .png, .pdf or .svg; choose one of these endings")


def _listed(paths: list[Path], at: tuple[str, str] | None) -> list["Item"]:
    """The files, the visible ones in the folders, by name, and the rows of the tables, with their positions."""
    from rgz.app import tables

    found: list[Item] = [] if paths or at is None else [(None, at)]
    for path in paths:
        inside = sorted(path.iterdir()) if path.is_dir() else [path]
        rows = tables.items(path, len(paths) == 1)
        files = [file for file in inside if file == path or (file.is_file() and not file.name.startswith("."))]
        if skipped := [file for file in inside if not file.is_file() and file != path]:
            typer.echo(f"{path}: skipping {len(skipped)} folders or other entries that are no files", err=True)
        found += [(file, at) for file in files] if rows is None else rows
    if not found:
        raise BadInput("no input: give an image, a folder of images, or a position with --at RA DEC")
    return found


def _request(asked: list["Item"], *options: Any) -> tuple[Any, ...]:
    """All that the results depend on; the options include a number of this process if it is not to be resumed."""
    files = [path.stat() if path and path.is_file() else None for path, _ in asked]
    known = [(one.st_size, one.st_mtime_ns) if one else None for one in files]
    made = [artifacts.sha256(artifacts.artifact(name)) for name in ("vdvae.safetensors", "codes.h5")]
    return rgz.__version__, asked, known, options, made


def _answers(asked: list["Item"], start: int, *how: Any) -> Iterator["Answer"]:
    """The answers from number ``start`` on, in order; of many galaxies by several processes, one a core."""
    from concurrent.futures.process import BrokenProcessPool

    from joblib import Parallel, cpu_count, delayed

    from rgz.progress import progress

    numbered = list(enumerate(asked, 1))
    parts = [numbered[first : first + TOGETHER] for first in range(start, len(asked), TOGETHER)]
    workers = max(1, min((len(asked) - start) // WORTH_A_PROCESS, MOST_PROCESSES, cpu_count()))
    found = Parallel(workers, return_as="generator")(delayed(_part)(part, workers > 1, *how) for part in parts)
    try:
        yield from progress(chain.from_iterable(found), desc="looking", total=len(asked) - start, unit="galaxy")
    except BrokenProcessPool as error:
        raise BadInput("a process ended, most likely for want of memory: give fewer files at a time") from error


def _part(
    asked: list[tuple[int, "Item"]], many: bool, choice: tuple[Any, ...], k: int, codes: bool, whole: bool
) -> list["Answer"]:
    """Row, text and, if ``whole``, inspection of some numbered files or positions."""
    opened = [_opened(number, item, choice) for number, item in asked]
    cutouts = [one for one in opened if not isinstance(one, dict)]
    found: Iterator[Inspection] = iter(())
    if cutouts or many:  # joblib ends a process that grows after its first part
        from rgz.tasks import inspect  # torch, which takes a second

        found = iter(inspect.inspect_all(cutouts, k))
    answers: list[Answer] = []
    for one in opened:
        if isinstance(one, dict):
            answers.append((one, "", None))
        else:
            seen = next(found)
            answers.append((seen.to_dict(codes), str(seen), seen if whole else None))
    return answers


def _opened(number: int, item: "Item", choice: tuple[Any, ...]) -> "Cutout | dict[str, Any]":
    """The cut-out of a file or position, or the row of one that cannot be used."""
    from rgz.data import cutout

    (path, at), place = item, None
    try:
        if item == (None, None):
            raise BadInput(f"row {number} of the table has neither a file nor a position")
        place = cutout.parse_position(*at) if at else None
        return cutout.open_cutout(path, place, *choice) if path else cutout.download_cutout(*(place or ()))
    except BadInput as error:
        ra, dec = place or (None, None)
        empty = dict.fromkeys(("class", "probabilities", "p_frii", "anomaly_percentile"))
        lists = {"catalogued": [], "set90": [], "notes": [str(error)], "neighbours": []}
        return {"file": str(path or " ".join(at or ())), "ra": ra, "dec": dec, "status": "refused"} | empty | lists


def _draw(found: list["Inspection"], path: Path) -> None:
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it tells of a home that cannot be written to
    from rgz import plots
    from rgz.tasks import inspect

    names = [f"{one.cutout.name}: {one.verdict}" for one in found]
    canvas = plots.lookalikes(names, *inspect.pictures(found))[0, 0].figure
    with artifacts.atomic(path) as partial:
        canvas.savefig(partial, format=path.suffix[1:].lower(), dpi=150)


def rank(
    results: Annotated[Path, typer.Argument(help="Results of rgz look with --codes: .jsonl, .csv, .ecsv, .vot, …")],
    scores: Annotated[Path | None, typer.Option(help="Table with the columns file and score, such as 1 to 5.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the ranking: .csv, .ecsv, .vot, .fits, .parquet.")] = None,
    count: Annotated[int, typer.Option("-n", min=1, help="Number of galaxies to list and to propose.")] = 10,
) -> None:
    """Rank galaxies by what interests you: score a few of them, and the others are ranked by the score expected.

    Without scores, the least likely galaxies come first. The galaxies to score next are proposed: half of them the most
    promising ones, half at random. With thirty scores the ranking is about as good as one by size; a hundred
    improve it.

    Example: rgz look folder --output results.jsonl --codes;  rgz rank results.jsonl --scores scores.csv
    """
    import numpy as np
    from astropy.table import Table

    from rgz.app import tables
    from rgz.tasks import rank as ranking

    looked, codes = tables.coded(results)
    files, nats = np.asarray(looked["file"]), np.nan_to_num(looked["log_likelihood_nats"], nan=-np.inf)
    given = tables.scores(scores, files) if scores else np.full(len(files), np.nan)
    plain = np.column_stack([looked["area_over_point"], looked["peak_over_noise"], nats])
    known = ranking.features(codes, plain)
    expected = ranking.predict(known, given) if scores else -nats
    order = np.argsort(-expected, kind="stable")
    columns = {"file": files, "expected" if scores else "minus_log_likelihood": expected}
    found = Table(columns | ({"score": given} if scores else {}))[order]
    if output:
        tables.write(found, output)
    found[found.colnames[1]].info.format = ".2f"
    typer.echo("\n".join(found[:count].pformat(max_lines=-1, max_width=-1)))
    typer.echo("\nto score next:")
    for row in ranking.propose(known, nats, given, count):
        typer.echo(f"  {files[row]}")


def similar(
    name: Annotated[str, typer.Argument(help="Name of a galaxy in one of the samples, such as rgd-0001.")],
    k: K = 10,
    sample: Annotated[list[str] | None, typer.Option(help="Sample to search (repeatable); by default all.")] = None,
    table: TableFile = None,
) -> None:
    """List the galaxies most similar to one that is in the samples.

    The dissimilarity is 1 − cos between codes in the metric of the search, from 0 (identical) to 2. Rows marked as the
    same show the galaxy itself, which may be in several samples.

    Example: rgz similar rgd-0001 --sample mirabest
    """
    from rgz.app import tables
    from rgz.data import datasets
    from rgz.tasks import search

    if unknown := sorted(set(sample or ()) - set(datasets.SAMPLES)):
        raise BadInput(f"no sample is called {', '.join(unknown)}: known are {', '.join(datasets.SAMPLES)}")
    index = search.SearchIndex.from_pretrained()
    row = index.row(name)
    found = (index.of(*sample) if sample else index).query_vector(index.vectors[row], k, index.table[row])
    if table:
        tables.write(found, table)
    found["dissimilarity"].info.format = ".3f"
    shown = found["name", "sample", "label", "dissimilarity", "same", "link"].pformat(max_lines=-1, max_width=-1)
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
    if out.suffix not in (".h5", ".fits", ".png"):
        raise BadInput(f"{out} ends in {out.suffix or 'nothing'}: galaxies are written to .h5, .fits or .png")
    from rgz.models import checkpoint
    from rgz.tasks import generate as generation

    model, _, about = checkpoint.load(weights or artifacts.artifact("vdvae.safetensors"))
    drawn = generation.generate(count, temperature, truncation, seed, model)
    settings: dict[str, Any] = {"temperature": temperature, "truncation": truncation, "seed": seed}
    _write_galaxies(drawn, out, settings | {"weights": about.get("commit", "unknown")})
    typer.echo(f"{out}: {count} galaxies, temperature {temperature:g}, seed {seed}")


def _write_galaxies(galaxies: "NDArray[np.uint8]", path: Path, settings: dict[str, Any]) -> None:
    """Write galaxies (N, H, W) and their settings to ``.h5`` (``images``), ``.fits`` (a cube) or ``.png`` (a sheet)."""
    import h5py
    from astropy.io import fits

    from rgz.app import explorer
    from rgz.data.sample import CHECKED

    with artifacts.atomic(path) as partial:
        if path.suffix == ".h5":
            with h5py.File(partial, "w") as file:
                file.create_dataset("images", data=galaxies, **CHECKED)
                file.attrs.update(settings)
        elif path.suffix == ".fits":
            header = fits.Header([(name[:8].upper(), str(value)) for name, value in settings.items()])
            fits.PrimaryHDU(galaxies, header).writeto(partial)
        else:
            sheet = explorer.sheet(galaxies, galaxies.shape[1])
            sheet.resize((3 * sheet.width, 3 * sheet.height)).save(partial, "PNG")  # by bicubic interpolation


def explorer(
    results: Annotated[Path, typer.Argument(help="Results of rgz look --codes (.jsonl, .csv, …), or a rgz survey.")],
    out: Annotated[Path, typer.Option(help="Folder to write the page into.")] = Path("explorer"),
) -> None:
    """Build a web page with a map of your own galaxies and the most similar ones of each; it needs no server.

    Colours show class, size, S/N or anomaly percentile. Pictures are decoded from the codes. It takes some minutes for
    5,000 galaxies, half an hour for 50,000. Of more than 50,000, the map shows the anomalous ones (at most 25,000),
    then those with a class, then others at random.

    Example: rgz look folder --output results.jsonl --codes;  rgz explorer results.jsonl
    """
    from rgz.app import explorer as explorers

    size, shown, count = explorers.build(out, results)
    part = f"a sample of {shown:,} of {count:,}" if shown < count else f"{shown:,}"
    typer.echo(f"{out / 'index.html'}: {part} galaxies, {size / 1e6:.2f} MB")

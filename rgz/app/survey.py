"""``rgz survey``: codes, classes and anomaly percentiles of all sources of a catalogue, as a Parquet dataset.

Sources are grouped by their position, in HEALPix pixels of at most a few thousand sources each. A pixel is one task of
Dask, which runs on the cores of this machine or on those of a cluster, and one file of the dataset. The layout is HATS
(Hierarchical Adaptive Tiling Scheme), which LSDB reads. A run that was interrupted goes on with the files that are
missing. A source that cannot be used is a row as well, with the reason.
"""

import json
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

import rgz
from rgz import artifacts
from rgz.app.cli_look import TOGETHER
from rgz.errors import BadInput, as_bad_input, first_line

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.table import Table

__all__ = ["survey"]

INDEX, ORDER = "_healpix_29", 29  # column by which HATS sorts sources, and its order
DEEPEST = 12  # order of the smallest partitions, 0.9′ wide
WEIGHTS = "vdvae.safetensors", "codes.h5", "classifier.safetensors", "density.safetensors"
TOLD = 5  # refused sources, whose reasons are printed
HEAP = {"MALLOC_ARENA_MAX": 1, "MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**28}
WORKER = {f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in HEAP.items()}
WORKER |= {"distributed.worker.profile.enabled": False}
"""Workers keep up to so many bytes of freed memory: returning it each time, as with Dask's own settings, makes them
slower. They do not profile themselves, because the profile grows to hundreds of megabytes in a quarter of an hour."""
PAGES: dict[str, Any] = {"write_page_checksum": True, "use_dictionary": False}  # dictionaries have no check sums
ROOM = 2**30  # bytes of a GPU that the network of a worker needs
WAIT = 60  # seconds, for a worker of a scheduler
MEASURED = "anomaly_percentile", "peak_over_noise", "area_over_point", "pixel_arcsec"
NUMBERS = *MEASURED, "offset_arcsec"  # from the position in the catalogue to the middle of what was encoded


def survey(
    catalogue: Annotated[
        Path, typer.Argument(help="Table with ra and dec (degrees, ICRS) and, if known, id and file.")
    ],
    images: Annotated[Path, typer.Option(help="Folder of cut-outs, mosaics or tar files, or one of these files.")],
    out: Annotated[Path, typer.Option(help="Folder of the dataset.")],
    hosts: Annotated[bool, typer.Option(help="The positions are those of host galaxies.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Largest number of sources in a file.")] = 2000,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler; by default one worker per core of this machine.")
    ] = None,
) -> None:
    """Encode and classify all sources of a catalogue into a Parquet dataset that LSDB opens.

    The catalogue is CSV, ECSV, VOTable, FITS or Parquet, with one row per galaxy, not per component. With a column
    file, images are cut-outs, named relative to the folder of images, or members of uncompressed tar files there;
    without, FITS mosaics in the folder itself, of which only the surroundings of each source are read. The same command
    resumes a run that was interrupted. Workers of a cluster have one thread, and see the same folders. A worker that
    has a GPU runs the network on it.

    Examples: rgz survey sources.csv --images cutouts --out survey;
    rgz survey dr2.fits --images mosaics --out survey --scheduler tcp://10.0.0.1:8786
    """
    try:
        import distributed
        from hats.io import paths
        from hats.pixel_math.healpix_pixel import HealpixPixel
    except ImportError as error:
        raise BadInput(f"a survey needs {error.name}: pip install 'rgz[survey]'") from error
    from rgz.tasks import surveys

    plan, partitions = _plan(catalogue, images, out, hosts, rows)
    files = {
        number: Path(str(paths.pixel_catalog_file(out, HealpixPixel(*one)))) for number, one in enumerate(partitions)
    }
    missing = {number: file for number, file in files.items() if not file.exists()}
    if missing or not all((out / one).is_file() for one in (surveys.METADATA, surveys.DONE)):
        (out / surveys.DONE).unlink(missing_ok=True)
        if failed := _run(distributed, scheduler, plan, missing):
            raise BadInput(f"{len(failed)} of {len(files)} partitions failed ({failed[0]}): run the same command again")
        advice = "free some space, or remove the file that is damaged, and run the same command again"
        with as_bad_input(f"{out} cannot be completed", advice):
            _finish(out, partitions)
    counts, refused = _counted(out)
    for one, reason in refused:
        typer.echo(f"rgz: {BadInput(f'{one}: {reason}')}", err=True)
    if set(counts) == {"refused"}:
        raise BadInput(f"none of these {sum(counts.values())} sources can be used: see the column notes in {out}")
    each = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    typer.echo(f"{out}: sources {sum(counts.values())}, partitions {len(files)}; {each}")


def _plan(catalogue: Path, images: Path, out: Path, hosts: bool, rows: int) -> tuple[Path, list[tuple[int, int]]]:
    """The file with a row group for each partition, and the order and pixel of each.

    Raises :class:`BadInput` if the folder has another survey, or the catalogue cannot be used.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from hats.pixel_math.spatial_index import compute_spatial_index

    from rgz.data import sources

    path, images = out / "plan.parquet", images.resolve()
    with as_bad_input(f"{catalogue} cannot be read", "name a table of sources"):
        about: dict[str, Any] = {"catalogue": artifacts.sha256(catalogue), "images": str(images)}
    about |= {"hosts": hosts, "rows": rows, "weights": _weights()}
    if path.is_file():
        with as_bad_input(f"{path} is damaged", "choose another folder"):
            known = json.loads(pq.read_schema(path).metadata[b"rgz"])
        if changed := [name for name in about if known.get(name) != about[name]]:
            raise BadInput(f"{out} has a survey made with other {', '.join(changed)}: choose another folder")
        return path, [(order, pixel) for order, pixel in known["partitions"]]
    left = [one for one in out.glob("*") if one.is_file() or one.name == "dataset"]
    if any(one.suffix != ".partial" for one in left):  # which a killed run may leave
        raise BadInput(f"{out} has other files: choose a folder that is new or empty")
    ids, ra, dec, files = _catalogue(catalogue)
    if repeated := len(ids) - len(set(ids)):
        typer.echo(f"{catalogue}: {repeated} of {len(ids)} sources have the identifier of an earlier one", err=True)
    typer.echo(f"planning a survey of {len(ids):,} sources", err=True)
    way, columns = sources.locate(images, files, ra, dec)
    index = compute_spatial_index(ra, dec)
    order, pixel = partitioned(index, rows)
    sorting = np.lexsort((index, pixel, order))
    table = pa.table({INDEX: index, "id": ids, "ra": ra, "dec": dec} | columns).take(sorting)
    steps = np.flatnonzero(np.diff(order[sorting], prepend=-1) | np.diff(pixel[sorting], prepend=-1))
    partitions = [(int(order[row]), int(pixel[row])) for row in sorting[steps]]
    table = table.replace_schema_metadata({"rgz": json.dumps(about | {"partitions": partitions, "way": way})})
    with artifacts.atomic(path) as started, pq.ParquetWriter(started, table.schema) as writer:
        for start, stop in zip(steps, [*steps[1:], len(table)], strict=True):
            writer.write_table(table[start:stop], row_group_size=max(rows, stop - start))
    return path, partitions


def partitioned(index: NDArray[np.int64], rows: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Order and HEALPix pixel (N,) of the partition of each source: the largest pixels with at most ``rows`` sources.

    ``index`` (N,) are pixels of order 29, in the nested scheme.

    >>> partitioned(np.array([0, 1, 4**29]), 2)
    (array([0, 0, 0]), array([0, 0, 1]))
    """
    order = np.zeros(len(index), np.int64)
    for deeper in range(1, DEEPEST + 1):
        _, pixel, count = np.unique(index >> 2 * (ORDER - deeper + 1), return_inverse=True, return_counts=True)
        order[(count[pixel] > rows) & (order == deeper - 1)] = deeper
    return order, index >> 2 * (ORDER - order)


def _catalogue(path: Path) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64], list[str] | None]:
    """Identifier, RA and Dec (degrees) and, if it has them, the file of each source of a catalogue."""
    from rgz.app import tables

    form = tables.ending(path)
    with as_bad_input(f"{path} is not a readable catalogue", "save it as CSV, ECSV, VOTable, FITS or Parquet"):
        table = tables.catalogue(path, form)
        if missing := {"ra", "dec"} - set(table.colnames):
            raise BadInput(f"{path} has no column {' and '.join(sorted(missing))}: it needs ra and dec in degrees")
        ra, dec = (_degrees(table, name) for name in ("ra", "dec"))
        known = next((tables.text(table[name]) for name in (*tables.IDS, *tables.FILE) if name in table.colnames), None)
        files = next((tables.text(table[name]) for name in tables.FILE if name in table.colnames), None)
    if not len(table):
        raise BadInput(f"{path} has no rows: give a table of sources")
    lost = ~((np.abs(ra) <= 360) & (np.abs(dec) <= 90))  # or NaN
    if lost.any():
        raise BadInput(f"{path} has {lost.sum()} of {len(table)} sources without a position: leave them out")
    return known or [str(row) for row in range(len(table))], ra % 360, dec, files


def _degrees(table: "Table", name: str) -> NDArray[np.float64]:
    """A column of angles in degrees (N,), NaN where it has no value; sexagesimal text is in hours for RA."""
    from astropy.coordinates import Angle

    from rgz.app import tables

    column = table[name]
    if column.ndim == 1 and column.dtype.kind in "iuf" and column.unit in (None, "deg"):  # millions of them
        return tables.numbers(table, name)[:, 0]
    given = [one or "nan" for one in tables.text(column)]
    try:
        return np.array(given, float)
    except ValueError:
        return np.asarray(Angle(given, "hourangle" if name == "ra" else "deg").deg)


def schema(classes: tuple[str, ...], length: int) -> "pa.Schema":
    """Columns of the dataset, for codes of some length."""
    import pyarrow as pa

    columns = [(INDEX, pa.int64()), ("id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64())]
    columns += [("status", pa.string()), ("class", pa.string()), ("notes", pa.string())]
    columns += [(f"probabilities_{name}", pa.float32()) for name in classes]
    columns += [(name, pa.float32()) for name in NUMBERS]
    return pa.schema([*columns, ("code", pa.list_(pa.float32(), length))])


@cache
def _weights() -> list[str]:
    """Version and hashes of what makes the rows of a survey."""
    return [rgz.__version__, *(artifacts.sha256(artifacts.artifact(name)) for name in WEIGHTS)]


def partition(plan: Path, number: int, path: Path) -> None:
    """Inspect the sources of one partition of the plan, and write its file: a task of Dask.

    The network runs on the GPU of the worker, if it has one. Raises :class:`BadInput` if the worker has other weights
    than the plan was made with, or cannot reach the images.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from rgz.features import codes as codefile
    from rgz.features.embed import PARTS
    from rgz.tasks import classify

    torch.set_num_threads(1)
    planned = pq.ParquetFile(plan)
    about = json.loads(planned.schema_arrow.metadata[b"rgz"])
    if about["weights"] != _weights():
        raise BadInput("a worker has other weights, or another version of rgz: start all with the same ones")
    if not path.exists():  # else a worker that is gone now had written it
        rows = planned.read_row_group(number).to_pylist()
        for start in range(0, len(rows), TOGETHER):
            _tell(plan, number, start)
            _inspect(rows[start : start + TOGETHER], about["hosts"], about["way"])
        if any(row["status"] == "refused" for row in rows) and not Path(about["images"]).exists():
            raise BadInput(f"a worker cannot reach {about['images']}: mount it there")
        columns = schema(classify.Classifier.from_pretrained("host").classes, PARTS * len(codefile.chosen()))
        with artifacts.atomic(path) as started:
            pq.write_table(pa.Table.from_pylist(rows, columns), started, **PAGES)
    _tell(plan, number, planned.metadata.row_group(number).num_rows)


def _inspect(rows: list[dict[str, Any]], hosts: bool, way: str) -> None:
    """Add to some rows of the plan what is found of their sources, or why these are refused."""
    import torch
    from astropy.coordinates import angular_separation

    from rgz.data import sources
    from rgz.tasks import inspect

    opened = []
    for row in rows:
        try:
            opened.append((row, sources.opened(row, way, hosts)))
        except BadInput as error:
            row.update(status="refused", notes=str(error))
    cutouts = [one for _, one in opened]
    try:
        inspected = inspect.inspect_all(cutouts, 0, _device()) if opened else []
    except torch.OutOfMemoryError:  # of a GPU
        inspected = inspect.inspect_all(cutouts, 0)
    for (row, _), one in zip(opened, inspected, strict=True):
        told = one.to_dict()
        row.update({name: told[name] for name in ("status", "class", *MEASURED)}, code=one.code)
        row.update({f"probabilities_{name}": value for name, value in (told["probabilities"] or {}).items()})
        away = angular_separation(*np.radians([row["ra"], row["dec"], *one.cutout.place]))
        row["notes"], row["offset_arcsec"] = "; ".join(told["notes"]), 3600 * np.degrees(away)


@cache
def _device() -> str:
    """``cuda`` if this worker has a GPU with room for its network when it starts, otherwise ``cpu``."""
    import torch

    torch.backends.cudnn.allow_tf32 = False  # which gives other codes than a processor does
    with suppress(RuntimeError):  # its memory is used up by others
        if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > ROOM:
            return "cuda"
    return "cpu"


def _tell(plan: Path, number: int, done: int) -> None:
    """Tell the command how many sources of a partition are done, if this is one of its workers."""
    from distributed import get_worker

    with suppress(ValueError):  # no worker
        get_worker().log_event(str(plan), (number, done))


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ctrl-C has no effect in the block, and never on processes that are started in it: this one ends them, while they
    themselves would each print where they were."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _run(distributed: Any, scheduler: str | None, plan: Path, files: dict[int, Path]) -> list[str]:
    """Run the partitions that have no file yet; what went wrong with each that failed."""
    import dask.config
    import pyarrow.parquet as pq
    from dask.system import CPU_COUNT  # those that this process may use

    from rgz.progress import progress

    if not files:
        return []
    local: dict[str, Any] = {
        "n_workers": min(CPU_COUNT, len(files)),
        "threads_per_worker": 1,
        "dashboard_address": None,
        "memory_limit": None,  # of all workers together, which would stop and kill those that keep freed memory
    }
    local |= {"env": {"TQDM_DISABLE": "1"}, "silence_logs": logging.CRITICAL}
    known = pq.read_metadata(plan)
    counts = {number: known.row_group(number).num_rows for number in files}
    first = sorted(files, key=lambda number: -counts[number])  # the largest, so that all workers end at the same time
    failed, done = [], dict[int, int]()
    dask.config.set(WORKER)
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # of what a run that is stopped leaves open
    problem = "no worker could be started on this machine", "start dask scheduler, and name it with --scheduler"
    if scheduler:
        problem = f"no Dask scheduler with a worker answers at {scheduler}", "start them, or omit --scheduler"
    with _ignoring_interrupts(), as_bad_input(*problem):
        client = distributed.Client(**({"address": scheduler, "timeout": 10} if scheduler else local))
        client.wait_for_workers(1, timeout=WAIT)
    with client, progress(total=sum(counts.values()), desc="survey", unit="source") as bar:

        def told(event: tuple[float, tuple[int, int]]) -> None:
            done.update([event[1]])
            bar.update(sum(done.values()) - bar.n)

        client.subscribe_topic(str(plan.resolve()), told)
        where = [files[number].resolve() for number in first]
        tasks = client.map(partial(partition, plan.resolve()), first, where, pure=False, key="partition")
        for task in distributed.as_completed(tasks):
            if task.status != "finished":
                error = task.exception() or BadInput(f"its task was {task.status}")
                failed.append(str(error) if isinstance(error, BadInput) else first_line(error))
    return failed


def _finish(out: Path, partitions: list[tuple[int, int]]) -> None:
    """Write what HATS says of the whole dataset."""
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.pixel_math.healpix_pixel import HealpixPixel

    for left in (out / "dataset").rglob("*.partial"):  # of a run that was killed
        left.unlink()
    rows = write_parquet_metadata(out)
    PartitionInfo([HealpixPixel(*one) for one in partitions]).write_to_file(catalog_path=out)
    known: dict[str, Any] = {"catalog_name": out.resolve().name, "catalog_type": "object", "total_rows": rows}
    known |= {"ra_column": "ra", "dec_column": "dec", "healpix_column": INDEX, "healpix_order": ORDER}
    TableProperties(**known).to_properties_file(out)


def _counted(out: Path) -> tuple[Counter[str], list[tuple[str, str]]]:
    """The number of sources of each status, and why the first ones are refused."""
    from pyarrow.compute import field

    from rgz.tasks import surveys

    with surveys.opened(out) as dataset:
        status = dataset.to_table(["status"])["status"]
        bad = dataset.head(TOLD, columns=["id", "notes"], filter=field("status") == "refused")
    counts = Counter({one["values"].as_py(): one["counts"].as_py() for one in status.value_counts()})
    return counts, list(zip(bad["id"].to_pylist(), bad["notes"].to_pylist(), strict=True))

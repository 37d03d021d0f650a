"""``rgz survey``: codes, classes and anomaly percentiles of all sources of a catalogue, as a Parquet dataset.

Sources are grouped by their position, in HEALPix pixels of at most a few thousand sources each. A pixel is one task of
Dask, which runs on the cores of this machine or on those of a cluster, and one file of the dataset. The layout is HATS
(Hierarchical Adaptive Tiling Scheme), which LSDB reads. A run that was interrupted goes on with the files that are
missing. A source that cannot be used is a row as well, with the reason.
"""

import io
import json
import logging
import os
import signal
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from rgz import artifacts
from rgz.app.cli_look import TOGETHER
from rgz.errors import BadInput, as_bad_input, first_line

if TYPE_CHECKING:
    import pyarrow as pa
    from astropy.table import Table
    from astropy.wcs import WCS

    from rgz.data import archives
    from rgz.data.cutout import Cutout

__all__ = ["survey"]

INDEX, ORDER = "_healpix_29", 29  # column by which HATS sorts sources, and its order
DEEPEST = 12  # order of the smallest partitions, 0.9′ wide
IDS = "id", "name", "source_id", "source_name", "file"
PICTURES = ".png", ".jpg", ".jpeg"
TOLD = 5  # refused sources, whose reasons are printed
HEAP = {"MALLOC_ARENA_MAX": 1, "MALLOC_MMAP_THRESHOLD_": 2**25, "MALLOC_TRIM_THRESHOLD_": 2**28}
"""Workers keep freed memory, in bytes; Dask's own settings hand it back each time, which makes a worker slower."""
ROOM = 2**30  # bytes of a GPU that the network of a worker needs
NUMBERS = "anomaly_percentile", "peak_over_noise", "area_over_point", "pixel_arcsec"


def survey(
    catalogue: Annotated[Path, typer.Argument(help="Table with ra and dec (degrees) and, if known, id and file.")],
    images: Annotated[Path, typer.Option(help="Folder of cut-outs, mosaics or tar files, or one of these files.")],
    out: Annotated[Path, typer.Option(help="Folder of the dataset; a run that was interrupted goes on.")],
    hosts: Annotated[bool, typer.Option(help="The positions are those of host galaxies.")] = False,
    rows: Annotated[int, typer.Option(min=1, help="Largest number of sources in a file.")] = 2000,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler; by default one worker a core of this machine.")
    ] = None,
) -> None:
    """Encode and classify all sources of a catalogue into a Parquet dataset that LSDB opens.

    The catalogue is CSV, ECSV, VOTable, FITS or Parquet. With a column file, images are cut-outs in the folder, or
    members of uncompressed tar files; without, FITS mosaics, of which only the surroundings of each source are read.
    Workers of a cluster must see the same folders. A worker that has a GPU runs the network on it.

    Examples: rgz survey sources.csv --images cutouts --out survey;
    rgz survey dr2.fits --images mosaics --out survey --scheduler tcp://10.0.0.1:8786
    """
    try:
        import distributed
        from hats.io import paths
        from hats.pixel_math.healpix_pixel import HealpixPixel
    except ImportError as error:
        raise BadInput(f"a survey needs {error.name}: pip install 'rgz[survey]'") from error
    plan, partitions, way = _plan(catalogue, images, out, hosts, rows)
    files = {
        number: Path(str(paths.pixel_catalog_file(out, HealpixPixel(*one)))) for number, one in enumerate(partitions)
    }
    failed = _run(distributed, scheduler, plan, {n: file for n, file in files.items() if not file.exists()}, hosts, way)
    if failed:
        raise BadInput(f"{len(failed)} of {len(files)} partitions failed ({failed[0]}): run the same command again")
    counts, refused = _finish(out, partitions)
    for one, reason in refused:
        typer.echo(f"rgz: {one}: {reason}", err=True)
    each = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    typer.echo(f"{out}: sources {sum(counts.values())}, partitions {len(files)}; {each}")


def _plan(catalogue: Path, images: Path, out: Path, hosts: bool, rows: int) -> tuple[Path, list[tuple[int, int]], str]:
    """The file with a row group for each partition, the order and pixel of each, and how images are found.

    Raises :class:`BadInput` if the folder has another survey, or the catalogue cannot be used.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from hats.pixel_math.spatial_index import compute_spatial_index

    path = out / "plan.parquet"
    about: dict[str, Any] = {
        "catalogue": artifacts.sha256(catalogue) if catalogue.is_file() else "",
        "images": str(images.resolve()),
    }
    about |= {"hosts": hosts, "rows": rows, "weights": artifacts.sha256(artifacts.artifact("vdvae.safetensors"))}
    if path.is_file():
        with as_bad_input(f"{path} is damaged", "choose another folder"):
            known = json.loads(pq.read_schema(path).metadata[b"rgz"])
        if changed := [name for name in about if known[name] != about[name]]:
            raise BadInput(f"{out} has a survey with other {', '.join(changed)}: choose another folder")
        return path, [(order, pixel) for order, pixel in known["partitions"]], known["way"]
    if any(one.is_file() and one.suffix != ".partial" for one in out.glob("*")):  # which a killed run may leave
        raise BadInput(f"{out} has other files: choose a folder that is new or empty")
    ids, ra, dec, files = _catalogue(catalogue)
    way, columns = _located(images, files, ra, dec)
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
    return path, partitions, way


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
        known = next((tables.text(table[name]) for name in IDS if name in table.colnames), None)
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

    given = [one or "nan" for one in tables.text(table[name])]
    try:
        return np.array(given, float)
    except ValueError:
        return np.asarray(Angle(given, "hourangle" if name == "ra" else "deg").deg)


def _located(
    images: Path, files: list[str] | None, ra: NDArray[Any], dec: NDArray[Any]
) -> tuple[str, dict[str, list[Any]]]:
    """How images are found (file, member or mosaic), and the columns file and, for members, offset and size.

    The mosaic of a source is the one whose middle is nearest.
    """
    if not images.exists():
        raise BadInput(f"{images} does not exist: name a folder of cut-outs, mosaics or tar files")
    inside = [one for one in sorted(images.iterdir()) if one.is_file()] if images.is_dir() else [images]
    tars = [one for one in inside if one.suffix == ".tar"]
    if tars and files is not None:
        members: dict[str, tuple[str, int, int]] = {}
        for tar in tars:
            with as_bad_input(f"{tar} is damaged", "make it again"), tarfile.open(tar, "r:") as archive:
                members |= {one.name: (str(tar), one.offset_data, one.size) for one in archive if one.isfile()}
        found = [members.get(name, (name, 0, -1)) for name in files]
        return "member", {name: [one[axis] for one in found] for axis, name in enumerate(("file", "offset", "size"))}
    if files is not None:
        return "file", {"file": [str(images / name) for name in files]}
    from astropy.coordinates import SkyCoord

    wide = [one for one in inside if ".fits" in one.name.lower()]
    if not wide:
        raise BadInput(f"{images} has no FITS mosaics: name their folder, or give the catalogue a column file")
    middles = SkyCoord([_middle(one) for one in wide], unit="deg")
    nearest = SkyCoord(ra, dec, unit="deg").match_to_catalog_sky(middles)[0]
    return "mosaic", {"file": [str(wide[number]) for number in nearest]}


class _Mapped(mmap):
    """A file mapped into memory; a place after its end can be sought, because the last padding may be missing."""

    def seek(self, place: int, whence: Any = 0) -> None:
        """Move to a place, at most the end."""
        super().seek(place if whence else min(place, len(self)), whence)


@lru_cache(8)
def _mosaic(path: Path) -> tuple["archives.Image", "WCS", int]:
    """The first celestial image of a FITS file, mapped or unpacked, its WCS, and the length of the file in bytes."""
    from rgz.data import archives

    with as_bad_input(f"{path} is not a readable FITS mosaic", "fetch it again, or leave it out"):
        data = archives.content(path, str(path))
        with path.open("rb") as file:  # which the map of it outlives
            stream: Any = io.BytesIO(data) if isinstance(data, bytes) else _Mapped(file.fileno(), 0, access=ACCESS_READ)
        length = len(data) if isinstance(data, bytes) else len(stream)
        image = next(iter(archives.read_images(stream, length).values()), None)
        if image is None or image.wcs is None:
            raise BadInput(f"{path} has no image with celestial coordinates: leave it out")
        if max(image.others, default=1) > 1:
            raise BadInput(f"{path} has an image of shape {image.unit.shape}: give one plane of it")
        return image, image.wcs, length


def _middle(path: Path) -> tuple[float, float]:
    """RA and Dec of the middle of a mosaic, degrees."""
    image, wcs, _ = _mosaic(path)
    height, width = (image.unit.shape[axis] for axis in image.axes)
    with as_bad_input(f"{path} has celestial coordinates that cannot be used", "correct its header, or leave it out"):
        sky = wcs.pixel_to_world((width - 1) / 2, (height - 1) / 2).icrs
        if not np.isfinite([sky.ra.deg, sky.dec.deg]).all():
            raise ValueError("its middle is outside of the sky")
        return float(sky.ra.deg), float(sky.dec.deg)


def _section(path: str, at: tuple[float, float]) -> "Cutout":
    """The cut-out around a position in a mosaic, of which no more than its surroundings is read."""
    from astropy.coordinates import SkyCoord
    from astropy.wcs.utils import proj_plane_pixel_scales

    from rgz.data import archives, cutout, detect

    image, wcs, length = _mosaic(Path(path))
    with (
        as_bad_input(f"{path} cannot be read at {at[0]:.5f} {at[1]:+.5f}", "fetch it again"),
        warnings.catch_warnings(action="ignore"),
        np.errstate(all="ignore"),
    ):
        pixel = 3600 * float(proj_plane_pixel_scales(wcs).mean())  # arcsec
        side = 2 * int(1.5 * max(cutout.REACH, detect.FIELD / 2 * pixel) / pixel + 3)
        pixels, window = archives.section(path, image, None, length, SkyCoord(*at, unit="deg"), side)
        return cutout.centre(cutout.observed(path, pixels, window, image.header, [*image.notes]), at)


def _opened(row: dict[str, Any], way: str, hosts: bool) -> "Cutout":
    """The cut-out of a source; raises :class:`BadInput` if it cannot be used."""
    from dataclasses import replace

    from rgz.data import cutout

    path, at = row["file"], (row["ra"], row["dec"])
    if way == "member":
        if row["size"] < 0:
            raise BadInput(f"no tar file has a member {path}: name members as the tar files do")
        with as_bad_input(f"{path} cannot be read", "check the tar file"), open(path, "rb") as stream:
            stream.seek(row["offset"])
            content = stream.read(row["size"])
        found = cutout.read_cutout(content, row["id"], at if content.startswith(b"SIMPLE") else None)
    elif way == "mosaic":
        found = _section(path, at)
    else:
        found = cutout.open_cutout(path, None if path.lower().endswith(PICTURES) else at)
    return found if hosts else replace(found, given=False)


def schema(classes: tuple[str, ...], length: int) -> "pa.Schema":
    """Columns of the dataset, for codes of some length."""
    import pyarrow as pa

    columns = [(INDEX, pa.int64()), ("id", pa.string()), ("ra", pa.float64()), ("dec", pa.float64())]
    columns += [("status", pa.string()), ("class", pa.string()), ("notes", pa.string())]
    columns += [(f"probabilities_{name}", pa.float32()) for name in classes]
    columns += [(name, pa.float32()) for name in NUMBERS]
    return pa.schema([*columns, ("code", pa.list_(pa.float32(), length))])


def partition(plan: Path, number: int, path: Path, hosts: bool, way: str) -> None:
    """Inspect the sources of one partition of the plan, and write its file: a task of Dask.

    The network runs on the GPU of the worker, if it has one.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    import torch

    from rgz.features import codes as codefile
    from rgz.features.embed import PARTS
    from rgz.tasks import classify, inspect

    torch.set_num_threads(1)
    device = _device()
    rows = pq.ParquetFile(plan).read_row_group(number).to_pylist()
    for start in range(0, len(rows), TOGETHER):
        _tell(plan, number, start)
        opened = []
        for row in rows[start : start + TOGETHER]:
            try:
                opened.append((row, _opened(row, way, hosts)))
            except BadInput as error:
                row.update(status="refused", notes=str(error))
        inspected = inspect.inspect_all([found for _, found in opened], 0, device) if opened else []
        for (row, _), one in zip(opened, inspected, strict=True):
            told = one.to_dict()
            row.update({name: told[name] for name in ("status", "class", *NUMBERS)}, code=one.code)
            row.update({f"probabilities_{name}": value for name, value in (told["probabilities"] or {}).items()})
            row["notes"] = "; ".join(told["notes"])
    columns = schema(classify.Classifier.from_pretrained("host").classes, PARTS * len(codefile.chosen()))
    with artifacts.atomic(path) as started:
        pq.write_table(pa.Table.from_pylist(rows, columns), started)
    _tell(plan, number, len(rows))


def _device() -> str:
    """``cuda`` if this worker has a GPU with room for its network, otherwise ``cpu``."""
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


def _run(
    distributed: Any, scheduler: str | None, plan: Path, files: dict[int, Path], hosts: bool, way: str
) -> list[str]:
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
    }
    local |= {"env": {"TQDM_DISABLE": "1"}, "silence_logs": logging.ERROR}
    known = pq.read_metadata(plan)
    counts = {number: known.row_group(number).num_rows for number in files}
    first = sorted(files, key=lambda number: -counts[number])  # the largest, so that all workers end at the same time
    failed, done = [], dict[int, int]()
    dask.config.set({f"distributed.nanny.pre-spawn-environ.{name}": value for name, value in HEAP.items()})
    os.environ.setdefault("PYTHONWARNINGS", "ignore:resource_tracker")  # of what a run that is stopped leaves open
    with (
        _ignoring_interrupts(),
        as_bad_input(f"no Dask scheduler answers at {scheduler}", "start dask scheduler, or omit --scheduler"),
    ):
        client = distributed.Client(**({"address": scheduler, "timeout": 10} if scheduler else local))
    with client, progress(total=sum(counts.values()), desc="survey", unit="source") as bar:

        def told(event: tuple[float, tuple[int, int]]) -> None:
            done.update([event[1]])
            bar.update(sum(done.values()) - bar.n)

        client.subscribe_topic(str(plan.resolve()), told)
        where = [files[number].resolve() for number in first]
        same = {"hosts": hosts, "way": way, "pure": False, "key": "partition"}
        tasks = client.map(partial(partition, plan.resolve()), first, where, **same)
        for task in distributed.as_completed(tasks):
            if task.status != "finished":
                failed.append(first_line(task.exception()))
    return failed


def _finish(out: Path, partitions: list[tuple[int, int]]) -> tuple[Counter[str], list[tuple[str, str]]]:
    """Write what HATS says of the whole dataset; the number of sources of each status, and why some are refused."""
    from hats.catalog.dataset.table_properties import TableProperties
    from hats.catalog.partition_info import PartitionInfo
    from hats.io.parquet_metadata import write_parquet_metadata
    from hats.pixel_math.healpix_pixel import HealpixPixel
    from pyarrow.compute import field

    from rgz.tasks import surveys

    for left in (out / "dataset").rglob("*.partial"):  # of a run that was killed
        left.unlink()
    rows = write_parquet_metadata(out)
    PartitionInfo([HealpixPixel(*one) for one in partitions]).write_to_file(catalog_path=out)
    known: dict[str, Any] = {"catalog_name": out.resolve().name, "catalog_type": "object", "total_rows": rows}
    known |= {"ra_column": "ra", "dec_column": "dec", "healpix_column": INDEX, "healpix_order": ORDER}
    TableProperties(**known).to_properties_file(out)
    with surveys.opened(out) as sources:
        status = sources.to_table(["status"])["status"]
        bad = sources.head(TOLD, columns=["id", "notes"], filter=field("status") == "refused")
    counts = Counter({one["values"].as_py(): one["counts"].as_py() for one in status.value_counts()})
    return counts, list(zip(bad["id"].to_pylist(), bad["notes"].to_pylist(), strict=True))

r"""The index over a survey: exact in memory, or a graph on disk for more sources than fit.

The dataset of ``rgz survey`` is read batch by batch. Its sources are compared by the half of their codes that is about
the centroid of the emission, because a catalogue of radio sources does not know the host galaxies. The graph (HNSW,
Malkov & Yashunin 2020, doi:10.1109/TPAMI.2018.2889473) links each vector to near ones; a search follows these links.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray

from rgz import artifacts
from rgz.errors import BadInput, as_bad_input
from rgz.features import codes as codefile
from rgz.features.metric import Metric
from rgz.progress import progress
from rgz.tasks.search import SearchIndex

__all__ = ["index", "opened"]

METADATA, DONE = "dataset/_metadata", "hats.properties"  # written last
EXACT = 1_000_000  # codes that are held in memory
LINKS, ADDING, SEARCHING = 16, 96, 1024  # of each vector of a graph; candidates when it is added, and in a search


def index(folder: Path, where: Any = None) -> SearchIndex:
    """The index over a dataset of ``rgz survey``: see :meth:`rgz.tasks.search.SearchIndex.from_survey`."""
    with opened(folder) as source:
        from pyarrow.dataset import field

        seen = field("status") != "refused"
        if where is not None:
            with as_bad_input("this filter cannot be used", f"use the columns {', '.join(source.schema.names)}"):
                seen &= where
                source.scanner(filter=seen)
        count = source.count_rows(filter=seen)
        if not count:
            raise BadInput(f"no source of {folder} is left to be searched: use another filter")
        large = count > EXACT
        if large and where is not None:
            raise BadInput(f"the filter leaves {count:,} sources: search without it, and filter what is found")
        space = codefile.read_space().about_centroid
        found = source.to_table(["id", "ra", "dec", "class"], filter=seen)
        table = Table({name: found[name].to_numpy() for name in ("ra", "dec")})
        table["name"], table["sample"] = found["id"].to_numpy().astype(str), folder.resolve().name
        table["label"] = found["class"].fill_null("").to_numpy().astype(str)
        batches = source.to_batches(columns=["code"], filter=seen)
        parts = (_mapped(batch["code"], space) for batch in batches if len(batch))
        if large:
            vectors, graph = np.empty((0, space.matrix.shape[1]), np.float32), _graph(parts, folder, count)
        else:
            vectors, graph = np.concatenate(list(parts)), None
    return SearchIndex(vectors, table, space, graph)


@contextmanager
def opened(folder: Path) -> Iterator[Any]:
    """The sources of a dataset of ``rgz survey``, a dataset of pyarrow, refused ones among them.

    Raises :class:`BadInput` if the survey is not complete, or cannot be read in the block.
    """
    if not (folder / DONE).is_file():
        raise BadInput(f"{folder} has no complete survey: make it with rgz survey, or run that again")
    with as_bad_input(f"{folder} cannot be read as a survey", "install rgz[survey], or run the same rgz survey again"):
        from pyarrow import ArrowInvalid, dataset, parquet

        checked = dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
        form = dataset.ParquetFileFormat(default_fragment_scan_options=checked)
        try:
            found, whole = dataset.dataset(folder / "dataset", format=form), parquet.read_metadata(folder / METADATA)
            if (count := found.count_rows()) != whole.num_rows:
                raise BadInput(f"{folder} has {count} of its {whole.num_rows} rows: run the same rgz survey again")
            yield found
        except (OSError, ArrowInvalid):
            for path in (folder / METADATA, *sorted((folder / "dataset").rglob("*.parquet"))):
                with as_bad_input(f"{path} is damaged", "remove it, and run the same rgz survey again"):
                    if parquet.read_metadata(path) and path.suffix:
                        parquet.ParquetFile(path, page_checksum_verification=True).read()
            raise


def _mapped(codes: Any, space: Metric) -> NDArray[np.float32]:
    """Vectors (N, K) of an Arrow column of codes: of their second half, about the centroid."""
    values = codes.flatten().to_numpy(zero_copy_only=False)
    return space.transform(values.reshape(len(codes), -1)[:, -len(space.centre) :])


def _graph(parts: Any, folder: Path, count: int) -> Any:
    """The graph over all vectors, read from the disk as it is needed; built first if it is older than the survey."""
    from usearch.index import Index

    path = folder / "search.usearch"
    made: Any = None
    if not path.is_file() or path.stat().st_mtime < (folder / DONE).stat().st_mtime:
        with artifacts.atomic(path) as partial, progress(None, "building the index", count, unit="code") as bar:
            for vectors in parts:
                if made is None:
                    size: dict[str, Any] = {"connectivity": LINKS, "expansion_add": ADDING}
                    made = Index(ndim=vectors.shape[1], metric="ip", dtype="f16", **size)
                rows = np.arange(len(made), len(made) + len(vectors))
                made.add(rows, vectors, threads=1)  # several threads lose some links, other ones each time
                bar.update(len(vectors))
            made.save(str(partial))
    graph: Any = Index.restore(str(path), view=True)
    graph.expansion_search = SEARCHING
    return graph

r"""Which galaxies look like this one?

Two galaxies are alike where their codes are close. An :class:`SearchIndex` holds the codes of any samples, of a few thousand galaxies or
of a million, and answers with the nearest ones. How near two codes are is a choice, a :class:`Metric`: codes are compared by the
angle between them (cosine) or by their distance (Euclidean), as they are, or whitened, each number divided by its
spread over the index, or *tolerant*: in directions that change when the same galaxy is turned, shifted or observed again
differences count little, in directions that only change from galaxy to galaxy they count much. No label is needed for that,
only images of single galaxies altered on purpose.

On unit vectors angle and distance give one order, as :math:`\lVert a - b \rVert^2 = 2\,(1 - a \cdot b)`, so one rule serves
both: the nearest rows are those that maximise

.. math:: x \cdot q - \tfrac{1}{2} \lVert x \rVert^2 ,

one product of a matrix with a vector. The answer is exact: candidates from single precision are measured again in double.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Row, Table, vstack

from rgz import artifacts
from rgz.data import datasets
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features.metric import Metric

__all__ = [
    "FORMATS",
    "LINK",
    "SAME",
    "SearchIndex",
    "build",
    "ending",
    "for_search",
    "index",
    "sky_link",
    "stacked",
    "write",
]

SAME = 30.0  # arcsec, within which a neighbour is marked as the queried source itself
BLOCK = 1024  # scores of which the largest stands for all
SPARE = 16  # neighbours measured beyond those asked for, where the search is approximate
LINK = "https://aladin.cds.unistra.fr/AladinLite/?target={}&fov=0.10"
COLUMNS = ("name", "ra", "dec", "label", "split", "confident")
FORMATS = {".csv": "ascii.csv", ".vot": "votable", ".xml": "votable", ".parquet": "parquet", ".ecsv": "ascii.ecsv"}
"""Ending of a file name to the format that :func:`write` writes."""


@dataclass(frozen=True)
class SearchIndex:
    """Codes ready to be searched; made by :func:`build`.

    Parameters
    ----------
    vectors
        Codes as they are compared, (N, K) float32.
    table
        One row a code: ``name``, ``sample``, ``ra``, ``dec`` (deg, NaN where unknown), ``label`` and what else there is.
    space
        How they came to be what they are.
    half
        Half of the squared length of each vector, (N,); None where all are of unit length.
    graph
        A usearch index over the vectors, or None for the exact search.
    """

    vectors: np.ndarray
    table: Table
    space: Metric
    half: np.ndarray | None = None
    graph: object | None = None

    def __len__(self):
        return len(self.vectors)

    def neighbours(self, codes: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the ``k`` nearest codes, nearest first, and their separations, (Q, k) each, of codes (Q, D).

        The separation is the Euclidean distance, or 1 − cos of the angle.

        Examples
        --------
        >>> from rgz.features.metric import plain
        >>> codes, table = np.eye(3), Table({"name": ["a", "b", "c"], "sample": ["s"] * 3})
        >>> build(codes, table, plain(codes, cosine=False)).neighbours(np.array([[0.9, 0.1, 0.0]]), k=2)[0]
        array([[0, 1]])
        """
        return self.nearest(self.space.transform(codes), k)

    def nearest(self, queries: np.ndarray, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
        """As :meth:`neighbours`, of vectors (Q, K) that the space has placed already."""
        k = min(k, len(self))
        rows, far = np.empty((len(queries), k), dtype=int), np.empty((len(queries), k))
        for number, query in enumerate(queries):
            if self.graph is None:
                score = self.vectors @ query
                found = _candidates(score if self.half is None else score - self.half, k)
            else:
                found = np.asarray(self.graph.search(query, k + SPARE).keys, dtype=int)
            squared = ((self.vectors[found].astype(float) - query) ** 2).sum(1)
            order = np.lexsort((found, squared))[:k]
            rows[number], far[number] = found[order], squared[order]
        return rows, far / 2 if self.space.cosine else np.sqrt(far)

    def query(self, code: np.ndarray, k: int = 10, at: tuple[float, float] | None = None) -> Table:
        """The ``k`` nearest galaxies to a code (D,), nearest first.

        Parameters
        ----------
        at
            RA and Dec of the galaxy asked for, in degrees, where they are known.

        Returns
        -------
        Table
            ``name``, ``sample``, ``ra``, ``dec`` (deg), ``separation`` (in code space), ``label``, ``same`` (this is the galaxy
            asked for, by its name or because it lies within 30″) and ``link``, an address that shows the place on the sky.
        """
        rows, separation = self.neighbours(np.asarray(code)[None], k)
        return self._listed(rows[0], separation[0], at, None)

    def query_vector(self, vector: np.ndarray, k: int, known: Row) -> Table:
        """As :meth:`query`, of a vector (K,) that the space has placed and the table's row of its galaxy."""
        rows, separation = self.nearest(vector[None], k)
        return self._listed(rows[0], separation[0], (known["ra"], known["dec"]), known["name"])

    def _listed(self, rows, separation, at, name) -> Table:
        found = self.table["name", "sample", "ra", "dec"][rows]
        found["separation"] = separation
        found["label"] = self.table["label"][rows]
        found["same"] = (np.asarray(found["name"]) == name) | _near(found, at)
        found["link"] = [sky_link(ra, dec) for ra, dec in zip(found["ra"], found["dec"], strict=True)]
        return found

    def row(self, name: str) -> int:
        """Row of a galaxy.

        Raises
        ------
        BadInput
            No galaxy has this name.
        """
        found = np.flatnonzero(np.asarray(self.table["name"]) == name)
        if not len(found):
            raise BadInput(f"no galaxy in the index is called {name!r}: names look like {str(self.table['name'][0])!r}")
        return int(found[0])

    def of(self, *samples: str) -> "SearchIndex":
        """The part of the index that holds some samples."""
        rows = np.isin(self.table["sample"], samples)
        half = None if self.half is None else self.half[rows]
        return SearchIndex(self.vectors[rows], self.table[rows], self.space, half)


def build(codes: np.ndarray, table: Table, space: Metric, approximate: bool = False) -> SearchIndex:
    """An index over codes (N, D) of galaxies in a table of N rows.

    ``approximate`` searches a graph of neighbours (usearch) in place of all codes: for far more than a million galaxies.

    Raises
    ------
    BadInput
        Rows and codes differ in number, a code is not finite, or usearch is not installed.
    """
    if not len(codes) or len(codes) != len(table):
        raise BadInput(f"an index needs as many codes as rows; these are {len(codes)} and {len(table)}")
    vectors = space.transform(codes)
    half = None if space.cosine else 0.5 * np.einsum("nd,nd->n", vectors, vectors)
    return SearchIndex(vectors, table, space, half, _graph(vectors) if approximate else None)


def _candidates(score: np.ndarray, k: int) -> np.ndarray:
    """Rows among which are the ``k`` largest scores (N,), and those that rounding may have put behind them.

    Of scores in blocks, the k largest are not below the k-th largest of the blocks' maxima: one pass over all scores in
    place of a partial sort.
    """
    whole = len(score) // BLOCK * BLOCK
    tops = score[:whole].reshape(-1, BLOCK).max(axis=1) if whole >= k * BLOCK else score
    least = np.partition(tops, len(tops) - k)[len(tops) - k]
    return np.flatnonzero(score >= least - 1e-5 * max(1.0, float(np.abs(tops).max())))


def _graph(vectors: np.ndarray):
    if find_spec("usearch") is None:
        raise BadInput("the approximate search needs usearch: pip install usearch, or search exactly")
    from usearch.index import Index as Graph

    graph = Graph(ndim=vectors.shape[1], metric="l2sq", dtype="f32")
    graph.add(np.arange(len(vectors)), vectors)
    return graph


def stacked(tables: dict[str, Table]) -> Table:
    """Tables of several samples as one: their common columns, ``object`` (empty where unknown) and ``sample``, their names."""
    parts = []
    for sample, table in tables.items():
        part = table[COLUMNS]
        part["object"] = table["object"] if "object" in table.colnames else np.full(len(part), "")
        part["sample"] = np.full(len(part), sample)
        parts.append(part)
    return vstack(parts, metadata_conflicts="silent")


def sky_link(ra: float, dec: float) -> str:
    """Address of a page that shows a place on the sky, in degrees; empty where it is unknown.

    >>> sky_link(170.5, -1.25)
    'https://aladin.cds.unistra.fr/AladinLite/?target=170.50000-1.25000&fov=0.10'
    """
    if not (np.isfinite(ra) and np.isfinite(dec)):
        return ""
    return LINK.format(f"{ra:.5f}{'%2B' if dec >= 0 else '-'}{abs(dec):.5f}")


def _near(table: Table, at: tuple[float, float] | None) -> np.ndarray:
    near = np.zeros(len(table), bool)
    known = np.isfinite(np.asarray(table["ra"], float))
    if at is not None and np.isfinite(at).all() and known.any():
        sky = SkyCoord(np.asarray(table["ra"])[known], np.asarray(table["dec"])[known], unit="deg")
        near[known] = sky.separation(SkyCoord(*at, unit="deg")).to_value(u.arcsec) <= SAME
    return near


def ending(path: Path) -> str:
    """The format in which a table is written to a file of this name.

    Raises
    ------
    BadInput
        Its ending is none of :data:`FORMATS`, or Parquet is asked for without pyarrow.
    """
    form = FORMATS.get(Path(path).suffix.lower())
    if form is None:
        raise BadInput(f"{path}: tables are written as {', '.join(FORMATS)}; choose one of these endings")
    if form == "parquet" and find_spec("pyarrow") is None:
        raise BadInput(f"{path}: Parquet needs pyarrow: pip install pyarrow, or write .vot or .csv")
    return form


def write(table: Table, path: Path):
    """Write a table as CSV, ECSV, VOTable or Parquet, by the :func:`ending` of the file name, atomically."""
    form = ending(path)
    with artifacts.atomic(path) as partial:
        table.write(partial, format=form, overwrite=True)


def for_search(path: Path | None = None) -> tuple[Table, np.ndarray, Metric]:
    """Table, descriptions as of :func:`describe`, and their space, of all samples of a codes file; the committed one by default."""
    path = artifacts.artifact("codes.h5") if path is None else path
    read = {name: codefile.read_codes(path, name, "code_compared")[:2] for name in datasets.SAMPLES}
    tables = {name: table for name, (table, _) in read.items()}
    return stacked(tables), np.vstack([code for _, code in read.values()]), codefile.read_space(codefile.SPACE, path)


def index(path: Path | None = None) -> SearchIndex:
    """The galaxies of all samples of a codes file, ready to be searched; the committed one by default."""
    table, described, compared_in = for_search(path)
    return build(described, table, compared_in)

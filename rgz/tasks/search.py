r"""Similarity search: the galaxies most similar to a given one.

A :class:`SearchIndex` holds the codes of many galaxies, mapped by a :class:`rgz.features.metric.Metric`, and returns
the nearest ones. For unit vectors, angle and distance give the same order, since
:math:`\lVert a - b \rVert^2 = 2\,(1 - a \cdot b)`. With both, the rows :math:`x` nearest to a query :math:`q`
maximise

.. math:: x \cdot q - \tfrac{1}{2} \lVert x \rVert^2 .

The search is exact: candidates found by this product in single precision are compared again in double precision. Among
more than a million sources of a survey it is approximate: a graph on disk (HNSW, Malkov & Yashunin 2020,
doi:10.1109/TPAMI.2018.2889473) leads to nearly all of them.
"""

from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from astropy.coordinates import angular_separation
from astropy.table import Row, Table, vstack
from numpy.typing import NDArray

from rgz import artifacts
from rgz.data import datasets
from rgz.data.sample import COLUMNS, SAME_SOURCE, disputed
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features.metric import Metric

if TYPE_CHECKING:
    from rgz.data.cutout import Cutout
    from rgz.features.embed import Encoder

SAME = 30.0  # arcsec, within which a neighbour is marked as the queried source itself
BATCH, SCORES = 512, 1 << 20  # queries, and products of a query and a row, in one matrix product
PAIRS = 1 << 14  # pairs of a query and a row, compared in double precision at once
FIRST = 1 << 12, 1 << 16  # rows, of each query and of all, whose products give the first limit of what is near
LINK = "https://aladin.cds.unistra.fr/AladinLite/?target={}&fov=0.10"
LISTED = ("name", "sample", "ra", "dec", "dissimilarity", "label", "disputed", "same", "link")


@dataclass(frozen=True)
class SearchIndex:
    """Codes ready to be searched; made by :meth:`from_pretrained` or :func:`build`.

    Parameters
    ----------
    vectors
        Codes mapped by ``space``, (N, K) float32.
    table
        One row per vector: ``name``, ``sample``, ``ra``, ``dec`` (deg, NaN where unknown), ``label`` and any others.
    space
        The metric.
    graph
        An index of usearch over the rows of the table, if there are too many vectors for memory.
    """

    vectors: NDArray[np.float32]
    table: Table
    space: Metric
    graph: Any = None

    @classmethod
    def from_pretrained(cls, path: Path | None = None) -> "SearchIndex":
        """The index over all samples of a codes file, by default the one that comes with the trained network."""
        table, codes, space = for_search(path)
        return build(codes, table, space)

    @classmethod
    def from_survey(cls, folder: Path, where: Any = None) -> "SearchIndex":
        """The index over a dataset of ``rgz survey``, or over its rows for which an expression of pyarrow is true.

        Codes are compared about the centroid of the emission. Up to a million are held in memory. For more, a file
        ``search.usearch`` is built in the folder, once. Raises :class:`BadInput` if the survey is not complete, or if
        more than a million sources remain after a filter.

        Example: ``SearchIndex.from_survey(folder, (field("class") == "FRII") & (field("peak_over_noise") > 20))`` with
        ``field`` of ``pyarrow.compute``.
        """
        from rgz.tasks import surveys

        return surveys.index(Path(folder), where)

    def __len__(self) -> int:
        return len(self.table)

    def neighbours(self, codes: NDArray[Any], k: int = 10) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Rows of the ``k`` nearest galaxies, nearest first, and their dissimilarities, (Q, k) each, of codes (Q, D).

        The dissimilarity is the Euclidean distance or, for a cosine metric, 1 − cos.

        Examples
        --------
        >>> from rgz.features.metric import plain
        >>> codes, table = np.eye(3), Table({"name": ["a", "b", "c"], "sample": ["s"] * 3})
        >>> build(codes, table, plain(codes, cosine=False)).neighbours(np.array([[0.9, 0.1, 0.0]]), k=2)[0]
        array([[0, 1]])
        """
        return self.nearest(self.space.transform(codes), k)

    def nearest(self, queries: NDArray[np.float32], k: int = 10) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
        """Like :meth:`neighbours`, for vectors (Q, K) already mapped by the metric."""
        k = min(k, len(self))
        if self.graph is not None:
            found = self.graph.search(queries, k)  # which drops an axis of length one
            rows, apart = (np.reshape(one, (len(queries), k)) for one in (found.keys, found.distances))
            return rows.astype(np.intp), np.maximum(apart, 0.0)
        rows, squares = np.empty((len(queries), k), np.intp), np.empty((len(queries), k))
        for start in range(0, len(queries) if k else 0, BATCH):
            part = slice(start, start + BATCH)
            rows[part], squares[part] = _nearest(self, queries[part], k)
        return rows, squares / 2 if self.space.cosine else np.sqrt(squares)

    def query(
        self, what: "Cutout | NDArray[Any]", k: int = 10, at: tuple[float, float] | None = None, hosts: bool = True
    ) -> Table:
        """The ``k`` galaxies nearest to a cut-out, or to a code (D,), nearest first.

        Parameters
        ----------
        at
            RA and Dec of the queried galaxy in degrees, if known; a cut-out has its own.
        hosts
            Whether the code is that of an image with the host galaxy in its middle; a cut-out has its own. If not, only
            the parts of the codes about the centroid are compared (:attr:`about_centroid`).

        Returns
        -------
        Table
            ``name``, ``sample``, ``ra``, ``dec`` (deg), ``dissimilarity`` (as of :meth:`neighbours`), ``label``,
            ``disputed`` (:func:`for_search`), ``same`` (whether it is the queried galaxy, by name or within 30″) and
            ``link``, the address of a sky viewer.
        """
        if isinstance(what, np.ndarray):
            codes = what[None]
        else:
            at, codes, hosts = what.place, _encoder(artifacts.artifact("codes.h5")).transform(what), what.given
        index = self if hosts else self.about_centroid
        rows, apart = index.neighbours(codes[:, -len(index.space.centre) :], k)
        return self._listed(rows[0], apart[0], at, None)

    @cached_property
    def about_centroid(self) -> "SearchIndex":
        """The same galaxies by the second half of their codes, or by the whole codes if the metric has no parts."""
        space = self.space.about_centroid
        if space is self.space:  # the codes of a survey have the second half alone
            return self
        vectors = self.vectors[:, self.vectors.shape[1] // 2 :] * np.float32(np.sqrt(2) if space.cosine else 1)
        return SearchIndex(vectors, self.table, space)

    def query_vector(self, vector: NDArray[np.float32], k: int, known: Row) -> Table:
        """Like :meth:`query`, for a vector (K,) already mapped by the metric, and the table row of its galaxy."""
        rows, apart = self.nearest(vector[None], k)
        return self._listed(rows[0], apart[0], (known["ra"], known["dec"]), known["name"])

    def _listed(
        self, rows: NDArray[Any], apart: NDArray[Any], at: tuple[float, float] | None, name: str | None
    ) -> Table:
        found = {key: self.table[key][rows] for key in LISTED if key in self.table.colnames}
        same = (found["name"] == name) | _near(found, at)
        found |= {"dissimilarity": apart, "same": same, "link": list(map(sky_link, found["ra"], found["dec"]))}
        return Table({key: found[key] for key in LISTED if key in found})

    def catalogued(self, at: tuple[float, float]) -> tuple[str, ...]:
        """The different classes that the samples give to a galaxy at a position in degrees, within 30″."""
        return tuple(sorted(set(map(str, self.table["label"][_near(self.table, at)])) - {""}))

    def row(self, name: str) -> int:
        """Row of a galaxy; raises :class:`rgz.errors.BadInput` for an unknown name."""
        names = list(map(str, self.table["name"]))
        if name not in names:
            close = get_close_matches(name.lower(), names) or names[:1]
            raise BadInput(f"no galaxy in the index is called {name!r}: names look like {', '.join(close)}")
        return names.index(name)

    def of(self, *samples: str) -> "SearchIndex":
        """The part of the index that contains the given samples."""
        rows = np.isin(self.table["sample"], samples)
        return SearchIndex(self.vectors[rows], self.table[rows], self.space)


def _nearest(index: SearchIndex, queries: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Rows of the ``k`` nearest vectors and their squared distances, (Q, k) each; rows in blocks that fit the cache.

    Rows that can be among the nearest are compared again in double precision, at the end or when there are many at the
    same distance.
    """
    vectors, many = index.vectors, 2 * k * len(queries)
    step = min(max(SCORES // len(queries), k), len(vectors))
    room = np.empty(step * len(queries), np.float32)
    number, rows, score, least = np.empty(0, np.intp), np.empty(0, np.intp), np.empty(0, np.float32), None
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step]
        product = np.matmul(queries, block.T, out=room[: len(queries) * len(block)].reshape(len(queries), -1))
        if not index.space.cosine:
            product -= 0.5 * np.einsum("nd,nd->n", block, block)
        if least is None:
            some = product[:, : max(k, FIRST[0], FIRST[1] // len(queries))]
            rounding = 1e-5 * np.maximum(1, np.abs(some).max(1))
            least = np.partition(some, -k, axis=1)[:, -k] - rounding
        few = np.flatnonzero(product.max(axis=1) >= least)  # queries to which anything here is near
        near, row = np.divmod(np.flatnonzero(product[few] >= least[few, None]), len(block))
        number, rows = np.append(number, few[near]), np.append(rows, row + start)
        score = np.append(score, product[few[near], row])
        last = start + step >= len(vectors)
        if len(rows) > many or last:  # many, until those that are not near enough in single precision are dropped
            order, place = _ranked(number, -score)
            least = score[order[place == k - 1]] - rounding
            number, rows, score = (one[score >= least[number]] for one in (number, rows, score))
        if len(rows) > many or last:
            apart = np.empty(len(rows))
            for begin in range(0, len(rows), PAIRS):
                part = slice(begin, begin + PAIRS)
                between = np.subtract(vectors[rows[part]], queries[number[part]], dtype=float)
                apart[part] = np.einsum("nd,nd->n", between, between)
            order, place = _ranked(number, apart, rows)
            number, rows, score, apart = (one[order[place < k]] for one in (number, rows, score, apart))
    return rows.reshape(-1, k), apart.reshape(-1, k)


def _ranked(number: NDArray[Any], *keys: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The order (M,) of candidates by their query, then by keys, and the place of each among those of its query."""
    order = np.lexsort((*keys[::-1], number))
    return order, np.arange(len(order)) - np.searchsorted(number[order], number[order])


@cache
def _encoder(codes: Path) -> "Encoder":
    """The encoder, for queries by image; it needs torch, which a search by codes does not."""
    from rgz.features.embed import Encoder

    return Encoder.from_pretrained(codes.parent)


def build(codes: NDArray[Any], table: Table, space: Metric) -> SearchIndex:
    """An index over codes (N, D) of galaxies in a table of N rows.

    Raises
    ------
    BadInput
        Rows and codes differ in number, or a code is not finite.
    """
    if not len(codes) or len(codes) != len(table):
        raise BadInput(f"an index needs as many codes as rows; there are {len(codes)} and {len(table)}")
    return SearchIndex(space.transform(codes), table, space)


def for_search(path: Path | None = None) -> tuple[Table, NDArray[Any], Metric]:
    """Table, codes (N, D) and metric of all samples of a codes file.

    The table has the columns common to all samples, ``sample``, and ``disputed``: the classes of a source to which
    catalogues give different ones, such as "FRI, bent". Raises :class:`BadInput` if the file is damaged.
    """
    tables, codes = [], []
    for sample in datasets.SAMPLES:
        table, found, _ = codefile.read_codes(path, sample)
        if missing := set(COLUMNS) - set(table.colnames):
            raise BadInput(
                f"the codes of {sample} have no {', '.join(sorted(missing))}: make them again with rgz study codes"
            )
        part = table[COLUMNS]
        part["sample"] = np.full(len(part), sample)
        tables.append(part)
        codes.append(found)
    space = codefile.read_space(path)
    if {code.shape[1] for code in codes} != {len(space.centre)}:
        raise BadInput("codes and metric have different lengths: make them again with rgz study codes")
    table = vstack(tables, metadata_conflicts="silent")
    table["disputed"] = disputed(table, SAME_SOURCE)
    return table, np.vstack(codes), space


def sky_link(ra: float, dec: float) -> str:
    """Address of a sky viewer at a position in degrees; empty where the position is unknown.

    >>> sky_link(170.5, -1.25)
    'https://aladin.cds.unistra.fr/AladinLite/?target=170.50000-1.25000&fov=0.10'
    """
    if not (np.isfinite(ra) and np.isfinite(dec)):
        return ""
    return LINK.format(f"{ra:.5f}{'%2B' if dec >= 0 else '-'}{abs(dec):.5f}")


def _near(table: Table, at: tuple[float, float] | None) -> NDArray[np.bool_]:
    """Which rows lie within ``SAME`` of a position in degrees, if that is known."""
    ra, dec = (np.radians(np.asarray(table[name], float)) for name in ("ra", "dec"))
    separation = angular_separation(ra, dec, *np.radians((np.nan, np.nan) if at is None else at))
    return np.asarray(np.degrees(separation) * 3600 <= SAME)  # False where one is not known

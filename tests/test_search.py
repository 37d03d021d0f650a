"""The search is exact, marks the queried galaxy, refuses unusable input, and writes its tables whole."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table, vstack

from rgz.app import tables
from rgz.errors import BadInput
from rgz.features import metric
from rgz.tasks import search
from studies import encode


@pytest.fixture(scope="module")
def galaxies():
    """Codes (5000, 24) and a table with places; row 7 is row 3 seen again, 10″ away, nearly the same code."""
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(5000, 24)).astype(np.float32) * np.geomspace(1, 30, 24, dtype=np.float32)
    codes[7] = codes[3] + 1e-3
    ra, dec = rng.uniform(0, 360, 5000), rng.uniform(-60, 60, 5000)
    ra[7], dec[7] = ra[3], dec[3] + 10 / 3600
    ra[20:40] = np.nan
    names = [f"g-{i}" for i in range(5000)]
    table = Table({"name": names, "sample": ["one", "two"] * 2500, "ra": ra, "dec": dec, "label": ["FRI"] * 5000})
    return codes, table


def brute(vectors, query, k, cosine):
    far = ((vectors.astype(float) - query.astype(float)) ** 2).sum(1)
    far = far / 2 if cosine else np.sqrt(far)
    order = np.lexsort((np.arange(len(far)), far))[:k]
    return order, far[order]


@pytest.mark.parametrize("cosine", [True, False])
@pytest.mark.parametrize("space", [metric.plain, metric.whitened])
def test_the_search_is_exact(galaxies, space, cosine):
    codes, table = galaxies
    index = search.build(codes, table, space(codes, cosine))
    rows, far = index.neighbours(codes[:50], k=12)
    for query in range(50):
        order, distance = brute(index.vectors, index.vectors[query], 12, cosine)
        np.testing.assert_array_equal(rows[query], order)
        np.testing.assert_allclose(far[query], distance, atol=1e-9)
    assert (rows[:, 0] == np.arange(50)).all()


def test_equal_codes_give_the_first_rows():
    codes = np.ones((3000, 4), np.float32)
    table = Table({"name": [str(i) for i in range(3000)], "sample": ["s"] * 3000})
    rows, far = search.build(codes, table, metric.plain(codes, cosine=False)).neighbours(codes[:1], k=5)
    assert rows.tolist() == [[0, 1, 2, 3, 4]]
    assert (far == 0).all()


def test_the_queried_galaxy_is_marked(galaxies):
    codes, table = galaxies
    index = search.build(codes, table, metric.whitened(codes))
    found = index.query_vector(index.vectors[3], 10, table[3])
    assert found["name"][:2].tolist() == ["g-3", "g-7"]
    assert found["same"].tolist() == [True, True, *[False] * 8]
    assert found["link"][0].startswith("https://")
    unknown = index.query_vector(index.vectors[25], 10, table[25])
    assert unknown["same"].tolist() == [True, *[False] * 9]
    assert unknown["link"][0] == ""


def test_a_part_of_the_index_answers_from_that_part(galaxies):
    codes, table = galaxies
    index = search.build(codes, table, metric.whitened(codes, cosine=False)).of("two")
    assert len(index) == 2500
    found = index.query(codes[4], k=20)
    assert set(found["sample"]) == {"two"}
    assert (np.diff(found["dissimilarity"]) >= 0).all()


def test_an_invariant_metric_ignores_changes_within_a_galaxy():
    rng = np.random.default_rng(1)
    own = rng.normal(size=(400, 3))
    nuisance = 5 * rng.normal(size=(400, 3))
    codes = np.hstack([own, nuisance])
    again = np.hstack([own + 0.05 * rng.normal(size=own.shape), 5 * rng.normal(size=(400, 3))])
    table = Table({"name": [str(i) for i in range(400)], "sample": ["s"] * 400})

    def recall(space):
        rows, _ = search.build(codes, table, space).neighbours(again, k=1)
        return (rows[:, 0] == np.arange(400)).mean()

    changes = (again - codes)[:200]
    assert recall(replace(encode.invariant(codes, changes), cosine=False)) > 0.9
    assert recall(metric.whitened(codes, cosine=False)) < 0.3


def test_many_queries_are_answered_as_single_ones_are(galaxies):
    codes, table = galaxies
    index = search.build(codes, table, metric.whitened(codes))
    rows, far = index.neighbours(codes[: search.BATCH + 3], k=3)
    for query in (0, search.BATCH, search.BATCH + 2):
        own, separation = index.neighbours(codes[query : query + 1], k=3)
        np.testing.assert_array_equal(rows[query], own[0])
        np.testing.assert_array_equal(far[query], separation[0])
    assert index.neighbours(codes[:4], k=0)[0].shape == (4, 0)


@pytest.mark.parametrize("cosine", [True, False])
def test_blocks_of_rows_and_queries_do_not_change_the_answer(galaxies, monkeypatch, cosine):
    codes, table = galaxies
    index = search.build(np.vstack([codes, codes[:50]]), vstack([table, table[:50]]), metric.plain(codes, cosine))
    whole = index.neighbours(codes[:90], k=7)
    monkeypatch.setattr(search, "BATCH", 40)
    monkeypatch.setattr(search, "SCORES", 40 * 64)
    monkeypatch.setattr(search, "FIRST", (8, 8))
    for one, other in zip(index.neighbours(codes[:90], k=7), whole, strict=True):
        np.testing.assert_array_equal(one, other)
    rows, far = index.neighbours(codes[:1], k=6000)  # more than there are
    assert sorted(rows[0]) == list(range(5050))
    assert (np.diff(far[0]) >= 0).all()
    assert index.neighbours(codes[:0])[0].shape == (0, 10)


def test_a_cutout_is_found_where_it_is(simulated, monkeypatch):
    """A cut-out is encoded, and its own position marks it among its neighbours."""

    class Encoder:
        def transform(self, cutout):
            return cutout.pixels.reshape(1, -1)[:, ::10] + 0.0

    monkeypatch.setattr(search, "_encoder", lambda codes: Encoder())
    table = simulated.table.copy()
    table["sample"], table["ra"], table["dec"] = "sim", np.arange(24.0), 1.0
    codes = simulated.images.reshape(24, -1)[:, ::10] + 0.0
    index = search.build(codes, table, metric.plain(codes, cosine=False))
    cutout = SimpleNamespace(pixels=simulated.images[5], pixel=1.8, place=(5.0, 1.0), given=True)
    found = index.query(cutout, k=3)
    assert found["name"][0] == "sim-0005"
    assert found["same"].tolist() == [True, False, False]


@pytest.mark.parametrize("ending", tables.FORMATS)
def test_lists_are_written_whole_and_read_back(galaxies, tmp_path, ending):
    if ending == ".parquet":
        pytest.importorskip("pyarrow")
    codes, table = galaxies
    found = search.build(codes, table, metric.plain(codes)).query(codes[30], at=(10.0, 20.0))
    tables.write(found, tmp_path / f"list{ending}")
    if ending == ".parquet":
        import pyarrow.parquet

        names = pyarrow.parquet.read_table(tmp_path / "list.parquet")["name"].to_pylist()
    else:
        names = Table.read(tmp_path / f"list{ending}", format=tables.FORMATS[ending])["name"].tolist()
    assert [n.decode() if isinstance(n, bytes) else n for n in names] == found["name"].tolist()
    assert [p.name for p in tmp_path.iterdir()] == [f"list{ending}"]


@pytest.mark.parametrize(
    ("codes", "rows", "message"),
    [
        (np.ones((3, 2)), 2, "as many codes as rows"),
        (np.ones((0, 2)), 0, "as many codes as rows"),
        (np.array([[1.0, np.nan]]), 1, "finite"),
        (np.ones((2, 3)), 2, r"shape \(N, 2\)"),
        (np.ones(2), 2, r"shape \(N, 2\)"),
    ],
)
def test_unusable_codes_are_refused(codes, rows, message):
    table = Table({"name": [str(i) for i in range(rows)], "sample": ["s"] * rows})
    with pytest.raises(BadInput, match=message):
        search.build(codes, table, metric.plain(np.eye(2)))


def test_unknown_names_and_endings_are_named(galaxies, tmp_path):
    codes, table = galaxies
    index = search.build(codes, table, metric.plain(codes))
    assert index.row("g-12") == 12
    with pytest.raises(BadInput, match=r"names look like g-4567,"):
        index.row("G-4567")
    with pytest.raises(BadInput, match="'nobody': names look like g-0"):
        index.row("nobody")
    with pytest.raises(BadInput, match=r"\.csv.*\.parquet"):
        tables.write(table, tmp_path / "list.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_a_metric_of_parts_has_the_mean_of_their_cosines():
    rng = np.random.default_rng(0)
    codes, changes = rng.normal(size=(50, 6)), rng.normal(size=(40, 6))
    whole = encode.invariant(codes, changes, parts=2)
    one, two = (encode.invariant(codes[:, part], changes[:, part]) for part in (slice(3), slice(3, 6)))
    cosines = [space.transform(codes[:, part]) for space, part in ((one, slice(3)), (two, slice(3, 6)))]
    expected = sum(vectors @ vectors.T for vectors in cosines) / 2
    found = whole.transform(codes)
    np.testing.assert_allclose(found @ found.T, expected, atol=1e-5)
    assert whole.transform(codes[:0]).shape == (0, 6)


@pytest.mark.parametrize("changes", [np.zeros((9, 6)), np.full((9, 6), np.nan)])
def test_changes_that_do_not_vary_are_refused(changes):
    with pytest.raises(BadInput, match="all the same"):
        encode.invariant(np.random.default_rng(0).normal(size=(50, 6)), changes, parts=2)
    with pytest.raises(BadInput, match="4 parts of equal length"):
        encode.invariant(np.ones((5, 6)), changes, parts=4)


def test_without_a_host_only_the_parts_about_the_centroid_are_compared():
    rng = np.random.default_rng(0)
    codes = rng.normal(size=(60, 8))
    table = Table({"name": [str(n) for n in range(60)], "sample": ["s"] * 60, "label": [""] * 60})
    table["ra"] = table["dec"] = np.full(60, np.nan)
    for cosine in (True, False):
        space = replace(encode.invariant(codes, rng.normal(size=(40, 8)), parts=4), cosine=cosine)
        index = search.build(codes, table, space)
        other = np.concatenate([rng.normal(size=4), codes[7, 4:]])
        found = index.query(other, 3, hosts=False)
        assert found["name"][0] == "7"
        assert found["dissimilarity"][0] == pytest.approx(0, abs=1e-5)
        half = search.build(codes[:, 4:], table, index.about_centroid.space)
        np.testing.assert_allclose(half.vectors, index.about_centroid.vectors, rtol=1e-4, atol=1e-5)

"""A survey is complete, each source once, whatever was killed on the way; LSDB opens it, and it can be searched."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from PIL import Image

from rgz.app import survey
from rgz.data import detect, sources
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.tasks import inspect, surveys
from rgz.tasks.search import SearchIndex
from studies import simulate

pytest.importorskip("hats")
pytest.importorskip("distributed")
write_parquet_metadata = pytest.importorskip("hats.io.parquet_metadata").write_parquet_metadata
pa, pq, pc = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet", "pyarrow.compute"))
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def image(path, pixels, ra, dec):
    header = detect.north_up(pixels.shape, simulate.PIXEL, ra, dec).to_header()
    fits.PrimaryHDU(pixels.astype(np.float32), header).writeto(path)


@pytest.fixture(scope="module")
def sky(tmp_path_factory):
    """Ten cut-outs, one of them noise, one file that is missing, and their catalogue; sources in two places."""
    folder, rng = tmp_path_factory.mktemp("sky"), np.random.default_rng(0)
    (folder / "cutouts").mkdir()
    ra, dec = np.where(np.arange(11) < 6, 10.0, 200.0) + 0.3 * np.arange(11), np.linspace(-20, 30, 11)
    for number in range(10):
        pixels = rng.normal(size=(150, 150)) if number == 3 else simulate.source("FRII", rng)
        image(folder / "cutouts" / f"s{number}.fits", pixels, ra[number], dec[number])
    beside = dec + np.where(np.arange(11) == 7, 40 / 3600, 0)
    rows = {"ID": [f"s{n}" for n in range(11)], "RA": ra, "DEC": beside, "file": [f"s{n}.fits" for n in range(11)]}
    Table(rows).write(folder / "sources.csv")
    return folder


def command(folder, out, *options):
    words = ["survey", folder / "sources.csv", "--images", "cutouts", "--out", out, "--rows", 3, *options]
    return [sys.executable, "-m", "rgz", *map(str, words)]  # to be run in the folder


def flipped(path):
    """The content of a Parquet file, with one bit of the codes changed."""
    names = pq.read_schema(path).names
    where = pq.read_metadata(path).row_group(0).column(names.index("code"))
    content = bytearray(path.read_bytes())
    content[where.data_page_offset + where.total_compressed_size // 2] ^= 1
    return content


def table(out):
    return pq.read_table(out / "dataset").to_pandas().sort_values("id", ignore_index=True)


def check(out):
    """Each source of the catalogue once, and only the two that cannot be used refused, with a reason."""
    found = table(out)
    assert found["id"].tolist() == sorted(f"s{n}" for n in range(11))
    refused = found.set_index("id")["status"] == "refused"
    assert refused[refused].index.tolist() == ["s10", "s3"]
    assert found["notes"][refused.to_numpy()].str.len().gt(20).all()
    assert found["code"][~refused.to_numpy()].str.len().eq(256).all()
    away = found.set_index("id")["offset_arcsec"]
    assert away["s7"] == pytest.approx(40, abs=4)
    assert away.drop(["s3", "s7", "s10"]).max() < 1
    return found


def test_partitions_are_as_large_as_they_may_be_and_none_lies_in_another():
    index = np.random.default_rng(0).integers(0, 12 * 4**29, 3000)
    index[:1000] //= 4**12  # crowded
    order, pixel = survey.partitioned(index, 50)
    assert (index >> 2 * (29 - order) == pixel).all()
    (depth, _), counts = np.unique(np.stack((order, pixel)), axis=1, return_counts=True)
    assert (counts[depth < survey.DEEPEST] <= 50).all()
    for other in range(1, survey.DEEPEST + 1):  # what is split has more than fits
        above, size = np.unique(index >> 2 * (30 - other), return_counts=True)
        split = np.unique((index >> 2 * (30 - other))[order >= other])
        assert (size[np.isin(above, split)] > 50).all()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"ra": [1.0]}, "no column dec"),
        ({"ra": [1.0, np.nan], "dec": [0.0, 0.0], "file": ["a", "b"]}, "1 of 2 sources without a position"),
        ({"ra": [1.0], "dec": [95.0], "file": ["a"]}, "1 of 1 sources without a position"),
        ({"ra": [400.0], "dec": [5.0], "file": ["a"]}, "1 of 1 sources without a position"),
        ({"ra": [1.0], "dec": [5.0]}, "no FITS mosaics"),
    ],
)
def test_unusable_catalogues_are_refused(tmp_path, columns, message):
    Table(columns).write(tmp_path / "c.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match=message):
        survey._plan(tmp_path / "c.csv", tmp_path / "empty", tmp_path / "out", False, 10)
    assert not (tmp_path / "out" / "plan.parquet").exists()


def test_a_folder_keeps_one_survey(sky, tmp_path):
    first = survey._plan(sky / "sources.csv", sky / "cutouts", tmp_path, False, 3)
    assert survey._plan(sky / "sources.csv", sky / "cutouts", tmp_path, False, 3) == first
    with pytest.raises(BadInput, match="other hosts, rows"):
        survey._plan(sky / "sources.csv", sky / "cutouts", tmp_path, True, 4)
    with pytest.raises(BadInput, match="no complete survey"):
        SearchIndex.from_survey(tmp_path)
    with pytest.raises(BadInput, match="new or empty"):
        survey._plan(sky / "sources.csv", sky / "cutouts", sky, False, 3)
    (tmp_path / "plan.parquet").unlink()
    (tmp_path / "dataset").mkdir()
    with pytest.raises(BadInput, match="new or empty"):  # or the partitions of two surveys would be mixed
        survey._plan(sky / "sources.csv", sky / "cutouts", tmp_path, False, 4)


def test_a_worker_that_differs_from_the_others_writes_nothing(sky, tmp_path, monkeypatch):
    shutil.copytree(sky / "cutouts", tmp_path / "images")
    plan, _ = survey._plan(sky / "sources.csv", tmp_path / "images", tmp_path / "out", False, 3)
    (tmp_path / "images").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="cannot reach"):
        survey.partition(plan, 0, tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()
    (tmp_path / "p.parquet").write_text("what another worker wrote")
    survey.partition(plan, 0, tmp_path / "p.parquet")
    assert (tmp_path / "p.parquet").read_text() == "what another worker wrote"
    monkeypatch.setattr(survey, "_weights", lambda: ["another version"])
    with pytest.raises(BadInput, match="other weights"):
        survey.partition(plan, 0, tmp_path / "p.parquet")


def test_without_room_on_the_gpu_the_processor_is_used(sky, monkeypatch):
    asked, plain = [], inspect.inspect_all

    def full(cutouts, k, device="cpu"):
        asked.append(device)
        if device == "cuda":
            raise torch.OutOfMemoryError
        return plain(cutouts, k)

    monkeypatch.setattr(inspect, "inspect_all", full)
    monkeypatch.setattr(survey, "_device", lambda: "cuda")
    row = {"id": "a", "ra": 10.0, "dec": -20.0, "file": str(sky / "cutouts" / "s0.fits")}
    survey._inspect([row], False, "file")
    assert asked == ["cuda", "cpu"]
    assert row["class"] == "FRII"


def test_one_source_that_cannot_be_read_is_refused_alone(sky, monkeypatch):
    plain = sources.cutout.centre

    def centre(seen, at):
        if "s0" in seen.name:
            raise ZeroDivisionError("of a library")
        return plain(seen, at)

    monkeypatch.setattr(sources.cutout, "centre", centre)
    rows = [{"id": n, "ra": 10.0, "dec": -20.0, "file": str(sky / "cutouts" / f"s{n}.fits")} for n in range(2)]
    rows[1] |= {"ra": 10.3, "dec": -15.0}
    survey._inspect(rows, False, "file")
    assert [row["status"] for row in rows] == ["refused", "ok"]
    assert rows[0]["notes"].endswith("cannot be read for 0 (of a library): fetch it again")


def test_a_picture_of_any_name_shows_its_source_in_the_middle(tmp_path):
    grey = np.clip(3 * simulate.source("FRII", np.random.default_rng(0), snr=80) + 20, 0, 255)
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / "galaxy", "PNG")
    row = {"id": "a", "ra": 10.0, "dec": -20.0, "file": str(tmp_path / "galaxy")}
    for hosts in (False, True):
        found = sources.opened(row, "file", hosts)
        assert np.isnan(found.place).all()
        assert not found.given


def test_a_source_is_read_from_the_mosaic_that_shows_it(tmp_path):
    """The middles of small mosaics may be nearer to a source than that of the large one that shows it."""
    image(tmp_path / "large.fits", np.zeros((1000, 1000)), 50.0, 0.0)  # half a degree wide
    for number in range(4):
        image(tmp_path / f"small{number}.fits", np.zeros((200, 200)), 50.3, 0.2 * number)  # a tenth
    edge = WCS(naxis=2)  # a tile at the edge of a map of the whole sky, whose middle shows none of it
    edge.wcs.ctype, edge.wcs.cdelt, edge.wcs.crpix = ("RA---AIT", "DEC--AIT"), (-0.1, 0.1), (1800, 100)
    fits.PrimaryHDU(np.zeros((200, 200)), edge.to_header()).writeto(tmp_path / "edge.fits.gz")
    (tmp_path / "about.fits.txt").write_text("mosaics of a survey")
    ra, dec = np.array([50.0, 50.2, 50.3, 50.23, 90.0]), np.zeros(5)
    way, columns = sources.locate(tmp_path, None, ra, dec)
    assert way == "mosaic"
    assert [Path(one).stem for one in columns["file"]] == ["large", "large", "small0", "large", ""]
    with pytest.raises(BadInput, match="no mosaic shows 90"):
        sources.opened({"id": "a", "file": "", "ra": 90.0, "dec": 0.0}, "mosaic", False)


@pytest.mark.parametrize("projection", ["CAR", "ZEA"])
def test_of_a_mosaic_the_same_is_read_as_of_an_image(tmp_path, projection):
    """Also where pixels are much narrower than at the reference position."""
    pixels = np.random.default_rng(0).normal(size=(700, 2600))
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = (f"RA---{projection}", f"DEC--{projection}"), (180.0, 0.0)
    wcs.wcs.cdelt, wcs.wcs.crpix = (-0.0005, 0.0005), (1300, 350 - 70 / 0.0005)
    at = [float(v) for v in wcs.pixel_to_world_values(1300, 330)]
    pixels[255:405, 1225:1375] = simulate.source("FRII", np.random.default_rng(1), snr=80)
    fits.PrimaryHDU(pixels.astype(np.float32), wcs.to_header()).writeto(tmp_path / "a.fits")
    row = {"id": "a", "file": str(tmp_path / "a.fits"), "ra": at[0], "dec": at[1]}
    one, other = sources.opened(row, "mosaic", True), sources.cutout.open_cutout(tmp_path / "a.fits", tuple(at))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    assert one.notes == other.notes


def test_names_that_look_like_numbers_are_kept(tmp_path):
    (tmp_path / "c.csv").write_text("ID,ra,dec,File\n1E5,1,2,0123\n007,3,4,0456\n")
    ids, ra, dec, files = survey._catalogue(tmp_path / "c.csv")
    assert (ids, files) == (["1E5", "007"], ["0123", "0456"])
    assert (ra.tolist(), dec.tolist()) == ([1, 3], [2, 4])


def test_a_member_of_two_tar_files_is_refused(tmp_path):
    (tmp_path / "a.fits").write_bytes(b"")
    (tmp_path / "of-a-folder").mkdir()
    with tarfile.open(tmp_path / "of-a-folder" / "one.tar", "w") as archive:
        archive.add(tmp_path / "a.fits", "./a.fits")
    _, columns = sources.locate(tmp_path / "of-a-folder", ["a.fits", "./a.fits", "b.fits"], np.zeros(3), np.zeros(3))
    assert list(columns["size"]) == [0, 0, -1]
    for name in ("one", "two"):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(tmp_path / "a.fits", "a.fits")
    with pytest.raises(BadInput, match="both have a"):
        sources.locate(tmp_path, ["a.fits"], np.zeros(1), np.zeros(1))
    with pytest.raises(BadInput, match="is one image"):
        sources.locate(tmp_path / "a.fits", ["a.fits"], np.zeros(1), np.zeros(1))


def test_ctrl_c_never_reaches_the_workers():
    before, code = signal.getsignal(signal.SIGINT), "import signal; print(signal.getsignal(signal.SIGINT).name)"
    with survey._ignoring_interrupts():
        assert subprocess.check_output([sys.executable, "-c", code], text=True) == "SIG_IGN\n"
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_cutouts_tar_files_and_mosaics_give_the_same(sky, tmp_path, monkeypatch):
    """The same three sources as cut-outs, as members of a tar file, and in a mosaic that is larger than they are."""
    told = []
    worker = SimpleNamespace(log_event=lambda topic, done: told.append((topic, done)))
    monkeypatch.setattr("distributed.get_worker", lambda: worker)
    rng, wide = np.random.default_rng(1), np.random.default_rng(2).normal(size=(900, 1100))
    middle = detect.north_up(wide.shape, simulate.PIXEL, 50.0, 0.0)
    places = [(200, 200), (600, 300), (800, 700)]
    for x, y in places:
        wide[y - 75 : y + 75, x - 75 : x + 75] = simulate.source("FRII", rng)
    for folder in ("cutouts", "tars", "mosaics"):
        (tmp_path / folder).mkdir()
    image(tmp_path / "mosaics" / "m.fits", wide, 50.0, 0.0)
    sky = middle.pixel_to_world(*np.transpose(places) - 0.5).icrs
    for number, (x, y) in enumerate(places):
        part = (slice(y - 240, y + 240), slice(x - 240, x + 240))
        part = tuple(slice(max(one.start, 0), one.stop) for one in part)
        unit = fits.PrimaryHDU(wide[part].astype(np.float32), middle[part].to_header())
        unit.writeto(tmp_path / "cutouts" / f"{number}.fits")
    with tarfile.open(tmp_path / "tars" / "one.tar", "w") as archive:
        archive.add(tmp_path / "cutouts", "shard")
    known = {"id": ["a", "b", "c"], "ra": sky.ra.deg, "dec": sky.dec.deg}
    files = {"cutouts": "{}.fits", "tars": "shard/{}.fits", "mosaics": None}
    found = {}
    for folder, name in files.items():
        catalogue, out = tmp_path / f"{folder}.csv", tmp_path / f"of-{folder}"
        Table(known | ({"file": [name.format(n) for n in range(3)]} if name else {})).write(catalogue)
        plan, _ = survey._plan(catalogue, tmp_path / folder, out, False, 10)
        about = json.loads(pq.read_schema(plan).metadata[b"rgz"])
        assert about["way"] == {"cutouts": "file", "tars": "member", "mosaics": "mosaic"}[folder]
        survey.partition(plan, 0, out / "dataset" / "p.parquet")
        found[folder] = table(out)
        assert len(found[folder]) == 3
        assert told[-2:] == [(str(plan), (0, 0)), (str(plan), (0, 3))]  # for the progress bar
        assert (found[folder]["status"] != "refused").all(), found[folder]["notes"].tolist()
    (path,) = (tmp_path / "of-tars" / "dataset").glob("*.parquet")
    path.write_bytes(flipped(path))
    with pytest.raises(OSError, match="CRC"):  # and no wrong code
        pq.read_table(path, page_checksum_verification=True)
    codes = {folder: np.stack(one["code"]) for folder, one in found.items()}
    np.testing.assert_array_equal(codes["cutouts"], codes["tars"])
    np.testing.assert_allclose(codes["cutouts"], codes["mosaics"], atol=0.3)  # of other surroundings, other noise


@pytest.fixture
def one_core():
    """As on a machine of one core, a survey that this test starts has one worker."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("processes cannot be bound to a core here")
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_a_killed_survey_goes_on_and_is_opened_by_lsdb_and_searched(sky, tmp_path):
    out = tmp_path / "out"
    options = {"env": ENVIRONMENT, "cwd": sky, "stderr": subprocess.PIPE}
    running = subprocess.Popen(command(sky, out), start_new_session=True, **options)
    while running.poll() is None and not list(out.rglob("Npix=*.parquet")):
        time.sleep(0.05)
    os.killpg(running.pid, signal.SIGKILL)
    running.communicate()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("Npix=*.parquet")}
    assert before
    done = subprocess.run(command(sky, out), stdout=subprocess.PIPE, text=True, timeout=600, **options)
    assert done.returncode == 0, done.stderr
    assert "sources 11" in done.stdout
    assert "2 refused" in done.stdout
    assert {path: path.stat().st_mtime_ns for path in before} == before
    found = check(out).set_index("id")
    assert f"rgz: s3: {found['notes']['s3']}\n" in done.stderr
    index = SearchIndex.from_survey(out)
    assert len(index) == 9
    code = found["code"]["s5"]
    assert index.query(code, 3)["name"][0] == "s5"
    lsdb = pytest.importorskip("lsdb")  # in a process of its own: its libraries warn
    words = f"import lsdb; print(*lsdb.open_catalog({str(out)!r}).cone_search(10.6, -10, 60).compute()['id'])"
    shown = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True)
    assert shown.stdout.split() == ["s2"], (lsdb, shown.stderr)


@pytest.mark.slow
@pytest.mark.usefixtures("one_core")
def test_a_survey_without_any_image_or_with_a_damaged_file_ends_with_an_error(tmp_path):
    Table({"ra": [1.0], "dec": [2.0], "file": ["absent.fits"]}).write(tmp_path / "sources.csv")
    (tmp_path / "cutouts").mkdir()
    options = {"env": ENVIRONMENT, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run(command(tmp_path, tmp_path / "out"), **options)
    assert done.returncode == 1
    assert "absent.fits cannot be read" in done.stderr
    assert "none of these 1 sources can be used" in done.stderr
    (tmp_path / "out" / surveys.METADATA).unlink()  # is written again
    done = subprocess.run(command(tmp_path, tmp_path / "out"), **options)
    assert "none of these 1 sources can be used" in done.stderr
    (written,) = (tmp_path / "out").rglob("Npix=*.parquet")
    written.write_bytes(b"PAR1")
    (tmp_path / "out" / surveys.DONE).unlink()
    done = subprocess.run(command(tmp_path, tmp_path / "out"), **options)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith(f"rgz: {tmp_path / 'out'} cannot be completed")


@pytest.mark.slow
def test_a_survey_is_complete_though_a_worker_is_killed(sky, tmp_path):
    """Two workers of a scheduler, as on two machines; one is killed as soon as the first partition is written."""
    file, out = tmp_path / "scheduler.json", tmp_path / "out"
    dask = [sys.executable, "-m", "dask"]
    options = {"env": ENVIRONMENT, "stderr": subprocess.DEVNULL}
    started = [
        subprocess.Popen([*dask, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", file], **options)
    ]
    try:
        work = [*dask, "worker", "--nthreads", "1", "--no-nanny", "--no-dashboard", "--scheduler-file", file]
        started += [subprocess.Popen(work, cwd=tmp_path, **options) for _ in range(2)]
        while not file.exists():
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        words = command(sky, out, "--scheduler", address)
        running = subprocess.Popen(words, cwd=sky, **options, stdout=subprocess.PIPE)
        while running.poll() is None and not list(out.rglob("Npix=*.parquet")):
            time.sleep(0.05)
        started[-1].kill()
        told, _ = running.communicate(timeout=600)
        assert running.returncode == 0
        assert b"sources 11" in told
    finally:
        for one in started:
            one.kill()
            one.wait()
    check(out)


def test_above_the_limit_a_graph_finds_what_the_exact_search_finds(tmp_path, monkeypatch):
    """A survey of the codes of a sample; the graph is built once, and a filter makes the search exact again."""
    pytest.importorskip("usearch")
    known, codes, _ = codefile.read_codes(None, "mirabest")
    columns = {name: np.asarray(known[name]).astype(float) for name in ("ra", "dec")}
    columns |= {"id": known["name"].tolist(), "class": known["label"].tolist(), "code": list(codes)}
    columns["status"] = ["refused" if row == 7 else "ok" for row in range(len(codes))]
    (tmp_path / "dataset").mkdir()
    whole = pa.table(columns)
    for number, part in enumerate((pc.field("class") == "FRII", pc.field("class") != "FRII")):
        path = tmp_path / "dataset" / f"Npix={number}.parquet"
        pq.write_table(whole.filter(part), path, **survey.PAGES)
    write_parquet_metadata(tmp_path)
    (tmp_path / "hats.properties").touch()
    exact = SearchIndex.from_survey(tmp_path)
    assert len(exact) == len(codes) - 1
    monkeypatch.setattr(surveys, "EXACT", 400)
    graph = SearchIndex.from_survey(tmp_path)
    assert len(graph) == len(exact)
    expected, apart = exact.nearest(exact.vectors[:50], 10)
    found, separation = graph.nearest(exact.vectors[:50], 10)
    assert np.mean([np.isin(*pair).mean() for pair in zip(found, expected, strict=True)]) > 0.97
    np.testing.assert_allclose(separation, apart, atol=0.002)  # half precision
    code = codes[3]
    assert graph.query(code, 5)["name"][0] == exact.query(code, 5)["name"][0] == known["name"][3]
    built = (tmp_path / "search.usearch").stat().st_mtime_ns
    SearchIndex.from_survey(tmp_path)
    assert (tmp_path / "search.usearch").stat().st_mtime_ns == built
    hybrids = SearchIndex.from_survey(tmp_path, pc.field("class") == "hybrid")
    assert set(hybrids.table["label"]) == {"hybrid"}
    with pytest.raises(BadInput, match="the filter leaves"):
        SearchIndex.from_survey(tmp_path, pc.field("class") != "hybrid")
    with pytest.raises(BadInput, match="no source"):
        SearchIndex.from_survey(tmp_path, pc.field("class") == "spiral")
    with pytest.raises(BadInput, match=r"filter cannot be used .*use the columns ra, dec, id, class"):
        SearchIndex.from_survey(tmp_path, pc.field("kind") == "FRI")
    monkeypatch.undo()  # codes are read again
    content = path.read_bytes()
    path.write_bytes(flipped(path))
    with pytest.raises(BadInput, match=r"Npix=1.parquet is damaged .*: remove it, and run the same"):
        SearchIndex.from_survey(tmp_path)
    path.write_bytes(content[:-100])
    with pytest.raises(BadInput, match=r"Npix=1.parquet is damaged .*: remove it, and run the same"):
        SearchIndex.from_survey(tmp_path, pc.field("class") == "FRI")
    path.write_bytes(content)
    (tmp_path / "dataset" / "Npix=0.parquet").unlink()
    with pytest.raises(BadInput, match="of its 1256 rows: run the same"):
        SearchIndex.from_survey(tmp_path)


def test_without_the_extra_the_command_says_what_to_install(sky, tmp_path):
    hidden = "import sys; sys.modules['distributed'] = None; from rgz.app.cli import main; sys.argv[0] = 'rgz'; main()"
    words = command(sky, tmp_path)[3:]
    done = subprocess.run([sys.executable, "-c", hidden, *words], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 1
    assert done.stderr.strip() == "rgz: a survey needs distributed: pip install 'rgz[survey]'"
    assert list(Path(tmp_path).iterdir()) == []

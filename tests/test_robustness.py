"""Damaged and hostile files are answered or refused in one line: a short run on every reader, and what was found."""

import gzip
import json
import struct
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from safetensors.numpy import load_file, save_file

from rgz.app import cli, survey, tables
from rgz.data import archives, cutout, detect, sample, sources
from rgz.errors import BadInput, as_bad_input
from rgz.features import codes
from rgz.models import checkpoint, flow
from rgz.tasks.classify import CLASSES, Classifier
from rgz.tasks.search import SearchIndex
from rgz.transforms.prepare import Recipe
from studies import simulate

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
KINDS = (
    "FITS", "FITS with check sums", "FITS in gzip", "FITS in zip", "FITS in tiles", "FITS cube", "PNG", "JPEG",
    "mosaic", "mosaic in gzip", "tar of cut-outs", "batches", "codes", "sample", "network", "density", "classifier",
    "table .csv", "table .ecsv", "table .vot", "table .fits", "table .parquet",
    "catalogue .csv", "catalogue .ecsv", "catalogue .vot", "catalogue .fits", "catalogue .parquet",
    "results .jsonl", "results .csv", "scores", "steps",
)  # fmt: skip


@pytest.fixture(scope="module")
def robustness():
    sys.path.insert(0, str(BENCHMARKS))
    import robustness

    yield robustness
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def kinds(robustness, tmp_path_factory):
    made = robustness.kinds(tmp_path_factory.mktemp("kinds"))
    assert set(made) == set(KINDS)
    return made


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_answered_or_refused(robustness, kinds, tmp_path, name):
    path = tmp_path / f"a{kinds[name].ending}"
    path.write_bytes(kinds[name].pack(kinds[name].inner))
    assert robustness._outcome(kinds[name].read, path) == ("answered", "") or name == "FITS cube"
    for draw in range(8):
        data = robustness.mutated(kinds[name], np.random.default_rng([9, draw]))
        path.write_bytes(data)
        outcome, message = robustness._outcome(kinds[name].read, path)
        assert outcome != "wrong", message


@pytest.fixture(scope="module")
def page(robustness, browser, tmp_path_factory):
    """Drop a file into the page, whose network is replaced: what is answered."""
    import robustness_page

    with robustness_page.served(tmp_path_factory.mktemp("page")) as address:
        shown = browser.new_page()
        shown.goto(address)
        yield lambda name, data: robustness_page.dropped(shown, name, data)


@pytest.mark.slow
def test_damaged_files_in_the_page_are_answered_or_refused(robustness, kinds, page):
    for draw in range(12):
        kind = kinds[("FITS", "FITS in gzip", "PNG")[draw % 3]]
        data = robustness.mutated(kind, np.random.default_rng([9, draw])) if draw > 2 else kind.pack(kind.inner)
        found, text, _ = page(f"a{kind.ending}", data)
        assert found != "wrong", text
        assert draw > 2 or found == "answered"


@pytest.mark.slow
def test_the_page_takes_no_more_memory_than_an_image_needs(kinds, page):
    summed = bytearray(kinds["FITS with check sums"].inner)
    summed[-50_000] ^= 1
    png = bytearray(kinds["PNG"].inner)
    png[16:24] = struct.pack(">II", 20_000, 20_000)
    jpeg = kinds["JPEG"].inner
    frame = jpeg.index(b"\xff\xc0")
    jpeg = jpeg[: frame + 5] + struct.pack(">HH", 60_000, 60_000) + jpeg[frame + 9 :]
    begun = gzip.compress(kinds["FITS"].inner[:2880] + bytes(300 << 20), 1)
    for data, message in {
        bytes(summed): "check sum",
        bytes(png): "20000×20000",
        jpeg: "60000",
        begun: "256 MiB",
    }.items():
        found, text, seconds = page("a", data)
        assert (found, message in text) == ("refused", True), text
        assert seconds < 10


def test_what_goes_wrong_is_counted_as_wrong(robustness):
    def print_a_page(path):
        raise BadInput("a message\x1b[2J with control characters and a reason")

    def fail(path):
        raise KeyError("x")

    assert robustness._outcome(fail, Path())[0] == "wrong"
    assert robustness._outcome(print_a_page, Path())[0] == "refused"  # without them


def test_names_from_files_do_not_reach_the_terminal_as_control_characters():
    with pytest.raises(BadInput) as caught, as_bad_input("a\x1b[2J.fits is damaged", "fetch it again"):
        raise ValueError("\x07 in \udcff")
    assert str(caught.value) == "a [2J.fits is damaged (  in  ): fetch it again"


def test_control_c_in_compiled_code_is_no_bad_input():
    with pytest.raises(KeyboardInterrupt), as_bad_input("a.h5 is damaged", "make it again"):
        raise SystemError("a lock returned a result with an exception set") from KeyboardInterrupt()


def edited(path, key, edit):
    """Change what a safetensors file says about its tensors."""
    data = path.read_bytes()
    size = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:size])
    about = json.loads(header["__metadata__"][key])
    edit(about)
    header["__metadata__"][key] = json.dumps(about)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[size:])
    return path


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("recipe", {"size": "x"}), ("recipe", {"size": 10**9}), ("recipe", {"reach": float("nan")}),
        ("recipe", {"size": 64}), ("config", {"width": 900}), ("config", {"channels": 10**9}),
        ("config", {"decoder": [[1, 10**9], [8, 2], [32, 1]]}),
        ("config", {"latents": [None]}), ("provenance", None),
    ],
)  # fmt: skip
def test_a_network_is_that_of_its_configuration(tiny, tmp_path, part, value):
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, tiny, Recipe(32), {"steps": 1})
    assert checkpoint.load(path)[2] == {"steps": 1}
    edited(path, "rgz", lambda about: about.update({part: value and about[part] | value}))
    with pytest.raises(BadInput, match="not a model of rgz"):
        checkpoint.load(path)


@pytest.mark.parametrize(
    "change", [{"blocks": 10**9}, {"blocks": 999}, {"layers": 999}, {"hidden": 1000}, {"kept": "x"}]
)
def test_a_density_is_no_larger_than_its_file(tmp_path, change):
    path, config = tmp_path / "a.safetensors", flow.Config(kept=3, layers=2, hidden=8)
    ensemble = flow.FlowEnsemble(config, np.zeros(4), np.eye(4, 3), (flow.Flow(config),) * 2, np.arange(3.0))
    flow.save(path, ensemble, {"sources": 3})
    assert len(flow.load(path)[0].flows) == 2
    edited(path, "density", lambda about: about["config"].update(change))
    with pytest.raises(BadInput, match="not a density of rgz"):
        flow.load(path)


def test_a_flow_of_a_number_beyond_the_others_is_refused(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"centre": torch.zeros(1), "matrix": torch.ones(1, 1), "known": torch.zeros(1)}
    tensors["1000000000.x"] = torch.zeros(1)
    checkpoint.write(path, "density", tensors, {"config": {"kept": 1}, "provenance": {}})
    with pytest.raises(BadInput, match="not a density of rgz"):
        flow.load(path)


def test_tensors_of_a_classifier_go_together(tmp_path):
    path, shapes = tmp_path / "a.safetensors", ((4,), (4,), (5, 4), (5, 3), (3,))
    save_file(Classifier(CLASSES[:3], 0, 0.1, *(np.zeros(shape, np.float32) for shape in shapes)).tensors("host"), path)
    assert Classifier.from_pretrained("host", path).classes == CLASSES[:3]
    save_file(load_file(path) | {"host/centre": np.zeros(3, np.float32)}, path)
    with pytest.raises(BadInput, match="do not go together"):
        Classifier.from_pretrained("host", path)


def test_hdf5_that_claims_more_than_memory_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("images", (10**5, 150, 150), "f4", compression="gzip")
        file.attrs.update({"pixel_arcsec": 1.8, "latents": [0]})
    assert path.stat().st_size < 10_000
    for read in (sample.read, codes.chosen):
        with pytest.raises(BadInput, match="claims 9000000000 bytes"):
            read(path)


@pytest.mark.parametrize(("checked", "noted"), [(True, True), (False, False)])
def test_of_a_huge_file_check_sums_are_not_verified_but_that_is_noted(tmp_path, monkeypatch, checked, noted):
    path = tmp_path / "a.fits"
    pixels = simulate.source("FRII", np.random.default_rng(4)).astype(np.float32)
    fits.PrimaryHDU(pixels, detect.north_up(pixels.shape, 1.8, 150.0, 2.0).to_header()).writeto(path, checksum=checked)
    monkeypatch.setattr(archives, "LARGEST", 1 << 12)
    *_, notes = archives.read_plane(path)
    assert any("not verified" in note for note in notes) == noted


def test_a_mosaic_larger_than_memory_is_read_around_a_position(tmp_path, monkeypatch):
    path, side = tmp_path / "a.fits", 20_000
    header = detect.north_up((side, side), 1.8, 150.0, 2.0).to_header()
    header = fits.PrimaryHDU(np.zeros((2, 2), ">f4"), header).header
    header["NAXIS1"] = header["NAXIS2"] = side
    field = simulate.source("FRII", np.random.default_rng(4), snr=80).astype(">f4")
    with path.open("wb") as stream:  # sparse
        stream.write(header.tostring().encode())
        for number, row in enumerate(field):
            stream.seek(len(header.tostring()) + 4 * ((side // 2 - 75 + number) * side + side // 2 - 75))
            stream.write(row.tobytes())
        stream.truncate(len(header.tostring()) + 2880 * -(-4 * side**2 // 2880))
    found = cutout.open_cutout(path, at=(150.0, 2.0))
    assert found.place == pytest.approx((150.0, 2.0), abs=0.01)
    with pytest.raises(BadInput, match="20000×20000 pixels: give the position"):
        cutout.open_cutout(path)


def test_groups_of_many_islands_take_little_memory():
    places = np.random.default_rng(0).uniform(0, 1e5, (50_000, 2))  # all pairs would be 20 GB
    groups = sample.linked(places, 57.6)
    assert len(set(groups)) > 1000
    assert (groups <= np.arange(len(places))).all()


def test_control_c_is_one_line_and_status_130(monkeypatch, capsys):
    def interrupted():
        raise KeyboardInterrupt

    monkeypatch.setattr(SearchIndex, "from_pretrained", interrupted)
    monkeypatch.setattr(sys, "argv", ["rgz", "similar", "rgd-0001"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert (stopped.value.code, capsys.readouterr().err) == (130, "rgz: stopped\n")


def written(path, pixels, header=None, first=None, **checks):
    units = [fits.PrimaryHDU() if first is None else first, fits.ImageHDU(pixels, header, name="SCI")]
    fits.HDUList(units if first is not None else [fits.PrimaryHDU(pixels, header)]).writeto(path, **checks)
    return path


@pytest.fixture(scope="module")
def field():
    return simulate.source("FRII", np.random.default_rng(4), snr=80).astype(np.float32)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 3, 0, 1), (0, 2, 1, 3)])
def test_axes_of_one_plane_may_be_anywhere(tmp_path, field, order):
    known = [("RA---TAN", 150.0, 75.5, -0.0005), ("DEC--TAN", 2.0, 75.5, 0.0005), ("FREQ", 1.4e9, 1, 1e6)]
    known.append(("STOKES", 1, 1, 1))
    header = fits.Header()
    for number, axis in enumerate(order, 1):
        header.update({f"{key}{number}": known[axis][n] for n, key in enumerate(("CTYPE", "CRVAL", "CRPIX", "CDELT"))})
    path = written(tmp_path / "a.fits", np.expand_dims(field, tuple(3 - np.flatnonzero(np.array(order) > 1))), header)
    assert cutout.open_cutout(path).place == pytest.approx((150.0, 2.0), abs=1e-3)
    assert sources.opened({"id": "a", "file": str(path), "ra": 150.0, "dec": 2.0}, "mosaic", False).snr > 50


def test_an_empty_check_sum_is_none(tmp_path, field):
    header = detect.north_up(field.shape, 1.8, 150.0, 2.0).to_header()
    header["DATASUM"] = ""
    assert cutout.open_cutout(written(tmp_path / "a.fits", field, header)).snr > 50


def test_what_was_read_is_said_of_an_image_without_a_source(tmp_path, field):
    header = detect.north_up(field.shape, 1.8, 150.0, 2.0).to_header()
    path = written(tmp_path / "a.fits", field, header, fits.PrimaryHDU(np.ones((50, 50), np.float32), header))
    with pytest.raises(BadInput, match="HDU 0 was read, of 0 PRIMARY, 1 SCI; choose another one with --hdu"):
        cutout.open_cutout(path)


def test_what_the_finder_adds_to_a_zip_file_does_not_count(tmp_path, kinds):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.fits", "__MACOSX/._a.fits", ".DS_Store"):
            archive.writestr(name, kinds["FITS"].inner)
    assert cutout.open_cutout(tmp_path / "a.zip").snr > 50


def mosaics(kinds, field):
    """What is wrong with a mosaic, as bytes, and what is said of it."""
    plain, summed = kinds["FITS"].inner, bytearray(kinds["FITS with check sums"].inner)
    summed[-field.nbytes // 2] ^= 1
    return {
        "no image with celestial coordinates": plain.replace(b"CTYPE1", b"XTYPE1"),
        "Checksum verification failed": bytes(summed),
        "more than there are": plain[:-20_000],
        "give one plane of it": kinds["FITS cube"].inner,
        "not a complete gzip file": gzip.compress(plain)[:-99],
        "no mosaic shows": plain.replace(b"RA---TAN", b"RA---SIN").replace(b"DEC--TAN", b"DEC--SIN").replace(
            b"CRPIX1  =                 75.5", b"CRPIX1  =            9999999.5"
        ),
    }  # fmt: skip


@pytest.mark.parametrize("number", range(6))
def test_of_a_mosaic_the_same_is_refused_as_of_any_image(kinds, field, tmp_path, number):
    message, data = list(mosaics(kinds, field).items())[number]
    path = tmp_path / "a.fits"
    path.write_bytes(data)

    def read():
        way, columns = sources.locate(path, None, np.array([150.0]), np.array([2.0]))
        sources.opened({"id": "a", "ra": 150.0, "dec": 2.0, "file": columns["file"][0]}, way, hosts=False)

    with pytest.raises(BadInput, match=message):
        read()


@pytest.mark.parametrize("pack", [gzip.compress, lambda data: data[:-1000]], ids=["packed", "without padding"])
def test_a_mosaic_may_be_packed_or_lack_its_padding(kinds, tmp_path, pack):
    path = tmp_path / "a.fits.gz"
    path.write_bytes(pack(kinds["FITS"].inner))
    assert kinds["FITS"].inner.endswith(bytes(1000))
    assert sources.opened({"id": "a", "file": str(path), "ra": 150.0, "dec": 2.0}, "mosaic", False).snr > 50


@pytest.mark.parametrize(
    ("ending", "ra", "dec", "unit"),
    [
        (".csv", "150", "2", None), (".csv", "10:00:00", "+02:00:00", None), (".vot", "10 00 00", "+02 00 00", None),
        (".fits", 150.0, 2.0, "degrees"), (".ecsv", 10.0, 2.0, "hourangle"),
    ],
)  # fmt: skip
def test_positions_of_a_catalogue_are_those_of_a_table(tmp_path, ending, ra, dec, unit):
    path = tmp_path / f"a{ending}"
    table = Table({"file": ["a.fits"], "ra": [ra], "dec": [dec]})
    if unit == "degrees":
        table["ra"].unit = "deg"
        table.write(path)
        path.write_bytes(path.read_bytes().replace(b"'deg     '", b"'degrees '"))
    else:
        table["ra"].unit = unit
        table.write(path, format={".csv": "csv", ".vot": "votable", ".ecsv": "ascii.ecsv"}[ending])
    ((_, place),) = tables.items(path)
    assert cutout.parse_position(*place) == pytest.approx((150, 2))
    assert survey._catalogue(path)[1:3] == (pytest.approx([150]), pytest.approx([2]))


def test_the_mark_with_which_excel_begins_a_table_is_no_part_of_a_name(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ufefffile,ra,dec\na.fits,150,2\n", encoding="utf-8")
    assert tables.items(path) == [(tmp_path / "a.fits", ("150", "2"))]


@pytest.mark.parametrize("values", [[[150.0, 1.0]], [True], [1 + 1j], ["NA"]])
def test_columns_of_a_catalogue_that_are_no_angles(tmp_path, values):
    path = tmp_path / "a.ecsv"
    Table({"file": ["a"], "ra": values, "dec": values}).write(path)
    with pytest.raises(BadInput, match="not a readable catalogue"):
        survey._catalogue(path)


@pytest.mark.parametrize(("text", "message"), [("", "it is empty"), ("file,ra,dec\n", "has no rows")])
def test_tables_of_nothing(tmp_path, text, message):
    path = tmp_path / "a.csv"
    path.write_text(text)
    for read in (tables.items, survey._catalogue):
        with pytest.raises(BadInput, match=message):
            read(path)


def test_a_hundred_trillion_columns_are_refused(kinds, tmp_path):
    for kind in ("table .fits", "FITS in tiles"):
        data, path = kinds[kind].inner, tmp_path / f"a{kinds[kind].ending}"
        place = data.index(b"TFIELDS ")
        path.write_bytes(data[:place] + f"TFIELDS = {10**14:>20}".ljust(80).encode() + data[place + 80 :])
        with pytest.raises(BadInput, match="999 columns"):
            archives.read_plane(path)
    with pytest.raises(BadInput, match=r"no image|999 columns"):
        cutout.open_cutout(path)
    table = tmp_path / "a.fits"
    assert tables.items(table) is None  # it is read as an image, and then refused
    with pytest.raises(BadInput, match="not a table of scores"):
        tables.scores(table, np.array(["a"]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"file": None}, "it has no file"), ({"ra": "x"}, "could not convert"), ({"peak_over_noise": "x"}, "could not"),
        ({"code": []}, "it has no codes"), ({"status": None}, "it has no status"),
    ],
)  # fmt: skip
def test_results_that_lack_what_a_map_needs(kinds, tmp_path, change, message):
    path = tmp_path / "a.jsonl"
    rows = [json.loads(line) | change for line in kinds["results .jsonl"].inner.splitlines()]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(BadInput, match=message):
        tables.coded(path)

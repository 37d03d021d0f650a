"""``rgz look`` and ``rgz.inspect``: an answer for every image with a galaxy, and a clear refusal of every other."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import joblib
import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from PIL import Image
from scipy import ndimage
from test_cutout import fits_file, wcs_of

import rgz
from rgz import artifacts
from rgz.app import cli_look
from rgz.data import archives, cutout, datasets, fetch
from rgz.errors import BadInput
from rgz.tasks import classify, inspect, search
from rgz.transforms import prepare
from studies import injected, simulate


@pytest.fixture(scope="module")
def source():
    return simulate.source("FRII", np.random.default_rng(4), size=300, snr=80)


def of(seen, **known):
    """An inspection of a cut-out with made-up results."""
    known = {"area": 3.0, "likelihood": (-60.0, 7.0, 50.0)} | known
    near = Table(names=search.LISTED, dtype=(str, str, float, float, float, str, str, bool, str))
    probabilities = dict(zip(classify.CLASSES, (0.1, 0.8, 0.06, 0.04), strict=True))
    return inspect.Inspection(seen, "centroid", probabilities, ("FRII",), neighbours=near, code=np.zeros(256), **known)


@pytest.fixture
def galaxy(source, tmp_path):
    return fits_file(tmp_path / "galaxy.fits", source, wcs_of(source.shape, 1.8))


def test_json_has_everything(run, galaxy):
    code, out, err = run("look", galaxy, "--json", "-k", 7)
    assert code == 0, err
    said = json.loads(out)
    assert said["file"] == str(galaxy)
    assert (said["ra"], said["dec"]) == pytest.approx((150, 20), abs=2e-3)
    assert said["status"] == "ok"
    probabilities = said["probabilities"]
    assert list(probabilities) == list(classify.CLASSES)
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    assert said["class"] == max(probabilities, key=probabilities.get)
    assert said["class"] in said["set90"]
    assert said["p_frii"] == pytest.approx(
        probabilities["FRII"] / (probabilities["FRI"] + probabilities["FRII"]), abs=1e-4
    )
    assert 0 <= said["anomaly_percentile"] <= 100
    far = [one["dissimilarity"] for one in said["neighbours"]]
    assert far == sorted(far)
    assert len(far) == 7
    assert all((one["link"] is None) == (one["ra"] is None) for one in said["neighbours"])


@pytest.mark.slow
def test_simulated_classes_are_told_apart():
    rng, said = np.random.default_rng(1), []
    for kind in ("FRI", "FRII") * 4:
        seen = cutout.Observation(kind, simulate.source(kind, rng, size=300, snr=100), 1.8)
        said.append(cutout.centre(seen))
    p = np.array([one.p_frii for one in inspect.inspect_all(said)])
    assert p[1::2].mean() > p[::2].mean() + 0.1


def test_many_files_one_of_them_bad(run, galaxy, tmp_path):
    (tmp_path / "bad.fits").write_text("nothing")
    files = tmp_path / "bad.fits", galaxy, tmp_path / "absent.png"
    code, out, err = run("look", *files, "--json")
    assert code == 0, err
    said = {one["file"]: one for one in map(json.loads, out.splitlines())}
    assert [said[str(file)]["status"] for file in files] == ["refused", "ok", "refused"]
    assert [json.loads(line)["file"] for line in out.splitlines()] == [str(file) for file in files]
    assert set(said[str(files[0])]) <= set(said[str(galaxy)])
    assert "cannot be read" in said[str(files[2])]["notes"][0]
    assert "1 answered, 2 refused" in err
    code, out, err = run("look", *files, "--strict")
    assert code == 1
    assert out.startswith(str(galaxy))
    assert "bad.fits" in err
    assert "absent.png" in err


def test_a_folder_is_all_its_files(run, galaxy, tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("b.fits", "a.fits"):
        (folder / name).write_bytes(galaxy.read_bytes())
    (folder / ".hidden").write_text("no image")
    (folder / "below").mkdir()
    code, out, err = run("look", folder, galaxy, "--json")
    assert code == 0, err
    said = [json.loads(line) for line in out.splitlines()]
    assert [one["file"] for one in said] == [str(folder / "a.fits"), str(folder / "b.fits"), str(galaxy)]
    assert said[0]["probabilities"] == pytest.approx(said[2]["probabilities"], abs=1e-4)
    (folder / "a.fits").write_text("")
    (folder / "b.fits").unlink()
    (folder / "c.fits").write_text("x")
    code, _, err = run("look", folder)
    assert code == 1
    assert err.endswith("rgz: none of these 2 files can be used\n")


def test_a_class_without_a_place_does_not_depend_on_the_middle(tmp_path):
    source = simulate.source("FRII", np.random.default_rng(4), size=400, snr=80)
    shifts = (0, 0), (9, -20), (-25, 3)
    cutouts = []
    for down, across in shifts:
        pixels = source[50 + down : 350 + down, 50 + across : 350 + across]
        cutouts.append(cutout.centre(cutout.Observation("a double", pixels, 1.8)))
    found = inspect.inspect_all(cutouts)
    for one in found:
        assert one.kind == "centroid"
        assert one.probabilities == pytest.approx(found[0].probabilities, abs=0.02)
        assert one.likelihood[2] == pytest.approx(found[0].likelihood[2], abs=5)
        assert len(set(one.neighbours["name"]) & set(found[0].neighbours["name"])) >= 8


def test_the_host_stays_in_the_middle(run, galaxy):
    code, out, err = run("look", galaxy, "--at", 150.002, 20.001, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["classifier"] == "host"
    assert (said["ra"], said["dec"]) == pytest.approx((150.002, 20.001), abs=1e-6)


@pytest.mark.parametrize("pixel", [4.9, 5.1, 6.0, 8.0])
def test_a_resolved_double_is_an_frii_in_pixels_of_any_width(pixel):
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:120, :120] - 59.5
    sky = sum(np.exp(-4 * np.log(2) * ((x - side) ** 2 + y**2) / 9) for side in (-4.5, 4.5))
    noise = ndimage.gaussian_filter(rng.normal(size=x.shape), 1.27)
    one = cutout.centre(cutout.Observation("a double", 60 * sky + noise / noise.std(), pixel))
    assert inspect.inspect(one).label == "FRII"


@pytest.mark.parametrize(("pixel", "beam"), [(1.8, 5.4), (15.0, 45.0), (4.0, 45.0), (2.0, 8.0)])
@pytest.mark.parametrize("snr", [25, 100, 1000])
def test_a_point_source_is_not_resolved(pixel, beam, snr):
    rng, kept = np.random.default_rng(int(snr * pixel)), []
    for _ in range(10):
        y, x = np.mgrid[:200, :200] - 99.5 + rng.uniform(-0.5, 0.5, 2)[:, None, None]
        noise = ndimage.gaussian_filter(rng.normal(size=x.shape), beam / pixel / 2.355)
        pixels = snr * np.exp(-4 * np.log(2) * (x**2 + y**2) * (pixel / beam) ** 2) + noise / noise.std()
        one = cutout.centre(cutout.Observation("a point", pixels, pixel, beam=beam))
        kept.append(of(one, area=inspect.area(one)).status)
    assert kept.count("unresolved") >= 9


def test_a_beam_wider_than_the_source_is_not_believed(source):
    seen = cutout.centre(cutout.Observation("a double", source, 1.8, beam=45.0))
    found = inspect.inspect(seen)
    assert found.label == "FRII"
    assert any("narrower than the beam in the header (45.0″)" in note for note in found.notes)
    small = dataclasses.replace(seen, pixels=np.pad([[0, 5, 0], [5, 99, 5], [0, 5.0, 0]], (73, 74)), beam=np.nan)
    assert "beam of 5.4″ that was assumed" in inspect._measured(small)[0].notes[-1]
    flat = dataclasses.replace(seen, pixels=np.where(seen.pixels > 0, 1.0, 0.0), snr=np.nan, beam=np.nan)
    assert np.isfinite(inspect.area(flat))


def test_a_source_without_a_shape_has_no_class(galaxy):
    seen = cutout.open_cutout(galaxy)
    point = of(seen, area=1.01)
    assert (point.label, point.status) == (None, "unresolved")
    assert (point.to_dict()["probabilities"], point.to_dict()["set90"]) == (None, [])
    assert np.isnan(point.p_frii)
    assert point.to_dict()["p_frii"] is None
    assert "not resolved" in str(point)
    assert "no class (unresolved)" in str(point)
    assert of(seen, area=3.0).status == "ok"
    assert of(dataclasses.replace(seen, snr=6.0), area=3.0).status == "faint"
    cut = of(dataclasses.replace(seen, partial=True))
    assert (cut.label, cut.status) == ("FRII", "partly outside")
    strange = of(seen, area=3.0, likelihood=(-300.0, 5.0, 0.2))
    assert (strange.label, strange.status) == ("FRII", "unlike")


def test_what_catalogues_say_is_noted():
    table, codes, _ = search.for_search()
    row = int(np.flatnonzero(np.asarray(table["disputed"]) == "FRI, bent")[0])
    place = float(table["ra"][row]), float(table["dec"][row])
    index = search.SearchIndex.from_pretrained()
    near = index.query(codes[row], 5, place)
    assert near["disputed"][0] == "FRI, bent"
    assert index.catalogued(place) == ("FRI", "bent")
    assert index.catalogued((np.nan, np.nan)) == ()
    blank = cutout.Cutout("a", np.pad(np.ones((4, 4)), 73), 1.8, place, 50.0, 0, ())
    found = dataclasses.replace(of(blank, catalogued=index.catalogued(place)), neighbours=near)
    assert "catalogues disagree about this galaxy (FRI, bent)" in str(found)
    assert "(catalogues disagree: FRI, bent)" in str(found)
    said = found.to_dict()
    assert said["catalogued"] == ["FRI", "bent"]
    assert said["neighbours"][0]["disputed"] == "FRI, bent"
    assert of(blank, catalogued=("FRI",)).notes[-1].startswith("this galaxy is catalogued as FRI;")


@pytest.mark.slow
def test_processes_share_the_files_and_answer_as_one(run, galaxy, tmp_path, monkeypatch):
    files = [galaxy, tmp_path / "absent.fits", galaxy, galaxy, tmp_path / "none.fits"]
    alone = run("look", *files, "--json")
    monkeypatch.setattr(cli_look, "TOGETHER", 1)
    monkeypatch.setattr(cli_look, "WORTH_A_PROCESS", 2)
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    shared = run("look", *files, "--json")
    assert shared[0] == alone[0] == 0
    one, other = ([json.loads(line) for line in out.splitlines()] for _, out, _ in (alone, shared))
    assert [row["file"] for row in other] == [str(file) for file in files]
    for row, same in zip(one, other, strict=True):
        assert row["notes"] == same["notes"]
        assert row["probabilities"] == (same["probabilities"] and pytest.approx(same["probabilities"], abs=1e-4))


def test_table_and_figure_are_written(run, galaxy, tmp_path):
    code, out, err = run("look", galaxy, galaxy, "--table", tmp_path / "near.vot", "--plot", tmp_path / "out.png")
    assert code == 0, err
    assert "not excluded at 90 %" in out
    table = Table.read(tmp_path / "near.vot", format="votable")
    assert len(table) == 20
    assert "query" in table.colnames
    with Image.open(tmp_path / "out.png") as figure:
        assert figure.size[0] > 600
    for option, name in (("--table", "near.xlsx"), ("--plot", "out.gif")):
        code, _, err = run("look", galaxy, option, tmp_path / name)
        assert code == 1
        assert "choose one of these endings" in err
    assert not list(tmp_path.glob("*.partial"))


def test_images_as_coarse_as_nvss_are_judged_by_nvss(run, source, tmp_path):
    y, x = np.mgrid[:100, :100] - 49.5
    rng = np.random.default_rng(0)
    blobs = 60 * np.exp(-((x - 1) ** 2 + y**2) / 3) + 80 * np.exp(-((x + 1) ** 2 + y**2) / 4)
    path = fits_file(tmp_path / "nvss.fits", blobs + rng.normal(size=blobs.shape), wcs_of(blobs.shape, 15.0))
    code, out, err = run("look", path, "--json")
    assert code == 0, err
    said = json.loads(out)
    assert said["classifier"] == "coarse"
    assert list(said["probabilities"]) == ["FRI", "FRII"]


def test_refusals_are_one_line_and_exit_1(run, tmp_path):
    rng = np.random.default_rng(0)
    noise = fits_file(tmp_path / "noise.fits", rng.normal(size=(100, 100)), wcs_of((100, 100), 1.8))
    for arguments in (("look",), ("look", noise), ("look", "--at", "here", "there"), ("similar", "nobody")):
        code, out, err = run(*arguments)
        assert code == 1
        assert out == ""
        assert err.startswith("rgz: ")
        assert err.count("\n") == 1


def test_a_damaged_classifier_is_said(galaxy, monkeypatch, tmp_path):
    whole = tmp_path / "artifacts"
    whole.mkdir()
    for name in ("vdvae.safetensors", "codes.h5", "density.safetensors"):
        (whole / name).symlink_to(artifacts.artifact(name))
    (whole / "classifier.safetensors").write_bytes(b"\x00" * 40)
    monkeypatch.setenv("RGZ_ARTIFACTS", str(whole))
    with pytest.raises(BadInput, match="make it with rgz study codes"):
        rgz.inspect(rgz.open_cutout(galaxy))


def test_similar_lists_the_galaxy_itself_first(run, tmp_path):
    code, out, err = run("similar", "rgd-0100", "-k", 5, "--table", tmp_path / "near.csv")
    assert code == 0, err
    assert out.splitlines()[2].split()[0] == "rgd-0100"
    assert len(Table.read(tmp_path / "near.csv", format="ascii.csv")) == 5
    code, _, err = run("similar", "rgd-0100", "--sample", "first")
    assert code == 1
    assert "known are mirabest" in err


@pytest.mark.data
def test_an_archive_image_finds_itself(survey, tmp_path):
    sample = survey("mirabest")
    found = []
    for row in range(0, len(sample), 60):
        Image.fromarray(sample.images[row]).save(tmp_path / "one.png")
        seen = rgz.inspect(rgz.open_cutout(tmp_path / "one.png"))
        found.append(seen.neighbours["name"][0] == sample.table["name"][row])
    assert np.mean(found) > 0.85  # a source beside the middle is moved there


@pytest.mark.data
def test_a_first_field_is_the_galaxy_that_the_archive_has(tmp_path):
    if fetch.locate(datasets.FITS_FIELDS) is None:
        pytest.skip("the FITS fields of MiraBest are not here")
    hits = []
    for number, (_, data) in enumerate(archives.members(fetch.fetch(datasets.FITS_FIELDS))):
        if number % 40 == 0:
            (tmp_path / "field.fits.fz").write_bytes(data)
            seen = rgz.inspect(rgz.open_cutout(tmp_path / "field.fits.fz"))
            hits.append(bool(seen.neighbours["same"].any()))
    assert np.mean(hits) > 0.8


def test_axes_of_length_one_and_compression_change_nothing(source, tmp_path):
    plain = rgz.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8)))
    header = wcs_of(source.shape, 1.8).to_header()
    whole = np.rint(source * 1000).astype(np.int32)
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(whole, header)]).writeto(tmp_path / "b.fits.fz")
    other = rgz.open_cutout(tmp_path / "b.fits.fz")
    recipe = prepare.Recipe()
    one, two = (prepare.prepare(f.pixels[None], f.pixel, recipe).astype(int) for f in (plain, other))
    assert np.abs(one - two).max() <= 2


def test_what_no_galaxy_looks_like_is_anomalous(source):
    rng = np.random.default_rng(0)
    ring = injected.inject("ring", source[None], 1, rng)[0] + rng.normal(0, 1e-3, source.shape)
    cutouts = [cutout.centre(cutout.Observation("an image", pixels, 1.8)) for pixels in (source, ring)]
    galaxy, anomaly = inspect.inspect_all(cutouts)
    assert anomaly.likelihood[2] < 5 < galaxy.likelihood[2] <= 100
    assert anomaly.likelihood[0] < galaxy.likelihood[0]
    assert "  anomalous: log-likelihood " in str(anomaly)
    assert "  not anomalous: log-likelihood " in str(galaxy)
    assert galaxy.to_dict()["anomaly_percentile"] == pytest.approx(galaxy.likelihood[2])
    assert galaxy.to_dict()["log_likelihood"]["error"] > 0


def test_no_class_is_called_certain(galaxy):
    certain = dataclasses.replace(of(None), probabilities={"FRI": 0.0001, "FRII": 0.9999})
    certain = dataclasses.replace(certain, cutout=cutout.open_cutout(galaxy))
    assert certain.verdict == "FRII (FRI 0.01, FRII 0.99; not excluded at 90 %: FRII)"


@pytest.mark.parametrize(
    ("percentile", "text"),
    [
        (0.0, "anomalous: log-likelihood -60 ± 7 nats, below the 1st percentile of held-out galaxies"),
        (4.9, "anomalous: log-likelihood -60 ± 7 nats, below the 5th percentile of held-out galaxies"),
        (41.3, "not anomalous: log-likelihood -60 ± 7 nats, percentile 41 of held-out galaxies"),
    ],
)
def test_an_anomaly_is_below_the_fifth_percentile(percentile, text):
    assert of(None, likelihood=(-60.0, 7.0, percentile)).anomaly.startswith(text)


@pytest.fixture(scope="module")
def cases():
    """Answers for the small inputs beside the project, by name."""
    folder = Path(__file__).parents[2] / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the cases are not here")
    names = [path.stem for path in folder.glob("*.fits") if path.stem in CASES]
    return dict(zip(names, inspect.inspect_all([cutout.open_cutout(folder / f"{n}.fits") for n in names]), strict=True))


CASES = {"plain", "point_first", "beam45_point_px15", "beam45_point_px4", "pointing_0", "pointing_16"}
CASES |= {"small_ref", "small_72", "tan_dec60", "car_dec60"}


@pytest.mark.parametrize("name", ["point_first", "beam45_point_px15", "beam45_point_px4"])
def test_points_of_any_survey_are_unresolved(cases, name):
    assert cases[name].status == "unresolved"


@pytest.mark.parametrize(
    ("name", "other"), [("pointing_0", "pointing_16"), ("small_ref", "small_72"), ("tan_dec60", "car_dec60")]
)
def test_one_galaxy_has_one_class_however_it_was_cut_out(cases, name, other):
    assert cases[name].label == cases[other].label == "FRII"
    assert cases[name].probabilities == pytest.approx(cases[other].probabilities, abs=0.1)


def test_the_reference_double_is_an_frii(cases):
    assert cases["plain"].p_frii > 0.95


def test_a_full_disk_is_one_line(galaxy):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "rgz", "look", str(galaxy), "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("rgz: the output cannot be written")
    assert done.stderr.count("\n") == 1

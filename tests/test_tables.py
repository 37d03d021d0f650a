"""Tables of positions go in, and tables of results come out."""

import json

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from PIL import Image
from test_cutout import fits_file, wcs_of

from rgz.app import tables
from rgz.errors import BadInput
from studies import simulate


@pytest.fixture
def folder(tmp_path):
    source = simulate.source("FRII", np.random.default_rng(4), size=300, snr=80)
    fits_file(tmp_path / "galaxy.fits", source, wcs_of(source.shape, 1.8))
    grey = np.clip(source / source.max() * 255, 0, 255).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "picture.png")
    return tmp_path


def listed(folder, name="sources.csv", **columns):
    Table(columns).write(folder / name, format=tables.FORMATS[(folder / name).suffix], overwrite=True)
    return folder / name


def test_each_row_of_a_table_is_its_file_at_its_host(run, folder):
    files = ["galaxy.fits", "absent.fits", "picture.png", "galaxy.fits"]
    ra, dec = ["150.002", "1", "", "here", ""], ["20.001", "2", "", "there", ""]
    path = listed(folder, FileName=[*files, ""], RA=ra, Dec=dec)
    code, out, err = run("look", path, "--json", "-k", 2)
    assert code == 0, err
    said = [json.loads(line) for line in out.splitlines()]
    assert [one["file"] for one in said] == [*(str(folder / name) for name in files), ""]
    assert [one["status"] for one in said] == ["ok", "refused", "ok", "refused", "refused"]
    assert [one.get("classifier") for one in said] == ["host", None, "centroid", None, None]
    assert "row 5 of the table" in said[4]["notes"][0]
    assert (said[0]["ra"], said[0]["dec"]) == pytest.approx((150.002, 20.001), abs=1e-6)
    assert (said[1]["ra"], said[1]["dec"]) == (1, 2)
    assert "no position on the sky" in said[3]["notes"][0]
    assert "2 answered, 3 refused" in err


@pytest.mark.parametrize("name", ["a.csv", "a.ecsv", "a.vot", "a.fits", "a.parquet"])
def test_results_are_tables_in_every_format(run, folder, name):
    code, out, err = run("look", folder / "picture.png", folder / "absent.fits", "--output", folder / name, "--codes")
    assert (code, out) == (0, ""), err
    assert "cannot be read" in err
    found = Table.read(folder / name, format=tables.FORMATS[(folder / name).suffix])
    assert list(found["status"]) == ["ok", "refused"]
    assert list(found["file"]) == [str(folder / "picture.png"), str(folder / "absent.fits")]
    assert found["probabilities_FRII"][0] == pytest.approx(
        1 - sum(found[f"probabilities_{c}"][0] for c in ("FRI", "bent", "compact")), abs=1e-4
    )
    assert np.ma.is_masked(found["p_frii"][1]) or np.isnan(found["p_frii"][1])
    assert "pixels of 1.8" in found["notes"][0]
    assert sum(column.startswith("code_") for column in found.colnames) == 256
    assert not list(folder.glob("*.partial"))


def test_json_lines_hold_the_codes(run, folder):
    code, _, err = run("look", folder / "galaxy.fits", "--output", folder / "out.jsonl", "--codes")
    assert code == 0, err
    (line,) = (folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert np.isfinite(json.loads(line)["code"]).all()
    assert len(json.loads(line)["code"]) == 256


def test_a_failed_run_leaves_the_old_results(run, folder):
    (folder / "out.csv").write_text("old")
    code, _, _ = run("look", folder / "absent.fits", "--output", folder / "out.csv")
    assert code == 1
    assert (folder / "out.csv").read_text() == "old"
    code, _, err = run("look", folder / "galaxy.fits", "--output", folder / "out.xlsx")
    assert code == 1
    assert "choose one of these endings" in err


def test_positions_are_read_in_any_unit(tmp_path):
    for name, unit in (("a.ecsv", u.hourangle), ("a.fits", u.deg), ("a.vot", u.rad)):
        ra = (np.array([150.0]) * u.deg).to(unit)
        path = listed(tmp_path, name, ra=ra, DEC=np.array([0.5]) * u.rad)
        ((file, (ra, dec)),) = tables.items(path)
        assert file is None
        assert (float(ra), float(dec)) == pytest.approx((150, np.degrees(0.5)))
    path = listed(tmp_path, ra=["10:02:00"], dec=["+02:15:00"], path=["a.fits"])
    assert tables.items(path) == [(tmp_path / "a.fits", ("10:02:00", "+02:15:00"))]
    for ra, dec in (("RAJ2000", "DEJ2000"), ("_RAJ2000", "_DEJ2000"), ("RA_ICRS", "DE_ICRS")):  # as in VizieR
        path = listed(tmp_path, **{ra: [150.0], dec: [20.0], "File": ["a.fits"]})
        assert tables.items(path) == [(tmp_path / "a.fits", ("150.0", "20.0"))]


def test_what_is_no_table_of_positions_is_said(run, folder):
    assert tables.items(folder / "galaxy.fits") is None
    with pytest.raises(BadInput, match="it needs ra and dec, or file"):
        tables.items(listed(folder, z=[1.0], ra=[2.0]))
    (folder / "unit.ecsv").write_text(
        "# %ECSV 1.0\n# ---\n# datatype:\n# - {name: ra, unit: m, datatype: float64}\n"
        "# - {name: dec, unit: deg, datatype: float64}\nra dec\n1 2\n"
    )
    with pytest.raises(BadInput, match="not a readable table"):
        tables.items(folder / "unit.ecsv")
    (folder / "broken.vot").write_bytes(b"\x00" * 50)
    code, out, err = run("look", folder / "broken.vot")
    assert (code, out) == (1, "")
    assert "not a readable table" in err
    assert err.count("\n") == 1

"""The command line, from images to codes, on simulated galaxies."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from astropy.io import fits
from astropy.table import Table
from joblib import parallel_config

import rgz
from rgz import __version__, artifacts
from rgz.data import datasets, sample
from rgz.features import codes
from rgz.models import checkpoint, flow
from rgz.tasks import classify
from studies import density, encode, simulate

HOUSE = Path(__file__).parents[1]


VERBS = [
    ("look",),
    ("rank",),
    ("similar",),
    ("generate",),
    ("explorer",),
    ("train",),
    ("study",),
    ("data", "fetch"),
]


@pytest.mark.parametrize("verb", VERBS, ids=" ".join)
def test_every_verb_has_help_with_an_example(run, verb):
    status, out, _ = run(*verb, "--help")
    assert status == 0
    assert "Usage" in out
    assert "Example" in out
    assert f"rgz {' '.join(verb)}" in out


@pytest.mark.parametrize("group", [(), ("data",)])
def test_groups_list_their_verbs(run, group):
    status, out, _ = run(*group, "--help")
    assert status == 0
    for verb in VERBS:
        if verb[:-1] == group:
            assert verb[-1] in out


def test_the_module_is_the_command():
    shown = subprocess.run([sys.executable, "-m", "rgz", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == __version__


def test_a_wrong_option_is_exit_status_2(run):
    assert run("train", "--steps", "0")[0] == 2


@pytest.mark.slow
def test_train_and_encode_on_simulated_galaxies(tmp_path, monkeypatch, run):
    built = simulate.sources(40, seed=3)
    built.table["split"] = ["valid" if i % 8 == 0 else "train" for i in range(40)]
    sample.write(tmp_path / "train.h5", built)
    status, out, err = run(
        *("train", "--preset", "tiny", "--steps", "3", "--batch", "8"),
        *("--data", tmp_path / "train.h5", "--out", tmp_path / "run"),
    )
    assert status == 0, err
    assert "3 steps" in out
    first, _, about = checkpoint.load(tmp_path / "run" / "vdvae.safetensors")
    assert about["steps"] == 3
    options = "--start", tmp_path / "run" / "vdvae.safetensors", "--out", tmp_path / "further"
    status, out, err = run("train", "--steps", "2", "--batch", "8", "--data", tmp_path / "train.h5", *options)
    assert status == 0, err
    further, _, about = checkpoint.load(tmp_path / "further" / "vdvae.safetensors")
    assert (about["steps"], about["start"]["steps"]) == (2, 3)
    images = torch.rand(3, 1, first.config.size, first.config.size) * 255
    kept = first.encode(images, blocks=first.coded)[0], further.encode(images, blocks=first.coded)[0]
    torch.testing.assert_close(*kept, rtol=0, atol=0)
    assert (first.pixels.head.weight != further.pixels.head.weight).any()
    monkeypatch.setattr(datasets, "load_dataset", lambda name: simulate.sources(6, seed=len(name)))
    encode.encode(tmp_path / "run" / "vdvae.safetensors", built[built.table["split"] == "train"], tmp_path / "codes.h5")
    for name in datasets.SAMPLES:
        table, code, about = codes.read_codes(tmp_path / "codes.h5", name)
        assert code.shape == (6, 4 * 64)
        assert {"name", "ra", "dec", "label", "split"} <= set(table.colnames)
        assert len(about["latents"]) == 64
        assert about["weights_sha256"]
        assert (table["length"] > 0).all()
    space = codes.read_space(tmp_path / "codes.h5")
    assert space.matrix.shape[0] == 4 * 64
    for kind in encode.CLASSIFIERS:
        probability = classify.Classifier.from_pretrained(kind, tmp_path / "classifier.safetensors").predict_proba(code)
        np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-5)
    assert codes.read_observed(tmp_path / "codes.h5", name).shape == (6, encode.AGAIN, 4 * 64)


@pytest.mark.slow
def test_a_fitted_density_is_calibrated_by_held_out_sources(tmp_path, monkeypatch):
    few = flow.Config(kept=5, layers=1, hidden=8, epochs=1, batch=64)
    monkeypatch.setattr(flow.fit_ensemble, "__defaults__", (few, 2))
    built = simulate.sources(15, seed=3)
    built.table["split"] = ["valid" if i % 3 == 0 else "train" for i in range(15)]
    built.table["ra"], built.table["dec"] = 10.0, [float(2 * i) for i in range(15)]
    sample.write(tmp_path / "train.h5", built)
    with parallel_config(backend="sequential"):
        out = density.fit(tmp_path / "train.h5", tmp_path / "d.safetensors")
    assert "2 flows, fitted to 10 sources, calibrated with 5" in out
    fitted, about = flow.load(tmp_path / "d.safetensors")
    assert fitted.config == few
    assert (about["sources"], about["unseen"]) == (10, 5)
    assert fitted.percentile([0.0]).shape == (1,)  # refused unless calibrated


@pytest.mark.parametrize(
    ("words", "started"),
    [
        (("study", "classification", "--fresh"), ["studies.steps", "classification", "--fresh"]),
        (("encode", "--data", "/train.h5"), ["studies.encode", "--data=/train.h5"]),
    ],
)
def test_a_study_runs_its_step_in_the_clone(monkeypatch, run, words, started):
    process = MagicMock()
    process.return_value.__enter__.return_value.wait.return_value = 3
    monkeypatch.setattr(subprocess, "Popen", process)
    assert run(*words)[0] == 3
    (found,), options = process.call_args
    assert found[1:] == ["-m", *started]
    assert options == {"cwd": HOUSE}


@pytest.mark.parametrize("words", [("study", "classification"), ("encode",)])
def test_a_study_outside_of_a_clone_is_one_line(monkeypatch, run, words):
    monkeypatch.setattr(artifacts, "clone", lambda: None)
    status, out, err = run(*words)
    assert (status, out) == (1, "")
    assert "clone of the repository" in err
    assert err.count("\n") == 1


def test_training_on_nothing_is_one_line(tmp_path, run):
    status, _, err = run("train", "--data", tmp_path / "none.h5", "--out", tmp_path / "run")
    assert (status, err.count("\n")) == (1, 1)
    assert "rgz study training-set" in err


def test_training_needs_rows_to_validate_on(tmp_path, run):
    sample.write(tmp_path / "train.h5", simulate.sources(4))
    status, _, err = run("train", "--preset", "tiny", "--data", tmp_path / "train.h5", "--out", tmp_path / "run")
    assert status == 1
    assert "0 valid rows" in err


def test_an_unknown_preset_lists_the_known(run):
    status, _, err = run("train", "--preset", "huge")
    assert status == 1
    assert "known are tiny, deep" in err


def test_artifacts_of_different_folders_are_not_mixed(tmp_path, monkeypatch, run):
    monkeypatch.setenv("RGZ_ARTIFACTS", str(tmp_path))
    status, _, err = run("similar", "rgd-0001")
    assert status == 1
    assert "RGZ_ARTIFACTS" in err
    assert artifacts.artifacts() == tmp_path


def test_without_a_clone_artifacts_are_those_of_the_package(tmp_path, monkeypatch):
    monkeypatch.delenv("RGZ_ARTIFACTS", raising=False)
    monkeypatch.setattr(artifacts, "clone", lambda: None)
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(artifacts, "__file__", str(tmp_path / "artifacts.py"))
    (tmp_path / "weights" / "codes.h5").touch()
    assert artifacts.artifact("codes.h5") == tmp_path / "weights" / "codes.h5"


def test_public_names_are_loaded_when_used():
    assert all(hasattr(rgz, name) for name in rgz.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        rgz.nothing  # noqa: B018


def test_a_folder_that_is_a_file_is_one_line(tmp_path, run):
    (tmp_path / "file").write_text("")
    status, _, err = run("similar", "rgd-0001", "--table", tmp_path / "file" / "near.csv")
    assert status == 1
    assert "cannot write" in err.splitlines()[-1]


def test_help_is_readable_without_unicode():
    shown = subprocess.run(
        [sys.executable, "-m", "rgz", "look", "--help"],
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        capture_output=True,
        check=True,
    )
    assert b"Usage" in shown.stdout


def looked(*arguments):
    """Exit status, stdout and stderr of ``rgz look`` as a user sees them, without pytest's warning filters."""
    command = [sys.executable, "-m", "rgz", "look", "-k", "1", "--json", *map(str, arguments)]
    shown = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    return shown.returncode, shown.stdout, shown.stderr


def spoilt(path, kind):
    """Damage the FITS image at a path in one way."""
    if kind == "flipped bit":
        fits.writeto(path, *fits.getdata(path, header=True), checksum=True, overwrite=True)
    data = bytearray(path.read_bytes())
    if kind == "flipped bit":
        data[-3000] ^= 64
    end = data.find(b"END".ljust(80))
    card = {"NaN": b"CRVAL1  = NaN", "1e300": b"BSCALE  = 1E300", "frame": b"CTYPE1  = 'HPLN-TAN'"}.get(kind, b"")
    if card and card[:8] in data:
        start = data.find(card[:8])
        data[start : start + 80] = card.ljust(80)
    elif card:
        data[end : end + 160] = card.ljust(80) + b"END".ljust(80)
    path.write_bytes(bytes(data[: len(data) // 2] if kind == "truncated" else data))


@pytest.mark.slow
def test_damaged_images_are_one_line_each_and_status_1(fits_galaxy):
    damaged = [fits_galaxy.with_name(f"{kind}.fits") for kind in ("flipped bit", "truncated", "NaN", "1e300", "frame")]
    for path in damaged:
        path.write_bytes(fits_galaxy.read_bytes())
        spoilt(path, path.stem)
    status, out, err = looked(*damaged)
    assert (status, [json.loads(line)["status"] for line in out.splitlines()]) == (1, ["refused"] * 5)
    for line, path in zip(out.splitlines(), damaged, strict=True):
        assert json.loads(line)["notes"][0].startswith(f"{path} ")
    said = [line for line in err.splitlines() if line and not line.startswith("looking")]
    assert said == ["rgz: none of these 5 files can be used"]


@pytest.mark.slow
def test_headers_beside_the_standard_and_files_of_one_name(fits_galaxy, tmp_path):
    """No library's warning reaches the user, and each file keeps its path."""
    data = fits_galaxy.read_bytes()
    end = data.find(b"END".ljust(80))
    cards = [b"ORIGIN  = 'CASA\n'", b"COMMENT \t\x01", b"RADESYS = 'J2000'", b"DATE-OBS= '01/02/93'", b"BLANK   = 5"]
    lines = b"".join(card.ljust(80) for card in (*cards, b"END"))
    (tmp_path / "other").mkdir()
    copy = tmp_path / "other" / fits_galaxy.name
    copy.write_bytes(gzip.compress(data[:end] + lines + data[end + len(lines) :]))
    status, out, err = looked(fits_galaxy, copy, "--table", tmp_path / "near.csv")
    assert status == 0
    assert "Warning" not in err
    said = [json.loads(line) for line in out.splitlines()]
    assert [one["file"] for one in said] == [str(fits_galaxy), str(copy)]
    assert any("J2000 is unknown" in note for note in said[1]["notes"])
    assert list(Table.read(tmp_path / "near.csv")["query"]) == [str(fits_galaxy), str(copy)]


def test_hdu_and_plane_are_chosen(run, fits_galaxy, tmp_path):
    pixels, header = fits.getdata(fits_galaxy, header=True)
    cube = fits.ImageHDU(np.stack([0 * pixels, pixels]), header, "CUBE")
    fits.HDUList([fits.PrimaryHDU(), cube]).writeto(tmp_path / "a.fits")
    assert run("look", tmp_path / "a.fits", "--hdu", "cube", "--plane", "1")[0] == 0
    status, _, err = run("look", tmp_path / "a.fits", "--hdu", "cube")
    assert status == 1
    assert "--plane 0 to 1" in err

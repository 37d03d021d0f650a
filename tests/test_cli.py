"""The command line, from images to codes, on simulated galaxies."""

import csv
import subprocess
import sys

import pytest

from rgz import __version__, checkpoints, fields, images, latents, paths, readers, sample, synthetic


@pytest.mark.parametrize(
    "verb",
    [
        (),
        ("data",),
        ("data", "fetch"),
        ("data", "build"),
        ("data", "check"),
        ("data", "cutouts"),
        ("train",),
        ("encode",),
        ("reconstruct",),
        ("classify",),
        ("report",),
        ("map",),
    ],
)
def test_every_verb_has_help(run, verb):
    status, out, _ = run(*verb, "--help")
    assert status == 0
    assert "Usage" in out


def test_the_module_is_the_command():
    shown = subprocess.run([sys.executable, "-m", "rgz", "--version"], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == __version__


def test_a_wrong_option_is_exit_status_2(run):
    assert run("classify", "--repeats", "0")[0] == 2


def test_train_and_encode_on_simulated_galaxies(tmp_path, monkeypatch, run):
    built = synthetic.sources(40, seed=3)
    built.table["split"] = ["valid" if i % 8 == 0 else "train" for i in range(40)]
    sample.write(tmp_path / "train.h5", built)
    status, out, err = run(
        "train", "--preset", "tiny", "--steps", "3", "--data", tmp_path / "train.h5", "--out", tmp_path / "run"
    )
    assert status == 0, err
    assert "step 3 of 3" in out
    assert (tmp_path / "run" / "reconstructions.png").exists()
    status, out, _ = run("data", "check", tmp_path / "run" / "vdvae.safetensors")
    assert "3 steps" in out
    monkeypatch.setattr(readers, "load", lambda name: synthetic.sources(6, seed=len(name)))
    status, out, err = run(
        "encode",
        "--weights",
        tmp_path / "run" / "vdvae.safetensors",
        "--out",
        tmp_path / "codes.h5",
        "--dimensions",
        "5",
        "--data",
        tmp_path / "train.h5",
    )
    assert status == 0, err
    for name in readers.SAMPLES:
        table, code, about = latents.read_codes(tmp_path / "codes.h5", name)
        assert code.shape == (6, 5)
        assert {"name", "ra", "dec", "label", "split"} <= set(table.colnames)
        assert len(about["latents"]) == 5
        assert about["weights_sha256"]
        assert (table["length"] > 0).all()


def test_a_probe_adds_one_line_and_keeps_the_others(tmp_path, monkeypatch, run, tiny):
    built = synthetic.sources(30, seed=3)
    sample.write(tmp_path / "train.h5", built)
    validation = {"bits_per_dimension": 2.5, "rate_nats": {"1": 0.5, "8": 3.0}}
    checkpoints.save(tmp_path / "m.safetensors", tiny, images.Recipe(), {"steps": 7, "validation": validation})
    monkeypatch.setattr(readers, "load", lambda name: synthetic.sources(40, seed=5))
    (tmp_path / "tries.csv").write_text("note,other\nearlier,1\n")
    status, _out, err = run(
        "probe", tmp_path / "m.safetensors", "--note", "now", "--dimensions", 4,
        "--data", tmp_path / "train.h5", "--out", tmp_path / "tries.csv",
    )  # fmt: skip
    assert status == 0, err
    first, second = csv.DictReader((tmp_path / "tries.csv").read_text().splitlines())
    assert (first["note"], first["other"], first["step"]) == ("earlier", "1", "")
    assert (second["note"], second["step"], second["bits_per_dimension"], second["rate_8"]) == (
        "now",
        "7",
        "2.5",
        "3.0",
    )
    assert 0 <= float(second["code_views_accuracy"]) <= 1


@pytest.mark.parametrize("study", ["classify", "reconstruct", "retrieve"])
def test_a_study_without_the_images_is_one_line_and_writes_nothing(tmp_path, monkeypatch, run, study):
    monkeypatch.delenv("RGZ_DATA_MIRROR", raising=False)
    monkeypatch.setenv("RGZ_CACHE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    status, _, err = run(study, "--out", tmp_path / "r.json")
    assert status == 1
    assert "RGZ_DATA_MIRROR" in err.splitlines()[-1]
    assert not (tmp_path / "r.json").exists()


def test_training_on_nothing_is_one_line(tmp_path, monkeypatch, run):
    monkeypatch.delenv("RGZ_DATA_MIRROR", raising=False)
    monkeypatch.setenv("RGZ_CACHE", str(tmp_path))
    status, _, err = run("train", "--data", tmp_path / "none.h5", "--out", tmp_path / "run")
    assert status == 1
    assert "RGZ_DATA_MIRROR" in err.splitlines()[-1]


def test_training_needs_rows_to_validate_on(tmp_path, run):
    sample.write(tmp_path / "train.h5", synthetic.sources(4))
    status, _, err = run("train", "--preset", "tiny", "--data", tmp_path / "train.h5", "--out", tmp_path / "run")
    assert status == 1
    assert "0 valid rows" in err


def test_an_unknown_preset_lists_the_known(run):
    status, _, err = run("train", "--preset", "huge")
    assert status == 1
    assert "small" in err


def test_artifacts_that_are_not_there(tmp_path, monkeypatch, run):
    monkeypatch.setenv("RGZ_ARTIFACTS", str(tmp_path))
    status, _, err = run("report")
    assert status == 1
    assert "RGZ_ARTIFACTS" in err
    assert paths.artifacts() == tmp_path


def test_keep_away_is_thirty_arcsec():
    assert fields.KEEP_AWAY == 30

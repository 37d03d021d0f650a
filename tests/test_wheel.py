"""The wheel: it holds what it must, and works from an empty folder without the clone."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("setuptools", minversion="77")

HOUSE = Path(__file__).parents[1]
SHIPPED = {"vdvae", "classifier", "density"}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy so that the clone stays as it is."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(HOUSE / name, source)
    for name in ("rgz", "artifacts", "studies"):
        shutil.copytree(HOUSE / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = f"from setuptools import build_meta; build_meta.build_wheel({str(out)!r})"  # as pip does
    subprocess.run([sys.executable, "-c", build], cwd=source, check=True, stdout=subprocess.DEVNULL)
    (built,) = out.glob("rgz-*.whl")
    return built


def test_it_holds_the_library_and_its_weights_alone(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (about,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
    weights = {name for name in names if name.startswith("rgz/weights/")}
    assert weights == {f"rgz/weights/{name}.safetensors" for name in SHIPPED} | {"rgz/weights/codes.h5"}
    assert {"rgz/py.typed", "rgz/app/web/index.html"} <= names
    assert {name.split("/")[0] for name in names if "dist-info" not in name} == {"rgz"}
    assert "Requires-Python: >=3.11" in about
    assert wheel.stat().st_size < 30e6


def test_rgz_look_answers_in_an_empty_folder(wheel, fits_galaxy, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    empty = tmp_path / "empty"
    empty.mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RGZ_")}
    env = kept | {"PYTHONPATH": str(tmp_path / "site")}

    def rgz(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "rgz", *arguments], cwd=empty, env=env, capture_output=True, text=True
        )

    looked = rgz("look", str(fits_galaxy))
    assert looked.returncode == 0, looked.stderr
    assert "not excluded at 90 %" in looked.stdout
    study = rgz("study", "classification")
    assert (study.returncode, study.stdout) == (1, "")
    assert "clone of the repository" in study.stderr
    assert list(empty.iterdir()) == []

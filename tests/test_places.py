"""Full disks, read-only folders, no home, no Unicode, a closed pipe, Ctrl-C, and two processes at once, as a user
meets them: one line that says what is wrong, and the right exit status."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from test_cutout import fits_file, wcs_of

from rgz.app import tables
from rgz.data import fetch
from rgz.errors import BadInput
from studies import simulate

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="signals and mounts of POSIX")]
HOUSE = Path(__file__).parents[1]
KEPT = {name: value for name, value in os.environ.items() if not name.startswith("RGZ_")} | {"OMP_NUM_THREADS": "1"}
SIMILAR = "similar", "rgd-0001"


def start(*arguments, **options):
    """``rgz`` in a process of its own, as at a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # shells ignore it in the background, children inherit it
    told = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
    command = [sys.executable, "-m", "rgz", *map(str, arguments)]
    return subprocess.Popen(command, **{"env": KEPT} | told | options)


def rgz(*arguments, **options):
    """Exit status, stdout and stderr of ``rgz``."""
    process = start(*arguments, **options)
    out, err = process.communicate()
    return process.returncode, out, err


def until(process, happened):
    """Wait for something that a process does."""
    while not happened() and process.poll() is None:
        time.sleep(0.01)


def mounted(folder, options):
    """Mount a small file system in memory; without the right to do that the test is skipped."""
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    return folder


@pytest.fixture
def full(tmp_path):
    """A disk with 8 kB left."""
    yield mounted(tmp_path / "full", "size=8k")
    subprocess.run(["umount", "-l", tmp_path / "full"], check=True)


@pytest.fixture
def read_only(tmp_path):
    yield mounted(tmp_path / "fixed", "ro")
    subprocess.run(["umount", "-l", tmp_path / "fixed"], check=True)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of three galaxies, one of them with a name that is not ASCII."""
    folder = tmp_path_factory.mktemp("images")
    for name, image in zip(("a", "b″σ", "c"), simulate.sources(3, seed=2).images, strict=True):
        fits_file(folder / f"{name}.fits", image, wcs_of(image.shape, 1.8))
    return folder


def one_line(status, out, err, *words):
    assert (status, out, err.count("\n")) == (1, "", 1), err
    assert err.startswith("rgz: ")
    assert all(word in err for word in words), err


def test_a_full_disk_is_one_line_and_leaves_no_file(full, run):
    for name, how in (("a.csv", rgz), ("a.fits", run)):
        one_line(*how(*SIMILAR, "-k", "500", "--table", full / name), " space ", "free some space")
        assert list(full.iterdir()) == []


def test_results_before_the_disk_was_full_are_kept(full, images):
    status, _, err = rgz("look", images, "--output", full / "a.jsonl", "--codes")
    assert status == 1
    assert "No space left on device" in err
    assert "Traceback" not in err
    (kept,) = full.iterdir()
    assert kept.suffix == ".unfinished"


def test_a_read_only_folder_is_one_line(read_only, images, run):
    for words, how in (
        ((*SIMILAR, "--table", read_only / "a.csv"), run),
        (("look", images, "--output", read_only / "a.jsonl"), run),
        (("look", images, "--output", read_only / "new" / "a.vot"), rgz),
    ):
        one_line(*how(*words), "Read-only file system", "another folder")
    one_line(*rgz("data", "fetch", "galaxy_data_h5.zip", env=KEPT | {"RGZ_CACHE": str(read_only)}), "RGZ_CACHE")


def test_without_a_home_that_can_be_written_to(read_only, images, tmp_path):
    kept = {name: value for name, value in KEPT.items() if not name.startswith(("HOME", "XDG_", "MPL"))}
    one_line(*rgz("data", "fetch", "frdeep_positions.csv.gz", env=kept), "RGZ_DATA_MIRROR")
    words = "look", images / "a.fits", "-k", "1", "--plot", tmp_path / "a.png", "--table", tmp_path / "a.vot"
    status, out, err = rgz(*words, env=kept | {"HOME": str(read_only)})
    assert status == 0, err
    assert {line.split(":")[0] for line in err.splitlines()} <= {"", "looking"}  # nothing but a bar
    assert "not excluded at 90 %" in out or "no class" in out
    assert (tmp_path / "a.png").exists()


def test_without_unicode(images):
    env = KEPT | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    status, out, err = rgz("look", images / "b″σ.fits", images / "absent″.fits", "-k", "1", env=env)
    assert status == 0, err
    assert "not excluded at 90 %" in out or "no class" in out
    assert "check its path" in err
    assert "1 answered, 1 refused" in err


def test_a_closed_pipe_is_silent():
    with start(*SIMILAR, "-k", "5000") as process:  # more than a pipe holds
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode in (0, 1)


def stopped(process):
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1] == "rgz: stopped"
    assert "Traceback" not in err


def test_control_c_while_a_module_is_imported_is_one_line(tmp_path):
    (tmp_path / "typer.py").write_text("import time, pathlib; pathlib.Path('here').touch(); time.sleep(60)")
    process = start("--version", cwd=tmp_path, env=KEPT | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{HOUSE}"})
    until(process, (tmp_path / "here").exists)
    stopped(process)


def test_control_c_ends_a_batch_in_one_line(images, tmp_path):
    process = start("look", *[images] * 100, "--output", tmp_path / "a.jsonl")
    until(process, lambda: any(tmp_path.iterdir()))
    stopped(process)
    assert [path.suffix for path in tmp_path.iterdir()] == [".unfinished"]


def test_a_killed_batch_goes_on_where_it_stopped(images, tmp_path):
    noise = tmp_path.with_suffix(".fits")
    fits_file(noise, np.random.default_rng(0).normal(size=(150, 150)).astype(np.float32), wcs_of((150, 150), 1.8))
    batch = "look", *[noise] * 17, images / "a.fits", "--output", tmp_path / "a.jsonl", "-k", "2"  # noise takes no time
    process = start(*batch)
    until(process, lambda: any(path.stat().st_size for path in tmp_path.glob("*.unfinished")))
    process.kill()
    process.communicate()
    (unfinished,) = tmp_path.glob("a.jsonl.*.unfinished")
    done = unfinished.read_bytes().count(b"\n")
    assert 0 < done < 18
    with unfinished.open("a") as stream:
        stream.write('{"file": "half a li')
    status, _, err = rgz(*batch)
    assert (status, f"going on after {done} galaxies" in err) == (0, True), err
    found = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()]
    assert [one["file"] for one in found] == [*[str(noise)] * 17, str(images / "a.fits")]
    assert [one["status"] == "refused" for one in found] == [True] * 17 + [False]
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_of_two_processes_with_one_output_the_second_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    with tables.saved(path) as (_, save):
        save({"file": "a"})
        with pytest.raises(BadInput, match="another process"), tables.saved(path):
            pass
    assert path.read_text() == '{"file": "a"}\n'
    assert list(tmp_path.iterdir()) == [path]


FETCH = """
import sys, time, hashlib
from rgz.data import fetch
name = "MiraBest_F_batches.tar.gz"
file = fetch.PublicFile(name, hashlib.sha256(b"right" * 1000).hexdigest(), "10.5281/zenodo.1", "", "")
fetch.REGISTRY = {name: file}
def serve(self, url, output_file, pooch, check_only=False):
    with open(output_file, "wb") as stream:
        for _ in range(1000):
            stream.write(b"right")
            stream.flush()
            time.sleep(0.001)
fetch.pooch.DOIDownloader.__call__ = serve
print(fetch.fetch(name))
"""


def test_two_processes_with_one_cache(tmp_path):
    env = KEPT | {"RGZ_CACHE": str(tmp_path)}
    (tmp_path / "tmp1").touch()
    os.utime(tmp_path / "tmp1", (0, 0))  # of a download that was killed
    told = {"stdout": subprocess.PIPE, "text": True, "env": env}
    both = [subprocess.Popen([sys.executable, "-c", FETCH], **told) for _ in range(2)]
    assert [Path(one.communicate()[0].strip()).read_bytes() for one in both] == [b"right" * 1000] * 2
    assert [one.returncode for one in both] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["MiraBest_F_batches.tar.gz"]


def test_everything_that_is_fetched_has_a_hash():
    assert all(len(bytes.fromhex(file.sha256)) == 32 for file in fetch.REGISTRY.values())


PROGRAM = """#!/bin/sh
case "$0 $*" in
*/papermill*) cp "$4" "$5"; test -e wait && touch begun && sleep 60 ;;
*studies.claims*) echo the claims ;;
esac
exit 0
"""


@pytest.fixture
def clone(tmp_path):
    """A clone with one empty notebook, whose programs do nothing, and wait in the notebook if there is a file wait."""
    pytest.importorskip("nox")
    for name in ("noxfile.py", "pyproject.toml", "setup.py", "constraints.txt", "_toc.yml", "_config.yml"):
        shutil.copy(HOUSE / name, tmp_path)
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("rgz", "papermill", "python", "jupyter-book"):
        (programs / name).write_text(PROGRAM)
        (programs / name).chmod(0o755)
    wanted = "".join((tmp_path / name).read_text() for name in ("pyproject.toml", "setup.py", "constraints.txt"))
    (programs.parent / "installed.txt").write_text(wanted)
    for name in ("book", "notebooks"):
        (tmp_path / name).mkdir()
    (tmp_path / "notebooks" / "01-data.ipynb").write_text('{"cells": []}')
    return tmp_path


def nox(clone, session):
    words = [sys.executable, "-m", "nox", "-s", session]
    return subprocess.Popen(words, cwd=clone, stderr=subprocess.PIPE, text=True, start_new_session=True)


def told(process):
    """Exit status, and the error of nox, without its own lines."""
    _, err = process.communicate()
    return process.returncode, [line for line in err.splitlines() if "nox session" in line or "complete run" in line]


def test_a_book_is_not_built_from_a_run_that_was_killed(clone):
    status, (line,) = told(nox(clone, "book"))
    assert (status, "nox -s execute makes it" in line) == (1, True)
    (clone / "wait").touch()
    first = nox(clone, "execute")
    until(first, (clone / "begun").exists)
    for session in ("execute", "book"):  # in the same clone, at once
        status, (line,) = told(nox(clone, session))
        assert (status, "wait for its end" in line) == (1, True)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    status, (line,) = told(nox(clone, "book"))
    assert (status, "nox -s execute makes it" in line) == (1, True)
    (clone / "wait").unlink()
    assert told(nox(clone, "execute")) == (0, [])
    assert told(nox(clone, "book")) == (0, [])
    assert sorted(path.name for path in (clone / "_build").iterdir()) == ["lock", "source"]

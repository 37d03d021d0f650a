"""Everyday tasks: ``nox -s tests``, ``execute``, ``book``, ``lint``, ``train`` and ``bench``.

All of them install into ``.venv`` and run from there, so that ``.venv/bin/rgz`` works afterwards.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "none"
nox.needs_version = ">=2025.2.9"

HERE = Path(__file__).parent
VENV = HERE / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAGE = HERE / "_build" / "source"  # the book's sources, with notebooks that have outputs
HTML = HERE / "_build" / "_build" / "html" / "index.html"


def _install(session):
    """Install rgz and the pinned packages into .venv, unless that was done with the same pins before."""
    wanted = "".join((HERE / name).read_text() for name in ("pyproject.toml", "setup.py", "constraints.txt"))
    installed = VENV / "installed.txt"
    session.env["PATH"] = f"{BIN}{os.pathsep}{os.environ['PATH']}"
    if installed.is_file() and installed.read_text() == wanted:
        return
    if not VENV.exists():
        session.run(sys.executable, "-m", "venv", str(VENV))
    _run(session, "python", "-m", "pip", "install", "--quiet", "-e", ".[dev]", "-c", "constraints.txt")
    installed.write_text(wanted)


def _run(session, program, *arguments):
    """Run a program of .venv."""
    session.run(str(BIN / program), *arguments)


@nox.session
def tests(session):
    """Run the tests; those that need survey images run where RGZ_DATA_MIRROR or the cache has them."""
    _install(session)
    _run(session, "pytest", "-n", "auto", "--dist", "loadscope", *session.posargs)


@nox.session
def execute(session):
    """Bring the results up to date, run every notebook and build the book.

    A step whose inputs have not changed is not run again; ``nox -s execute -- --fresh`` runs the studies again.
    """
    _install(session)
    if session.posargs not in ([], ["--fresh"]):
        session.error(f"nox -s execute takes --fresh or no option; these were given: {' '.join(session.posargs)}")
    _run(session, "rgz", "study", *session.posargs)
    _run(session, "python", "-m", "studies.results")
    _stage()
    notebooks = sorted((HERE / "notebooks").glob("*.ipynb"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for notebook, ended in zip(notebooks, pool.map(_papermill, notebooks), strict=True):
            if ended.returncode:
                session.error(f"{notebook.name} failed:\n{ended.stderr}")
    _build(session)


@nox.session
def book(session):
    """Build the book from the notebooks that ``nox -s execute`` has run."""
    _install(session)
    if not STAGE.exists():
        session.error("no notebook has been run yet: nox -s execute does that, and builds the book too")
    _build(session)


def _stage():
    """Copy the book's sources to a build folder, so that executed notebooks do not touch tracked files."""
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(HERE / name, STAGE)
    shutil.copytree(HERE / "book", STAGE / "book", ignore=shutil.ignore_patterns("explorer", "look"))
    (STAGE / "notebooks").mkdir()


def _papermill(notebook):
    """Execute one notebook on one thread; several run in parallel."""
    folder = STAGE / "notebooks"
    command = [
        str(BIN / "papermill"),
        "--no-progress-bar",
        "--cwd",
        str(folder),
        str(notebook),
        str(folder / notebook.name),
    ]
    print(f"running {notebook.name}", flush=True)
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.run(command, env=os.environ | single, capture_output=True, text=True)


def _build(session):
    pages = ("--out", str(STAGE / "extra" / "explorer"))
    if subprocess.run([str(BIN / "rgz"), "page", *pages]).returncode:  # it needs npm, and once the network
        session.warn("the book is built without the page for a galaxy of your own")
        _run(session, "rgz", "explorer", *pages)
    options = ("--quiet", "-n", "-W", "--keep-going", "--path-output", str(HERE / "_build"))
    _run(session, "jupyter-book", "build", *options, str(STAGE))
    session.log(f"the book: {HTML.as_uri()}")


@nox.session
def train(session):
    """Train the network again; minutes on a GPU (``-- --device cuda --batch 256``), a day on two cores."""
    _install(session)
    _run(session, "rgz", "train", *session.posargs)


@nox.session
def bench(session):
    """Time training and encoding against bare convolutions, and the search against a matrix product."""
    _install(session)
    _run(session, "python", "benchmarks/speed.py", *session.posargs)
    _run(session, "python", "benchmarks/search.py")


@nox.session
def lint(session):
    """Check style, types and the direction of imports."""
    _install(session)
    _run(session, "ruff", "check", ".")
    _run(session, "ruff", "format", "--check", ".")
    _run(session, "mypy")
    _run(session, "lint-imports")

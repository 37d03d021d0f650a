"""Everyday tasks: ``nox -s tests``, ``execute``, ``book``, ``lint``, ``train``, ``bench`` and ``robustness``.

All of them install into ``.venv`` and run from there, so that ``.venv/bin/rgz`` works afterwards.
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import nox

try:
    import fcntl
except ImportError:  # on Windows, where two sessions at once are not told apart
    fcntl = None

nox.options.sessions = ["lint", "tests"]
nox.options.default_venv_backend = "none"
nox.needs_version = ">=2025.2.9"

HERE = Path(__file__).parent
VENV = HERE / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
BUILD = HERE / "_build"
STAGE = BUILD / "source"  # the book's sources, once all notebooks have been run
RUN = STAGE / "notebooks"  # with outputs
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # threads of several processes wait for each other
LOCATE = """
from rgz.app.explorer import TITLES
from rgz.data import datasets, fetch
print(", ".join(TITLES[name] for name, (archive, _) in datasets.SAMPLES.items() if fetch.locate(archive) is None))
"""  # prints the samples without images
NO_IMAGES = (
    "This copy was built without the survey images of {}. Pictures of these galaxies are decoded from their codes, or "
    "simulated; that decoded pictures look alike says nothing about the galaxies."
)
COLAB = """\
# In Colab, this fetches the repository and installs it. Elsewhere it does nothing.
import importlib.util
import sys

if importlib.util.find_spec("studies") is None:
    !git clone --quiet --depth 1 {} companion
    !{{sys.executable}} -m pip install --quiet -e companion myst-nb doit
    sys.path.insert(0, "companion")"""  # loose bounds: numpy and torch of Colab stay
BADGES = """\
[![tests]({0}/actions/workflows/tests.yml/badge.svg)]({0}/actions/workflows/tests.yml)
[![Binder](https://mybinder.org/badge_logo.svg)](https://mybinder.org/v2/gh/{1}/main?urlpath=lab/tree/notebooks)
[![Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/{1})
"""
NUMBER = re.compile(r"[\w.,−]*<!--([\w-]+)(?::([^ >]+))?-->")  # a number in prose and the name of its result
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
def install(session):
    """Install everything into .venv, and run nothing."""
    _install(session)


@nox.session
def tests(session):
    """Run the tests; those that need survey images run where RGZ_DATA_MIRROR or the cache has them."""
    _install(session)
    session.env.update(ONE_THREAD)  # a worker on each core
    _run(session, "pytest", "-n", "auto", "--dist", "loadscope", "--no-loadscope-reorder", *session.posargs)


@nox.session
def execute(session):
    """Bring the results up to date, run every notebook, build the book, and print the paper's claims and our numbers.

    A step whose inputs have not changed is not run again; ``nox -s execute -- --fresh`` runs the studies again,
    but trains no CNN.
    """
    with _alone(session):
        _install(session)
        if session.posargs not in ([], ["--fresh"]):
            session.error(f"nox -s execute takes --fresh or no option; these were given: {' '.join(session.posargs)}")
        _run(session, "rgz", "study", *session.posargs)
        with _stage() as folder:
            _run_notebooks(session, folder)
        _build(session)


def _run_notebooks(session, folder):
    """Run all notebooks and build the explorer, one a core, and write the numbers into the prose."""
    notebooks = sorted((HERE / "notebooks").glob("*.ipynb"))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        running = {pool.submit(_explorer, folder): "explorer"}  # takes the longest
        running |= {pool.submit(_papermill, notebook, folder / "notebooks"): notebook.name for notebook in notebooks}
        for done, ended in enumerate(as_completed(running), 1):
            if ended.result().returncode:
                session.error(f"{running[ended]} failed:\n{ended.result().stderr}")
            print(f"{done} of {len(running)} parts of the book are ready: {running[ended]}", flush=True)
    for path in sorted((folder / "notebooks").glob("*.ipynb")):
        _fill(path, path)


@nox.session
def book(session):
    """Build the book from the notebooks that ``nox -s execute`` has run."""
    with _alone(session):
        _install(session)
        if not STAGE.exists():
            session.error("no complete run of the notebooks is here: nox -s execute makes it, and builds the book too")
        _build(session)


@nox.session
def numbers(session):
    """Write the numbers that ``nox -s execute`` has computed into the prose of the notebooks in the repository."""
    for path in sorted((HERE / "notebooks").glob("*.ipynb")):
        _fill(path, RUN / path.name)


@nox.session
def links(session):
    """Write the cell that installs a chapter in Colab into every notebook, and badges into README.md.

    Both are removed if the repository is unknown.
    """
    address = _address()
    readme, hosted = HERE / "README.md", "https://github.com/"
    title, text = readme.read_text(encoding="utf-8").split("\n\n", 1)
    text = re.sub(r"\A(\[!.*\n)+\n", "", text)
    badges = BADGES.format(address, address.removeprefix(hosted)) + "\n" if address.startswith(hosted) else ""
    readme.write_text(f"{title}\n\n{badges}{text}", encoding="utf-8")
    cell = {"cell_type": "code", "execution_count": None, "id": "colab", "outputs": []}
    cell |= {"metadata": {"tags": ["remove-cell"]}, "source": COLAB.format(address).splitlines(keepends=True)}
    for path in sorted((HERE / "notebooks").glob("*.ipynb")):
        notebook = _read(path)
        cells = [one for one in notebook["cells"] if one["id"] != "colab"]
        notebook["cells"] = [cells[0], *[cell] * bool(address), *cells[1:]]
        _write(path, notebook)
    session.log(f"the repository is {address or 'unknown: set Repository in [project.urls] of pyproject.toml'}")


def _read(path):
    return json.loads(path.read_text(encoding="utf-8"))


def _write(path, notebook):
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _fill(path, run):
    """Put the numbers that the notebook ``run`` has glued into prose, before comments such as <!--accuracy:.3f-->."""
    notebook, known = _read(path), {}
    for output in (one for cell in _read(run)["cells"] for one in cell.get("outputs", [])):
        if name := output.get("metadata", {}).get("scrapbook", {}).get("name"):
            known[name] = next("".join(text) for kind, text in output["data"].items() if kind.endswith("text/plain"))

    def number(found):
        key, digits = found.groups()
        if key not in known:
            sys.exit(f"{path.name} writes a number {key}, but glues none of this name")
        return f"{ast.literal_eval(known[key]):{digits or ''}}".replace("-", "−") + found[0][found[0].index("<!--") :]

    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            cell["source"] = NUMBER.sub(number, "".join(cell["source"])).splitlines(keepends=True)
    _write(path, notebook)


@contextmanager
def _alone(session):
    """Refuse a second session in this clone that runs notebooks or builds the book."""
    BUILD.mkdir(exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        try:
            if fcntl:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            session.error("another nox session runs the notebooks or builds the book in this clone: wait for its end")
        yield


@contextmanager
def _stage():
    """A new folder with the book's sources, which takes the place of the old one if no error occurs.

    Executed notebooks thus do not touch tracked files, and a run that was killed leaves the last complete one.
    """
    for left in BUILD.glob("unfinished-*"):
        shutil.rmtree(left, ignore_errors=True)
    folder = BUILD / f"unfinished-{os.getpid()}"  # programs of a killed session may still write to theirs
    folder.mkdir()
    shutil.copy(HERE / "_toc.yml", folder)
    (folder / "_config.yml").write_text(_config(_address()), encoding="utf-8")
    shutil.copytree(HERE / "book", folder / "book", ignore=shutil.ignore_patterns("look"))
    (folder / "notebooks").mkdir()
    yield folder
    shutil.rmtree(STAGE, ignore_errors=True)
    folder.rename(STAGE)


def _address():
    """Where the repository is hosted: RGZ_REPOSITORY, or [project.urls] of pyproject.toml; empty if unknown."""
    listed = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    return os.environ.get("RGZ_REPOSITORY", listed.get("Repository", "")).removesuffix("/").removesuffix(".git")


def _config(address):
    """The book's configuration; where the repository is hosted, pages get links to edit and to launch them."""
    text = (HERE / "_config.yml").read_text(encoding="utf-8")
    asked = subprocess.run([str(BIN / "python"), "-c", LOCATE], capture_output=True, text=True, check=True)
    if missing := asked.stdout.strip():  # captions alone would be overlooked
        text = text.replace("html:\n", f"html:\n  announcement: {json.dumps(NO_IMAGES.format(missing))}\n", 1)
    if not address:
        return text
    buttons = "use_repository_button: true\n  use_edit_page_button: true"
    hosts = {"notebook_interface": "jupyterlab", "binderhub_url": "https://mybinder.org"}
    written = '"id": "colab"' in (HERE / "notebooks" / "01-data.ipynb").read_text(encoding="utf-8")
    if written and address.startswith("https://github.com/"):
        hosts["colab_url"] = "https://colab.research.google.com"
    places = {"repository": {"url": address, "branch": "main"}, "launch_buttons": hosts}
    return text.replace("use_repository_button: false", buttons) + "".join(
        f"{key}: {json.dumps(place)}\n" for key, place in places.items()
    )


def _papermill(notebook, folder):
    """Execute one notebook."""
    command = ("papermill", "--no-progress-bar", "--cwd", folder, notebook, folder / notebook.name)
    return _quietly(*command, MATPLOTLIBRC=str(HERE / "book" / "matplotlibrc"), TQDM_DISABLE="1")


def _explorer(folder):
    """Build the explorer, with the page for a galaxy of one's own if npm is there, which it needs once."""
    return _quietly("python", "-m", "studies.page", "--out", folder / "extra" / "explorer")


def _quietly(program, *arguments, **environment):
    """Run a program of .venv on one thread, since several run in parallel."""
    command = [str(BIN / program), *map(str, arguments)]
    return subprocess.run(command, env=os.environ | ONE_THREAD | environment, capture_output=True, text=True)


def _build(session):
    claims = session.run(str(BIN / "python"), "-m", "studies.claims", str(STAGE / "book" / "_made"), silent=True)
    options = ("--quiet", "-n", "-W", "--keep-going", "--path-output", str(HERE / "_build"))
    _run(session, "jupyter-book", "build", *options, str(STAGE))
    print(claims)
    session.log(f"the book: {HTML.as_uri()}")


@nox.session
def train(session):
    """Train the network again; minutes on a GPU (``-- --device cuda --batch 256``), a day on two cores."""
    _install(session)
    _run(session, "rgz", "study", "training-set")
    _run(session, "rgz", "train", *session.posargs)


@nox.session
def bench(session):
    """Time training and encoding against bare convolutions, and the search against a matrix product."""
    _install(session)
    _run(session, "python", "benchmarks/speed.py", *session.posargs)
    _run(session, "python", "benchmarks/search.py")


@nox.session
def robustness(session):
    """Try 2,000 damaged files on every reader and in the page, and kill commands; more with ``-- --files 20000``."""
    _install(session)
    _run(session, "python", "benchmarks/robustness.py", *session.posargs)
    _run(session, "python", "benchmarks/kills.py")


@nox.session
def lint(session):
    """Check style, types and the direction of imports."""
    _install(session)
    _run(session, "ruff", "check", ".")
    _run(session, "ruff", "format", "--check", ".")
    _run(session, "mypy")
    _run(session, "lint-imports")

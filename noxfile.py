"""What one does with the repository, each a line: ``nox -s tests``, ``nox -s execute``, ``nox -s train``, ``nox -s measure``,
``nox -s bench``, ``nox -s lint``."""

import shutil
from pathlib import Path

import nox

nox.options.sessions = ["tests"]
nox.options.reuse_existing_virtualenvs = True
nox.options.default_venv_backend = "virtualenv"
nox.needs_version = ">=2025.2.9"

HERE = Path(__file__).parent
STAGE = HERE / "_build" / "source"  # the book's sources, with notebooks that have outputs
HTML = HERE / "_build" / "_build" / "html" / "index.html"


def _install(session, extra):
    session.install("--quiet", "-e", f".[{extra}]", "-c", "constraints.txt")


@nox.session
def tests(session):
    """Run the tests; those that need survey images run where RGZ_DATA_MIRROR or the cache has them."""
    _install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def execute(session):
    """Rebuild the results: classify the codes, run every notebook, build the book, say where it is."""
    _install(session, "book")
    session.run("rgz", "report")
    session.run("rgz", "reconstruct")
    session.run("rgz", "retrieve")
    _stage()
    for notebook in sorted((HERE / "notebooks").glob("*.ipynb")):
        session.run(
            "papermill",
            "--no-progress-bar",
            "--cwd",
            str(STAGE / "notebooks"),
            str(notebook),
            str(STAGE / "notebooks" / notebook.name),
        )
    _build(session)


@nox.session
def book(session):
    """Build the book from the notebooks that ``nox -s execute`` has run."""
    _install(session, "book")
    if not STAGE.exists():
        session.error("no notebook has been run yet: nox -s execute does that, and builds the book too")
    _build(session)


def _stage():
    """Copy the book's sources to where executed notebooks may join them without touching tracked files."""
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    for name in ("_config.yml", "_toc.yml"):
        shutil.copy(HERE / name, STAGE)
    shutil.copytree(HERE / "book", STAGE / "book", ignore=shutil.ignore_patterns("explorer"))
    (STAGE / "notebooks").mkdir()


def _build(session):
    session.run("rgz", "explorer", "--out", str(STAGE / "extra" / "explorer"))
    session.run(
        "jupyter-book",
        "build",
        "--quiet",
        "-n",
        "-W",
        "--keep-going",
        "--path-output",
        str(HERE / "_build"),
        str(STAGE),
    )
    session.log(f"the book: {HTML.as_uri()}")


@nox.session
def train(session):
    """Train the committed checkpoint anew, under an hour on two cores; options go after ``--``."""
    _install(session, "test")
    session.run("rgz", "train", "--preset", "small", *session.posargs)


@nox.session
def measure(session):
    """Fit the flows, measure how real drawn galaxies are and what of the odd ones is found; 40 minutes on two cores."""
    _install(session, "test")
    session.run("rgz", "prior")
    session.run("rgz", "realism")
    session.run("rgz", "density")


@nox.session
def bench(session):
    """Time training and encoding against plain convolutions of the same shapes, and the search against one matrix product.

    ``nox -s bench -- --presets tiny`` takes seconds for the first.
    """
    _install(session, "test")
    session.run("python", "benchmarks/speed.py", *session.posargs)
    session.run("python", "benchmarks/search.py")


@nox.session
def lint(session):
    """Check the style."""
    _install(session, "dev")
    session.run("ruff", "check", ".")

"""The house rules that a machine can hold: who may import whom, what a notebook looks like."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
MODULES = {path.stem: ast.parse(path.read_text()) for path in (HOUSE / "rgz").glob("*.py")}
DRAWS = (
    "plots.reconstructions(",
    "plots.growth(",
    "plots.gallery(",
    "plots.sky(",
    "plots.curves(",
    "plots.dots(",
    "plots.learning_curve(",
    "plots.calibration(",
    "plots.confusion(",
    "plots.roc(",
    "plots.lookalikes(",
    "plt.subplots(",
)
NOTEBOOKS = sorted((HOUSE / "notebooks").glob("*.ipynb"))
TORCH_FREE = (
    "errors",
    "paths",
    "fetch",
    "readers",
    "fields",
    "cutouts",
    "images",
    "sample",
    "synthetic",
    "classify",
    "plots",
    "provenance",
)
ORDER = {
    "errors": 0,
    "paths": 1,
    "images": 1,
    "likelihood": 1,
    "sample": 2,
    "provenance": 2,
    "cli": 9,
    "check": 8,
    "cli_data": 8.5,
    "cli_look": 8.5,
    "cli_new": 8.7,
}


def imported(tree):
    """Names of the modules of rgz, and of other packages, that a module imports anywhere."""
    own, other = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            other |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "rgz":
            own |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module.startswith("rgz."):
            own.add(node.module.split(".")[1])
        elif isinstance(node, ast.ImportFrom):
            other.add(node.module)
    return own, {name.split(".")[0] for name in other}


@pytest.mark.parametrize("name", sorted(set(MODULES) - {"__init__", "__main__"}))
def test_imports_point_one_way(name):
    own, _ = imported(MODULES[name])
    assert "cli" not in own
    if name in TORCH_FREE:
        reached, todo = set(), {name}
        while todo:
            here = todo.pop()
            reached.add(here)
            mine, others = imported(MODULES[here])
            assert "torch" not in others, f"{name} reaches torch through {here}"
            todo |= (mine & set(MODULES)) - reached
    assert all(
        ORDER.get(used, 5) < ORDER.get(name, 5) or ORDER.get(used, 5) == ORDER.get(name, 5) == 5
        for used in own & set(MODULES)
    ), own


def test_the_model_knows_no_file_and_prints_nothing():
    _, other = imported(MODULES["vdvae"])
    assert other <= {"math", "dataclasses", "itertools", "torch"}
    names = {node.id for node in ast.walk(MODULES["vdvae"]) if isinstance(node, ast.Name)}
    assert not names & {"open", "print", "Path"}


@pytest.mark.parametrize("path", sorted((HOUSE / "rgz").glob("*.py")), ids=lambda p: p.stem)
def test_modules_say_what_they_are(path):
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_importing_rgz_costs_nothing():
    heavy = "import rgz, sys; print([m for m in ('torch', 'numpy', 'astropy', 'matplotlib') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_notebooks_are_stripped_and_told(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert len(cells) - len(code) >= len(code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    source = "\n".join("".join(cell["source"]) for cell in code)
    assert "pip install" not in source
    assert "filterwarnings" not in source


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_figures_in_notebooks_have_alt_text(path):
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and any(drawn in source for drawn in DRAWS):
            assert cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"), source[:80]

"""House rules that a test can check: length of functions, lazy imports, and the form of the notebooks."""

import ast
import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
MODULES = sorted([*(HOUSE / "rgz").rglob("*.py"), *(HOUSE / "studies").glob("*.py")])
NOTEBOOKS = sorted((HOUSE / "notebooks").glob("*.ipynb"))
LONGEST = 60  # lines of a function
NOTEBOOK_WIDTH = 100  # characters


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(HOUSE).as_posix())
def test_modules_say_what_they_are_and_functions_fit_a_screen(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for before, after in pairwise(tree.body):  # the book takes words before a colon for the type of a constant
        if isinstance(before, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr):
            assert ": " not in str(getattr(after.value, "value", "")).split("\n")[0]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    assert {node.name for node in functions if node.end_lineno - node.lineno >= LONGEST} == set()


@pytest.mark.parametrize(
    ("modules", "heavy"),
    [
        ("rgz", {"torch", "numpy", "astropy", "matplotlib"}),
        ("rgz.data.datasets, rgz.transforms.fields, rgz.tasks.search, rgz.app.cli", {"torch"}),
    ],
)
def test_torch_is_loaded_by_what_needs_it_alone(modules, heavy):
    code = f"import sys, {modules}; print(sorted({heavy!r} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_stored_without_outputs_and_readable(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert "".join(cells[0]["source"]).startswith("# ")
    lines = [line.rstrip("\n") for cell in cells for line in cell["source"]]
    assert [line for line in lines if len(line) > NOTEBOOK_WIDTH] == []
    assert not any(word in line for line in lines for word in ("%pip", "!pip", "filterwarnings"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_figures_in_notebooks_have_alt_text(path):
    draws = re.compile(r"(?:plots|figures)\.(gallery|dots|lookalikes)\(|plt\.subplots\(")
    for cell in json.loads(path.read_text())["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and draws.search(source):
            assert cell["metadata"].get("mystnb", {}).get("image", {}).get("alt"), source[:80]

"""Which lines of the library no quick test runs, by the first kind that fits: ``results/coverage.csv``.

Lines of processes that tests start count as run, if coverage.py is told to follow them.

    pytest -m "not slow and not data" --cov --cov-config=benchmarks/coverage.toml --cov-report=json:coverage.json
    python benchmarks/uncovered.py coverage.json
"""

import ast
import json
import re
import sys
from pathlib import Path

from studies import results

KINDS = {
    "needs a GPU": r"cuda",
    "other operating system": r"fcntl|os\.name|killpg|Windows",
    "download": r"astroquery|First\b|hips2fits|survey_image|pooch|REGISTRY|\bdoi\b",
    "package is missing": r"except ImportError|needs \{error\.name\}|pip install",
    "input is refused": r"raise |BadInput|except |SystemExit|Exit",
}


def kind(lines: list[str], tree: ast.Module, number: int) -> str:
    """The kind of a line that is not run: by its function, then by the statements around it."""
    around = [one for one in ast.walk(tree) if getattr(one, "lineno", number + 1) <= number <= (one.end_lineno or 0)]
    inner = sorted((one for one in around if isinstance(one, ast.stmt | ast.ExceptHandler)), key=lambda one: one.lineno)
    statements = [lines[one.lineno - 1] for one in inner if not isinstance(one, ast.ClassDef)]
    text = "\n".join((lines[number - 1], *statements[-3:]))
    return next((name for name, words in KINDS.items() if re.search(words, text)), "other branch")


def main() -> None:
    """Count the lines and write the table."""
    files = json.loads(Path(sys.argv[1]).read_text())["files"]
    counts = {"run by the quick tests": sum(one["summary"]["covered_lines"] for one in files.values())}
    for path, one in files.items():
        text = Path(path).read_text(encoding="utf-8")
        tree, missing = ast.parse(text), set(one["missing_lines"])
        whole = set[int]()
        for node in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            body = {line for part in node.body for line in range(part.lineno, (part.end_lineno or 0) + 1)}
            whole |= body if not body & set(one["executed_lines"]) else set()
        for number in sorted(missing):
            found = kind(text.splitlines(), tree, number)
            found = "function that no quick test calls" if found == "other branch" and number in whole else found
            counts[found] = counts.get(found, 0) + 1
    total = sum(counts.values())
    rows = [{"kind": name, "lines": n, "share": n / total} for name, n in counts.items()]
    results.write("coverage", sorted(rows, key=lambda row: -row["lines"]))
    print(*rows, sep="\n")


if __name__ == "__main__":
    results.run(main)

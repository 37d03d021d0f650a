"""What ``rgz study`` runs: steps of ``dodo.py``, one a core, and only those whose inputs have changed."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from rgz import artifacts
from rgz.errors import as_bad_input
from studies import results

ROOT = Path(__file__).resolve().parents[1]


def run(names: Sequence[str], fresh: bool = False, root: Path = ROOT) -> int:
    """Run steps, by default all studies, with ``fresh`` even if nothing has changed; returns doit's exit status."""
    record = root / "results" / "steps.json"
    with as_bad_input(f"{record} is damaged", "restore it with git checkout results/steps.json"):
        before = json.loads(record.read_text())
    cores, status = str(os.cpu_count() or 1), 1
    threads = cores if len(names) == 1 else "1"  # those of several steps would wait for each other
    environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads} | os.environ
    try:
        for command in (["forget"],) * fresh + (["run", "-n", cores],):
            words = [sys.executable, "-m", "doit", *command, *names]
            if status := subprocess.run(words, cwd=root, env=environment).returncode:
                return status
    finally:
        if status:  # doit forgets a step that fails, but its committed results are still there
            kept = before | json.loads(record.read_text())
            with artifacts.atomic(record) as partial:
                partial.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n")
    return 0


def main() -> None:
    """Run the steps that are named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--fresh", action="store_true")
    given = parser.parse_args()
    sys.exit(run(given.names, given.fresh))


if __name__ == "__main__":
    results.run(main)

"""What ``rgz study`` runs: steps of ``dodo.py``, one a core, and only those whose inputs have changed."""

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from rgz import artifacts
from rgz.errors import as_bad_input
from studies import results

ROOT = Path(__file__).resolve().parents[1]


def run(names: Sequence[str], fresh: bool = False, root: Path = ROOT) -> int:
    """Run steps, by default all studies, with ``fresh`` even if nothing has changed; returns doit's exit status."""
    record = root / "results" / "steps.json"
    with as_bad_input(f"{record} is damaged", "restore it with git checkout results/steps.json"):
        text = record.read_text(encoding="utf-8")
        before = json.loads(text)
    cores, status = str(os.cpu_count() or 1), 1
    threads = cores if len(names) == 1 else "1"  # those of several steps would wait for each other
    environment = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads} | os.environ
    with artifacts.atomic(record) as copy:  # doit itself would leave half a record if it were killed
        copy.write_text(text, encoding="utf-8")
        for command in (["forget"],) * fresh + (["run", "-n", cores],):
            words = [sys.executable, "-m", "doit", *command, "--db-file", str(copy), *names]
            if status := _together(words, root, environment):
                break
        if status:  # doit forgets a step that fails, but its committed results are still there
            kept = before | json.loads(copy.read_text(encoding="utf-8"))
            copy.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return status


def _together(words: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Run a command in a session of its own, so that Ctrl-C reaches this process alone, which then ends them all."""
    with subprocess.Popen(words, cwd=folder, env=environment, start_new_session=True) as running:
        try:
            return running.wait()
        except KeyboardInterrupt:
            if hasattr(os, "killpg"):  # not on Windows
                with suppress(ProcessLookupError):  # once all have ended, of which doit is the first
                    os.killpg(running.pid, signal.SIGTERM)  # at which they remove their temporary files
                    for _ in range(100):
                        running.poll()
                        os.killpg(running.pid, 0)
                        time.sleep(0.1)
                    os.killpg(running.pid, signal.SIGKILL)
            running.kill()
            raise


def main() -> None:
    """Run the steps that are named on the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--fresh", action="store_true")
    given = parser.parse_args()
    try:
        sys.exit(run(given.names, given.fresh))
    except KeyboardInterrupt:
        sys.exit(130)  # rgz study says that it was stopped


if __name__ == "__main__":
    results.run(main)

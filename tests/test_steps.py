"""The committed results are those of the committed files: no step has inputs other than it was run with."""

import subprocess
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[1]


def test_the_committed_results_are_of_the_committed_files():
    command = [sys.executable, "-m", "doit", "list", "--all", "--status"]
    listed = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=True).stdout
    status = {line.split()[1]: line[0] for line in listed.splitlines()}
    assert {name for name, letter in status.items() if letter != "U"} <= {"training-set"}, listed
    assert len(status) > 8

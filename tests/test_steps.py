"""The committed results are those of the committed files: no step has inputs other than it was run with."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from rgz import artifacts
from rgz.app import cli

HOUSE = Path(__file__).parents[1]


def test_the_committed_results_are_of_the_committed_files():
    command = [sys.executable, "-m", "doit", "list", "--all", "--status"]
    listed = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=True).stdout
    status = {line.split()[1]: line[0] for line in listed.splitlines()}
    in_runs = {"training-set", "training-codes", "codes-network"}
    assert {name for name, letter in status.items() if letter != "U"} <= in_runs, listed
    assert len(status) > 8


@pytest.mark.parametrize("text", ["", "null", "[]", '{"map": 3}', "{"])
def test_a_damaged_record_is_one_line(tmp_path, text):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "steps.json").write_text(text)
    command = [sys.executable, "-m", "doit", "-f", str(HOUSE / "dodo.py"), "-d", str(tmp_path), "list", "--status"]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "results/steps.json is damaged: restore it with git checkout results/steps.json"
    ]


def test_a_study_that_fails_keeps_its_record(tmp_path, monkeypatch, run):
    record = tmp_path / "results" / "steps.json"
    record.parent.mkdir()
    record.write_text('{"similarity": {"hash": 1}, "map": {"hash": 1}}')
    monkeypatch.setattr(artifacts, "clone", lambda: tmp_path)

    def forget_and_fail(words, *_):
        Path(words[words.index("--db-file") + 1]).write_text('{"map": {"hash": 2}}')
        return 1

    monkeypatch.setattr(cli, "_together", forget_and_fail)
    assert run("study", "similarity", "--fresh")[0] == 1
    assert json.loads(record.read_text()) == {"similarity": {"hash": 1}, "map": {"hash": 2}}


def test_a_damaged_record_stops_a_study(tmp_path, monkeypatch, run):
    record = tmp_path / "results" / "steps.json"
    record.parent.mkdir()
    record.write_text("{")
    monkeypatch.setattr(artifacts, "clone", lambda: tmp_path)
    status, _, err = run("study", "map")
    assert status == 1
    assert "damaged: restore it with git checkout" in err
    assert record.read_text() == "{"

"""The committed results are those of the committed files: no step has inputs other than it was run with."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import dodo
from rgz.errors import BadInput
from studies import steps

HOUSE = Path(__file__).parents[1]


def test_the_committed_results_are_of_the_committed_files():
    command = [sys.executable, "-m", "doit", "list", "--all", "--status"]
    listed = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True, check=True).stdout
    status = {line.split()[1]: line[0] for line in listed.splitlines()}
    in_runs = {"training-set", "training-codes", "codes-network"}
    assert {name for name, letter in status.items() if letter != "U"} <= in_runs, listed
    assert len(status) > 8


@pytest.mark.parametrize("text", ["", "null", "[]", '{"map": 3}', "{"])
def test_a_record_is_damaged_in_many_ways(text):
    with pytest.raises(SystemExit, match="restore it with git checkout"):
        dodo.Lines().decode(text)


def test_a_damaged_record_is_one_line(tmp_path):
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "steps.json").write_text("{")
    command = [sys.executable, "-m", "doit", "-f", str(HOUSE / "dodo.py"), "-d", str(tmp_path), "list", "--status"]
    done = subprocess.run(command, cwd=HOUSE, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines() == [
        "results/steps.json is damaged: restore it with git checkout results/steps.json"
    ]


@pytest.fixture
def record(tmp_path):
    """The record of steps in a clone without anything else."""
    path = tmp_path / "results" / "steps.json"
    path.parent.mkdir()
    return path


def test_a_step_has_all_cores_and_what_fails_keeps_its_record(record, monkeypatch):
    record.write_text('{"similarity": {"hash": 1}, "map": {"hash": 1}}')
    called = []

    def fail(words, folder, environment):
        place = words.index("--db-file")
        copy = Path(words[place + 1])
        called.append([*words[1:place], *words[place + 2 :]])
        assert (folder, environment["OMP_NUM_THREADS"]) == (record.parents[1], str(os.cpu_count()))
        assert json.loads(record.read_text())["map"] == {"hash": 1}  # untouched until the end
        copy.write_text('{"map": {"hash": 2}}')
        return 0 if "forget" in words else 3

    monkeypatch.setattr(steps, "_together", fail)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert steps.run(["similarity"], fresh=True, root=record.parents[1]) == 3
    expected = ["forget"], ["run", "-n", str(os.cpu_count())]
    assert called == [["-m", "doit", *words, "similarity"] for words in expected]
    assert json.loads(record.read_text()) == {"similarity": {"hash": 1}, "map": {"hash": 2}}


def test_a_damaged_record_stops_a_study(record):
    record.write_text("{")
    with pytest.raises(BadInput, match=r"damaged .*: restore it with git checkout"):
        steps.run(["map"], root=record.parents[1])
    assert record.read_text() == "{"

"""Tables of results survive writing and reading, and a table that cannot be used is one line."""

import numpy as np
import pandas as pd
import pytest

from rgz.errors import BadInput
from studies import results


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    return tmp_path


def test_a_table_is_read_as_it_was_written(folder):
    (folder / "input.h5").write_bytes(b"1")
    rows = [{"fold": 0, "pair": "a → b, c", "value": 0.123456}, {"fold": 1, "pair": "x", "value": np.nan, "p": 1}]
    results.write("some", rows, [folder / "input.h5"])
    first, header, *_ = (folder / "some.csv").read_text().splitlines()
    assert first.startswith("# made by rgz ")
    assert first.endswith("from input.h5 6b86b273ff34")
    assert header == "fold,pair,value,p"
    found = results.read("some")
    assert found["fold"].tolist() == [0, 1]
    assert found["pair"].tolist() == ["a → b, c", "x"]
    np.testing.assert_array_equal(found["value"], [0.1235, np.nan])
    results.write("again", found)
    pd.testing.assert_frame_equal(results.read("again"), found)


def test_a_row_is_added_with_its_new_columns(folder):
    results.append("runs", {"note": "one", "value": 1.5})
    results.append("runs", {"note": "two", "value": 2.5, "extra": 3})
    found = results.read("runs")
    assert found["note"].tolist() == ["one", "two"]
    np.testing.assert_array_equal(found["extra"], [np.nan, 3])


@pytest.mark.parametrize("damage", [None, b"", b"a,b\n1,2", b"\xff\xfe,\n", b'a,b\n"1,2\n'])
def test_a_missing_or_damaged_table_is_bad_input(folder, damage):
    if damage is not None:
        (folder / "some.csv").write_bytes(damage)
    with pytest.raises(BadInput, match=r"some\.csv"):
        results.read("some")


def test_bad_input_ends_a_study_in_one_line(capsys):
    def main():
        raise BadInput("what\ncame")

    with pytest.raises(SystemExit) as ended:
        results.run(main)
    assert ended.value.code == "what came"


@pytest.mark.parametrize("name", sorted(path.stem for path in results.FOLDER.glob("*.csv")))
def test_committed_tables_have_no_duplicate_or_empty_columns(name):
    found = results.read(name)
    assert len(found)
    assert not found.columns.duplicated().any()
    assert found.notna().any().all()
    if {"low", "high"} <= set(found):
        bounded = found.dropna(subset=["low", "high"])
        assert (bounded["low"] <= bounded["high"]).all()


def test_a_hash_sign_in_a_value_is_no_comment(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for number in (3, 4):
        results.append("runs", {"note": f"try #{number}", "value": 1.5})
    assert results.read("runs").to_dict("list") == {"note": ["try #3", "try #4"], "value": [1.5, 1.5]}


@pytest.mark.parametrize("text", ["<html>\n<body>\n", "hello world\n", "a,b\n1,\0\n"])
def test_a_file_that_is_no_table_is_refused(tmp_path, monkeypatch, text):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    (tmp_path / "runs.csv").write_text(text)
    with pytest.raises(BadInput, match="not a table of results"):
        results.read("runs")

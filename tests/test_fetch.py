"""Files come from mirror, cache or network, and never with another hash."""

import hashlib

import pytest

from rgz.data import fetch
from rgz.errors import BadInput

NAME = "MiraBest_F_batches.tar.gz"


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An empty mirror and cache, and a registry whose one file is the bytes ``b"right"``."""
    (tmp_path / "mirror").mkdir()
    monkeypatch.setenv("RGZ_DATA_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("RGZ_CACHE", str(tmp_path / "cache"))
    file = fetch.PublicFile(NAME, hashlib.sha256(b"right").hexdigest(), "10.5281/zenodo.1", "", "")
    monkeypatch.setattr(fetch, "REGISTRY", {NAME: file, "kept": fetch.PublicFile("kept", "", "", "", "a folder")})
    return tmp_path


def test_mirror_comes_before_cache(places):
    (places / "cache").mkdir()
    for place in ("mirror", "cache"):
        (places / place / NAME).write_bytes(b"right")
    assert fetch.fetch(NAME) == places / "mirror" / NAME


def test_cache_serves_without_network(places):
    (places / "cache").mkdir()
    (places / "cache" / NAME).write_bytes(b"right")
    assert fetch.fetch(NAME) == places / "cache" / NAME


def test_wrong_hash_in_the_mirror_is_named(places, run):
    (places / "mirror" / NAME).write_bytes(b"wrong")
    status, out, err = run("data", "fetch", NAME)
    assert status == 1
    assert not out
    assert err.count("\n") == 1
    assert "sha256" in err
    assert "replace or remove" in err


def test_wrong_hash_in_the_cache_is_not_used(places):
    (places / "cache").mkdir()
    (places / "cache" / NAME).write_bytes(b"wrong")
    assert fetch.locate(NAME) is None


@pytest.mark.slow
def test_no_network_is_one_line_and_leaves_nothing(places, run):
    status, _, err = run("data", "fetch", NAME)
    assert status == 1
    assert "RGZ_DATA_MIRROR" in err.splitlines()[-1]
    assert [p for p in (places / "cache").rglob("*") if p.is_file()] == []


@pytest.mark.slow
def test_download_with_another_hash_is_thrown_away(places, monkeypatch):
    def serve(self, url, output_file, pooch, check_only=False):
        with open(output_file, "wb") as stream:
            stream.write(b"something else")

    monkeypatch.setattr("pooch.DOIDownloader.__call__", serve)
    with pytest.raises(BadInput, match="does not match the known hash"):
        fetch.fetch(NAME)
    assert list((places / "cache").iterdir()) == []


def test_right_download_is_kept(places, monkeypatch):
    def serve(self, url, output_file, pooch, check_only=False):
        with open(output_file, "wb") as stream:
            stream.write(b"right")

    monkeypatch.setattr("pooch.DOIDownloader.__call__", serve)
    assert fetch.fetch(NAME).read_bytes() == b"right"
    assert [p.name for p in (places / "cache").iterdir()] == [NAME]


def test_cache_that_cannot_be_written_to(places, monkeypatch, run):
    (places / "file").write_text("in the way")
    monkeypatch.setenv("RGZ_CACHE", str(places / "file" / "cache"))
    status, _, err = run("data", "fetch", NAME)
    assert status == 1
    assert "RGZ_CACHE" in err


def test_file_without_a_download_says_where_it_is_from(places):
    with pytest.raises(BadInput, match="a folder"):
        fetch.fetch("kept")


def test_unknown_name_lists_the_known(run):
    status, _, err = run("data", "fetch", "nonsense")
    assert status == 1
    assert NAME in err


def test_mirror_that_is_no_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RGZ_DATA_MIRROR", str(tmp_path / "absent"))
    with pytest.raises(BadInput, match="not a folder"):
        fetch.locate(NAME)

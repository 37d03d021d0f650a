"""Files that ask for other files, or claim more than they hold, are refused; nothing else is read or fetched."""

import gzip
import json

import h5py
import numpy as np
import pytest
from astropy.table import Table

import dodo
from rgz.app import tables
from rgz.data import sample
from rgz.errors import BadInput
from rgz.features import codes
from rgz.models import checkpoint
from studies import simulate

DEEP = "[" * 200_000
VOTABLE = """<?xml version="1.0"?>{entities}
<VOTABLE version="1.3" xmlns="http://www.ivoa.net/xml/VOTable/v1.3" xmlns:v="http://www.ivoa.net/xml/VOTable/v1.3">
<RESOURCE><TABLE><FIELD name="ra" datatype="double"/><FIELD name="dec" datatype="double"/>
<FIELD name="file" datatype="char" arraysize="*"/><DATA>{data}</DATA></TABLE></RESOURCE></VOTABLE>"""
ROW = "<TABLEDATA><TR><TD>1</TD><TD>2</TD><TD>{}</TD></TR></TABLEDATA>"
LAUGHS = "".join(f"<!ENTITY {new} '{f'&{old};' * 50}'>" for old, new in zip("abcdefgh", "bcdefghx", strict=True))


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"\0" * 7 + b"secret" + b"\0" * 99)
    return path


@pytest.mark.parametrize("kind", ["BINARY", "BINARY2", "FITS"])
@pytest.mark.parametrize("prefix", ["", "v:"])
@pytest.mark.parametrize("scheme", ["file://{}", "file:secret", "http://localhost:9/{}", "HTTP://localhost:9/{}"])
def test_a_votable_reads_no_other_file(tmp_path, secret, kind, prefix, scheme):
    stream = f'<{prefix}STREAM\n href="{scheme.format(secret)}" encoding="base64"/>'
    path = tmp_path / "a.vot"
    path.write_text(VOTABLE.format(entities="", data=f"<{kind}>{stream}</{kind}>"))
    with pytest.raises(BadInput, match="not a readable table"):
        tables.items(path)


def test_data_of_a_votable_in_another_file_are_named(tmp_path, secret):
    path = tmp_path / "a.vot"
    path.write_text(VOTABLE.format(entities="", data=f'<BINARY><STREAM href="file://{secret}"/></BINARY>'))
    with pytest.raises(BadInput, match="in another file"):
        tables.items(path)


@pytest.mark.parametrize(
    "entities",
    ['<!DOCTYPE V [<!ENTITY x SYSTEM "{}">]>', f"<!DOCTYPE V [<!ENTITY a '{'x' * 50}'>{LAUGHS}]>"],
    ids=["another file", "a billion laughs"],
)  # fmt: skip
def test_an_entity_of_xml_is_not_expanded(tmp_path, secret, entities):
    path = tmp_path / "a.vot"
    path.write_text(VOTABLE.format(entities=entities.format(secret), data=ROW.format("&x;")))
    try:
        found = repr(tables.items(path))
    except BadInput:
        return
    assert "secret" not in found.replace(str(tmp_path), "")
    assert len(found) < 1000


def linked(path, change):
    """A sample in an HDF5 file whose images are changed."""
    sample.write(path, simulate.sources(4, seed=0))
    other = path.with_name("other.h5")
    with h5py.File(other, "w") as file, h5py.File(path) as known:
        file["images"] = known["images"][()]
    with h5py.File(path, "a") as file:
        del file["images"]
        change(file, other)
    return path


def virtual(file, other):
    layout = h5py.VirtualLayout((4, 150, 150), "f4")
    layout[:] = h5py.VirtualSource(other, "images", (4, 150, 150))
    file.create_virtual_dataset("images", layout)


@pytest.mark.parametrize(
    "change",
    [
        lambda file, other: file.update({"images": h5py.ExternalLink(other, "images")}),
        lambda file, other: file.update({"images": h5py.SoftLink("/table/ra")}),
        lambda file, other: file.create_dataset(
            "images", (4, 150, 150), "u1", external=[(str(other).encode(), 2048, 90_000)]
        ),
        virtual,
    ],
    ids=["external link", "soft link", "external storage", "virtual data set"],
)
def test_an_hdf5_file_reads_no_other_file(tmp_path, change):
    path = linked(tmp_path / "a.h5", change)
    for read in (sample.read, codes.chosen, codes.read_space):
        with pytest.raises(BadInput, match="another file, which is not read"):
            read(path)


def test_groups_of_hdf5_that_contain_themselves_end(tmp_path):
    path = linked(tmp_path / "a.h5", lambda file, other: file["table"].update({"again": file["/"]}))
    with pytest.raises(BadInput, match="not a readable sample"):
        sample.read(path)


@pytest.mark.parametrize("name", ["a.csv", "a.ecsv", "a.vot", "a.fits", "a.parquet"])
def test_a_compressed_table_is_not_unpacked(tmp_path, name):
    (tmp_path / name).write_bytes(gzip.compress(b"ra,dec\n" + b"1,2\n" * 10_000_000))
    readers = [tables.items, tables.coded, lambda path: tables.scores(path, np.array(["a"]))]
    assert name != "a.fits" or readers.pop(0)(tmp_path / name) is None  # then it is read as an image
    for read in readers:
        with pytest.raises(BadInput, match="compressed"):
            read(tmp_path / name)


def test_parquet_of_more_values_than_a_table_has_is_refused(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    path = tmp_path / "a.parquet"
    Table({"ra": np.ones(10_000), "dec": np.ones(10_000)}).write(path)
    assert len(tables.items(path)) == 10_000
    monkeypatch.setattr(tables, "LARGEST", 10_000)
    with pytest.raises(BadInput, match="claims 10000 rows"):
        tables.items(path)
    ra, dec = np.random.default_rng(0).random((2, 10_000))  # as real catalogues do, these take some bytes each
    Table({"ra": ra, "dec": dec}).write(path, overwrite=True)
    assert len(tables.items(path)) == 10_000


def test_the_yaml_of_a_table_runs_nothing(tmp_path):
    path = tmp_path / "a.ecsv"
    Table({"ra": [1.0], "dec": [2.0]}).write(path, format="ascii.ecsv")
    evil = f"!!python/object/apply:os.system ['touch {tmp_path}/ran']"
    path.write_text(path.read_text().replace("datatype: float64", f"datatype: float64, description: {evil}", 1))
    with pytest.raises(BadInput, match="not a readable table"):
        tables.items(path)
    assert not (tmp_path / "ran").exists()


def test_json_may_not_be_nested_without_end(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"file": {DEEP}\n')
    with pytest.raises(BadInput, match="no results"):
        tables.coded(path)
    with pytest.raises(SystemExit, match="damaged"):
        dodo.Lines().decode(DEEP)


@pytest.mark.parametrize("length", [0, 1, 10**8, 2**63, 2**64 - 1])
def test_the_header_of_weights_is_no_longer_than_the_file(tmp_path, length):
    path = tmp_path / "a.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    with pytest.raises(BadInput, match="not a model"):
        checkpoint.load(path)


def test_the_header_of_weights_may_not_be_nested_without_end(tmp_path):
    path = tmp_path / "a.safetensors"
    for text in (DEEP, json.dumps({"__metadata__": {"rgz": DEEP}})):
        path.write_bytes(len(text).to_bytes(8, "little") + text.encode())
        with pytest.raises(BadInput, match="not a model"):
            checkpoint.load(path)

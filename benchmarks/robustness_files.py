"""Small valid files of every kind that rgz reads, and what reads them."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np
from astropy.io import fits
from astropy.table import Table
from PIL import Image
from safetensors.numpy import save_file

import dodo
from rgz.app import survey, tables
from rgz.data import archives, cutout, detect, sample, sources
from rgz.errors import BadInput
from rgz.features import codes
from rgz.models import checkpoint, flow, vdvae
from rgz.tasks import classify
from rgz.transforms.prepare import Recipe
from studies import simulate


class Kind(NamedTuple):
    """Ending and content of a file, what reads it, how its content is packed, and which edit suits it."""

    ending: str
    inner: bytes
    read: Callable[[Path], Any]
    pack: Callable[[bytes], bytes] = bytes
    edit: str | None = None


def kinds(folder: Path) -> dict[str, Kind]:
    """All kinds of files by name; ``folder`` is for temporary ones."""
    plane, picture = _fits([fits.PrimaryHDU(_pixels(), _header())]), _pixels()
    grey = Image.fromarray((255 * np.clip(picture / picture.max(), 0, 1)).astype(np.uint8))
    return {
        "FITS": Kind(".fits", plane, _look, edit="cards"),
        "FITS with check sums": Kind(
            ".fits", _fits([fits.PrimaryHDU(_pixels(), _header())], True), _look, edit="cards"
        ),
        "FITS in gzip": Kind(".fits.gz", plane, _look, gzip.compress, "cards"),
        "FITS in zip": Kind(".zip", plane, _look, _zipped, "cards"),
        "FITS in tiles": Kind(
            ".fits.fz", _fits([fits.PrimaryHDU(), fits.CompImageHDU(_pixels(), _header())]), _look, edit="cards"
        ),
        "FITS cube": Kind(
            ".fits", _fits([fits.PrimaryHDU(_pixels()[None, None].repeat(3, 1), _header())]), _look, edit="cards"
        ),
        "PNG": Kind(".png", _picture(grey, "PNG"), _look, _png),
        "JPEG": Kind(".jpg", _picture(grey, "JPEG"), _look),
        "mosaic": Kind(".fits", plane, _mosaic, edit="cards"),
        "mosaic in gzip": Kind(".fits.gz", plane, _mosaic, gzip.compress, "cards"),
        "tar of cut-outs": Kind(".tar", plane, _member, _member_of_tar, "cards"),
        "batches": Kind(".tar.gz", pickle.dumps(_batch(), protocol=3), archives.read_batches, _tarred),
        **_hdf5(),
        **_safetensors(folder),
        **_tables(folder),
        "steps": Kind(
            ".json",
            Path("results/steps.json").read_bytes(),
            lambda p: dodo.Lines().decode(p.read_text("utf-8", "replace")),
            edit="values",
        ),
    }


def _look(path: Path) -> None:
    for choice in ({}, {"at": (150.0, 2.0)}, {"plane": 1}):
        try:
            found = cutout.open_cutout(path, **choice)
        except BadInput as error:
            refused = error
        else:
            if not (np.isfinite(found.pixels).all() and found.pixels.any()):
                raise AssertionError("a cut-out of nothing")
            return
    raise refused


def _survey(images: Path, files: list[str] | None) -> None:
    """What a survey does with a source and the folder or file that has its image."""
    way, columns = sources.locate(images, files, np.array([150.0]), np.array([2.0]))
    source = {"id": "a", "ra": 150.0, "dec": 2.0} | {name: values[0] for name, values in columns.items()}
    if not sources.opened(source, way, hosts=False).pixels.any():
        raise AssertionError("a cut-out of nothing")


def _mosaic(path: Path) -> None:
    _survey(path, None)


def _member(path: Path) -> None:
    _survey(path, ["b/data_batch_1"])


def _member_of_tar(data: bytes) -> bytes:
    return gzip.decompress(_tarred(data))


def _pixels() -> np.ndarray:
    return simulate.source("FRII", np.random.default_rng(4), snr=80).astype(np.float32)


def _header() -> fits.Header:
    header = detect.north_up((150, 150), 1.8, 150.0, 2.0).to_header()
    header.update(BMAJ=0.0015, BMIN=0.0015, BUNIT="JY/BEAM", EQUINOX=2000.0, RADESYS="FK5")
    for _ in range(9):
        header.add_comment("to be replaced")
    return header


def _fits(units: list[Any], checksum: bool = False) -> bytes:
    stream = io.BytesIO()
    fits.HDUList(units).writeto(stream, checksum=checksum)
    return stream.getvalue()


def _zipped(data: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.fits", data)
    return stream.getvalue()


def _tarred(data: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name in ("b/data_batch_1", "b/test_batch"):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return stream.getvalue()


def _batch() -> dict[str, Any]:
    images = [np.full((150, 150), 7, np.uint8)] * 3
    return {"batch_label": "x", "labels": [np.int64(0)] * 3, "filenames": ["a", "b", "c"], "data": images}


def _picture(image: Image.Image, form: str) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form)
    return stream.getvalue()


def _png(data: bytes) -> bytes:
    """The same chunks with their check sums made right."""
    made, place = bytearray(data[:8]), 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        body = data[place + 4 : place + 8 + length]
        made += data[place : place + 4] + body + struct.pack(">I", zlib.crc32(body))
        place += 12 + length
    return bytes(made)


def _hdf5() -> dict[str, Kind]:
    """HDF5 files written from JSON: attributes, and data sets as lists or as a shape and a type."""
    columns = {"name": ["a", "b", "c"], "ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0], "label": ["FRI", "FRII", ""]}
    columns |= {"confident": [True, True, False], "split": ["train"] * 3}
    code = {"code": {"shape": [3, 8], "dtype": "f4"}, "observed": {"shape": [3, 2, 8], "dtype": "f4"}}
    space = {"centre": [0.0] * 8, "matrix": [[1.0, 0.5]] * 8, "@cosine": True, "@parts": 2}
    known = {"@latents": [3, 1], "mirabest": columns | code, "space": space}
    images = {"@pixel_arcsec": 1.8, "images": {"shape": [3, 16, 16], "dtype": "u1"}, "table": columns}

    def codes_of(path: Path) -> None:
        (
            codes.chosen(path),
            codes.read_space(path),
            codes.read_codes(path, "mirabest"),
            codes.read_observed(path, "mirabest"),
        )

    return {
        "codes": Kind(".h5", json.dumps(known).encode(), codes_of, _as_hdf5, "values"),
        "sample": Kind(".h5", json.dumps(images).encode(), sample.read, _as_hdf5, "values"),
    }


def _as_hdf5(text: bytes) -> bytes:
    def fill(group: h5py.Group, content: dict[str, Any]) -> None:
        for name, value in content.items():
            with suppress(Exception):  # what HDF5 cannot hold is left out
                if name.startswith("@"):
                    group.attrs[name[1:]] = value
                elif isinstance(value, dict) and "shape" in value:
                    group.create_dataset(name, [int(n) for n in value["shape"]], value["dtype"], compression="gzip")
                elif isinstance(value, dict):
                    fill(group.create_group(name), value)
                else:
                    group[name] = value

    stream = io.BytesIO()
    with warnings.catch_warnings(action="ignore"), h5py.File(stream, "w") as file:
        try:
            fill(file, json.loads(text))
        except (ValueError, AttributeError):  # bytes were changed, not values
            return text
    return stream.getvalue()


def _safetensors(folder: Path) -> dict[str, Kind]:
    path, rng = folder / "valid.safetensors", np.random.default_rng(0)
    made = {}

    def add(name: str, read: Callable[[Path], Any]) -> None:
        data = path.read_bytes()
        size = 8 + int.from_bytes(data[:8], "little")
        made[name] = Kind(
            ".safetensors",
            data[8:size],
            read,
            lambda text: len(text).to_bytes(8, "little") + text + data[size:],
            "values",
        )

    checkpoint.save(path, vdvae.VDVAE(vdvae.PRESETS["tiny"]), Recipe(32), {"steps": 1})
    add("network", checkpoint.load)
    config = flow.Config(kept=3, layers=2, hidden=8)
    ensemble = flow.FlowEnsemble(config, np.zeros(4), np.eye(4, 3), (flow.Flow(config),) * 2, np.arange(3.0))
    flow.save(path, ensemble, {"sources": 3})
    add("density", flow.load)
    parts = (rng.normal(size=shape).astype(np.float32) for shape in ((4,), (4,), (5, 4), (5, 3), (3,)))
    save_file(classify.Classifier(classify.CLASSES[:3], 0, 0.1, *parts).tensors("host"), path)
    add("classifier", lambda file: classify.Classifier.from_pretrained("host", file))
    return made


def _tables(folder: Path) -> dict[str, Kind]:
    """Tables of sources, results with codes, and scores."""
    sources = Table({"file": ["a.fits", "b.fits"], "ra": [150.1, 10.5], "dec": [2.2, -3.0]}, units={"ra": "deg"})
    rows = [
        {"file": f"{n}.fits", "status": "answered", "area_over_point": 3.5, "peak_over_noise": 20.0,
         "log_likelihood_nats": -3.0, "code": [0.1, 0.2, n / 3]} for n in range(3)
    ]  # fmt: skip
    files = np.array(["0.fits", "1.fits", "2.fits"])
    made = {}
    forms = {"ascii.csv": ".csv", "ascii.ecsv": ".ecsv", "votable": ".vot", "fits": ".fits", "parquet": ".parquet"}
    for form, ending in forms.items():
        sources.write(folder / f"valid{ending}", format=form, overwrite=True)
        edit = "cards" if form == "fits" else "numbers"
        data = (folder / f"valid{ending}").read_bytes()
        made[f"table {ending}"] = Kind(ending, data, tables.items, edit=edit)
        made[f"catalogue {ending}"] = Kind(ending, data, survey._catalogue, edit=edit)
    flat = Table([tables._flat(row) for row in rows])
    flat.write(folder / "flat.csv", format="ascii.csv", overwrite=True)
    lines = "\n".join(map(json.dumps, rows)).encode()
    return made | {
        "results .jsonl": Kind(".jsonl", lines, tables.coded, edit="numbers"),
        "results .csv": Kind(".csv", (folder / "flat.csv").read_bytes(), tables.coded, edit="numbers"),
        "scores": Kind(
            ".csv", b"file,score\n0.fits,1\n2.fits,5\n", lambda path: tables.scores(path, files), edit="numbers"
        ),
    }

"""The explorer: a web page with a map of all galaxies and the nearest neighbours of each; it needs no server.

The page consists of the hand-written files in ``book/explorer``, the data, and one image with all pictures. Vectors are
stored as signed bytes, a quarter of their size, and the browser compares them by angle as :mod:`rgz.tasks.search` does.
Its results agree with those of the full vectors in nearly all cases.
"""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from PIL import Image

from rgz import artifacts, plots
from rgz.data import datasets
from rgz.errors import BadInput, as_bad_input
from rgz.features import embed
from rgz.tasks.search import LINK, SearchIndex

LARGEST = 3_000_000  # bytes, for all files of the page
COLUMNS = 68  # pictures in one row of the sheet
QUALITY = 70  # of the WebP compression
TITLES = {
    "mirabest": "MiraBest",
    "frdeep-nvss": "FR-DEEP NVSS",
    "frdeep-first": "FR-DEEP FIRST",
    "rgd": "Radio Galaxy Dataset",
}


def quantised(vectors: NDArray[Any]) -> NDArray[np.int8]:
    """Vectors (N, D) as signed bytes, all on the same scale."""
    return np.asarray(np.rint(vectors * (127 / np.abs(vectors).max())), dtype=np.int8)


def payload(index: SearchIndex, pictures: str, positions: Table) -> dict[str, Any]:
    """The data of the page, ready for JSON, with what the ``pictures`` show for the caption.

    The map ``positions`` has ``name``, ``x`` and ``y``, integers from 0 to 9999. Raises :class:`BadInput` if it and the
    index contain different galaxies.
    """
    table, codes = index.table, quantised(index.vectors)
    samples, labels = list(dict.fromkeys(table["sample"])), [*plots.COLOURS]
    labels += [""] * ("" in set(table["label"]))
    if list(positions["name"]) != list(table["name"]):
        raise BadInput("the map and the codes contain different galaxies: make the map again with rgz study map")

    def degrees(column: str) -> list[float | None]:
        return [round(float(v), 5) if np.isfinite(v) else None for v in table[column]]

    return {
        "samples": samples,
        "titles": [TITLES.get(name, name) for name in samples],
        "labels": labels,
        "colours": [plots.COLOURS.get(label, "#555555") for label in labels],
        "pictures": pictures,
        "columns": COLUMNS,
        "links": LINK,
        "name": [str(name) for name in table["name"]],
        "sample": [samples.index(name) for name in table["sample"]],
        "label": [labels.index(label) for label in table["label"]],
        "ra": degrees("ra"),
        "dec": degrees("dec"),
        "x": [int(v) for v in positions["x"]],
        "y": [int(v) for v in positions["y"]],
        "dimensions": codes.shape[1],
        "codes": base64.b64encode(codes.tobytes()).decode("ascii"),
    }


def sheet(pictures: NDArray[Any]) -> bytes:
    """Grey-level pictures (N, H, W) as one WebP image, 68 in each row, upright, in the colours of the galleries."""
    count, size, _ = pictures.shape
    rows = -(-count // COLUMNS)
    padded = np.zeros((rows * COLUMNS, size, size))
    padded[:count] = pictures[:, ::-1] / np.maximum(pictures.max(axis=(1, 2), keepdims=True), 1)
    grid = padded.reshape(rows, COLUMNS, size, size).transpose(0, 2, 1, 3).reshape(rows * size, COLUMNS * size)
    stream = io.BytesIO()
    Image.fromarray(plots.colours(grid)).save(stream, "WEBP", quality=QUALITY, method=6)
    return stream.getvalue()


def write(folder: Path, page: Path, data: dict[str, Any], pictures: NDArray[Any]) -> int:
    """Write the page with its :func:`payload` and pictures (N, H, W) into a folder, and return its size in bytes.

    Raises :class:`BadInput` if the files together are larger than 3 MB.
    """
    inside = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    content = {name: (page / name).read_bytes() for name in ("explorer.css", "explorer.js")}
    content["index.html"] = (page / "index.html").read_text(encoding="utf-8").replace("/*data*/", inside).encode()
    content["sprites.webp"] = sheet(pictures)
    size = sum(map(len, content.values()))
    if size > LARGEST:
        raise BadInput(f"the page has {size / 1e6:.2f} MB; at most {LARGEST / 1e6:g} MB load fast enough on a phone")
    save(folder, content)
    return size


def save(folder: Path, content: dict[str, bytes]) -> None:
    """Write files, by name, into a folder, each of them atomically."""
    for name, value in content.items():
        with artifacts.atomic(folder / name) as partial:
            partial.write_bytes(value)


def build(folder: Path) -> int:
    """Write the page for the codes in the repository into a folder, and return its size in bytes.

    Raises :class:`BadInput` outside a clone: the page and the map are not part of the installed package.
    """
    return write(folder, pages() / "explorer", *gathered())


def pages() -> Path:
    """Folder of the hand-written files of the pages; raises :class:`rgz.errors.BadInput` outside of a clone."""
    root = artifacts.clone()
    if root is None:
        raise BadInput(
            "the pages need a clone of the repository, where their files and the map are: run pip install -e . there"
        )
    return root / "book"


def gathered() -> tuple[dict[str, Any], NDArray[Any]]:
    """The :func:`payload` of the codes in the repository, and the pictures (N, H, W) of their galaxies."""
    index = SearchIndex.from_pretrained()
    counts = {name: int((index.table["sample"] == name).sum()) for name in datasets.SAMPLES}
    parts = [embed.pictures(name, np.arange(count)) for name, count in counts.items()]
    shown = " and ".join(dict.fromkeys(what for _, what in parts))
    with as_bad_input("results/map.csv is not a map", "make it again with rgz study map"):
        positions = Table.read(pages().parent / "results" / "map.csv", format="ascii.csv", comment="#")
        return payload(index, shown, positions), np.concatenate([pictures for pictures, _ in parts])

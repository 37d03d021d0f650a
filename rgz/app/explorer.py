"""A page on which to wander: every galaxy on a map, its nearest neighbours a click away, without a server or a kernel.

The page is three files: the hand-written page and script of ``book/explorer``, with the data inside, and one sheet of pictures.
Codes go in as bytes, a quarter of their size; the browser compares them as :mod:`rgz.tasks.search` does, by their angle. So what
the page answers is what :func:`nearest` answers from the same bytes, and nearly always what the full codes answer.
"""

import base64
import io
import json
from pathlib import Path

import numpy as np
from astropy.table import Table
from PIL import Image

from rgz import artifacts, plots
from rgz.data import datasets
from rgz.errors import BadInput
from rgz.features import embed
from rgz.tasks import search

__all__ = ["LARGEST", "build", "lay_out", "nearest", "payload", "quantised", "sheet", "write"]

LARGEST = 3_000_000  # bytes, for all files of the page
COLUMNS = 68
TITLES = {
    "mirabest": "MiraBest",
    "frdeep-nvss": "FR-DEEP NVSS",
    "frdeep-first": "FR-DEEP FIRST",
    "rgd": "Radio Galaxy Dataset",
}
QUALITY = 70  # of the pictures, WebP


def quantised(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) as signed bytes, one scale for all."""
    return np.rint(vectors * (127 / np.abs(vectors).max())).astype(np.int8)


def nearest(codes: np.ndarray, row: int, k: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """What the page answers: the ``k`` rows nearest to a row of bytes (N, D), and 1 − cos of the angles."""
    whole = codes.astype(float)
    norms = np.sqrt((whole**2).sum(axis=1))
    far = 1 - whole @ whole[row] / (norms[row] * norms)
    order = np.argsort(far, kind="stable")
    order = order[order != row][:k]
    return order, far[order]


def lay_out(index: search.SearchIndex, path: Path):
    """Write a map of an index as CSV: ``name`` and places ``x`` and ``y``, 0 … 9999, where neighbours stay neighbours (t-SNE)."""
    from sklearn.manifold import TSNE

    flat = TSNE(init="pca", perplexity=40, random_state=0, n_jobs=-1).fit_transform(index.vectors)
    flat = np.rint(9999 * (flat - flat.min(axis=0)) / np.ptp(flat, axis=0).max()).astype(int)
    with artifacts.atomic(path) as partial:
        Table({"name": index.table["name"], "x": flat[:, 0], "y": flat[:, 1]}).write(partial, format="ascii.csv")


def payload(index: search.SearchIndex, pictures: str, places: Table) -> dict:
    """All that the page knows, ready for JSON; ``pictures`` says what the pictures are, ``places`` as of :func:`lay_out`.

    Raises
    ------
    BadInput
        The map is of other galaxies.
    """
    table, codes = index.table, quantised(index.vectors)
    samples, labels = list(dict.fromkeys(table["sample"])), [*plots.COLOURS]
    labels += [""] * ("" in set(table["label"]))
    if list(places["name"]) != list(table["name"]):
        raise BadInput("the map is of other galaxies than the codes: make it again with rgz map")

    def known(column):
        return [round(float(v), 5) if np.isfinite(v) else None for v in table[column]]

    return {
        "samples": samples,
        "titles": [TITLES.get(name, name) for name in samples],
        "labels": labels,
        "colours": [plots.COLOURS.get(label, "#555555") for label in labels],
        "pictures": pictures,
        "columns": COLUMNS,
        "links": search.LINK,
        "name": [str(name) for name in table["name"]],
        "sample": [samples.index(name) for name in table["sample"]],
        "label": [labels.index(label) for label in table["label"]],
        "ra": known("ra"),
        "dec": known("dec"),
        "x": [int(v) for v in places["x"]],
        "y": [int(v) for v in places["y"]],
        "dimensions": codes.shape[1],
        "codes": base64.b64encode(codes.tobytes()).decode("ascii"),
    }


def sheet(pictures: np.ndarray) -> bytes:
    """Pictures (N, H, W), grey levels, in lines of 68, as one WebP: colours and the way up are those of the book's galleries."""
    count, size, _ = pictures.shape
    lines = -(-count // COLUMNS)
    padded = np.zeros((lines * COLUMNS, size, size))
    padded[:count] = pictures[:, ::-1] / np.maximum(pictures.max(axis=(1, 2), keepdims=True), 1)
    grid = padded.reshape(lines, COLUMNS, size, size).transpose(0, 2, 1, 3).reshape(lines * size, COLUMNS * size)
    stream = io.BytesIO()
    Image.fromarray(plots.colours(grid)).save(stream, "WEBP", quality=QUALITY, method=6)
    return stream.getvalue()


def write(folder: Path, page: Path, data: dict, pictures: np.ndarray) -> int:
    """Write the page with its :func:`payload` and pictures (N, H, W) into a folder, and return its size in bytes.

    Raises
    ------
    BadInput
        The hand-written page is not there, or all together is over 3 MB.
    """
    template = page / "index.html"
    if not template.is_file():
        raise BadInput(f"{template} is missing: run from a clone of the repository, or name the folder with --page")
    inside = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    content = {name: (page / name).read_bytes() for name in ("explorer.css", "explorer.js")}
    content["index.html"] = template.read_text(encoding="utf-8").replace("/*data*/", inside).encode()
    content["sprites.webp"] = sheet(pictures)
    size = sum(map(len, content.values()))
    if size > LARGEST:
        raise BadInput(f"the page has {size / 1e6:.2f} MB, more than the {LARGEST / 1e6:g} MB that a phone should load")
    for name, whole in content.items():
        with artifacts.atomic(folder / name) as partial:
            partial.write_bytes(whole)
    return size


def build(folder: Path, page: Path) -> int:
    """Write the page into a folder from the committed codes, and return its size in bytes.

    Parameters
    ----------
    page
        Folder of the hand-written ``index.html``, ``explorer.css`` and ``explorer.js``.
    """
    index = search.index()
    parts = [embed.pictures(name, np.arange((index.table["sample"] == name).sum())) for name in datasets.SAMPLES]
    what = " and ".join(dict.fromkeys(what for _, what in parts))
    places = Table.read(artifacts.artifact("map.csv"), format="ascii.csv")
    return write(folder, page, payload(index, what, places), np.concatenate([images for images, _ in parts]))

"""The explorer: a web page with a map of galaxies and the most similar ones of each; it needs no server.

The page consists of the hand-written files in ``rgz/app/web``, the data, and one image with all pictures. Vectors are
stored as signed bytes, a quarter of their size, and the browser compares them by their cosine as
:mod:`rgz.tasks.search` does. Its results agree with those of the full vectors in nearly all cases.
"""

import base64
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from PIL import Image

from rgz import artifacts, plots
from rgz.app import tables
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.progress import progress
from rgz.tasks import surveys
from rgz.tasks.inspect import ANOMALOUS
from rgz.tasks.search import LINK, SAME

__all__ = ["build", "flat", "islands", "payload", "quantised", "sampled", "save", "sheet", "write"]

WEB = Path(__file__).with_name("web")
PIXELS = 2e7  # of the sheet with all pictures, which a phone can hold
QUALITY = 70  # of its WebP compression
SHAPES = "circle", "square", "diamond", "cross", "triangle", "wedge"
ISLAND = 75  # largest number of dense parts of a map
MAJORITY, LIFT = 0.6, 3  # share of a sample that a label mentions, also over its share of all galaxies
TITLES = {
    "mirabest": "MiraBest",
    "frdeep-nvss": "FR-DEEP NVSS",
    "frdeep-first": "FR-DEEP FIRST",
    "rgd": "Radio Galaxy Dataset",
}
SURVEYS = {"mirabest": "FIRST", "rgd": "FIRST"}  # where the title does not name it
NUMBERS = {  # columns to colour by: title, unit, and whether the scale is logarithmic
    "size": ("size", "″", True),
    "area": ("area over a point source", "", True),
    "snr": ("S/N", "", True),
    "percentile": ("anomaly percentile (below 5: anomalous)", "", False),
}
OWN = {"name": "file", "label": "class", "area": "area_over_point", "snr": "peak_over_noise"}
OWN |= {"percentile": "anomaly_percentile"}
"""Columns of the page, and of the results of ``rgz look``."""
TITLE = b"<title>A map of radio galaxies"  # by which the page knows itself
FEWEST, MOST = 10, 50_000  # galaxies on a map
TOGETHER = 1000  # of them decoded at once
SEED = 0


def build(folder: Path, results: Path) -> tuple[int, int, int]:
    """Write the page for a file of results of ``rgz look`` with codes, or for a dataset of ``rgz survey``.

    Returns the size in bytes, the number of galaxies on the map, and the number of those in the results. Raises
    :class:`BadInput` if there are fewer than ten galaxies, or the codes are those of another network.
    """
    from rgz.features.embed import Encoder

    if (page := folder / "index.html").exists() and TITLE not in page.read_bytes():
        raise BadInput(f"{page} is another page: choose another folder with --out")
    found, codes, count = _survey(results) if results.is_dir() else _looked(results)
    if len(found) < FEWEST:
        raise BadInput(f"a map needs at least {FEWEST} galaxies; the results have {len(found)}")
    encoder, space = Encoder.from_pretrained(), codefile.read_space()
    parts = np.array_split(codes.astype(np.float32), -(-len(codes) // TOGETHER))
    bar = progress(parts, "decoding the pictures", unit="part")
    pictures = np.concatenate([encoder.decode(part).astype(np.uint8) for part in bar])  # of this network's codes alone
    sample = "your images"
    if results.is_dir():  # a catalogue of radio sources does not know the host galaxies
        space, sample = space.about_centroid, results.name
    vectors = space.transform(codes[:, -len(space.centre) :])
    found.rename_columns(list(OWN.values()), list(OWN))
    found["sample"] = sample
    print(f"placing {len(found):,} galaxies on a map", file=sys.stderr)
    found["x"], found["y"] = flat(vectors).T
    data = payload(found, vectors, "decoded from codes") | ({"all": count} if count > len(found) else {})
    return write(folder, data, pictures), len(found), count


def _looked(path: Path) -> tuple[Table, NDArray[Any], int]:
    """The galaxies of a file of results that are to be on the map, their codes, and the number of all."""
    found, codes = tables.coded(path)
    rows = sampled(np.asarray(found["anomaly_percentile"]), np.asarray(found["class"]))
    return found[rows], codes[rows], len(found)


def _survey(folder: Path) -> tuple[Table, NDArray[Any], int]:
    """The same for a dataset of ``rgz survey``, of which the codes of the chosen sources alone are read."""
    numbers = "ra", "dec", "area_over_point", "peak_over_noise", "anomaly_percentile"
    with surveys.opened(folder) as source:
        brief = source.to_table(["status", "class", "anomaly_percentile"]).to_pandas()
        seen = np.flatnonzero(brief["status"] != "refused")
        label = brief["class"].fillna("").to_numpy(str)
        rows = seen[sampled(brief["anomaly_percentile"].to_numpy(float)[seen], label[seen])]
        chosen = source.take(rows, columns=["id", *numbers, "code"])
        codes = np.stack(chosen["code"].to_numpy()) if len(rows) else np.empty((0, 0))
        found = Table({name: chosen[name].to_numpy() for name in numbers})
        found["file"], found["class"] = chosen["id"].to_pylist(), label[rows]
    return found, codes, len(seen)


def sampled(percentile: NDArray[np.float64], label: NDArray[np.str_]) -> NDArray[np.intp]:
    """Rows of at most ``MOST`` galaxies, in order, by their anomaly percentiles (N,) and classes (N,), empty if none.

    The least likely of the anomalous galaxies come first, up to half of the map, then those with a class, then others,
    each at random with a fixed seed.
    """
    turn = np.random.default_rng(SEED).random(len(label)) - (label != "")
    least = np.argsort(percentile, kind="stable")[: MOST // 2]
    turn[least[percentile[least] < ANOMALOUS]] -= 2
    return np.sort(np.argsort(turn, kind="stable")[:MOST])


def flat(vectors: NDArray[Any]) -> NDArray[np.intp]:
    """Positions of vectors (N, D) on a map by t-SNE, (N, 2), integers from 0 to 9999; half a minute for 4,600."""
    from sklearn.manifold import TSNE

    near = min(40, (len(vectors) - 1) / 3)
    place = TSNE(init="pca", perplexity=near, random_state=0, n_jobs=-1).fit_transform(vectors)
    return np.asarray(np.rint(9999 * (place - place.min(axis=0)) / max(np.ptp(place, axis=0).max(), 1e-9)), dtype=int)


def islands(galaxies: Table) -> list[tuple[int, str]]:
    """Dense parts of the map (HDBSCAN): the row in the middle, and a label, the most frequent class and its share."""
    from sklearn.cluster import HDBSCAN

    if len(galaxies) < 2 * ISLAND:
        return []
    places = np.column_stack([galaxies["x"], galaxies["y"]]).astype(float)
    least = len(galaxies) // ISLAND
    group = HDBSCAN(least, min_samples=10, cluster_selection_method="leaf", copy=True).fit_predict(places)
    found = []
    for number in range(group.max() + 1):
        own = galaxies[group == number]
        text, share = _most(own["label"])
        sample, part = _most(own["sample"])
        text = f"{text or 'no class'} {100 * share:.0f} %"
        if part > MAJORITY and part > LIFT * (galaxies["sample"] == sample).mean():
            text += f", {TITLES.get(sample, sample)}"
        away = np.hypot(*(places - np.median(places[group == number], axis=0)).T)
        found.append((int(away.argmin()), text))
    return found


def _most(values: Any) -> tuple[str, float]:
    """The most frequent of some texts, and its share."""
    names, counts = np.unique(np.asarray(values, dtype=str), return_counts=True)
    return str(names[counts.argmax()]), float(counts.max() / counts.sum())


def quantised(vectors: NDArray[Any]) -> NDArray[np.int8]:
    """Vectors (N, D) as signed bytes, all on the same scale."""
    return np.asarray(np.rint(vectors * (127 / np.abs(vectors).max())), dtype=np.int8)


def payload(galaxies: Table, vectors: NDArray[Any], pictures: str) -> dict[str, Any]:
    """The data of the page, ready for JSON, with what the ``pictures`` show for the caption.

    ``galaxies`` has ``name``, ``sample``, ``label``, ``ra`` and ``dec`` (deg, NaN where unknown), ``x`` and ``y`` as of
    :func:`flat`, and any of ``NUMBERS``, NaN where unknown; ``vectors`` (N, D) are those of a search index.
    """
    codes = quantised(vectors)
    samples = list(dict.fromkeys(map(str, galaxies["sample"])))
    known = set(map(str, galaxies["label"]))
    labels = [*(one for one in plots.COLOURS if one in known), *sorted(known - {*plots.COLOURS, ""})]
    labels += [""] * ("" in known)
    titles = [TITLES.get(name, name) + (f" ({SURVEYS[name]})" if name in SURVEYS else "") for name in samples]
    numbers = [name for name in NUMBERS if name in galaxies.colnames]
    return {
        "samples": samples,
        "titles": titles,
        "labels": labels,
        "colours": {
            "label": [plots.COLOURS.get(label, "#777777") for label in labels],
            "sample": [plots.PALETTE[number % len(plots.PALETTE)] for number in range(len(samples))],
        },
        "shapes": [SHAPES[number % len(SHAPES)] for number in range(max(len(labels), len(samples)))],
        "numbers": [
            dict(zip(("key", "title", "unit", "log"), (name, *NUMBERS[name]), strict=True))
            | {"values": _rounded(galaxies[name], 1)}
            for name in numbers
        ],
        "islands": islands(galaxies),
        "pictures": pictures,
        "columns": _columns(len(galaxies)),
        "links": LINK,
        "same": SAME,
        "name": [str(name) for name in galaxies["name"]],
        "sample": [samples.index(name) for name in galaxies["sample"]],
        "label": [labels.index(label) for label in galaxies["label"]],
        "ra": _rounded(galaxies["ra"], 5),
        "dec": _rounded(galaxies["dec"], 5),
        "x": [int(v) for v in galaxies["x"]],
        "y": [int(v) for v in galaxies["y"]],
        "dimensions": codes.shape[1],
        "codes": base64.b64encode(codes.tobytes()).decode("ascii"),
    }


def _rounded(column: Any, digits: int) -> list[float | None]:
    """Numbers for JSON, which has no NaN."""
    return [round(float(v), digits) if np.isfinite(v) else None for v in column]


def _columns(count: int) -> int:
    """Pictures in one row of the sheet."""
    return int(np.ceil(np.sqrt(count)))


def sheet(pictures: NDArray[Any], cell: int) -> Image.Image:
    """Grey-level pictures (N, H, W) in the cells of a square image, upright, in the colours of the galleries."""
    count, size, _ = pictures.shape
    columns = _columns(count)
    made = Image.new("RGB", (columns * cell, -(-count // columns) * cell), tuple(plots.colours(np.zeros((1, 1)))[0, 0]))
    for number, picture in enumerate(pictures):
        image = Image.fromarray(plots.colours(picture[::-1] / max(picture.max(), 1)))
        row, column = divmod(number, columns)
        made.paste(image if cell == size else image.resize((cell, cell)), (column * cell, row * cell))
    return made


def write(folder: Path, data: dict[str, Any], pictures: NDArray[Any]) -> int:
    """Write the page with its :func:`payload` and pictures (N, H, W) into a folder, and return its size in bytes."""
    if len(pictures) != len(data["name"]):
        raise BadInput(f"the page needs a picture of each of its {len(data['name'])} galaxies, not {len(pictures)}")
    inside = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace("</", "<\\/")
    content = {path.name: path.read_bytes() for path in sorted(WEB.iterdir())}
    content["index.html"] = content["index.html"].replace(b"/*data*/", inside.encode())
    cell = min(pictures.shape[1], int(np.sqrt(PIXELS / len(pictures))))
    sheet(pictures, cell).save(stream := io.BytesIO(), "WEBP", quality=QUALITY, method=6)
    content["sprites.webp"] = stream.getvalue()
    save(folder, content)
    return sum(map(len, content.values()))


def save(folder: Path, content: dict[str, bytes]) -> None:
    """Write files, by name, into a folder, each of them atomically."""
    for name, value in content.items():
        with artifacts.atomic(folder / name) as partial:
            partial.write_bytes(value)

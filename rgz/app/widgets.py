"""Interactive search and scoring for a live notebook. They do not work in the built book, which has no kernel."""

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from html import escape
from typing import Any

import ipywidgets as controls
import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from PIL import Image

from rgz import plots
from rgz.data import cutout, datasets
from rgz.errors import BadInput
from rgz.features.embed import Encoder
from rgz.features.metric import Metric, plain, whitened
from rgz.tasks import inspect, rank, search

__all__ = ["browse", "score"]

ALL = "all samples"
SCORES, AT_ONCE, SHOWN = range(1, 6), 10, 12  # scores to give, galaxies proposed together, and shown
METRICS: dict[str, Callable[[NDArray[Any], Metric], Metric]] = {
    "invariant, by angle": lambda _, invariant: replace(invariant, cosine=True),
    "invariant, by distance": lambda _, invariant: replace(invariant, cosine=False),
    "whitened, by angle": lambda codes, _: whitened(codes, cosine=True),
    "unscaled, by distance": lambda codes, _: plain(codes, cosine=False),
}


def browse(name: str | None = None) -> controls.VBox:
    """Controls to find the galaxies most similar to a galaxy of the samples, or to an uploaded image."""
    return _Browser(name).box


class _Browser:
    """The controls, and what they show."""

    def __init__(self, name: str | None):
        self.encoder = Encoder.from_pretrained()
        self.table, self.codes, self.invariant = search.for_search()
        self.row = {str(one): row for row, one in enumerate(self.table["name"])}
        self.index = cache(self._index)
        self.uploaded: inspect.Inspection | None = None
        wide = {"description_width": "7em"}
        self.name = controls.Combobox(
            value=name or next(iter(self.row)),
            options=list(self.row),
            description="galaxy",
            placeholder="part of a name",
            continuous_update=False,
            style=wide,
        )
        self.upload = controls.FileUpload(
            accept=".fits,.fit,.fz,.gz,.bz2,.zip,.png,.jpg,.jpeg", description="or your own image"
        )
        self.count = controls.IntSlider(6, 1, 30, description="how many", continuous_update=False, style=wide)
        self.sample = controls.Dropdown(options=[ALL, *datasets.SAMPLES], description="search in", style=wide)
        self.metric = controls.Dropdown(options=list(METRICS), description="metric", style=wide)
        self.query, self.found = controls.HTML(), controls.HTML()
        rows = [self.name, self.upload], [self.sample, self.metric, self.count]
        self.box = controls.VBox([*map(controls.HBox, rows), self.query, self.found])
        self.name.observe(self._choose, "value")
        self.upload.observe(self._open, "value")
        for control in (self.count, self.sample, self.metric):
            control.observe(self._show, "value")
        self._show()

    def _index(self, metric: str, sample: str) -> search.SearchIndex:
        whole = search.build(self.codes, self.table, METRICS[metric](self.codes, self.invariant))
        return whole if sample == ALL else whole.of(sample)

    def _show(self, _: Any = None) -> None:
        """Search, and show the query and its neighbours."""
        index, k = self.index(self.metric.value, self.sample.value), self.count.value
        if self.uploaded:
            seen = self.uploaded.cutout
            found = index.query(self.encoder.transform(seen)[0], k, seen.place, seen.given)
            self.query.value = "<pre>" + escape(str(self.uploaded).split("\n\n")[0]) + "</pre>"
        elif self.name.value in self.row:
            row = self.row[self.name.value]
            vector = index.space.transform(self.codes[row : row + 1])[0]
            found = index.query_vector(vector, k, self.table[row])
            self.query.value = _picture(self.encoder.decode(self.codes[[row]])[0], self.name.value, 128)
        else:
            self.query.value = f"No galaxy is called {escape(self.name.value)}: choose one from the list."
            return
        rows = [self.row[str(one)] for one in found["name"]]
        self.found.value = _listing(found, self.encoder.decode(self.codes[rows]))

    def _open(self, change: dict[str, Any]) -> None:
        """Inspect an uploaded file."""
        self.uploaded = None
        if change["new"]:
            file = change["new"][0]
            try:
                self.uploaded = inspect.inspect(cutout.read_cutout(bytes(file["content"]), file["name"]))
            except BadInput as error:
                self.query.value, self.found.value = escape(str(error)), ""
                return
        self._show()

    def _choose(self, _: Any) -> None:
        self.uploaded = None
        self._show()


def score(pictures: NDArray[Any], codes: NDArray[Any], plain: NDArray[Any], names: Sequence[str]) -> controls.VBox:
    """Buttons to score galaxies by how interesting you find them, and the galaxies with the highest expected scores.

    ``pictures`` (N, H, W) are shown; ``codes`` (N, D) and ``plain`` (N, P), log-likelihoods last, are those of
    :mod:`rgz.tasks.rank`. The result has a dict of the ``scores`` by name as an attribute.
    """
    return _Scorer(pictures, rank.features(codes, plain), plain[:, -1], names).box


class _Scorer:
    """The galaxy to score next, buttons for its score, and what is ranked first."""

    def __init__(self, pictures: NDArray[Any], known: NDArray[Any], nats: NDArray[Any], names: Sequence[str]):
        self.pictures, self.known, self.nats, self.names = pictures, known, nats, names
        self.given, self.waiting = np.full(len(names), np.nan), list[int]()
        self.asked, self.found, self.scores = controls.HTML(), controls.HTML(), dict[str, int]()
        buttons = [controls.Button(description=str(one), layout={"width": "4em"}) for one in SCORES]
        for button in buttons:
            button.on_click(self._score)
        self.box = controls.VBox([self.asked, controls.HBox(buttons), self.found])
        self.box.scores = self.scores
        self._show()

    def _score(self, button: controls.Button) -> None:
        if self.waiting:
            row = self.waiting.pop(0)
            self.given[row] = self.scores[self.names[row]] = int(button.description)
            self._show()

    def _show(self) -> None:
        """Ask for the next galaxy, and list the most promising ones."""
        self.waiting = self.waiting or rank.propose(self.known, self.nats, self.given, AT_ONCE)
        row = self.waiting[0] if self.waiting else None
        question = "all are scored" if row is None else f"how interesting is {self.names[row]}, from 1 to 5?"
        self.asked.value = f"<p>{len(self.scores)} scored; {escape(question)}</p>"
        if row is not None:
            self.asked.value += _picture(self.pictures[row], self.names[row], 192)
        if len(set(self.scores.values())) > 1:
            expected = rank.predict(self.known, self.given)
            first = np.argsort(-expected, kind="stable")[:SHOWN]
            shown = [_picture(self.pictures[one], f"{self.names[one]}, {expected[one]:.1f}") for one in first]
            self.found.value = "<p>highest expected scores</p>" + " ".join(shown)


def _picture(pixels: NDArray[Any], alt: str, width: int = 80) -> str:
    """Grey levels (H, W) as an HTML image that contains its data."""
    stream = io.BytesIO()
    Image.fromarray(plots.colours(pixels / max(pixels.max(), 1))[::-1]).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}" height="{width}">'


def _listing(found: Table, pictures: NDArray[Any]) -> str:
    """Neighbours as an HTML table: picture, linked name, sample, class and separation."""
    lines = []
    for row, pixels in zip(found, pictures, strict=True):
        name = escape(str(row["name"]))
        label, same = str(row["label"]) or "no class", " (the same galaxy)" if row["same"] else ""
        if row["link"]:
            name = f'<a href="{escape(str(row["link"]))}" target="_blank" rel="noopener">{name}</a>'
        picture = _picture(pixels, f"{row['name']}, {label}")
        cells = (picture, name + same, escape(str(row["sample"])), label, f"{row['separation']:.3f}")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{title}</th>' for title in ("", "name", "sample", "class", "separation"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"

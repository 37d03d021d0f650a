"""Interactive search and scoring for a live notebook; :func:`still` shows them in the book, which has no kernel."""

import base64
import difflib
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from html import escape
from typing import Any

import ipywidgets as controls
import numpy as np
from astropy.table import Table
from IPython.display import HTML
from numpy.typing import NDArray
from PIL import Image

from rgz import plots
from rgz.data import cutout, datasets
from rgz.errors import BadInput, as_bad_input
from rgz.features.embed import Encoder
from rgz.features.metric import Metric, plain, whitened
from rgz.tasks import inspect, rank, search

__all__ = ["browse", "score", "still"]

ALL = "all samples"
SCORES, AT_ONCE, SHOWN = range(1, 6), 10, 12  # scores to give, galaxies proposed together, and shown
CLOSE = 6  # names that are offered for one that is unknown
METRICS: dict[str, Callable[[NDArray[Any], Metric], Metric]] = {
    "invariant, cosine": lambda _, invariant: replace(invariant, cosine=True),
    "invariant, Euclidean": lambda _, invariant: replace(invariant, cosine=False),
    "whitened, cosine": lambda codes, _: whitened(codes, cosine=True),
    "unscaled, Euclidean": lambda codes, _: plain(codes, cosine=False),
}


def browse(name: str | None = None) -> controls.VBox:
    """Controls to find the galaxies most similar to a galaxy of the samples, or to an uploaded image.

    Of an image, the position of its host galaxy may be given, and the width of its pixels if the file does not say.
    """
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
            accept=".fits,.fit,.fz,.gz,.bz2,.zip,.png,.jpg,.jpeg",
            description="or your own image",
            layout={"width": "auto"},
        )
        self.place = controls.Text(
            description="its host at", placeholder="RA Dec, if known", continuous_update=False, style=wide
        )
        self.pixel = controls.Text(
            description="pixel width", placeholder="arcsec, if not in the file", continuous_update=False, style=wide
        )
        self.count = controls.IntSlider(6, 1, 30, description="how many", continuous_update=False, style=wide)
        self.sample = controls.Dropdown(options=[ALL, *datasets.SAMPLES], description="search in", style=wide)
        self.metric = controls.Dropdown(options=list(METRICS), description="metric", style=wide)
        self.query, self.near, self.found = controls.HTML(), controls.HBox(), controls.HTML()
        rows = [self.name], [self.upload, self.place, self.pixel], [self.sample, self.metric, self.count]
        self.box = controls.VBox([*map(controls.HBox, rows), self.query, self.near, self.found])
        self.name.observe(self._choose, "value")
        for control in (self.upload, self.place, self.pixel):
            control.observe(self._open, "value")
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
            found = index.query(self.uploaded.code, k, seen.place, seen.given)
            text = escape(str(self.uploaded).split("\n\n")[0])
            query = _picture(self.encoder.prepared(seen)[0], seen.name, 128) + f"<pre>{text}</pre>"
        elif self.name.value in self.row:
            row = self.row[self.name.value]
            vector = index.space.transform(self.codes[row : row + 1])[0]
            found = index.query_vector(vector, k, self.table[row])
            query = _picture(self.encoder.decode(self.codes[[row]])[0], self.name.value, 128)
        else:
            names = self._alike()
            hint = "Did you mean one of these?" if names else "Choose one from the list."
            self._say(f"No galaxy is called {self.name.value}. {hint}", names)
            return
        rows = [self.row[str(one)] for one in found["name"]]
        self.near.children = ()
        self.query.value, self.found.value = query, _listing(found, self.encoder.decode(self.codes[rows]))

    def _say(self, text: str, names: Sequence[str] = ()) -> None:
        """A sentence in place of an answer, and buttons with names to choose from."""
        self.query.value, self.found.value = f"<p>{escape(text)}</p>", ""
        self.near.children = [controls.Button(description=name, layout={"width": "auto"}) for name in names]
        for button in self.near.children:
            button.on_click(lambda one: setattr(self.name, "value", one.description))

    def _alike(self) -> list[str]:
        """Names that contain the one that was asked for, or are spelled like it."""
        asked = self.name.value.strip().lower()
        inside = [name for name in self.row if asked and asked in name.lower()]
        return (inside or difflib.get_close_matches(asked, self.row, CLOSE, cutoff=0.5))[:CLOSE]

    def _open(self, _: Any) -> None:
        """Inspect the uploaded file."""
        self.uploaded = None
        if self.upload.value:
            file, sky, pixel = self.upload.value[0], self.place.value.split(), self.pixel.value.strip()
            half = len(sky) // 2
            try:
                at = cutout.parse_position(" ".join(sky[:half]), " ".join(sky[half:])) if sky else None
                with as_bad_input(f"{pixel} is no width of a pixel", "give it in arcsec, such as 1.8"):
                    width = float(pixel) if pixel else None
                self.uploaded = inspect.inspect(cutout.read_cutout(bytes(file["content"]), file["name"], at, width))
            except BadInput as error:
                self._say(str(error))
                return
        self._show()

    def _choose(self, _: Any) -> None:
        self.uploaded = None
        self._show()


def still(box: controls.VBox) -> HTML:
    """What controls of this module show at present, as HTML for a page without a kernel."""
    text = "".join(one.value for one in box.children if isinstance(one, controls.HTML))
    return HTML(text)  # type: ignore[no-untyped-call]


def score(
    pictures: NDArray[Any],
    codes: NDArray[Any],
    plain: NDArray[Any],
    names: Sequence[str],
    scores: Mapping[str, int] | None = None,
) -> controls.VBox:
    """Buttons to score galaxies by how interesting you find them, and the galaxies with the highest expected scores.

    ``pictures`` (N, H, W) are shown; ``codes`` (N, D) and ``plain`` (N, P), log-likelihoods last, are those of
    :mod:`rgz.tasks.rank`; ``scores`` by name may have been given before. The result has all of them as an attribute.
    """
    return _Scorer(pictures, rank.features(codes, plain), plain[:, -1], names, scores or {}).box


class _Scorer:
    """The galaxy to score next, buttons for its score, and what is ranked first."""

    def __init__(
        self,
        pictures: NDArray[Any],
        known: NDArray[Any],
        nats: NDArray[Any],
        names: Sequence[str],
        scores: Mapping[str, int],
    ):
        self.pictures, self.known, self.nats, self.names = pictures, known, nats, names
        self.scores, self.waiting = dict(scores), list[int]()
        self.given = np.array([self.scores.get(name, np.nan) for name in names])
        self.asked, self.found = controls.HTML(), controls.HTML()
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
    """Neighbours as an HTML table: picture, linked name, sample, class and dissimilarity of the codes."""
    lines = []
    for row, pixels in zip(found, pictures, strict=True):
        name = escape(str(row["name"]))
        label, same = str(row["label"]) or "no class", " (the same galaxy)" if row["same"] else ""
        if row["link"]:
            name = f'<a href="{escape(str(row["link"]))}" target="_blank" rel="noopener">{name}</a>'
        picture = _picture(pixels, f"{row['name']}, {label}")
        cells = (picture, name + same, escape(str(row["sample"])), label, f"{row['dissimilarity']:.3f}")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{title}</th>' for title in ("", "name", "sample", "class", "dissimilarity"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"

"""The search in a live notebook: choose or bring a galaxy, turn the knobs, see what is like it.

Everything is made of standard controls, which a keyboard reaches, and one HTML table with a picture, a class and a link to the sky
for each neighbour. On a page without a kernel the controls do nothing: each notebook shows a figure beside them.
"""

import base64
import io
from dataclasses import replace
from functools import cache
from html import escape

import ipywidgets as controls
import numpy as np
from astropy.table import Table
from PIL import Image

from rgz import artifacts, plots
from rgz.data import cutout, datasets
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import embed, metric
from rgz.models import checkpoint
from rgz.tasks import inspect, search

__all__ = ["COMPARISONS", "browse", "listing", "picture"]

ALL = "all samples"
COMPARISONS = {
    "tolerant, by angle": lambda codes, space: replace(space, cosine=True),
    "tolerant, by distance": lambda codes, space: replace(space, cosine=False),
    "whitened, by angle": lambda codes, space: metric.whitened(codes, cosine=True),
    "as they are, by distance": lambda codes, space: metric.plain(codes, cosine=False),
}
"""What the knob for the comparison offers, name to a function of codes and the committed space."""


def picture(pixels: np.ndarray, alt: str, width: int = 80) -> str:
    """Grey levels (H, W) as an HTML image that needs no file."""
    stream = io.BytesIO()
    Image.fromarray(plots.colours(pixels / max(pixels.max(), 1))[::-1]).save(stream, "PNG")
    data = base64.b64encode(stream.getvalue()).decode("ascii")
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt)}" width="{width}" height="{width}">'


def listing(found: Table, pictures: np.ndarray) -> str:
    """Neighbours as an HTML table: picture, name and link, sample, class, separation; the galaxy itself is marked."""
    lines = []
    for row, pixels in zip(found, pictures, strict=True):
        name = escape(str(row["name"]))
        label, itself = str(row["label"]) or "no class", " (the same galaxy)" if row["same"] else ""
        if row["link"]:
            name = f'<a href="{escape(str(row["link"]))}" target="_blank" rel="noopener">{name}</a>'
        shown = picture(np.asarray(pixels), f"{row['name']}, {label}")
        cells = (shown, name + itself, escape(str(row["sample"])), label, f"{row['separation']:.3f}")
        lines.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{title}</th>' for title in ("", "name", "sample", "class", "separation"))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>"


def browse(name: str | None = None) -> controls.VBox:
    """Controls to search the committed samples: a galaxy of theirs or an uploaded image, how many, where, and compared how.

    ``name`` is the galaxy to begin with.
    """
    model, _, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    table, codes, space = search.for_search()
    parts = [codefile.read_codes(artifacts.artifact("codes.h5"), sample) for sample in datasets.SAMPLES]
    single, chosen = np.vstack([code for _, code, _ in parts]), parts[0][2]["latents"]
    row_of = {one: row for row, one in enumerate(table["name"])}

    @cache
    def index(comparison: str, sample: str) -> search.SearchIndex:
        whole = search.build(codes, table, COMPARISONS[comparison](codes, space))
        return whole if sample == ALL else whole.of(sample)

    wide = {"description_width": "7em"}
    asked = controls.Combobox(
        value=name or str(table["name"][0]),
        options=[str(one) for one in table["name"]],
        description="galaxy",
        placeholder="part of a name",
        continuous_update=False,
        style=wide,
    )
    brought = controls.FileUpload(accept=".fits,.fit,.fz,.gz,.png", description="or your own (FITS, PNG)")
    count = controls.IntSlider(value=6, min=1, max=30, description="how many", continuous_update=False, style=wide)
    where = controls.Dropdown(options=[ALL, *datasets.SAMPLES], description="search in", style=wide)
    how = controls.Dropdown(options=list(COMPARISONS), description="compared", style=wide)
    said, shown = controls.HTML(), controls.HTML()
    own: dict[str, inspect.Inspection] = {}

    def show(_=None):
        searched = index(how.value, where.value)
        if own:
            seen = own["galaxy"]
            found = searched.query(seen.code, count.value, seen.field.place)
            said.value = "<pre>" + escape(inspect.text(seen).split("\n\n")[0]) + "</pre>"
        elif asked.value in row_of:
            row = row_of[asked.value]
            placed = searched.space.transform(codes[row : row + 1])[0]
            found = searched.query_vector(placed, count.value, table[row])
            said.value = picture(embed.decode(model, single[row : row + 1], chosen)[0], asked.value, 128)
        else:
            said.value = f"No galaxy is called {escape(asked.value)}: choose one from the list."
            return
        rows = [row_of[one] for one in found["name"]]
        shown.value = listing(found, embed.decode(model, single[rows], chosen))

    def bring(change):
        own.clear()
        if change["new"]:
            file = change["new"][0]
            try:
                field = cutout.centre(cutout.read_image(bytes(file["content"]), file["name"]))
                (own["galaxy"],) = inspect.inspect([field])
            except BadInput as error:
                said.value, shown.value = escape(str(error)), ""
                return
        show()

    def choose(_):
        own.clear()
        show()

    asked.observe(choose, "value")
    brought.observe(bring, "value")
    for one in (count, where, how):
        one.observe(show, "value")
    show()
    return controls.VBox([controls.HBox([asked, brought]), controls.HBox([where, how, count]), said, shown])

"""Figures that several chapters show. Each function draws in new or given axes; none shows or saves a figure."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from numpy.typing import NDArray

from rgz.data import datasets, fetch
from rgz.features import codes as codefile
from rgz.plots import PALETTE


def gallery(
    rows: Mapping[str, NDArray[Any]], titles: Sequence[str] | None = None, cell: float = 0.95
) -> NDArray[np.object_]:
    """A grid of images (N, H, W), one row per name, each image scaled to its own peak; ``titles`` are those of the
    columns. The colour bar is for prepared images, which hold the square root of the brightness."""
    columns = max(len(pictures) for pictures in rows.values())
    size = (cell * columns + 1, cell * len(rows) + (0.3 if titles is not None else 0))
    _, axes = plt.subplots(len(rows), columns, figsize=size, squeeze=False, layout="constrained")
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for column, ax in enumerate(line):
            ax.set(xticks=[], yticks=[], frame_on=False)
            if column < len(pictures):
                ax.imshow(pictures[column], origin="lower", cmap="inferno", vmin=0)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for ax, title in zip(axes[0], [] if titles is None else titles, strict=False):
        ax.set_title(title, fontsize=9)
    scale = axes[0, 0].figure.colorbar(ScalarMappable(cmap="inferno"), ax=axes, aspect=12 * len(rows), pad=0.01)
    scale.set_ticks([0, 0.5, 1])
    scale.ax.tick_params(labelsize=7)
    scale.set_label("√(brightness / peak)", fontsize=7)
    return axes


def scale_bars(axes: NDArray[np.object_], widths: NDArray[Any], arcsec: float = 30) -> None:
    """A white bar of some arcsec in each image of a grid of axes; ``widths`` are those of the images, arcsec."""
    images: list[Axes] = axes.ravel().tolist()
    for ax, width in zip(images, np.broadcast_to(widths, axes.shape).flat, strict=True):
        left, right, low, high = ax.axis()
        y = low + 0.06 * (high - low)
        ax.plot(left + (right - left) * (0.05 + np.array([0, arcsec / width])), [y, y], color="w", lw=1.5)
    images[0].text(0.05, 0.09, f"{arcsec:g}″", transform=images[0].transAxes, color="w", fontsize=7)


def dots(groups: Mapping[str, Mapping[str, Sequence[float]]], xlabel: str) -> Axes:
    """Scores with error bars: one line per item from top to bottom, one colour and marker per group.

    ``groups`` maps a group to its items, each ``[value, half width of the bar]``. Raises ``ValueError`` for more than
    seven groups, since there are only seven distinct colours.
    """
    if len(groups) > len(PALETTE):
        raise ValueError(
            f"{len(groups)} groups need more than the {len(PALETTE)} distinct colours: choose some of them"
        )
    items = list(dict.fromkeys(item for group in groups.values() for item in group))
    height = 0.6 + len(items) * (0.16 + 0.09 * len(groups))
    ax: Axes = plt.subplots(figsize=(7.5, height), layout="constrained")[1]
    for k, ((name, group), colour, marker) in enumerate(zip(groups.items(), PALETTE, "oDsv^<>", strict=False)):
        y = [items.index(item) + (k - (len(groups) - 1) / 2) * 0.7 / len(groups) for item in group]
        value, bar = np.array(list(group.values())).T
        ax.errorbar(value, y, xerr=bar, fmt=marker, color=colour, label=name, ms=4.5, lw=1, ls="none")
    ax.set_yticks(range(len(items)), items)
    ax.set(xlabel=xlabel, ylim=(len(items) - 0.5, -0.5))
    ax.grid(axis="x", alpha=0.3)
    if len(groups) > 1:
        ax.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1))
    return ax


def linked(name: str) -> str:
    """The name of a galaxy as a link to it in the explorer, for the tables of the chapters."""
    return f'<a href="../explorer/index.html#{quote(name)}">{escape(name)}</a>'


def pictures(name: str, rows: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Prepared images (N, H, W) of rows of a sample in the codes file, and what they are.

    These are survey images if they are on this machine, otherwise images decoded from the codes; the second value says
    which. A row may occur several times.
    """
    from rgz.features.embed import Encoder  # torch, which takes a second

    table, code, _ = codefile.read_codes(None, name)
    encoder = Encoder.from_pretrained()
    if fetch.locate(datasets.SAMPLES[name][0]) is None:
        return encoder.decode(code[rows]), "decoded from codes"
    once, again = np.unique(rows, return_inverse=True)
    return encoder.prepared(datasets.load_dataset(name).named(table["name"][once]))[again], "survey images"

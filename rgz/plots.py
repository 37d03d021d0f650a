"""Colours of classes and images, and the figure of ``rgz look --plot``."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

COLOURS = {"FRI": "#0072B2", "FRII": "#D55E00", "hybrid": "#009E73", "compact": "#999999", "bent": "#CC79A7"}
"""Colour of each label, from the palette of Okabe & Ito, which is safe for colour-blind readers."""

MARKERS = {"FRI": "o", "FRII": "^", "hybrid": "s", "compact": ".", "bent": "v"}
"""Marker of each label, so that a class is known without its colour."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")
"""Colours of lines and markers, from the same palette."""


def colours(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """Brightness 0 … 1 (H, W) in the colours of the galleries, (H, W, 3)."""
    coloured: NDArray[np.uint8] = plt.get_cmap("inferno")(picture, bytes=True)[..., :3]
    return coloured


def lookalikes(
    names: Sequence[str], own: NDArray[Any], near: NDArray[Any], titles: Sequence[Sequence[str]]
) -> NDArray[np.object_]:
    """Galaxies and those most similar to them, one row with a caption for each.

    ``own`` are the prepared image and the reconstruction of each galaxy, (N, 2, H, W), or only the prepared image, (N,
    1, H, W); ``near`` the most similar galaxies, nearest first, (N, K, H, W), with their ``titles``, N lists of K.
    """
    count, columns = len(own), own.shape[1] + near.shape[1]
    cell, over = 1.15, 0.4  # inches, of an image, and for the text above and below a row
    height = (cell + over) * count + 0.1
    frame = {"left": 0, "right": 1, "top": 1 - over / height, "bottom": over / 2 / height}
    spacing = {"wspace": 0.06 / cell, "hspace": 1.3 * over / cell}
    size = (cell + 0.06) * columns, height
    _, axes = plt.subplots(count, columns, figsize=size, squeeze=False, gridspec_kw=frame | spacing)
    heads = ["prepared", "reconstruction"] if own.shape[1] > 1 else ["query"]
    for line, name, first, others, heading in zip(axes, names, own, near, titles, strict=True):
        for ax, picture, title in zip(line, [*first, *others], [*heads, *heading], strict=True):
            ax.imshow(picture, origin="lower", cmap="inferno", vmin=0)
            ax.set(xticks=[], yticks=[], frame_on=False)
            ax.set_title(title, fontsize=8)
        line[0].text(0, -0.05, name, transform=line[0].transAxes, va="top", fontsize=8)
    return axes

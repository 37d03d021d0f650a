"""Figures from arrays. Each function draws into given axes, or makes its own, and returns them; none shows or saves."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

__all__ = [
    "COLOURS",
    "arms",
    "calibration",
    "colours",
    "confusion",
    "cumulative",
    "curves",
    "dots",
    "gallery",
    "grid",
    "growth",
    "learning_curve",
    "lookalikes",
    "quantiles",
    "ratios",
    "reconstructions",
    "roc",
    "scatter",
    "sky",
]

COLOURS = {"FRI": "#0072B2", "FRII": "#D55E00", "hybrid": "#009E73", "compact": "#999999", "bent": "#CC79A7"}
"""Colour of each label, from the palette of Okabe & Ito, distinct for colour-blind readers."""

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#E69F00", "#56B4E9", "#CC79A7", "#000000")


def colours(picture: np.ndarray) -> np.ndarray:
    """Brightness 0 … 1 (H, W) in the colours of the galleries, (H, W, 3) uint8."""
    return plt.get_cmap("inferno")(picture, bytes=True)[..., :3]


def _axes(ax: Axes | None, size=(6.4, 4)) -> Axes:
    return plt.subplots(figsize=size, layout="constrained")[1] if ax is None else ax


def gallery(rows: dict[str, np.ndarray], titles=None, cell: float = 0.95) -> np.ndarray:
    """A grid of images: one row of pictures (N, H, W) for each name, with optional titles over the columns; returns the axes.

    Brightness runs from zero to each picture's own peak.
    """
    columns = max(len(pictures) for pictures in rows.values())
    _, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(cell * columns + 1, cell * len(rows) + (0.3 if titles is not None else 0)),
        squeeze=False,
        layout="constrained",
    )
    for line, (name, pictures) in zip(axes, rows.items(), strict=True):
        for column, ax in enumerate(line):
            ax.set(xticks=[], yticks=[], frame_on=False)
            if column < len(pictures):
                ax.imshow(pictures[column], origin="lower", cmap="inferno", vmin=0)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    if titles is not None:
        for ax, title in zip(axes[0], titles, strict=False):
            ax.set_title(title, fontsize=9)
    return axes


def reconstructions(truth: np.ndarray, made: np.ndarray, titles=None, cell: float = 0.95) -> np.ndarray:
    """Images, their reconstructions and the differences, (N, H, W) grey levels each, one column a galaxy; returns the axes.

    Differences run from −64 (blue, too faint) to 64 grey levels (red, too bright).
    """
    difference = np.asarray(made, dtype=float) - truth
    axes = gallery({"image": truth, "reconstruction": made, "difference": np.abs(difference)}, titles, cell)
    for ax, picture in zip(axes[2], difference, strict=True):
        ax.images[0].set(cmap="RdBu_r", clim=(-64, 64), data=picture)
    return axes


def growth(rows: list[dict], measure: str, label: str, size: str = "dimensions", ax: Axes | None = None) -> Axes:
    """A measure of reconstruction against the size of the code, one line a method; bands from the 16th to 84th percentile.

    ``rows`` are the entries ``growth`` or, with ``size="bits"``, ``sent`` of :func:`rgz.reconstruct.study`.
    """
    ax = _axes(ax, (4.4, 3.4))
    looks = {"VDVAE": ("#0072B2", "o"), "PCA": ("#E69F00", "s"), "plain VAE": ("#009E73", "^")}
    for method in dict.fromkeys(row["method"] for row in rows):
        colour, marker = looks[method.removesuffix(", fitted")]
        style = {"mfc": "white", "ls": "--"} if method.endswith("fitted") else {}
        own = sorted((row[size], *row[measure]) for row in rows if row["method"] == method)
        x, median, low, high = np.array(own).T
        ax.errorbar(x, median, (median - low, high - median), color=colour, alpha=0.35, lw=1, fmt="none")
        ax.plot(x, median, color=colour, marker=marker, ms=5, label=method, **style)
    ax.set(
        xscale="log",
        xlabel={"dimensions": "numbers in the code", "bits": "bits to send the code"}[size],
        ylabel=label,
    )
    if size == "bits":
        ax.set_xlim(left=1)  # the coarsest latents alone may say less than one bit
    ax.legend(frameon=False, fontsize=8)
    return ax


def sky(ra: np.ndarray, dec: np.ndarray, labels: np.ndarray, ax: Axes | None = None) -> Axes:
    """Positions in degrees, one colour a label; right ascension grows to the left as on the sky."""
    ax = _axes(ax, (7.5, 3.6))
    for label, colour in COLOURS.items():
        if (here := labels == label).any():
            ax.scatter(ra[here], dec[here], s=6, color=colour, label=f"{label} ({here.sum()})", linewidths=0)
    ax.set(xlabel="right ascension (deg)", ylabel="declination (deg)", xlim=(360, 0))
    ax.legend(markerscale=3, frameon=False)
    return ax


def curves(steps: np.ndarray, values: dict[str, np.ndarray], ylabel: str, ax: Axes | None = None) -> Axes:
    """Lines over training steps, each named at the legend; not-a-number points are left out."""
    ax = _axes(ax)
    for (name, line), colour, style in zip(values.items(), PALETTE, ("-", "--", ":"), strict=False):
        good = np.isfinite(line)
        ax.plot(steps[good], line[good], style, color=colour, label=name)
    ax.set(xlabel="training step", ylabel=ylabel)
    ax.legend(frameon=False)
    return ax


def dots(groups: dict[str, dict[str, list[float]]], xlabel: str, ax: Axes | None = None) -> Axes:
    """Scores with their spread, one line an item from top to bottom, one colour and mark a group.

    ``groups`` maps a group to its items, each ``[value, spread]``; more than seven cannot be told apart.
    """
    if len(groups) > len(PALETTE):
        raise ValueError(
            f"{len(groups)} groups are more than the {len(PALETTE)} that can be told apart: choose some of them"
        )
    items = list(dict.fromkeys(item for group in groups.values() for item in group))
    ax = _axes(ax, (7.5, 0.6 + len(items) * (0.16 + 0.09 * len(groups))))
    for k, ((name, group), colour, marker) in enumerate(zip(groups.items(), PALETTE, "oDsv^<>", strict=False)):
        y = [items.index(item) + (k - (len(groups) - 1) / 2) * 0.7 / len(groups) for item in group]
        value, spread = np.array(list(group.values())).T
        ax.errorbar(value, y, xerr=spread, fmt=marker, color=colour, label=name, ms=4.5, lw=1, ls="none")
    ax.set_yticks(range(len(items)), items)
    ax.set(xlabel=xlabel, ylim=(len(items) - 0.5, -0.5))
    ax.grid(axis="x", alpha=0.3)
    if len(groups) > 1:
        ax.legend(frameon=False, fontsize=8, ncols=3, loc="lower center", bbox_to_anchor=(0.4, 1))
    return ax


def learning_curve(rows: list[dict], metric: str, label: str, ax: Axes | None = None) -> Axes:
    """A score against the number of labels, one line a kind of features; bands are the standard deviation over draws.

    ``rows`` as :func:`rgz.evidence.learning_curve` gives them.
    """
    ax = _axes(ax, (5.2, 3.6))
    for name, colour, marker in zip(dict.fromkeys(row["features"] for row in rows), PALETTE, "oDsv", strict=False):
        own = [row for row in rows if row["features"] == name]
        x, (mean, spread) = [row["labels"] for row in own], np.array([row[metric] for row in own]).T
        ax.plot(x, mean, color=colour, marker=marker, ms=4.5, label=name)
        ax.fill_between(x, mean - spread, mean + spread, color=colour, alpha=0.18, lw=0)
    ax.set(xscale="log", xlabel="labels", ylabel=label)
    ax.set_xticks(x, x)
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def calibration(truth: np.ndarray, probabilities: dict[str, np.ndarray], ax: Axes | None = None) -> Axes:
    """Share of FRII among galaxies of about one predicted probability, in ten bins of equal number; the diagonal is perfect."""
    from sklearn.calibration import calibration_curve

    ax = _axes(ax, (4.8, 4.6))
    for (name, probability), colour, marker in zip(probabilities.items(), PALETTE, "oDsv", strict=False):
        share, predicted = calibration_curve(truth, probability, n_bins=10, strategy="quantile")
        ax.plot(predicted, share, color=colour, marker=marker, ms=4.5, label=name)
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    ax.set(xlabel="predicted probability of FRII", ylabel="share of FRII", aspect="equal")
    ax.legend(frameon=False, fontsize=8, loc="upper left")
    return ax


def confusion(truth: np.ndarray, probabilities: dict[str, np.ndarray]) -> np.ndarray:
    """For each classifier, how many galaxies of each class (rows) are called what (columns); returns the axes."""
    _, axes = plt.subplots(
        1, len(probabilities), figsize=(2.3 * len(probabilities), 2.4), squeeze=False, layout="constrained"
    )
    for ax, (name, probability) in zip(axes[0], probabilities.items(), strict=True):
        called = probability >= 0.5
        count = np.array([[((truth == t) & (called == c)).sum() for c in (0, 1)] for t in (0, 1)])
        share = count / count.sum(axis=1, keepdims=True)
        ax.imshow(share, cmap="Blues", vmin=0, vmax=1)
        for (row, column), number in np.ndenumerate(count):
            colour = "white" if share[row, column] > 0.5 else "black"
            ax.text(column, row, f"{number}\n{share[row, column]:.1%}", ha="center", va="center", color=colour)
        ax.set_title(name, fontsize=9)
        ax.set(xticks=[0, 1], yticks=[0, 1], xticklabels=["FRI", "FRII"], yticklabels=["FRI", "FRII"], xlabel="called")
    axes[0, 0].set_ylabel("class")
    return axes[0]


def roc(lines: dict[str, tuple[np.ndarray, np.ndarray]], ax: Axes | None = None) -> Axes:
    """ROC curves from true labels (1 for the positive class) and scores; the diagonal is chance."""
    from sklearn.metrics import roc_auc_score, roc_curve

    ax = _axes(ax, (4.8, 4.6))
    for (name, (truth, score)), colour, style in zip(lines.items(), PALETTE, ("-", "--", "-.", ":"), strict=False):
        false, true, _ = roc_curve(truth, score)
        ax.plot(false, true, style, color=colour, label=f"{name} ({roc_auc_score(truth, score):.3f})")
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    ax.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)", aspect="equal")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax


def lookalikes(
    names: list[str], own: np.ndarray, near: np.ndarray, titles: list[list[str]], cell: float = 1.15
) -> np.ndarray:
    """Galaxies and those nearest to them, one row each; returns the axes.

    Parameters
    ----------
    names
        What each row is called, (N,).
    own
        What the network sees of each galaxy and what it rebuilds, (N, 2, H, W), or (N, 1, H, W) without the latter.
    near
        The nearest galaxies, nearest first, (N, K, H, W).
    titles
        What is written over each of them, N lists of K.
    """
    count, columns = len(own), own.shape[1] + near.shape[1]
    over = 0.4  # inches for what is written above and below a row
    height = (cell + over) * count + 0.1
    frame = {"left": 0, "right": 1, "top": 1 - over / height, "bottom": over / 2 / height}
    _, axes = plt.subplots(
        count,
        columns,
        figsize=((cell + 0.06) * columns, height),
        squeeze=False,
        gridspec_kw=frame | {"wspace": 0.06 / cell, "hspace": 1.3 * over / cell},
    )
    for line, name, first, others, heading in zip(axes, names, own, near, titles, strict=True):
        heads = ["as prepared", "rebuilt"][: len(first)] if len(first) > 1 else ["asked for"]
        for ax, picture, title in zip(line, [*first, *others], [*heads, *heading], strict=True):
            ax.imshow(picture, origin="lower", cmap="inferno", vmin=0)
            ax.set(xticks=[], yticks=[])
            ax.set_title(title, fontsize=8)
            for side in ax.spines.values():
                side.set_visible(False)
        line[0].text(0, -0.05, name, transform=line[0].transAxes, va="top", fontsize=8)
    return axes


def quantiles(real: dict[str, list], made: dict[str, dict[str, list]], labels: dict[str, str]) -> np.ndarray:
    """Quantiles of generated galaxies against those of real ones, one panel a property; on the diagonal they agree.

    ``real`` maps a property to its quantiles, ``made`` a way of making galaxies to the same, ``labels`` a property to the label
    of its axes. Returns the axes.
    """
    _, axes = plt.subplots(2, -(-len(real) // 2), figsize=(8.4, 5.6), layout="constrained")
    for ax, (name, truth) in zip(axes.flat, real.items(), strict=False):
        ax.axline((truth[0], truth[0]), slope=1, color="0.6", lw=1)
        for (way, own), colour, marker in zip(made.items(), PALETTE, "os^vD", strict=False):
            ax.plot(truth, own[name], color=colour, marker=marker, ms=3, lw=1, label=way)
        ax.set(title=labels[name], xlabel="real", ylabel="generated")
        ax.title.set_fontsize(9)
    axes.flat[0].legend(frameon=False, fontsize=7)
    return axes


def ratios(lines: dict[str, list], band: tuple[int, int], ax: Axes | None = None) -> Axes:
    """Power of generated over real galaxies at 1, 2, … periods an image, one line with its 95 % interval for each name.

    ``lines`` holds (value, low, high) for each number of periods; ``band`` is what is shaded, in periods, within 15 % of one.
    """
    ax = _axes(ax, (6.4, 3.6))
    ax.fill_between(band, 0.85, 1.15, color="0.85", lw=0)
    ax.axhline(1, color="0.6", lw=1)
    for (name, values), colour, marker in zip(lines.items(), PALETTE, "os^vD", strict=False):
        middle, low, high = np.array(values).T
        periods = np.arange(1, len(middle) + 1)
        ax.errorbar(
            periods,
            middle,
            (middle - low, high - middle),
            color=colour,
            marker=marker,
            ms=4,
            lw=1,
            capsize=2,
            label=name,
        )
    ax.set(xscale="log", xlabel="periods across the image", ylabel="power, generated / real")
    ax.set_xticks([1, 2, 4, 8, 16], [1, 2, 4, 8, 16])
    ax.legend(frameon=False, fontsize=8)
    return ax


def grid(values: np.ndarray, rows: list[str], columns: list[str], label: str, ax: Axes | None = None) -> Axes:
    """Numbers 0 … 1 (rows, columns) written into cells that are the darker the larger the number; NaN stays empty."""
    ax = _axes(ax, (0.62 * len(columns) + 2.4, 0.34 * len(rows) + 1.4))
    picture = ax.imshow(values, cmap="cividis", vmin=0.3, vmax=1, aspect="auto")
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            ax.text(
                column, row, f"{value:.2f}", ha="center", va="center", fontsize=7, color="w" if value < 0.7 else "k"
            )
    ax.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
    ax.set_yticks(range(len(rows)), rows, fontsize=8)
    ax.figure.colorbar(picture, ax=ax, label=label)
    return ax


def cumulative(values: dict[str, np.ndarray], label: str, ax: Axes | None = None) -> Axes:
    """Share of galaxies below each value, one line a name with its label's colour, from the first to the 99th percentile."""
    ax = _axes(ax, (6.4, 3.6))
    for (name, own), style in zip(values.items(), ("-", "--", "-.", ":", (0, (5, 1))), strict=False):
        share = np.arange(1, 100)
        ax.plot(np.percentile(own, share), share / 100, ls=style, color=COLOURS.get(name), label=f"{name} ({len(own)})")
    ax.set(xlabel=label, ylabel="share of galaxies below")
    ax.legend(frameon=False, fontsize=8)
    return ax


def scatter(x: np.ndarray, y: np.ndarray, xlabel: str, ylabel: str, ax: Axes | None = None) -> Axes:
    """Points and, in ten bins of equal numbers, their median."""
    ax = _axes(ax, (6.4, 3.6))
    ax.plot(x, y, ".", ms=2, color=PALETTE[4], alpha=0.5, rasterized=True)
    parts = np.array_split(np.argsort(x), 10)
    ax.plot([np.median(x[p]) for p in parts], [np.median(y[p]) for p in parts], "o-", color=PALETTE[1], label="median")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend(frameon=False)
    return ax


def arms(numbers: np.ndarray, names: np.ndarray, values: np.ndarray, ax: Axes | None = None) -> Axes:
    """Accuracy against the number of labels, one line a name: mean and standard deviation over repeats."""
    ax = _axes(ax, (6.4, 3.6))
    for place, name in enumerate(dict.fromkeys(names)):
        own = names == name
        x = np.unique(numbers[own])
        each = [values[own & (numbers == n)] for n in x]
        ax.errorbar(
            x * 1.03 ** (place - 1),
            [e.mean() for e in each],
            [e.std(ddof=1) for e in each],
            color=PALETTE[place],
            marker="os^vD"[place],
            capsize=2,
            label=name,
        )
    ax.set(xscale="log", xlabel="labelled galaxies", ylabel="accuracy")
    ax.set_xticks(np.unique(numbers), np.unique(numbers))
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize=8)
    return ax

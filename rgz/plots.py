"""Figures from arrays. Each function draws into given axes, or makes its own, and returns them; none shows or saves."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

__all__ = ["COLOURS", "curves", "gallery", "growth", "reconstructions", "roc", "score_bars", "sky"]

COLOURS = {"FRI": "#0072B2", "FRII": "#D55E00", "hybrid": "#009E73", "compact": "#999999", "bent": "#CC79A7"}
"""Colour of each label, from the palette of Okabe & Ito, distinct for colour-blind readers."""


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
    for method, colour, marker in zip(
        ("VDVAE", "PCA", "plain VAE"), ("#0072B2", "#E69F00", "#009E73"), "os^", strict=True
    ):
        own = sorted((row[size], *row[measure]) for row in rows if row["method"] == method)
        x, median, low, high = np.array(own).T
        ax.errorbar(x, median, (median - low, high - median), color=colour, alpha=0.35, lw=1, fmt="none")
        ax.plot(x, median, color=colour, marker=marker, ms=5, label=method)
    ax.set(
        xscale="log",
        xlabel={"dimensions": "numbers in the code", "bits": "bits to send the code"}[size],
        ylabel=label,
    )
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
    for (name, line), colour, style in zip(
        values.items(), ("#0072B2", "#D55E00", "#009E73"), ("-", "--", ":"), strict=False
    ):
        good = np.isfinite(line)
        ax.plot(steps[good], line[good], style, color=colour, label=name)
    ax.set(xlabel="training step", ylabel=ylabel)
    ax.legend(frameon=False)
    return ax


def score_bars(rows: list[dict], metric: str, ax: Axes | None = None) -> Axes:
    """Cross-validated scores, ``rows`` as in the results file: one group of points a classifier, one mark a kind of features.

    Bars span one standard deviation over folds to either side.
    """
    ax = _axes(ax, (7.5, 4))
    features, classifiers = (list(dict.fromkeys(row[key] for row in rows)) for key in ("features", "classifier"))
    palette = ("#0072B2", "#56B4E9", "#000000", "#E69F00", "#D55E00", "#CC79A7", "#009E73")
    for k, (name, colour, marker) in enumerate(zip(features, palette, "oD^vs<>", strict=False)):
        own = {row["classifier"]: row["cross_validation"][metric] for row in rows if row["features"] == name}
        x = [classifiers.index(c) + (k - (len(features) - 1) / 2) * 0.11 for c in own]
        ax.errorbar(
            x,
            [v[0] for v in own.values()],
            [v[1] for v in own.values()],
            fmt=marker,
            color=colour,
            label=name,
            ms=5,
            lw=1,
        )
    ax.set_xticks(range(len(classifiers)), classifiers)
    ax.set_ylabel({"accuracy": "accuracy", "roc_auc": "ROC-AUC"}.get(metric, metric))
    ax.grid(axis="y", alpha=0.3)
    ax.legend(frameon=False, fontsize=8, ncols=4, loc="upper center", bbox_to_anchor=(0.5, -0.09))
    return ax


def roc(lines: dict[str, tuple[np.ndarray, np.ndarray]], ax: Axes | None = None) -> Axes:
    """ROC curves from true labels (1 for the positive class) and scores; the diagonal is chance."""
    from sklearn.metrics import roc_auc_score, roc_curve

    ax = _axes(ax, (4.8, 4.6))
    for (name, (truth, score)), colour, style in zip(
        lines.items(), ("#0072B2", "#D55E00", "#009E73", "#000000"), ("-", "--", "-.", ":"), strict=False
    ):
        false, true, _ = roc_curve(truth, score)
        ax.plot(false, true, style, color=colour, label=f"{name} ({roc_auc_score(truth, score):.3f})")
    ax.plot([0, 1], [0, 1], color="0.6", lw=0.8)
    ax.set(xlabel="false positive rate (1 − specificity)", ylabel="true positive rate (recall)", aspect="equal")
    ax.legend(frameon=False, fontsize=8, loc="lower right")
    return ax

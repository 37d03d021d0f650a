"""A galaxy of your own: what class it is, what it looks like, and what the network keeps of it.

The field is prepared and coded as the committed samples were. The probability of an FRII comes from a *committee* of a hundred
linear discriminants, each fitted to the galaxies of MiraBest Confident, or of FR-DEEP NVSS for images as coarse as those,
drawn with replacement: their mean is the answer, the middle 95 of them its interval. A discriminant on a code of a few
hundred numbers is one product and one logistic function, so asking a hundred costs nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from astropy.table import Table, vstack
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import expit

from rgz import artifacts
from rgz.data import cutout
from rgz.data.sample import COLUMNS as REQUIRED
from rgz.data.sample import Sample
from rgz.errors import BadInput, first_line
from rgz.features import codes as codefile
from rgz.features import descriptors, embed
from rgz.models import checkpoint, flow
from rgz.tasks import search
from rgz.transforms import prepare

__all__ = [
    "COARSE",
    "INTERVAL",
    "Inspection",
    "as_dict",
    "inspect",
    "neighbours",
    "odd",
    "pictures",
    "probability",
    "text",
]

COARSE = 5.0  # arcsec; an image with wider pixels is judged by galaxies as NVSS sees them, a finer one by FIRST's
ODD = 5.0  # percentile below which a galaxy is called odd
INTERVAL = (2.5, 97.5)  # percentiles of the committee
TAUGHT = {"mirabest": "MiraBest Confident", "frdeep-nvss": "FR-DEEP NVSS"}


@dataclass(frozen=True)
class Inspection:
    """What there is to say of a galaxy.

    Parameters
    ----------
    field
        The galaxy as it was found.
    prepared, rebuilt
        What the network sees, and what it decodes again from all its latents, (size, size) grey levels.
    code
        What to search with, (10 D + 10 C,), as :func:`rgz.features.descriptors.describe` makes it.
    frii
        Probability of an FRII and its interval, ``(value, low, high)``.
    taught
        Sample whose galaxies the committee knows.
    likely
        Log-likelihood, nats, the error of it, and the percentage of unseen galaxies of FIRST that are less likely.
    neighbours
        The nearest galaxies of the committed samples, as :meth:`rgz.tasks.search.SearchIndex.query` gives them.
    """

    field: cutout.Field
    prepared: np.ndarray
    rebuilt: np.ndarray
    code: np.ndarray
    frii: tuple[float, float, float]
    taught: str
    likely: tuple[float, float, float]
    neighbours: Table


def inspect(fields: Sequence[cutout.Field], k: int = 10) -> list[Inspection]:
    """Look at fields; the committed model, codes and committees are read once for all of them.

    Raises
    ------
    BadInput
        An artifact is missing or damaged.
    """
    model, recipe, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    index, chosen, basis = search.index(), codefile.chosen(), codefile.read_space(codefile.BASIS)
    flows, _ = flow.load(artifacts.artifact("density.safetensors"))
    seen = []
    for field in fields:
        one = Sample(field.pixels[None], Table({name: [""] for name in REQUIRED}), field.pixel)
        _, codes, _ = embed.encode(model, recipe, one, chosen)
        prepared = prepare.prepare(field.pixels, field.pixel, recipe)
        means, _ = embed.full_codes(model, prepared[None])
        (rebuilt,) = embed.decode(model, means, np.arange(model.dimensions))
        taught = "frdeep-nvss" if field.pixel > COARSE else "mirabest"
        frii = _probability(codes["code_views"][0], taught)
        likely = _likelihood(flows, embed.for_density(codes))
        (code,) = descriptors.describe(model, recipe, one, chosen, basis)
        seen.append(Inspection(field, prepared, rebuilt, code, frii, taught, likely, index.query(code, k, field.place)))
    return seen


def _probability(code: np.ndarray, taught: str) -> tuple[float, float, float]:
    """Mean of the committee's probabilities of an FRII for a code (D,), and their interval."""
    path = artifacts.artifact("committees.safetensors")
    try:
        weights = load_file(path)[taught]
        each = expit(weights[:, :-1] @ code + weights[:, -1])
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise BadInput(
            f"{path} holds no committee for these codes ({first_line(error)}): rgz encode makes it"
        ) from error
    low, high = np.percentile(each, INTERVAL)
    return float(each.mean()), float(low), float(high)


def _likelihood(flows: flow.FlowEnsemble, code: np.ndarray) -> tuple[float, float, float]:
    """Log-likelihood of a code (1, D), the standard deviation over the flows, and the percentile."""
    value, each = flows.score_samples(code), flows.member_scores(code)[:, 0]
    error = each.std(ddof=1) if np.isfinite(each).all() else np.nan
    return float(value[0]), float(error), float(flows.percentile(value)[0])


def _plain(value):
    """A number of JSON: what is not finite is null."""
    return round(float(value), 6) if np.isfinite(value) else None


def as_dict(seen: Inspection) -> dict:
    """All that is known, for JSON."""
    field = seen.field
    value, low, high = (_plain(v) for v in seen.frii)
    return {
        "name": field.name,
        "ra": _plain(field.place[0]),
        "dec": _plain(field.place[1]),
        "pixel_arcsec": _plain(field.pixel),
        "peak_over_noise": _plain(field.snr),
        "other_sources": field.others,
        "notes": list(field.notes),
        "frii": {"probability": value, "low": low, "high": high, "interval": 0.95, "taught_with": TAUGHT[seen.taught]},
        "log_likelihood": dict(zip(("nats", "error", "percentile"), map(_plain, seen.likely), strict=True)),
        "neighbours": [
            {
                "name": str(row["name"]),
                "sample": str(row["sample"]),
                "ra": _plain(row["ra"]),
                "dec": _plain(row["dec"]),
                "separation": _plain(row["separation"]),
                "label": str(row["label"]) or None,
                "same": bool(row["same"]),
                "link": str(row["link"]) or None,
            }
            for row in seen.neighbours
        ],
    }


def neighbours(seen: Sequence[Inspection]) -> Table:
    """The neighbours of all that was looked at as one table, with a column ``query`` in front."""
    tables = []
    for one in seen:
        table = one.neighbours.copy()
        table.add_column(np.full(len(table), one.field.name), name="query", index=0)
        tables.append(table)
    return vstack(tables, metadata_conflicts="silent")


def probability(frii: tuple[float, float, float]) -> str:
    """A probability and its interval as text that never says that something is certain.

    >>> probability((0.8, 0.42, 1.0)), probability((0.9991, 0.998, 1.0))
    ('P(FRII) 0.80 (0.42–0.99)', 'P(FRII) > 0.99')
    """
    value, low, high = (float(v) for v in np.clip(frii, 0.01, 0.99))
    if low == high:
        return f"P(FRII) {'<' if value < 0.5 else '>'} {value:.2f}"
    return f"P(FRII) {value:.2f} ({low:.2f}–{high:.2f})"


def odd(percentile: float) -> str:
    """How odd a galaxy is, in words.

    >>> odd(0.2), odd(41.3)
    ('odd: less likely than 99 in 100 galaxies of FIRST', 'likelier than 41 in 100 galaxies of FIRST')
    """
    if percentile < ODD:
        return f"odd: less likely than {min(99, round(100 - percentile))} in 100 galaxies of FIRST"
    return f"likelier than {min(99, round(percentile))} in 100 galaxies of FIRST"


def text(seen: Inspection) -> str:
    """All that is known, for people."""
    field = seen.field
    place = " at {:.5f} {:+.5f}".format(*field.place) if np.isfinite(field.place[0]) else ""
    noise = f", peak {field.snr:.0f} times the noise" if np.isfinite(field.snr) else ""
    lines = [f"{field.name}{place}{noise}", *(f"  note: {note}" for note in field.notes)]
    lines += [f"  {probability(seen.frii)}, by discriminants that know {TAUGHT[seen.taught]}"]
    nats, error, percentile = seen.likely
    lines += [f"  {odd(percentile)} ({nats:.0f} ± {error:.0f} nats)"]
    if known := [str(row["label"]) for row in seen.neighbours if row["same"] and row["label"]]:
        lines += [f"  note: an archive has this galaxy, as {known[0]}; the discriminants may have been taught with it"]
    lines += ["", f"  {'nearest':36}{'sample':14}{'class':9}{'1 − cos':>8}"]
    for row in seen.neighbours:
        mark = " (the same galaxy)" if row["same"] else ""
        lines.append(
            f"  {row['name']:36}{row['sample']:14}{row['label']:9}{row['separation']:>8.3f}{mark}  {row['link']}".rstrip()
        )
    return "\n".join(lines)


def pictures(seen: Sequence[Inspection], shown: int = 6) -> tuple[np.ndarray, np.ndarray, list[list[str]]]:
    """Pictures for a figure: what the network sees, what it rebuilds, and the nearest galaxies, decoded from their codes.

    Returns
    -------
    own, near, titles
        (N, 2, H, W) and (N, shown, H, W) grey levels, and a title for each of the latter.
    """
    model, _, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    samples = {str(name) for one in seen for name in one.neighbours["sample"][:shown]}
    known = {name: codefile.read_codes(artifacts.artifact("codes.h5"), name) for name in samples}
    near, titles = [], []
    for one in seen:
        codes = []
        for row in one.neighbours[:shown]:
            table, code, about = known[row["sample"]]
            codes.append(code[np.flatnonzero(table["name"] == row["name"])[0]])
        near.append(embed.decode(model, np.stack(codes), about["latents"]))
        titles.append([f"{row['label'] or 'no class'}\n{row['separation']:.2f}" for row in one.neighbours[:shown]])
    return np.stack([(one.prepared, one.rebuilt) for one in seen]), np.stack(near), titles

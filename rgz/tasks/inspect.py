"""Inspect your own galaxy: FRI or FRII, how anomalous it is, and which galaxies are most similar.

The cut-out is prepared and encoded in the same way as the samples. The probability of an FRII is the mean of a
bootstrap ensemble of 100 linear discriminants, with the central 95 % of the ensemble as the interval. The ensemble is
fitted to MiraBest Confident or, for images with pixels as coarse as those of NVSS, to FR-DEEP NVSS.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from astropy.table import Row, Table
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from scipy.special import expit

from rgz import artifacts
from rgz.data.cutout import Cutout
from rgz.errors import BadInput, first_line
from rgz.features import codes as codefile
from rgz.features.embed import Encoder
from rgz.models.flow import FlowEnsemble
from rgz.tasks.search import SearchIndex

__all__ = ["Inspection", "inspect", "inspect_all", "pictures"]

COARSE = 5.0  # arcsec; images with wider pixels are classified by FR-DEEP NVSS
ANOMALOUS = 5.0  # percentile of held-out galaxies
INTERVAL = (2.5, 97.5)  # percentiles of the bootstrap ensemble
FITTED_TO = {"mirabest": "MiraBest Confident", "frdeep-nvss": "FR-DEEP NVSS"}


@dataclass(frozen=True)
class Inspection:
    """The results for one galaxy; ``print`` shows them as text.

    Parameters
    ----------
    cutout
        The centred image.
    frii
        Probability of an FRII and the ends of its 95 % interval.
    fitted_to
        Sample to which the discriminants were fitted.
    likelihood
        Log-likelihood in nats, its standard deviation over the flows, and its percentile among held-out galaxies.
    neighbours
        The most similar galaxies, as :meth:`rgz.tasks.search.SearchIndex.query` returns them.
    """

    cutout: Cutout
    frii: tuple[float, float, float]
    fitted_to: str
    likelihood: tuple[float, float, float]
    neighbours: Table

    @property
    def probability(self) -> str:
        """The probability of an FRII and its interval as text, between 0.01 and 0.99."""
        value, low, high = (float(v) for v in np.clip(self.frii, 0.01, 0.99))
        if low == high:
            return f"P(FRII) {'<' if value < 0.5 else '>'} {value:.2f}"
        return f"P(FRII) {value:.2f} ({low:.2f}–{high:.2f})"

    @property
    def anomaly(self) -> str:
        """Whether the galaxy is anomalous, as text."""
        nats, error, percentile = self.likelihood
        found = f"log-likelihood {nats:.0f} ± {error:.0f} nats"
        if percentile < ANOMALOUS:
            rank = ("1st", "2nd", "3rd", "4th", "5th")[int(percentile)]
            return f"anomalous: {found}, below the {rank} percentile of held-out galaxies"
        limit = f"anomalous: below {ANOMALOUS:g}"
        return f"not anomalous: {found}, percentile {percentile:.0f} of held-out galaxies ({limit})"

    def __str__(self) -> str:
        cutout = self.cutout
        place = " at RA {:.5f} Dec {:+.5f} deg (ICRS)".format(*cutout.place) if np.isfinite(cutout.place[0]) else ""
        noise = f", peak {cutout.snr:.0f} × rms" if np.isfinite(cutout.snr) else ""
        lines = [
            f"{cutout.name}{place}, pixels of {cutout.pixel:.2f}″{noise}",
            *(f"  note: {note}" for note in cutout.notes),
        ]
        lines += [f"  {self.probability}, bootstrap ensemble fitted to {self.fitted_to}", f"  {self.anomaly}"]
        if known := [str(row["label"]) for row in self.neighbours if row["same"] and row["label"]]:
            lines.append(f"  note: this galaxy is catalogued as {known[0]}; it may be in the training set")
        lines += ["", f"  {'most similar':36}{'sample':14}{'class':9}{'1 − cos':>8}"]
        for row in self.neighbours:
            same = " (the same galaxy)" if row["same"] else ""
            text = f"  {row['name']:36}{row['sample']:14}{row['label']:9}{row['separation']:>8.3f}{same}  {row['link']}"
            lines.append(text.rstrip())
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All results except images, ready for JSON, in degrees, arcsec and nats; None where a value is unknown."""
        cutout, names = self.cutout, ("probability", "low", "high")
        frii = dict(zip(names, map(_number, self.frii), strict=True))
        return {
            "name": cutout.name,
            "ra": _number(cutout.place[0]),
            "dec": _number(cutout.place[1]),
            "pixel_arcsec": _number(cutout.pixel),
            "peak_over_noise": _number(cutout.snr),
            "other_sources": cutout.others,
            "notes": list(cutout.notes),
            "frii": frii | {"interval": 0.95, "fitted_to": self.fitted_to},
            "log_likelihood": dict(zip(("nats", "error", "percentile"), map(_number, self.likelihood), strict=True)),
            "neighbours": [_neighbour(row) for row in self.neighbours],
        }


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None


def _neighbour(row: Row) -> dict[str, Any]:
    known = {name: _number(row[name]) for name in ("ra", "dec", "separation")}
    text = {name: str(row[name]) or None for name in ("name", "sample", "label", "link")}
    return text | known | {"same": bool(row["same"])}


def inspect(cutout: Cutout, k: int = 10) -> Inspection:
    """Classify a galaxy, measure how anomalous it is, and find the ``k`` most similar galaxies.

    Raises
    ------
    BadInput
        Weights or codes are missing or damaged.
    """
    return inspect_all([cutout], k)[0]


def inspect_all(cutouts: Sequence[Cutout], k: int = 10) -> list[Inspection]:
    """Like :func:`inspect`, for several galaxies; weights and codes are read once."""
    encoder, index, flows = Encoder.from_pretrained(), SearchIndex.from_pretrained(), FlowEnsemble.from_pretrained()
    return [_inspect(cutout, k, encoder, index, flows) for cutout in cutouts]


def _inspect(cutout: Cutout, k: int, encoder: Encoder, index: SearchIndex, flows: FlowEnsemble) -> Inspection:
    code = encoder.transform(cutout)
    sample = "frdeep-nvss" if cutout.pixel > COARSE else "mirabest"
    frii = _probability(sample, code[0])
    likelihood = _likelihood(flows, code)
    neighbours = index.query(code[0], k, cutout.place)
    return Inspection(cutout, frii, FITTED_TO[sample], likelihood, neighbours)


def _likelihood(flows: FlowEnsemble, code: NDArray[Any]) -> tuple[float, float, float]:
    """Log-likelihood of a code (1, D), its standard deviation over the flows, and its percentile."""
    value, members = flows.score_samples(code), flows.member_scores(code)[:, 0]
    error = members.std(ddof=1) if np.isfinite(members).all() else np.nan
    return float(value[0]), float(error), float(flows.percentile(value)[0])


def _probability(name: str, code: NDArray[Any]) -> tuple[float, float, float]:
    """Mean probability of an FRII of a code (D,) over the ensemble fitted to a sample, and its interval."""
    path = artifacts.artifact("committees.safetensors")
    try:
        weights = load_file(path)[name]
        members = expit(weights[:, :-1] @ code + weights[:, -1])
    except (SafetensorError, KeyError, OSError, ValueError) as error:
        raise BadInput(
            f"{path} holds no classifiers for these codes ({first_line(error)}): make it with rgz encode"
        ) from error
    low, high = np.percentile(members, INTERVAL)
    return float(members.mean()), float(low), float(high)


def pictures(found: Sequence[Inspection], count: int = 6) -> tuple[NDArray[Any], NDArray[Any], list[list[str]]]:
    """The images that :func:`rgz.plots.lookalikes` shows for several inspections.

    Returns
    -------
    own, near, titles
        Prepared image and reconstruction from all latents, (N, 2, H, W); the ``count`` most similar galaxies, decoded
        from their codes, (N, count, H, W); and a title for each of these.
    """
    encoder, shown = Encoder.from_pretrained(), [one.neighbours[:count] for one in found]
    codes: dict[tuple[str, str], NDArray[Any]] = {}
    for sample in {str(name) for near in shown for name in near["sample"]}:
        table, code, _ = codefile.read_codes(None, sample)
        codes |= {(sample, name): one for name, one in zip(table["name"], code, strict=True)}
    own = [(encoder.prepared(one.cutout)[0], encoder.reconstruct(one.cutout)[0]) for one in found]
    near = [encoder.decode(np.stack([codes[row["sample"], row["name"]] for row in rows])) for rows in shown]
    titles = [[f"{row['label'] or 'no class'}\n{row['separation']:.2f}" for row in rows] for rows in shown]
    return np.stack(own), np.stack(near), titles

r"""Inspect your own galaxy: its class, how anomalous it is, and which galaxies are most similar.

The cut-out is prepared and encoded in the same way as the samples. One of three classifiers
(:mod:`rgz.tasks.classify`) gives the probabilities of the classes: one for images whose middle is the position of the
host galaxy, if the position was given; otherwise one that does not depend on what is in the middle; and one for barely
resolved sources in wide pixels, as in NVSS. A source that is not resolved, or too faint to show a shape, gets no class.

Whether a source is resolved is judged from its effective area, :math:`(\sum b)^2 / \sum b^2` for the brightness
:math:`b` of the pixels above the threshold. It is compared with that of a point source with the same beam, threshold
and peak. Noise raises this ratio by up to about 6/SNR, where SNR is the peak over the rms. A beam that is not in the
header is taken to be three pixels wide, as in FIRST and NVSS.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Row, Table
from numpy.typing import NDArray
from scipy import ndimage

from rgz import artifacts
from rgz.data.cutout import Cutout
from rgz.data.detect import PEAK
from rgz.features.embed import Encoder, reconstruct
from rgz.models.flow import FlowEnsemble, mean_density
from rgz.tasks.classify import Classifier
from rgz.tasks.search import SearchIndex, for_search
from rgz.transforms.fields import RADIUS

__all__ = ["Inspection", "inspect", "inspect_all", "pictures"]

COARSE, BARELY = 5.0, 1.7  # arcsec, pixels; area: wider and barely resolved images are classified as those of NVSS
ANOMALOUS, UNLIKE = 5.0, 1.0  # percentiles of held-out galaxies
BEAM = 3.0  # pixels, full width at half maximum, if unknown
NARROWER = 0.6  # area over that of a point source; less contradicts the beam
POINT, SCATTER = 0.05, 6.0  # excess of the area of a point source, and its scatter times the signal-to-noise ratio
FAINTEST = 8.0  # rms, peak of a source that shows a shape
REASONS = {
    "unresolved": "the source is not resolved: its area is {:.2f} times that of a point source, so it has no class",
    "faint": "the source is too faint to show a shape, so it has no class",
    "partly outside": "the class may be that of only a part of the source",
    "unlike": "the galaxy is unlike almost all others, so its class is uncertain",
}
BASIS = {
    "host": "with the host galaxy at the given position",
    "centroid": "from the shape of the emission alone",
    "coarse": "fitted to FR-DEEP NVSS",
}


@dataclass(frozen=True)
class Inspection:
    """The results for one galaxy; ``print`` shows them as text.

    ``kind`` is that of :meth:`rgz.tasks.classify.Classifier.from_pretrained`. ``set90`` has the classes that are not
    excluded, with a coverage of 90 %. ``area`` is the effective area of the source over that of a point source.
    ``likelihood`` has the log-likelihood in nats, its standard deviation over the flows, and its percentile among
    held-out galaxies. ``neighbours`` are as :meth:`rgz.tasks.search.SearchIndex.query` returns them, ``code`` is (D,),
    and ``catalogued`` has the different classes that the samples give to this galaxy; none if it is in none of them.
    """

    cutout: Cutout
    kind: str
    probabilities: dict[str, float]
    set90: tuple[str, ...]
    area: float
    likelihood: tuple[float, float, float]
    neighbours: Table
    code: NDArray[np.float32]
    catalogued: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """``ok``, or why the class is missing or uncertain: one of :data:`REASONS`."""
        snr = signal_to_noise(self.cutout)
        if self.area < 1 + POINT + SCATTER / snr:
            return "unresolved"
        if snr < FAINTEST:
            return "faint"
        if self.cutout.partial:
            return "partly outside"
        return "unlike" if self.likelihood[2] < UNLIKE else "ok"

    @property
    def label(self) -> str | None:
        """The most probable class; None for an unresolved or too faint source."""
        shapeless = self.status in ("unresolved", "faint")
        return None if shapeless else max(self.probabilities, key=lambda one: self.probabilities[one])

    @property
    def p_frii(self) -> float:
        """Probability of an FRII among FRI and FRII; NaN for an unresolved or too faint source."""
        one, two = self.probabilities["FRI"], self.probabilities["FRII"]
        return float("nan") if self.label is None else two / (one + two)

    @property
    def notes(self) -> tuple[str, ...]:
        """What was found in the image, why the class is missing or uncertain, and what catalogues say."""
        reasons = [REASONS[self.status].format(self.area)] if self.status in REASONS else []
        if self.catalogued:
            says = f"this galaxy is catalogued as {self.catalogued[0]}"
            if len(self.catalogued) > 1:
                says = f"catalogues disagree about this galaxy ({', '.join(self.catalogued)})"
            reasons.append(f"{says}; it may be in the training set")
        return (*self.cutout.notes, *reasons)

    @property
    def verdict(self) -> str:
        """Class and probabilities as text."""
        each = ", ".join(f"{name} {min(max(value, 0.01), 0.99):.2f}" for name, value in self.probabilities.items())
        if self.label is None:
            return f"no class ({self.status})"
        return f"{self.label} ({each}; not excluded at 90 %: {', '.join(self.set90)})"

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
            *(f"  note: {note}" for note in self.notes),
        ]
        lines += [f"  {self.verdict}" + (f", {BASIS[self.kind]}" if self.label else ""), f"  {self.anomaly}"]
        lines += ["", f"  {'most similar':36}{'sample':14}{'class':9}{'1 − cos':>8}"]
        for row in self.neighbours:
            same = " (the same galaxy)" if row["same"] else ""
            same += f" (catalogues disagree: {row['disputed']})" if row["disputed"] else ""
            text = (
                f"  {row['name']:36}{row['sample']:14}{row['label']:9}{row['dissimilarity']:>8.3f}{same}  {row['link']}"
            )
            lines.append(text.rstrip())
        return "\n".join(lines)

    def to_dict(self, code: bool = False) -> dict[str, Any]:
        """All results except images and, without ``code``, the code, ready for JSON, in degrees, arcsec and nats; None
        where a value is unknown."""
        cutout = self.cutout
        known: dict[str, Any] = {
            "file": cutout.name,
            "ra": _number(cutout.place[0]),
            "dec": _number(cutout.place[1]),
            "status": self.status,
            "class": self.label,
            "catalogued": list(self.catalogued),
            "probabilities": self.label and {name: _number(value) for name, value in self.probabilities.items()},
            "p_frii": _number(self.p_frii),
            "set90": list(self.set90) if self.label else [],
            "classifier": self.kind,
            "anomaly_percentile": _number(self.likelihood[2]),
            "log_likelihood": dict(zip(("nats", "error"), map(_number, self.likelihood[:2]), strict=True)),
            "pixel_arcsec": _number(cutout.pixel),
            "beam_arcsec": _number(cutout.beam),
            "peak_over_noise": _number(cutout.snr),
            "area_over_point": _number(self.area),
            "other_sources": cutout.others,
            "notes": list(self.notes),
            "neighbours": [_neighbour(row) for row in self.neighbours],
        }
        return known | ({"code": [_number(value) for value in self.code]} if code else {})


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return round(float(value), 6) if np.isfinite(value) else None


def _neighbour(row: Row) -> dict[str, Any]:
    known = {name: _number(row[name]) for name in ("ra", "dec", "dissimilarity")}
    text = {name: str(row[name]) or None for name in ("name", "sample", "label", "disputed", "link")}
    return text | known | {"same": bool(row["same"])}


def signal_to_noise(cutout: Cutout) -> float:
    """Peak of the source over the rms, or three times its peak over the faintest pixel if the rms is not known."""
    if np.isfinite(cutout.snr):
        return cutout.snr
    pixels, radius = _around(cutout)
    lit = pixels[(radius <= RADIUS) & (pixels > 0)]
    return float(3 * lit.max() / lit.min())


def _around(cutout: Cutout) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """The pixels of the square in which emission counts, and their distances from its middle, arcsec."""
    edge = max(0, len(cutout.pixels) // 2 - int(np.ceil(RADIUS / cutout.pixel)))
    pixels = cutout.pixels[edge : len(cutout.pixels) - edge, edge : len(cutout.pixels) - edge]
    away = np.arange(len(pixels)) - (len(pixels) - 1) / 2
    return pixels, cutout.pixel * np.hypot(away, away[:, None])


def area(cutout: Cutout) -> float:
    """Effective area of the source over that of a point source with the same beam, threshold and peak.

    Islands around the middle count if they reach five times the rms.
    """
    pixels, radius = _around(cutout)
    beam = cutout.beam if cutout.beam >= cutout.pixel else BEAM * cutout.pixel  # or NaN
    near = np.where(radius <= RADIUS, pixels, 0.0)
    near /= near.max()
    labels, count = ndimage.label(near, structure=np.ones((3, 3)))
    peaks = np.zeros(count + 1)
    np.maximum.at(peaks, labels, near)
    lit = near[(peaks >= PEAK / max(signal_to_noise(cutout), PEAK))[labels] & (near > 0)]
    point = np.exp(-4 * np.log(2) * (radius / beam) ** 2)
    point = point[(radius <= RADIUS) & (point >= min(lit.min() / lit.max(), point.max()))]
    one, other = (brightness.sum() ** 2 / (brightness**2).sum() for brightness in (lit, point))
    return float(one / other)


def inspect(cutout: Cutout, k: int = 10) -> Inspection:
    """Classify a galaxy, measure how anomalous it is, and find the ``k`` most similar galaxies.

    Raises :class:`rgz.errors.BadInput` if weights or codes are missing or damaged.
    """
    return inspect_all([cutout], k)[0]


def inspect_all(cutouts: Sequence[Cutout], k: int = 10, device: str = "cpu") -> list[Inspection]:
    """Like :func:`inspect`, for several galaxies; weights and codes are read once, the network onto the device."""
    encoder, flows, index, classifiers = _tools(artifacts.artifact("codes.h5").parent, device)
    codes = encoder.transform(cutouts)
    members = flows.member_scores(codes)
    values = mean_density(members)
    percentiles = flows.percentile(values, np.array([cutout.given for cutout in cutouts]))
    with np.errstate(invalid="ignore"):  # −∞ where a flow gives no finite value
        errors = members.std(axis=0, ddof=1)
    likelihoods = np.stack([values, errors, percentiles], axis=1).tolist()
    found = []
    for cutout, code, likelihood in zip(cutouts, codes, likelihoods, strict=True):
        seen, extent = _measured(cutout)
        coarse = seen.pixel > COARSE and extent < BARELY
        kind = "coarse" if coarse else "host" if seen.given else "centroid"
        classifier = classifiers(kind)
        probability = classifier.predict_proba(code[None])
        by_class = dict(zip(classifier.classes, map(float, probability[0]), strict=True))
        kept = tuple(compress(classifier.classes, classifier.sets(probability)[0]))
        near = index.query(code, k, seen.place, seen.given) if k else Table()
        known = index.catalogued(seen.place)
        found.append(Inspection(seen, kind, by_class, kept, extent, tuple(likelihood), near, code, known))
    return found


@cache
def _tools(_folder: Path, device: str) -> tuple[Encoder, FlowEnsemble, SearchIndex, Callable[[str], Classifier]]:
    """What is read from a folder of weights and codes, once by each process."""
    index, flows = SearchIndex.from_pretrained(), FlowEnsemble.from_pretrained()
    return Encoder.from_pretrained().to(device), flows, index, cache(Classifier.from_pretrained)


def _measured(cutout: Cutout) -> tuple[Cutout, float]:
    """The cut-out, with a note, and without its beam, if the source is narrower, and the :func:`area` of the source."""
    extent = area(cutout)
    if extent >= NARROWER:
        return cutout, extent
    if np.isnan(cutout.beam):
        assumed = f"the beam of {BEAM * cutout.pixel:.1f}″ that was assumed"
        told = f"the source is narrower than {assumed}: is the pixel width right?"
        return replace(cutout, notes=(*cutout.notes, told)), extent
    told = f"the source is narrower than the beam in the header ({cutout.beam:.1f}″), so that beam was not used"
    cutout = replace(cutout, beam=np.nan, notes=(*cutout.notes, told))
    return cutout, area(cutout)


def pictures(found: Sequence[Inspection], count: int = 6) -> tuple[NDArray[Any], NDArray[Any], list[list[str]]]:
    """The images that :func:`rgz.plots.lookalikes` shows for several inspections.

    Returns
    -------
    own, near, titles
        Prepared image and reconstruction from all latents, (N, 2, H, W); the ``count`` most similar galaxies, decoded
        from their codes, (N, count, H, W); and a title for each of these.
    """
    encoder, shown = Encoder.from_pretrained(), [one.neighbours[:count] for one in found]
    table, codes, _ = for_search()
    known = dict(zip(zip(table["sample"], table["name"], strict=True), codes, strict=True))
    squares = np.concatenate([encoder.prepared(one.cutout) for one in found])
    own = np.stack([squares, reconstruct(encoder.model, squares)], axis=1)
    near = [encoder.decode(np.stack([known[row["sample"], row["name"]] for row in rows])) for rows in shown]
    titles = [[f"{row['label'] or 'no class'}\n{row['dissimilarity']:.2f}" for row in rows] for rows in shown]
    return own, np.stack(near), titles

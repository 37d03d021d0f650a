"""Which galaxies are odd? The flow's likelihood against simpler detectors, on the same codes.

Every detector is taught with the codes of the training sources, whitened as the flow wants them, and ranks galaxies it has not
seen. It is asked for what was planted (:mod:`rgz.oddities`) among held-out galaxies, for hybrids among FRI and FRII, for
compact and bent sources when it was taught without them, and for another survey. A good detector puts what is asked for first:
ROC-AUC with its 95 % interval, the share of the first 20 and the first 100 that are odd, and the share of the odd ones found
when as many are picked as there are.

Likelihood is known to prefer what is simple (Serrà et al. 2020, arXiv:1909.11480): an unresolved source is the most likely galaxy
of all. So its rank correlation with the *complexity* of an image, the bytes that it takes compressed, is measured, and two
corrections are tried: how much less likely a galaxy is than others as complex, and how far it lies from the typical
likelihood on either side (Nalisnick et al. 2019, arXiv:1906.02994).
"""

import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from astropy.table import Table
from scipy import stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.isotonic import IsotonicRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor, NearestNeighbors
from sklearn.svm import OneClassSVM

from rgz import density, images, latents, oddities, readers
from rgz.density import Density
from rgz.progress import progress
from rgz.realism import auc, interval
from rgz.sample import Sample, prepared, usable
from rgz.vdvae import VDVAE

__all__ = [
    "FLOW",
    "ahead",
    "codes_of",
    "committed",
    "complexity",
    "detectors",
    "judged",
    "least",
    "means",
    "rivals",
    "study",
    "table",
]

FLOW = "MAF"
PLANTED = 100  # oddities of each kind
RESOLVED = 8.0  # arcsec, length of a galaxy that is worth spoiling
MIXTURES = (2, 5, 10, 20)  # components of a Gaussian mixture, of which the held-out fold chooses
FOLDS = 5


def codes_of(model: VDVAE, recipe: images.Recipe, sample: Sample, chosen: np.ndarray) -> np.ndarray:
    """What a density is of (:func:`rgz.latents.for_density`), (N, D + 3), of a sample whose images can all be prepared."""
    parts, found = [slice(start, start + 500) for start in range(0, len(sample), 500)], []
    for part in progress(parts, desc="encoding", unit="500 sources"):
        views = latents.of_views(model, recipe, sample[part], chosen)
        found.append(
            latents.for_density({"code_views": images.pool(views), "code_asymmetry": latents.asymmetry(views)})
        )
    return np.vstack(found).astype(float)


def committed(path: Path) -> dict[str, tuple[Table, np.ndarray]]:
    """Table, and what a density is of (N, D + 3), of each sample in a codes file."""
    found = {}
    for name in readers.SAMPLES:
        table, codes, _ = latents.read_variants(path, name, ("code_views", "code_asymmetry"))
        found[name] = table, latents.for_density(codes)
    return found


def complexity(grey: np.ndarray) -> np.ndarray:
    """Bytes that prepared images (N, H, W) uint8 take when compressed without loss, (N,)."""
    return np.array([len(zlib.compress(one.tobytes(), 9)) for one in grey])


def _distance(values: np.ndarray) -> Callable:
    known = NearestNeighbors(n_neighbors=5).fit(values)
    return lambda asked: known.kneighbors(asked)[0].mean(1)


def detectors(values: np.ndarray) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Detectors other than the flow, taught with whitened codes (N, kept): functions of such codes, high for odd ones."""

    def of(estimator):
        return lambda asked, fitted=estimator.fit(values): -fitted.score_samples(asked)

    return {
        "Gaussian": EmpiricalCovariance().fit(values).mahalanobis,
        "isolation forest": of(IsolationForest(n_estimators=300, random_state=0)),
        "local outlier factor": of(LocalOutlierFactor(n_neighbors=20, novelty=True)),
        "one-class SVM": of(OneClassSVM(nu=0.1)),
        "distance to neighbours": _distance(values),
    }


def _ranked(*scores: np.ndarray) -> list[np.ndarray]:
    """Ranks among all of them together of several scores (N,) …; equals share one, and what is not finite is the oddest."""
    order = stats.rankdata(np.nan_to_num(np.concatenate(scores), nan=np.inf, posinf=np.inf))
    return np.split(order, np.cumsum([len(part) for part in scores])[:-1])


def judged(normal: np.ndarray, odd: np.ndarray) -> dict:
    """How well scores (N,) of normal and (M,) of odd galaxies, high for odd, keep them apart; what is not finite is the oddest."""
    ranks = _ranked(normal, odd)
    order = np.concatenate(ranks)
    first = np.lexsort((np.random.default_rng(0).random(len(order)), -order))  # equals come in any order
    is_odd = first >= len(normal)

    return {
        "auc": interval(lambda usual, strange: auc(strange, usual), *ranks),
        "recall": float(is_odd[: len(odd)].mean()),
        "top_20": float(is_odd[:20].mean()),
        "top_100": float(is_odd[:100].mean()),
        "odd": len(odd),
        "normal": len(normal),
    }


def ahead(normal: dict[str, np.ndarray], odd: dict[str, dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """By how much the flow's mean ROC-AUC over kinds exceeds that of each other detector, ``[value, low, high]``.

    ``normal`` has scores (N,) by detector, ``odd`` the same for each kind. Galaxies are drawn with replacement, the same for both.
    """

    def ranks(name: str) -> list[np.ndarray]:
        return _ranked(normal[name], *(scores[name] for scores in odd.values()))

    def gained(usual: np.ndarray, *strange: np.ndarray) -> float:
        return float(np.mean([auc(kind[:, 0], usual[:, 0]) - auc(kind[:, 1], usual[:, 1]) for kind in strange]))

    own, found = ranks(FLOW), {}
    for name in normal:
        if name != FLOW:
            found[name] = interval(gained, *(np.column_stack(pair) for pair in zip(own, ranks(name), strict=True)))
    return found


def rivals(values: np.ndarray, groups: np.ndarray, unseen: np.ndarray) -> list[dict]:
    """Mean log-likelihood, nats, of whitened codes ``unseen`` (M, kept) under Gaussians and mixtures fitted to the flows' folds.

    ``values`` (N, kept) and ``groups`` (N,) as in :func:`rgz.density.fit`.
    """
    found = []
    for number, (taught, asked) in enumerate(density.folds(values, groups, FOLDS)):
        full = GaussianMixture(1, reg_covar=1e-6).fit(values[taught])
        several = [
            GaussianMixture(n, covariance_type=kind, reg_covar=1e-2, max_iter=500, random_state=0).fit(values[taught])
            for n in MIXTURES
            for kind in ("full", "diag")
        ]
        best = max(several, key=lambda mixture: mixture.score(values[asked]))
        found.append({"fold": number, "Gaussian": full.score(unseen), "mixture of Gaussians": best.score(unseen)})
    return [{key: float(value) for key, value in row.items()} for row in found]


def _elbo(model: VDVAE, grey: np.ndarray) -> dict[str, np.ndarray]:
    """What the autoencoder itself says of prepared images: minus the evidence lower bound, and the distortion, nats, (N,)."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [model(part) for part in torch.from_numpy(grey[:, None]).split(128)]
    distortion, rate = (torch.cat([part[name] for part in parts]) for name in ("distortion", "rate"))
    return {"VDVAE, −ELBO": (distortion + rate.sum(1)).numpy(), "VDVAE, distortion": distortion.numpy()}


class Asked:
    """Scores of every detector for galaxies, from their codes and their prepared images."""

    def __init__(self, model: VDVAE, flows: Density, taught: np.ndarray, known: np.ndarray, grey: np.ndarray):
        self.model, self.flows, self.others = model, flows, detectors(flows.whitened(taught))
        likely = flows.log_likelihood(known)
        self.usual = float(np.median(likely))
        self.expected = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(complexity(grey), likely)

    def scores(self, codes: np.ndarray, grey: np.ndarray) -> dict[str, np.ndarray]:
        """Name of each detector to scores (N,), high for odd galaxies, of codes (N, D) and prepared images (N, H, W)."""
        likely = self.flows.log_likelihood(codes)
        values = self.flows.whitened(codes)
        return (
            {FLOW: -likely}
            | {name: score(values) for name, score in self.others.items()}
            | _elbo(self.model, grey)
            | {
                "MAF, for its complexity": self.expected.predict(complexity(grey)) - likely,
                "MAF, typicality": np.abs(likely - self.usual),
            }
        )


def _planted(recipe: images.Recipe, hosts: Sample) -> dict[str, Sample]:
    """Oddities of each kind, made of resolved galaxies."""
    rng, found = np.random.default_rng(0), {}
    for kind in oddities.KINDS:
        made = oddities.plant(kind, hosts.images, PLANTED, rng)
        rows = [images.has_source(images.despeckle(image), hosts.pixel, recipe) for image in made]
        table = Table({name: [""] * len(made) for name in hosts.table.colnames if name != "name"})
        table["name"] = [f"{kind} {number}" for number in range(len(made))]
        found[kind] = Sample(made, table, hosts.pixel)[np.array(rows)]
    return found


def _without(codes: dict[str, tuple[Table, np.ndarray]], config: density.Config) -> list[dict]:
    """Compact and bent sources of the Radio Galaxy Dataset, ranked by detectors that were taught with FRI and FRII alone."""
    table, code = codes["rgd"]
    usual = np.isin(table["label"], ("FRI", "FRII"))
    taught = usual & (table["split"] == "train")
    flows = density.fit(code[taught], np.arange(taught.sum()), config)
    scores = {FLOW: lambda values: -flows.log_likelihood(values)}
    others = detectors(flows.whitened(code[taught]))
    scores |= {name: lambda values, score=score: score(flows.whitened(values)) for name, score in others.items()}
    return [
        {"task": f"{kind}, taught without", "detector": name}
        | judged(score(code[usual & ~taught]), score(code[np.asarray(table["label"]) == kind]))
        for kind in ("compact", "bent")
        for name, score in scores.items()
    ]


def study(
    model: VDVAE,
    recipe: images.Recipe,
    flows: Density,
    sources: Sample,
    taught: np.ndarray,
    known: np.ndarray,
    codes: dict[str, tuple[Table, np.ndarray]],
) -> dict:
    """Every detector at every task.

    Parameters
    ----------
    flows
        The calibrated density.
    sources
        The validation sources, whose codes are ``known`` (M, D).
    taught
        Codes (N, D) of the training sources.
    codes
        Table and codes (·, D) of each committed sample, by name.

    Returns
    -------
    dict
        ``rows``, one a task and detector; ``ahead``, of the planted kinds together, as :func:`ahead`; ``complexity``: rank
        correlation of likelihood and complexity among held-out galaxies, and among resolved ones.
    """
    grey = prepared(sources, recipe)
    asked = Asked(model, flows, taught, known, grey)
    long = np.array([images.length(image, sources.pixel, recipe) for image in sources.images]) > RESOLVED
    normal, chosen, rows, planted = asked.scores(known, grey), latents.chosen(), [], {}
    for kind, sample in progress(_planted(recipe, sources[long]).items(), "planting", unit="kind"):
        odd = planted[kind] = asked.scores(codes_of(model, recipe, sample, chosen), prepared(sample, recipe))
        rows += [{"task": kind, "detector": name} | judged(normal[name], odd[name]) for name in odd]
        rows += [
            {"task": f"{kind}, among resolved", "detector": name} | judged(normal[name][long], odd[name])
            for name in odd
        ]
    scored = {}
    for name in ("mirabest", "frdeep-first", "frdeep-nvss"):
        table, code = codes[name]
        sample = readers.load(name).named(table["name"])
        scored[name] = asked.scores(code, prepared(sample[usable(sample, recipe)], recipe))
    label = np.asarray(codes["mirabest"][0]["label"])
    for name, score in scored["mirabest"].items():
        found = judged(score[np.isin(label, ("FRI", "FRII"))], score[label == "hybrid"])
        rows.append({"task": "hybrids", "detector": name} | found)
    for name, score in scored["frdeep-nvss"].items():
        rows.append({"task": "the other survey", "detector": name} | judged(scored["frdeep-first"][name], score))
    rows += _without(codes, flows.config)
    bytes_, likely = complexity(grey), flows.log_likelihood(known)
    among = {
        "all": float(stats.spearmanr(bytes_, likely).statistic),
        "resolved": float(stats.spearmanr(bytes_[long], likely[long]).statistic),
    }
    return {"rows": rows, "ahead": ahead(normal, planted), "complexity": among}


def means(found: dict, ending: str = "") -> dict[str, float]:
    """Mean ROC-AUC over the planted kinds, by detector; with ``ending`` those tasks whose names it makes."""
    tasks = [kind + ending for kind in oddities.KINDS]
    names = dict.fromkeys(row["detector"] for row in found["rows"] if row["task"] == tasks[0])
    return {
        name: float(np.mean([r["auc"][0] for r in found["rows"] if r["detector"] == name and r["task"] in tasks]))
        for name in names
    }


def table(found: dict) -> str:
    """A :func:`study` as plain text: ROC-AUC of the flow and of the best other detector at each task, and the means."""
    lines = [f"{'ROC-AUC':34}{FLOW:24}best other detector"]
    for task in dict.fromkeys(row["task"] for row in found["rows"]):
        each = {row["detector"]: row["auc"] for row in found["rows"] if row["task"] == task}
        best = max((name for name in each if not name.startswith(FLOW)), key=lambda name: each[name][0])
        own, other = ("{:.3f} ({:.3f}–{:.3f})".format(*each[name]) for name in (FLOW, best))
        lines.append(f"{task:34}{own:24}{other}  {best}")
    lines += ["", f"{'mean over planted kinds':41}by how much {FLOW} is ahead"]
    for name, value in means(found).items():
        behind = "{:+.4f} ({:+.4f} to {:+.4f})".format(*found["ahead"][name]) if name != FLOW else ""
        lines.append(f"  {name:32}{value:.4f} {behind}".rstrip())
    return "\n".join(lines)


def least(flows: Density, codes: dict[str, tuple[Table, np.ndarray]], count: int = 10) -> dict[str, Table]:
    """The least likely galaxies of each sample: its table, with columns ``log_likelihood`` (nats) and ``percentile``."""
    found = {}
    for name, (table, code) in codes.items():
        likely = flows.log_likelihood(code)
        rows = np.argsort(likely)[:count]
        found[name] = table[rows]
        found[name]["row"], found[name]["log_likelihood"] = rows, likely[rows]
        found[name]["percentile"] = flows.percentile(likely[rows])
    return found

"""Anomaly detection: the likelihood of the flow compared with simpler detectors on the same codes.

Every detector is fitted to the codes of the training sources, whitened as for the flow, and ranks other galaxies. The
tasks are: injected anomalies (:mod:`studies.injected`) among held-out galaxies, hybrids among FRI and FRII, compact and
bent sources that were excluded from the fit, and images of another survey. The metrics are the ROC-AUC with its 95 %
interval, the fraction of anomalies among the first 20 and the first 100, and the recall if the number of selected
galaxies equals the number of anomalies.

The likelihood is known to be high for simple images (Serrà et al. 2020, arXiv:1909.11480): unresolved sources have the
highest. We therefore measure its rank correlation with the length of a source, and with the *complexity* of its image,
which is the size of the compressed image. We try two corrections: the likelihood relative to that of other galaxies of
the same complexity, and the absolute difference from the typical likelihood (Nalisnick et al. 2019, arXiv:1906.02994).

The likelihood of the flow is compared with that of Gaussians and mixtures of Gaussians on the same folds. Its
percentiles are tested for uniformity: the percentiles of one half of the validation sources, calibrated with the other
half, should be distributed like those of the other half.
"""

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from scipy import stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.ensemble import IsolationForest
from sklearn.isotonic import IsotonicRegression
from sklearn.mixture import GaussianMixture
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import OneClassSVM

from rgz import artifacts
from rgz.app.training import TRAINING_SET, splits
from rgz.data import datasets
from rgz.data.sample import Sample, cells, source_table
from rgz.features import codes as codefile
from rgz.features.embed import Encoder
from rgz.models import flow
from rgz.models.flow import FlowEnsemble
from rgz.models.vdvae import VDVAE
from rgz.transforms import fields
from rgz.transforms.prepare import lengths
from studies import injected, results, training_codes
from studies.metrics import auc, interval
from studies.results import Row, tidy

FLOW, ELBO = "MAF", "VDVAE, −ELBO"
INJECTED = 100  # anomalies of each kind
MIXTURES = ((2, "full"), (5, "full"), (20, "diag"), (50, "diag"))  # Gaussians and covariance; a held-out fold selects
FOLDS = 5
RESOLVED = 8.0  # arcsec, length; anomalies are made from longer sources

Scores = dict[str, NDArray[np.float64]]  # detector to scores (N,), high for anomalies


def complexity(grey: NDArray[Any]) -> NDArray[np.int64]:
    """Size in bytes, (N,), of prepared images (N, H, W) uint8 after lossless compression."""
    return np.array([len(zlib.compress(one.tobytes(), 9)) for one in grey])


def detectors(values: NDArray[Any]) -> dict[str, Callable[[NDArray[Any]], NDArray[np.float64]]]:
    """Detectors other than the flow, fitted to whitened codes (N, kept): their scores are high for anomalies."""

    def of(estimator: Any) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
        fitted = estimator.fit(values)
        return lambda asked: -fitted.score_samples(asked)

    known = NearestNeighbors(n_neighbors=5).fit(values)
    return {
        "Gaussian": EmpiricalCovariance().fit(values).mahalanobis,
        "isolation forest": of(IsolationForest(n_estimators=300, random_state=0)),
        "one-class SVM": of(OneClassSVM(nu=0.1)),
        "distance to neighbours": lambda asked: np.asarray(known.kneighbors(asked)[0].mean(1)),
    }


def _ranks(*scores: NDArray[Any]) -> list[NDArray[np.float64]]:
    """Ranks of several scores (N,) … among all of them; ties share a rank, and non-finite ones have the highest."""
    order = stats.rankdata(np.nan_to_num(np.concatenate(scores), nan=np.inf, posinf=np.inf))
    return np.split(order, np.cumsum([len(part) for part in scores])[:-1])


def measure(normal: NDArray[Any], anomalous: NDArray[Any]) -> list[Row]:
    """How well scores separate (N,) normal galaxies from (M,) anomalous ones, which should have high scores."""
    ranks = _ranks(normal, anomalous)
    order = np.concatenate(ranks)
    first = np.lexsort((np.random.default_rng(0).random(len(order)), -order))  # equal ranks in random order
    found = first >= len(normal)
    rows = tidy({}, {"auc": interval(lambda usual, strange: auc(strange, usual), *ranks)})
    shares = {"recall": found[: len(anomalous)], "top_20": found[:20], "top_100": found[:100]}
    rows += tidy({}, {metric: [float(share.mean())] for metric, share in shares.items()}, ("value",))
    return [row | {"anomalous": len(anomalous), "normal": len(normal)} for row in rows]


def paired_auc_difference(normal: Scores, anomalous: dict[str, Scores]) -> list[Row]:
    """Difference of the flow's mean ROC-AUC over kinds of anomalies from that of each other detector.

    Intervals are over galaxies drawn with replacement, the same for both detectors.
    """

    def ranks(name: str) -> list[NDArray[np.float64]]:
        return _ranks(normal[name], *(scores[name] for scores in anomalous.values()))

    def lead(usual: NDArray[Any], *strange: NDArray[Any]) -> float:
        return float(np.mean([auc(kind[:, 0], usual[:, 0]) - auc(kind[:, 1], usual[:, 1]) for kind in strange]))

    own, rows = ranks(FLOW), []
    for name in normal:
        if name != FLOW:
            pairs = [np.column_stack(pair) for pair in zip(own, ranks(name), strict=True)]
            about = {"task": "mean over injected kinds", "detector": name}
            rows += tidy(about, {"auc_lead": interval(lead, *pairs)})
    return rows


def baseline_densities(values: NDArray[Any], groups: NDArray[Any], held_out: NDArray[Any]) -> list[Row]:
    """Mean log-likelihood, nats, of whitened codes (M, kept) under Gaussians and mixtures fitted to the same folds.

    ``values`` (N, kept) and ``groups`` (N,) as in :func:`rgz.models.flow.fit_ensemble`.
    """
    rows: list[Row] = []
    for fold, (seen, stop) in enumerate(GroupKFold(FOLDS).split(values, groups=groups)):
        full = GaussianMixture(1, reg_covar=1e-6).fit(values[seen])
        several = [
            GaussianMixture(n, covariance_type=kind, reg_covar=1e-2, tol=1e-2, random_state=0).fit(values[seen])
            for n, kind in MIXTURES
        ]
        best = max(several, key=lambda mixture: mixture.score(values[stop]))
        for model, fitted in (("Gaussian", full), ("mixture of Gaussians", best)):
            rows.append({"model": model, "fold": fold, "nats": float(fitted.score(held_out))})
    return sorted(rows, key=lambda row: str(row["model"]))


def likelihoods(flows: FlowEnsemble, held_out: NDArray[Any]) -> list[Row]:
    """Mean log-likelihood, nats, of codes (M, D) under each flow and under the ensemble."""
    each = flows.member_scores(held_out).mean(axis=1)
    rows: list[Row] = [{"model": "flow", "fold": fold, "nats": float(nats)} for fold, nats in enumerate(each)]
    return [*rows, {"model": "ensemble", "nats": float(flows.score_samples(held_out).mean())}]


def uniformity(flows: FlowEnsemble, held_out: NDArray[Any]) -> dict[str, float]:
    """Kolmogorov-Smirnov test of the percentiles of one half of codes (M, D), calibrated with the other half."""
    half, rest = np.array_split(np.random.default_rng(0).permutation(len(held_out)), 2)
    calibrated = flow.calibrate(flows, held_out[half])
    one, two = (calibrated.percentile(flows.score_samples(held_out[part])) for part in (half, rest))
    return {
        "uniform_p": float(stats.ks_2samp(one, two).pvalue),
        "uniform_calibrated": len(half),
        "uniform_asked": len(rest),
    }


def _elbo(model: VDVAE, grey: NDArray[Any]) -> NDArray[np.float64]:
    """The network's own score of prepared images (N, H, W): minus the evidence lower bound, nats, (N,)."""
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [model(part) for part in torch.split(torch.from_numpy(grey[:, None]), 64)]
    return np.asarray(torch.cat([part["distortion"] + part["rate"].sum(1) for part in parts]).double())


class DetectorScores:
    """Scores of every detector of codes for galaxies, from their codes and their prepared images.

    Detectors are fitted to codes ``training`` (N, D), and the corrections of the likelihood to codes ``held_out`` (M,
    D) and prepared images ``grey`` (M, H, W).
    """

    def __init__(self, flows: FlowEnsemble, training: NDArray[Any], held_out: NDArray[Any], grey: NDArray[Any]):
        self.flows, self.others = flows, detectors(flows.whitened(training))
        likely = flows.score_samples(held_out)
        self.typical = float(np.median(likely))
        self.expected = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(complexity(grey), likely)

    def __call__(self, codes: NDArray[Any], grey: NDArray[Any]) -> Scores:
        """Scores (N,) by detector of codes (N, D) and prepared images (N, H, W)."""
        likely, values = self.flows.score_samples(codes), self.flows.whitened(codes)
        return {
            FLOW: -likely,
            **{name: score(values) for name, score in self.others.items()},
            f"{FLOW}, corrected for complexity": self.expected.predict(complexity(grey)) - likely,
            f"{FLOW}, typicality": np.abs(likely - self.typical),
        }


def _injected(hosts: Sample) -> tuple[Sample, NDArray[np.str_]]:
    """Anomalies of all kinds, made from resolved galaxies, and the kind of each, (N,)."""
    rng, kinds = np.random.default_rng(0), np.repeat([*injected.KINDS], INJECTED)
    made = np.concatenate([injected.inject(kind, hosts.images, INJECTED, rng) for kind in injected.KINDS])
    shown = fields.has_source(np.stack([*map(fields.despeckle, made)]), hosts.pixel)
    blank = np.full(len(made), np.nan)
    names = [f"{kind} {number}" for number, kind in enumerate(kinds)]
    table = source_table(names, blank, blank, [""] * len(made), blank < 0, [""] * len(made))
    return Sample(made, table, hosts.pixel)[shown], kinds[shown]


def _task(task: str, normal: Scores, anomalous: Scores) -> list[Row]:
    return [{"task": task, "detector": name} | row for name in normal for row in measure(normal[name], anomalous[name])]


def _excluded(codes: dict[str, tuple[Table, NDArray[Any]]], config: flow.Config) -> list[Row]:
    """Compact and bent sources of the Radio Galaxy Dataset, with detectors fitted to FRI and FRII alone."""
    table, code = codes["rgd"]
    usual = np.isin(table["label"], ("FRI", "FRII"))
    seen = usual & (table["split"] == "train")
    flows = flow.fit_ensemble(code[seen], np.arange(seen.sum()), config)
    others = detectors(flows.whitened(code[seen]))

    def scores(rows: NDArray[np.bool_]) -> Scores:
        values = flows.whitened(code[rows])
        return {FLOW: -flows.score_samples(code[rows])} | {name: score(values) for name, score in others.items()}

    normal, label = scores(usual & ~seen), np.asarray(table["label"])
    kinds = {kind: scores(label == kind) for kind in ("compact", "bent")}
    return [row for kind, odd in kinds.items() for row in _task(f"{kind}, excluded from training", normal, odd)]


def _catalogued(scores: DetectorScores, encoder: Encoder, codes: dict[str, tuple[Table, NDArray[Any]]]) -> list[Row]:
    """Hybrids among the FRI and FRII of MiraBest, and NVSS images among FIRST images."""
    scored = {}
    for name in ("mirabest", "frdeep-first", "frdeep-nvss"):
        table, code = codes[name]
        scored[name] = scores(code, encoder.prepared(datasets.load_dataset(name).named(table["name"])))
    label = np.asarray(codes["mirabest"][0]["label"])
    certain, hybrid = (
        {name: score[rows] for name, score in scored["mirabest"].items()}
        for rows in (np.isin(label, ("FRI", "FRII")), label == "hybrid")
    )
    rows = _task("hybrids", certain, hybrid)
    return rows + _task("other survey", scored["frdeep-first"], scored["frdeep-nvss"])


def study(
    encoder: Encoder,
    flows: FlowEnsemble,
    training: tuple[Table, NDArray[Any]],
    held_out: Sample,
    codes: dict[str, tuple[Table, NDArray[Any]]],
) -> dict[str, list[Row]]:
    """Rows of the tables of this chapter: every detector at every task, and the densities.

    ``training`` and ``codes`` have table and codes (N, D) of the training sources and of each sample; ``held_out`` are
    the validation sources.
    """
    length = lengths(held_out.images, held_out.pixel)
    resolved = length > RESOLVED
    known, grey = encoder.transform(held_out).astype(float), encoder.prepared(held_out)
    scores = DetectorScores(flows, training[1], known, grey)
    made, kinds = _injected(held_out[resolved])
    shown = encoder.prepared(made)
    normal, anomalous = scores(known, grey), scores(encoder.transform(made).astype(float), shown)
    normal[ELBO], anomalous[ELBO] = _elbo(encoder.model, grey), _elbo(encoder.model, shown)
    odd = {kind: {name: score[kinds == kind] for name, score in anomalous.items()} for kind in injected.KINDS}
    among, rows = {name: score[resolved] for name, score in normal.items()}, []
    for kind, own in odd.items():
        rows += _task(kind, normal, own) + _task(f"{kind}, among resolved", among, own)
    rows += _catalogued(scores, encoder, codes) + _excluded(codes, flows.config)
    rows += paired_auc_difference(normal, odd)
    values, groups = flows.whitened(training[1]), cells(training[0])
    checks, likely = uniformity(flows, known), flows.score_samples(known)
    for name, part in (("all", np.ones(len(known), bool)), ("resolved", resolved)):
        for key, measured in (("complexity", complexity(grey)), ("length", length)):
            checks[f"spearman_{key}_{name}"] = float(stats.spearmanr(measured[part], likely[part]).statistic)
    return {
        "anomalies": rows,
        "density": likelihoods(flows, known) + baseline_densities(values, groups, flows.whitened(known)),
        "density_checks": [{"check": name, "value": float(value)} for name, value in checks.items()],
    }


def main() -> None:
    """Compute and write the tables of this chapter; three minutes on one core."""
    files = [artifacts.artifact(name) for name in ("vdvae.safetensors", "codes.h5", "density.safetensors")]
    encoder, (flows, _), (seen, held_out) = Encoder.from_pretrained(), flow.load(files[2]), splits(TRAINING_SET)
    codes = {}
    for name in datasets.SAMPLES:
        table, code, _ = codefile.read_codes(files[1], name)
        codes[name] = table, code.astype(float)
    tables = study(encoder, flows, (seen.table, training_codes.read()), held_out, codes)
    for name, rows in tables.items():
        results.write(name, rows, files)


if __name__ == "__main__":
    results.run(main)

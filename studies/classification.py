"""Classification into FRI and FRII: every classifier on the codes and on baseline features, and further tests.

There are two protocols: repeated 5-fold cross-validation, with the standard deviation over folds, and the official
split, with a bootstrap interval over test galaxies. On the same folds each method is compared with a supervised CNN
(:mod:`studies.cnn`). There are four further tests. How many labels does a classifier need? Which blocks of the network
carry the class? How are hybrids classified, and galaxies whose class the experts marked as uncertain? Can a classifier
be transferred from one survey to another, or from one catalogue to another?
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from astropy.table import Table, vstack
from joblib import parallel_config
from numpy.typing import NDArray
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from rgz import artifacts
from rgz.data import datasets
from rgz.data.sample import same_source
from rgz.features import codes as codefile
from rgz.features.embed import PARTS
from studies import baselines, metrics, results
from studies.classifiers import BRIEF, CLASSIFIERS, Features, predict
from studies.labelled import SEED, confident, folds, groups
from studies.metrics import is_frii
from studies.results import Row, tidy

CODE = "VDVAE code"
SAMPLES = {"mirabest": "MiraBest Confident", "frdeep-nvss": "FR-DEEP NVSS", "frdeep-first": "FR-DEEP FIRST"}
TRANSFERRED = {"mirabest": "MiraBest", "rgd": "RGD", "frdeep-first": "FIRST", "frdeep-nvss": "NVSS"}
SIZE = "angular size (catalogue)"
RANGE, WITH_RANGE = "peak over threshold", "VDVAE code and peak over threshold"
CNN = "supervised CNN"
REPEATS = {"mirabest": 3, "frdeep-nvss": 2, "frdeep-first": 2}  # of the 5-fold cross-validation
COUNTS = (10, 25, 50, 100, 200, 400, 729)  # labels
SVM = {"support vector machine": BRIEF["support vector machine"]}
UNCALIBRATED = {"support vector machine": GridSearchCV(SVC(), {"C": [1, 3, 10]}, scoring="roc_auc", cv=3)}
"""For few labels, since ten are too few to calibrate probabilities."""
SPREAD = ("value", "spread")
APART = 20.0
"""Distance in arcsec within which galaxies of two samples may be the same (in FR-DEEP no two are 5″ to 5′ apart)."""

Rounds = list[tuple[NDArray[Any], NDArray[Any]]]  # row numbers: training, held out


def known(codes: Path, name: str) -> tuple[Table, NDArray[Any]]:
    """Table and codes of the galaxies of a sample for which the experts were certain of the class."""
    everything, code, _ = codefile.read_codes(codes, name)
    rows = confident(everything)
    return everything[rows], code[rows]


def over_folds(truth: NDArray[Any], rounds: Rounds, found: Sequence[NDArray[Any]]) -> dict[str, list[float]]:
    """Mean and standard deviation over folds of each of the :func:`studies.metrics.scores`."""
    each = [metrics.scores(truth[test], p) for (_, test), p in zip(rounds, found, strict=True)]
    return {name: [float(f([one[name] for one in each])) for f in (np.mean, np.std)] for name in metrics.METRICS}


def joined(rounds: Rounds, found: Sequence[NDArray[Any]], count: int) -> NDArray[np.float64]:
    """Probabilities of ``count`` rows, each from the first round in which it was held out; NaN if there is none."""
    whole = np.full(count, np.nan)
    for (_, test), probability in zip(rounds, found, strict=True):
        new = np.isnan(whole[test])
        whole[test[new]] = probability[new]
    return whole


def of_cnn(table: Table, name: str) -> tuple[Rounds, list[NDArray[Any]], NDArray[Any]] | None:
    """Folds, the CNN's probabilities (N,) in each, and those of the official test split; None if it was not trained."""
    kept = results.read("cnn").query("sample == @name").set_index(["round", "name"])["probability"]
    names, rounds = np.asarray(table["name"]), list(folds(is_frii(table), groups(table), repeats=1))
    held_out = {f"fold {k}": names[test] for k, (_, test) in enumerate(rounds)}
    held_out["official"] = names[np.asarray(table["split"]) == "test"]
    found = [kept.reindex(pd.MultiIndex.from_product([[part], rows])).to_numpy() for part, rows in held_out.items()]
    return None if np.isnan(np.concatenate(found)).any() else (rounds, found[:-1], found[-1])


def evaluate(
    features: Features, table: Table, repeats: int, classifiers: dict[str, Any], cnn: NDArray[Any] | None
) -> list[Row]:
    """Scores of classifiers by cross-validation and on the official split, and differences from the CNN (N,)."""
    labels, test = is_frii(table), np.asarray(table["split"]) == "test"
    validated = list(folds(labels, groups(table), repeats))
    official = np.flatnonzero(~test), np.flatnonzero(test)
    rows = []
    for name, found in predict(features, labels, [*validated, official], classifiers).items():
        about = {"features": features.name, "dimensions": features.dimensions, "classifier": name}
        rows += _scored(about, labels, validated, found[:-1], test, found[-1])
        if cnn is not None:
            lead = metrics.difference(labels, joined(validated, found[:-1], len(labels)), cnn)
            rows += tidy(about | {"protocol": "difference from CNN"}, lead)
    return rows


def _scored(about: Row, labels: NDArray[Any], rounds: Rounds, found: Any, test: Any, official: Any) -> list[Row]:
    return [
        *tidy(about | {"protocol": "cross-validation"}, over_folds(labels, rounds, found), SPREAD),
        *tidy(about | {"protocol": "official split"}, metrics.bootstrap(labels[test], official)),
    ]


def of_sample(codes: Path, name: str) -> tuple[Row, list[Row], dict[str, Features]]:
    """Numbers of galaxies in one sample, the rows of its scores, and its features by name."""
    table, code = known(codes, name)
    every = [(Features(CODE, code), CLASSIFIERS)]
    if name == "mirabest":
        every.append((Features(SIZE, np.log(np.asarray(table["size"]))[:, None]), BRIEF))
    images = datasets.load_dataset(name).named(table["name"])
    chosen = tuple(baselines.BASELINES) if name == "mirabest" else (baselines.BEST,)
    every += [(one, BRIEF) for one in baselines.describe(images, chosen)]
    strength = baselines.peak_over_threshold(images)
    strength *= np.sqrt(code.var(axis=0).sum() / PARTS) / strength.std()  # as much variance as a part of the code
    every += [(Features(RANGE, strength), BRIEF), (Features(WITH_RANGE, np.hstack([code, strength])), BRIEF)]
    labels, test = is_frii(table), np.asarray(table["split"]) == "test"
    cnn, rows = of_cnn(table, name), []
    rival = cnn and joined(*cnn[:2], len(labels))
    for one, classifiers in every:
        rows += evaluate(one, table, REPEATS[name], classifiers, rival)
    if cnn:
        about = {"features": CNN, "dimensions": 150 * 150, "classifier": "five convolutions, three dense layers"}
        rows += _scored(about, labels, *cnn[:2], test, cnn[2])
    counts = {"n": len(labels), "FRI": int((labels == 0).sum()), "FRII": int(labels.sum())}
    counts |= {"official_train": int((~test).sum()), "official_test": int(test.sum()), "repeats": REPEATS[name]}
    rows = [{"sample": SAMPLES[name]} | row for row in rows]
    return {"sample": SAMPLES[name]} | counts, rows, {one.name: one for one, _ in every}


def label_efficiency(features: Features, table: Table, counts: Sequence[int] = COUNTS, draws: int = 10) -> list[Row]:
    """Scores of a support vector machine with few labels; the spread is over draws of the labelled galaxies.

    These are drawn at random, in the proportion of the classes; all other sources are the test set.
    """
    labels, group, rows = is_frii(table), groups(table), []
    for count in counts:
        rounds = []
        for draw in range(draws):
            seen, rest = train_test_split(
                np.arange(len(labels)), train_size=count, stratify=labels, random_state=SEED + draw
            )
            rounds.append((seen, rest[~np.isin(group[rest], group[seen])]))
        ((_, found),) = predict(features, labels, rounds, UNCALIBRATED).items()
        rows += tidy({"features": features.name, "labels": count}, over_folds(labels, rounds, found), SPREAD)
    return rows


def blocks(code: NDArray[Any], block: NDArray[Any], table: Table, repeats: int = 1) -> list[Row]:
    """Cross-validated scores of the latents of the first blocks, more and more of those that have latents in a code.

    ``code`` (N, 4 D) has four numbers for each latent, and the latents belong to the blocks ``block`` (D,).
    """
    labels, rows = is_frii(table), []
    rounds = list(folds(labels, groups(table), repeats))
    for last in sorted({*np.unique(block)[1::2], block.max()}):
        values = code[:, np.tile(block <= last, PARTS)]
        ((_, found),) = predict(Features(f"{last + 1} blocks", values), labels, rounds, SVM).items()
        about = {"blocks": int(last) + 1, "dimensions": values.shape[1]}
        rows += tidy(about, over_folds(labels, rounds, found), SPREAD)
    return rows


def uncertain(features: Features, table: Table) -> list[Row]:
    """Scores of galaxies of uncertain class, and fractions among these and among hybrids, after training on MiraBest
    Confident.

    The label of an uncertain galaxy is the experts' best guess. ``certain`` is the fraction with a probability outside
    0.1 … 0.9, and ``called_frii`` the fraction with a probability of at least 0.5.
    """
    label, sure = np.asarray(table["label"]), confident(table)
    truth, source, training = (label == "FRII").astype(int), groups(table), np.flatnonzero(confident(table))
    asked = {"uncertain": ~sure & (label != "hybrid"), "hybrid": label == "hybrid"}
    rounds = [(training, np.flatnonzero(rows & ~np.isin(source, source[training]))) for rows in asked.values()]
    ((_, found),) = predict(features, truth, rounds, SVM).items()
    rows = []
    for group, (_, test), probability in zip(asked, rounds, found, strict=True):
        about = {"group": group, "n": len(test)}
        shares = {"certain": [float((np.abs(probability - 0.5) > 0.4).mean())]}
        if group == "uncertain":
            rows += tidy(about, metrics.bootstrap(truth[test], probability))
        else:
            shares = {"called_frii": [float((probability >= 0.5).mean())]} | shares
        rows += tidy(about, shares, ("value",))
    return rows


def transfer(here: tuple[Table, Features], there: tuple[Table, Features], repeats: int = 1) -> list[Row]:
    """Scores of classifiers trained on one sample and tested on another.

    Some galaxies may be in both samples, so the other sample is tested fold by fold, and training rows closer than
    ``APART`` to a galaxy of the fold are left out. Galaxies without a position are left out altogether. There are two
    more protocols on the same folds. For ``aligned``, the codes of each sample are standardised separately, which needs
    no labels. For ``same sample``, the classifier is trained on the sample of the test fold.
    """
    (table, one), (other, two) = (_placed(*each) for each in (here, there))
    labels = np.concatenate([is_frii(table), is_frii(other)])
    first, home, away = len(table), [], []
    source = joint_sources(table, other)
    for train, test in folds(is_frii(other), source[first:], repeats):
        home.append((first + train, first + test))
        away.append((np.flatnonzero(~np.isin(source[:first], source[first + test])), first + test))
    raw = np.vstack([one.values, two.values])
    aligned = np.vstack([StandardScaler().fit_transform(each.values) for each in (one, two)])
    rows = []
    protocols = {"transferred": (raw, away), "aligned": (aligned, away), "same sample": (raw, home)}
    for protocol, (values, rounds) in protocols.items():
        for name, found in predict(Features(f"{one.name} → {two.name}", values), labels, rounds, BRIEF).items():
            rows += tidy({"protocol": protocol, "classifier": name}, over_folds(labels, rounds, found), SPREAD)
    return rows


def _placed(table: Table, features: Features) -> tuple[Table, Features]:
    rows = np.isfinite(table["ra"])
    return table[rows], replace(features, values=features.values[rows])


def joint_sources(one: Table, other: Table) -> NDArray[np.intp]:
    """One integer per source of two tables in a row, shared by rows within ``APART`` of each other."""
    positions = [table["ra", "dec"] for table in (one, other)]
    return same_source(vstack(positions, metadata_conflicts="silent"), APART)


def beyond(table: Table, there: tuple[Table, Features]) -> tuple[Table, Features]:
    """The galaxies of ``there`` that are farther than ``APART`` from all those of a table."""
    source, count = joint_sources(table, there[0]), len(table)
    rows = ~np.isin(source[count:], source[:count])
    return there[0][rows], replace(there[1], values=there[1].values[rows])


def study(codes: Path) -> dict[str, list[Row]]:
    """Rows of the tables of this chapter, by name."""
    samples, rows, features = zip(*(of_sample(codes, name) for name in SAMPLES), strict=True)
    everything, every_code, about = codefile.read_codes(codes, "mirabest")
    table, code = known(codes, "mirabest")
    placed = {}
    for name, title in TRANSFERRED.items():
        one, values = known(codes, name)
        placed[name] = one, Features(title, values)
    first, nvss, mirabest = placed["frdeep-first"], placed["frdeep-nvss"], placed["mirabest"]
    pairs = (first, nvss), (nvss, first), (mirabest, beyond(everything, placed["rgd"]))
    return {
        "samples": list(samples),
        "classification": list(chain(*rows)),
        "label_efficiency": [
            row for one in (CODE, baselines.BEST) for row in label_efficiency(features[0][one], table)
        ],
        "blocks": blocks(code, about["blocks"], table),
        "uncertain": uncertain(Features(CODE, every_code), everything),
        "transfer": [
            {"direction": f"{one[1].name} to {other[1].name}"} | row
            for one, other in pairs
            for row in transfer(one, other)
        ],
    }


def main() -> None:
    """Compute and write the tables of this chapter; five minutes on one core."""
    codes = artifacts.artifact("codes.h5")
    with parallel_config(n_jobs=-1):
        tables = study(codes)
    for name, rows in tables.items():
        results.write(name, rows, [codes, results.FOLDER / "cnn.csv"])


if __name__ == "__main__":
    results.run(main)

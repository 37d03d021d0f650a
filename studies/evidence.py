"""What lies behind a score: how many labels it needs, which latents carry it, and how far it travels.

A classifier on codes is worth having if it needs few labels, if it holds for galaxies whose class experts doubted, and if what
it learned in one survey is true in another. All studies use the classifiers of :mod:`rgz.tasks.classify` with their settings chosen
on training rows.
"""

from collections.abc import Sequence

import numpy as np
from astropy.table import Table
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from rgz.tasks.classify import BRIEF, SEED, Features, bootstrap, confident, folds, groups, is_frii, predict, spread

__all__ = ["COUNTS", "blocks", "doubtful", "learning_curve", "transfer"]

COUNTS = (10, 25, 50, 100, 200, 400, 729)
MACHINE = {"support vector machine": BRIEF["support vector machine"]}
UNCALIBRATED = {"support vector machine": GridSearchCV(SVC(), {"C": [1, 3, 10]}, scoring="roc_auc", cv=3)}
"""For few labels: of ten there are too few left to fit a probability to as well."""


def learning_curve(
    features: Features, labels: np.ndarray, group: np.ndarray, counts: Sequence[int] = COUNTS, draws: int = 20
) -> list[dict]:
    """Scores of a support vector machine that knows few labels, as ``[mean, standard deviation over draws]``.

    Labelled galaxies are drawn at random, in the proportion of the classes; all others, whatever is the same source
    apart, are the test.
    """
    rows = []
    for count in counts:
        rounds = []
        for draw in range(draws):
            known, rest = train_test_split(
                np.arange(len(labels)), train_size=count, stratify=labels, random_state=SEED + draw
            )
            rounds.append((known, rest[~np.isin(group[rest], group[known])]))
        ((_, found),) = predict(features, labels, rounds, UNCALIBRATED).items()
        rows.append({"features": features.name, "labels": count} | spread(labels, rounds, found))
    return rows


def blocks(code: np.ndarray, block: np.ndarray, labels: np.ndarray, group: np.ndarray, repeats: int = 2) -> list[dict]:
    """Cross-validated scores of the latents of the first blocks, more and more of them.

    ``code`` (N, 2 D) is pooled over views, and its latents belong to the blocks ``block`` (D,).
    """
    rounds, rows = list(folds(labels, group, repeats)), []
    for last in np.unique(block):
        values = code[:, np.tile(block <= last, 2)]
        ((_, found),) = predict(Features(f"{last + 1} blocks", values), labels, rounds, MACHINE).items()
        rows.append({"blocks": int(last) + 1, "dimensions": values.shape[1]} | spread(labels, rounds, found))
    return rows


def doubtful(features: Features, table: Table) -> dict:
    """Trained on MiraBest Confident: what becomes of galaxies whose class was in doubt, and of hybrids.

    Returns
    -------
    dict
        ``uncertain``: ``n`` and :func:`rgz.tasks.classify.bootstrap`, against the experts' best guess; ``hybrid``: ``n``, and
        ``frii``, the share called FRII. For each, ``sure``, the share with a probability outside 0.1 … 0.9.
    """
    label, sure = np.asarray(table["label"]), confident(table)
    truth, source = (label == "FRII").astype(int), groups(table)
    asked = {"uncertain": ~sure & (label != "hybrid"), "hybrid": label == "hybrid"}
    training = np.flatnonzero(sure)
    rounds = [(training, np.flatnonzero(rows & ~np.isin(source, source[training]))) for rows in asked.values()]
    ((_, found),) = predict(features, truth, rounds, MACHINE).items()
    uncertain, hybrid = found
    answer = {
        "uncertain": {"n": len(uncertain)} | bootstrap(truth[rounds[0][1]], uncertain),
        "hybrid": {"n": len(hybrid), "frii": float((hybrid >= 0.5).mean())},
    }
    for name, probability in zip(answer, found, strict=True):
        answer[name]["sure"] = float((np.abs(probability - 0.5) > 0.4).mean())
    return answer


def transfer(here: tuple[Table, Features], there: tuple[Table, Features], repeats: int = 2) -> list[dict]:
    """Trained on one survey, tested on another, for each classifier of ``BRIEF``.

    The surveys show partly the same objects, so the other survey is tested fold by fold, each without its objects among the
    training rows of the first. Beside it, on the same folds: with the codes of each survey ``aligned``, brought to mean zero
    and spread one by themselves, which takes no label; and trained on the other survey itself.

    Returns
    -------
    list of dict
        ``classifier``, ``transferred``, ``aligned`` and ``at_home``: :func:`rgz.tasks.classify.spread` of each.
    """
    (known, one), (other, two) = here, there
    labels = np.concatenate([is_frii(known), is_frii(other)])
    objects, asked = np.asarray(known["object"]), np.asarray(other["object"])
    first, at_home, away = len(known), [], []
    for train, test in folds(is_frii(other), groups(other), repeats):
        at_home.append((first + train, first + test))
        away.append((np.flatnonzero(~np.isin(objects, asked[test])), first + test))
    raw = np.vstack([one.values, two.values])
    aligned = np.vstack([StandardScaler().fit_transform(each.values) for each in (one, two)])
    studies = {"transferred": (raw, away), "aligned": (aligned, away), "at_home": (raw, at_home)}
    rows = [{"classifier": name} for name in BRIEF]
    for study, (values, rounds) in studies.items():
        found = predict(Features(f"{one.name} → {two.name}", values), labels, rounds, BRIEF)
        for row in rows:
            row[study] = spread(labels, rounds, found[row["classifier"]])
    return rows

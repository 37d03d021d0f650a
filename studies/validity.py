"""How accurate is the class for galaxies outside the catalogues of the training?

Inside one catalogue, training and test galaxies were chosen by the same people from the same survey; a reader's galaxy
was not. Here a classifier meets galaxies that others chose:

- **One catalogue left out.** The classifier of :mod:`rgz.tasks.classify` is trained on two of the samples MiraBest,
  FR-DEEP FIRST and the Radio Galaxy Dataset, and tested on FRI and FRII of the third. No source is on both sides. Of
  the Radio Galaxy Dataset, which contains most of MiraBest, only sources that are not in MiraBest are tested, and the
  labels that it took from MiraBest are not trained on if MiraBest is tested.
- **Strangers.** The classifiers that come with the library, trained on all three samples, are tested on galaxies that
  other authors classified and that are more than 20″ from every source of the samples. Nothing was trained or tuned on
  these. They had been looked at twice before: with simpler classifiers, of which the one that was trained on
  all three samples was the best, and with traces of their JPEG compression, which were then set to zero (the accuracy
  had been 0.73). The classifier has not been changed since.

There are two baselines. Principal components of prepared images go to the same classifier, with the same other
observations of the training galaxies. The supervised CNN of :mod:`studies.cnn` is trained on randomly rotated and
mirrored images of the FRI and FRII with which the classifiers are trained, in a step of its own. No two of the
catalogues contradict each other about FRI and FRII, but they are not independent: the Radio Galaxy Dataset took labels
from MiraBest, and others from the catalogues from which FR-DEEP took them.
"""

from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from astropy.table import Table, vstack
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.metrics import balanced_accuracy_score

from rgz import artifacts
from rgz.data import datasets, fetch
from rgz.data.sample import Sample, source_table
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features.embed import Encoder
from rgz.tasks.classify import CLASSES, Classifier
from rgz.transforms.prepare import lengths
from studies import baselines, encode, labelled, metrics, results
from studies.classification import joint_sources
from studies.labelled import Labelled
from studies.results import Row

ARCHIVE = "first_unseen.h5"
STRANGERS = "strangers"
OTHERS = "other catalogues"  # what the CNN is trained on
HOST, CENTROID, COMPONENTS, NETWORK = "code", "code, any centre", "PCA, canonical images", "CNN, images"
COUNT = 32  # principal components
ARTEFACTS = 12  # grey levels; what is fainter in these clipped images comes from their compression as JPEG
SURE = 0.95  # probability of a class from which on an answer is called sure
LENGTHS = (0, 6, 10, 15, 25, np.inf)  # arcsec


def strangers() -> Sample:
    """The galaxies for evaluation alone, without any that are in a sample after all.

    Raises :class:`rgz.errors.BadInput` if they are not on this machine.
    """
    with h5py.File(fetch.fetch(ARCHIVE)) as file:
        images, ra, dec = (file[name][()] for name in ("images", "ra", "dec"))
        label = [one.decode() for one in file["label"][()]]
    images[images < ARTEFACTS] = 0
    names = [f"stranger-{number:03d}" for number in range(len(label))]
    table = source_table(names, ra, dec, label, np.ones(len(label)), ["test"] * len(label))
    table["length"] = lengths(images, datasets.FIRST_PIXEL)
    known = vstack(
        [codefile.read_codes(None, name)[0]["ra", "dec"] for name in datasets.SAMPLES], metadata_conflicts="silent"
    )
    group = joint_sources(known, table)
    return Sample(images, table, datasets.FIRST_PIXEL)[~np.isin(group[len(known) :], group[: len(known)])]


def _grey(sample: Sample) -> NDArray[np.float32]:
    """Prepared images (N, size²), 0 … 1."""
    return np.asarray(baselines.canonical(sample) / 255, np.float32)


def components(known: Labelled) -> Labelled:
    """Prepared images of labelled galaxies, and of the same other observations, in place of codes."""
    parts = []
    for name in encode.FIRST:
        rows = known.table["sample"] == name
        sample = datasets.load_dataset(name).named(codefile.read_codes(None, name)[0]["name"])
        again = encode.observed(_grey, sample)
        place = {one: number for number, one in enumerate(sample.table["name"])}
        chosen = [place[one] for one in known.table["name"][rows]]
        parts.append((_grey(sample[chosen]), again[chosen]))
    grey, again = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Labelled(known.table, grey, again)


def _reduced(train: Labelled, *tested: NDArray[Any]) -> tuple[Labelled, list[NDArray[np.float32]]]:
    """Principal components, fitted to training images, in place of images."""
    pca = PCA(COUNT, svd_solver="randomized", random_state=labelled.SEED).fit(train.codes)

    def reduce(grey: NDArray[Any]) -> NDArray[np.float32]:
        flat = grey.reshape(-1, grey.shape[-1])
        found, seen = np.full((len(flat), COUNT), np.nan, np.float32), np.isfinite(flat).all(1)
        found[seen] = pca.transform(flat[seen])
        return found.reshape(*grey.shape[:-1], COUNT)

    return Labelled(train.table, reduce(train.codes), reduce(train.observed)), [reduce(one) for one in tested]


def odds(probability: NDArray[Any]) -> NDArray[np.float64]:
    """Probability of FRII among FRI and FRII, (N,), of probabilities of all classes (N, C)."""
    return np.asarray(probability[:, 1] / (probability[:, 0] + probability[:, 1]))


def calibration(truth: NDArray[Any], probability: NDArray[Any], bins: int = 10) -> float:
    """Expected calibration error of answers: mean of |probability of the answer − fraction that is right|, in bins."""
    sure, right = np.maximum(probability, 1 - probability), (probability >= 0.5) == truth
    place = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    return float(sum(abs((sure - right)[place == one].sum()) for one in range(bins)) / len(truth))


def wrong_and_sure(truth: NDArray[Any], probability: NDArray[Any]) -> float:
    """Fraction of the sure answers that is wrong."""
    sure = np.maximum(probability, 1 - probability) > SURE
    return float(((probability >= 0.5) != truth)[sure].mean()) if sure.any() else float("nan")


def scored(about: Row, truth: NDArray[Any], probability: NDArray[Any]) -> list[Row]:
    """Rows of the scores of probabilities of FRII, with intervals."""
    found = {name: metrics.bootstrap(truth, probability)[name] for name in ("accuracy", "roc_auc")}
    both = np.stack([truth, probability], axis=1)
    found["calibration"] = metrics.interval(lambda rows: calibration(*rows.T), both)
    if np.isfinite(wrong_and_sure(truth, probability)):
        found["wrong_and_sure"] = metrics.interval(lambda rows: wrong_and_sure(*rows.T), both)
    return results.tidy(about | {"galaxies": len(truth)}, found)


def split(name: str, known: Labelled) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the galaxies that are trained on, and of the FRI and FRII of one catalogue that are tested."""
    table, group = known.table, labelled.groups(known.table)
    own = np.asarray(table["sample"] == name)
    test = own & np.isin(table["label"], CLASSES[:2])
    if name == "rgd":  # which contains most of MiraBest
        test &= ~np.isin(group, group[table["sample"] == "mirabest"])
    train = ~own & ~np.isin(group, group[test])
    if name == "mirabest":
        other, _, _ = codefile.read_codes(None, "rgd")
        train &= ~np.isin(table["name"], other["name"][other["catalogue"] == "MiraBest"])
    return train, test


def left_out(name: str, known: Labelled, images: Labelled) -> list[Row]:
    """Rows for one catalogue on which classifiers trained on the others are tested.

    ``images`` has prepared images in place of codes.
    """
    train, test = split(name, known)
    truth = metrics.is_frii(known.table[test])
    half = known.codes.shape[1] // 2
    reduced, (tested,) = _reduced(images[train], images.codes[test])
    ways: dict[str, tuple[Labelled, NDArray[Any], int]] = {
        HOST: (known[train], known.codes[test], 0),
        CENTROID: (known[train], known.codes[test], half),
        COMPONENTS: (reduced, tested, 0),
    }
    rows, found = [], {}
    for way, (seen, codes, first) in ways.items():
        found[way] = odds(labelled.fit_alone(seen, first).predict_proba(codes))  # no sets, so nothing to hold out
    found[NETWORK] = supervised(name, known.table[test])
    for way, probability in found.items():
        rows += scored({"tested": name, "way": way}, truth, probability)
    return rows + leads({"tested": name}, truth, found)


def supervised(tested: str, table: Table) -> NDArray[np.float64]:
    """Probabilities of FRII, (N,), of galaxies from the CNN that was trained on others."""
    kept = results.read("cnn_catalogues").query("sample == @tested").set_index("name")["probability"]
    if not set(table["name"]) <= set(kept.index):
        raise BadInput(f"cnn_catalogues.csv lacks galaxies of {tested}: complete it with python -m doit cnn-catalogues")
    return np.asarray(kept[list(table["name"])], float)


def leads(about: Row, truth: NDArray[Any], found: dict[str, NDArray[Any]]) -> list[Row]:
    """Rows of how far the codes are ahead of the baselines, with paired intervals."""
    rows = []
    for other in (COMPONENTS, NETWORK):
        ahead = metrics.difference(truth, found[HOST], found[other])
        these = about | {"way": f"{HOST} − {other}", "galaxies": len(truth)}
        rows += results.tidy(these, {metric: ahead[metric] for metric in ("accuracy", "roc_auc")})
    return rows


def of_strangers(images: Labelled) -> tuple[list[Row], list[Row]]:
    """Rows of scores for the strangers, and one row per stranger and way."""
    sample = strangers()
    label, length = np.asarray(sample.table["label"]), np.asarray(sample.table["length"])
    codes = Encoder.from_pretrained().transform(sample)
    reduced, (tested,) = _reduced(images, _grey(sample))
    ways = {
        HOST: (Classifier.from_pretrained("host"), codes),
        CENTROID: (Classifier.from_pretrained("centroid"), codes),
        COMPONENTS: (labelled.fit(reduced), tested),
    }
    two, rows, each, found = np.isin(label, CLASSES[:2]), [], [], {}
    truth = metrics.is_frii(sample.table[two])
    for way, (classifier, values) in ways.items():
        probability, about = classifier.predict_proba(values), {"tested": STRANGERS, "way": way}
        found[way] = odds(probability[two])
        rows += scored(about, truth, found[way])
        rows += of_four(about, label, probability, classifier.sets(probability))
        rows += by_length(about, truth, found[way], length[two])
        for name, one, size, values in zip(sample.table["name"], label, length, probability, strict=True):
            each.append(
                {"name": name, "way": way, "label": one, "length": size} | dict(zip(CLASSES, values, strict=True))
            )
    found[NETWORK], about = supervised(STRANGERS, sample.table[two]), {"tested": STRANGERS, "way": NETWORK}
    rows += scored(about, truth, found[NETWORK]) + by_length(about, truth, found[NETWORK], length[two])
    return rows + leads({"tested": STRANGERS}, truth, found), each


def of_four(about: Row, label: NDArray[Any], probability: NDArray[Any], inside: NDArray[Any]) -> list[Row]:
    """Rows for all classes: the mean over the classes of the fraction that is right, and what the sets hold."""

    def balanced(rows: NDArray[Any]) -> float:
        return float(balanced_accuracy_score(label[rows], np.array(CLASSES)[probability[rows].argmax(1)]))

    found = {
        "balanced_accuracy": metrics.interval(balanced, np.arange(len(label))),
        "coverage": metrics.interval(np.mean, inside[label[:, None] == np.array(CLASSES)]),
        "set_size": metrics.interval(np.mean, inside.sum(1)),
    }
    return results.tidy(about | {"galaxies": len(label)}, found)


def by_length(about: Row, truth: NDArray[Any], probability: NDArray[Any], length: NDArray[Any]) -> list[Row]:
    """Rows of the accuracy of galaxies of about the same length."""
    rows, right = [], (probability >= 0.5) == truth
    for low, high in pairwise(LENGTHS):
        near = (length >= low) & (length < high)
        if near.any():
            these = about | {"galaxies": int(near.sum()), "length": low}
            rows += results.tidy(these, {"accuracy": metrics.interval(np.mean, right[near])})
    return rows


def main() -> None:
    """Compute and write the tables of this chapter; a minute and a half on one core."""
    files = [artifacts.artifact(name) for name in ("codes.h5", "classifier.safetensors")]
    files.append(results.FOLDER / "cnn_catalogues.csv")
    known = labelled.labelled(encode.FIRST)
    images = components(known)
    rows, each = of_strangers(images)
    for name in encode.FIRST:
        rows += left_out(name, known, images)
    results.write("validity", rows, files)
    results.write("strangers", each, files)


if __name__ == "__main__":
    results.run(main)

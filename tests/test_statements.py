"""Comparisons in prose, captions and alt texts hold in the results, so that none survives results that turn round."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rgz import artifacts
from rgz.features import codes
from rgz.models import checkpoint
from studies import validity
from studies.claims import FLOORS, select
from studies.results import read

HOUSE = Path(__file__).parents[1]
INTRO = (HOUSE / "book" / "intro.md").read_text(encoding="utf-8")
BOX, FOREST = "width of the box", "isolation forest"


def values(table, *keys, **wanted):
    """The values of a table in rows like ``wanted``, by some columns."""
    rows = select(table, **wanted) if wanted else read(table)
    return rows.set_index(list(keys))["value"].sort_index()


def scores(metric="accuracy", sample="MiraBest Confident", protocol="cross-validation"):
    return values("classification", "features", "classifier", metric=metric, sample=sample, protocol=protocol)


def interval(sample):
    """Accuracy of the best classifier on codes minus that of the CNN: the ends of its 95 % interval."""
    best = scores(sample=sample)["VDVAE code"].idxmax()
    about = {"protocol": "difference from CNN", "features": "VDVAE code", "metric": "accuracy"}
    return select("classification", sample=sample, classifier=best, **about)[["low", "high"]].iloc[0]


def decoded(metric):
    """Medians on MiraBest by method, at each length of the code that two methods have."""
    one = values("reconstruction", "size", "method", sample="MiraBest", code="numbers", metric=metric)
    return one.unstack()[["VDVAE", "PCA"]].dropna()


def rates():
    """Rate of each resolution, coarse to fine, nats."""
    about = checkpoint.load(artifacts.artifact("vdvae.safetensors"))[2]
    return [nats for _, nats in sorted((int(size), nats) for size, nats in about["validation"]["rate_nats"].items())]


def search(question, pair, k, features="VDVAE codes", space="invariant, cosine"):
    return values("similarity", "pair", features=features, metric_space=space, question=question, k=k)[pair]


def raw(question, pair, k):
    return search(question, pair, k, "pixels, sky orientation", "unscaled, cosine")


def samples(metric):
    rows = read("generation")
    return rows[rows["item"].isna() & (rows["metric"] == metric)].set_index("way")["value"]


def labels(column="value"):
    """Accuracy, or its spread over draws, by number of labels: codes and principal components."""
    rows = select("label_efficiency", metric="accuracy").pivot(index="labels", columns="features", values=column)
    return rows["VDVAE code"], rows["PCA, averaged views"]


def transfer(*directions):
    """Accuracy with the protocols as columns."""
    rows = select("transfer", metric="accuracy")
    rows = rows[rows["direction"].isin(directions or rows["direction"])]
    return rows.pivot(index=["direction", "classifier"], columns="protocol", values="value")


def lead():
    """The flow minus each simple detector, mean ROC-AUC: the least end of a 95 % interval."""
    rows = select("anomalies", metric="auc_lead")
    return rows[~rows["detector"].str.startswith("MAF")]["low"].min()


def hybrids(end):
    return select("anomalies", task="hybrids", metric="auc", detector="MAF")[end].iloc[0]


def likelihood():
    """ROC-AUC of rankings of MeerKAT sources without scores."""
    rows = select("interest", metric="auc")
    return rows[rows["given"].isna()].set_index("way")["value"]


def outside(way, metric, tested="strangers"):
    """A measure of a classifier outside the catalogues, with its interval."""
    rows = select("validity", tested=tested, way=way, metric=metric)
    return rows[rows["length"].isna()].iloc[0]


def confusions():
    """Wrong answers of the classifier about strangers: how often each class is called another one."""
    rows = select("strangers", way=validity.HOST)
    answers = rows[["FRI", "FRII", "bent", "compact"]].idxmax(axis=1)
    wrong = rows["label"] != answers
    return (rows["label"] + " called " + answers)[wrong].value_counts()


def extents():
    """Median angular size in the catalogue, arcsec, of the FRI and FRII of MiraBest whose class is certain."""
    table = codes.read_codes(None, "mirabest")[0]
    rows = pd.DataFrame({"label": np.asarray(table["label"]), "name": np.asarray(table["name"])})[table["confident"]]
    return rows["name"].str.split("_").str[-1].astype(float).groupby(rows["label"]).median()


def percentiles():
    """Median anomaly percentile of each class of the Radio Galaxy Dataset."""
    table = codes.read_codes(None, "rgd")[0]
    found = read("map").set_index("name").loc[list(table["name"]), "percentile"]
    return found.groupby(np.asarray(table["label"])).median()


def areas(*kinds, resolved=False):
    """ROC-AUC by detector and kind of injected anomaly, without the two corrected likelihoods, and these two."""
    rows = select("anomalies", metric="auc").pivot(index="detector", columns="task", values="value")
    found = [task.removesuffix(", among resolved") for task in rows if task.endswith("resolved")]
    rows = rows[[f"{one}, among resolved" * resolved or one for one in kinds or found]]
    corrected = rows.index.isin(["MAF, corrected for complexity", "MAF, typicality"])
    return rows[~corrected].dropna(), rows[corrected]


def active(given, chosen="at random", way="regression"):
    """ROC-AUC of rankings of MeerKAT sources with some scores."""
    return select("interest", metric="auc", way=way, given=given, chosen=chosen).iloc[0]


def ablation(note, column):
    rows = read("ablations")
    return rows[rows["note"].str.contains(note)][column].iloc[0]


def within(sample):
    """Accuracy of the best classifier on codes, cross-validated within a sample."""
    if sample == "rgd":
        return transfer("MiraBest to RGD")["same sample"].max()
    return scores(sample={"mirabest": "MiraBest Confident", "frdeep-first": "FR-DEEP FIRST"}[sample])[
        "VDVAE code"
    ].max()


CATALOGUES = ("mirabest", "rgd", "frdeep-first")
LEADS = [f"{validity.HOST} − {other}" for other in (validity.COMPONENTS, validity.NETWORK)]
PAIR, ACROSS, BACK = "mirabest → rgd", "frdeep-first → frdeep-nvss", "frdeep-nvss → frdeep-first"
OWN, COOL, AGAIN = "VDVAE, own prior", "VDVAE, T = 0.7", "reconstructions"
NOISE, COMPONENTS = "noise, peak at 5 σ", "PCA of the same views"
STATEMENTS = [
    ("02-vdvae", "rising with the resolution", lambda: rates() == sorted(rates())),
    (
        "02-vdvae",
        "the coarse ones carry almost no information. Free nats fill them, but the codes classify less well.",
        lambda: (
            ablation("fine latents from the start", "rate_coarse") < 1 < ablation("100 free nats", "rate_coarse")
            and ablation("100 free nats", "accuracy") < ablation("before the finer part", "accuracy")
        ),
    ),
    (
        "02-vdvae",
        "other observations cost a little accuracy, within the spread",
        lambda: (
            0
            < ablation("from clean images alone", "accuracy") - ablation("^pilot", "accuracy")
            < ablation("^pilot", "accuracy_spread")
        ),
    ),
    (
        "03-reconstruction",
        "reconstructs them as accurately",
        lambda: values("reconstruction", "sample", method="VDVAE", code="all latents", metric="ssim").pipe(
            lambda one: one["FR-DEEP NVSS"] >= one["MiraBest"]
        ),
    ),
    ("03-reconstruction", "is higher for the VDVAE", lambda: decoded("ssim").eval("VDVAE > PCA").all()),
    ("03-reconstruction", "stays far above that of PCA", lambda: decoded("flux_error").eval("VDVAE > 2 * PCA").all()),
    (
        "03-reconstruction",
        "total flux, peak and size are less accurate",
        lambda: all(decoded(f"{one}_error").eval("VDVAE > PCA").loc[64] for one in ("flux", "peak", "size")),
    ),
    (
        "03-reconstruction",
        "the VDVAE models the pixels better than the plain VAE",
        lambda: values("reconstruction", "method", metric="bits_per_dimension").idxmin() == "VDVAE",
    ),
    (
        "04-classification",
        "exceeds the paper's lower bounds",
        lambda: all(scores(one)["VDVAE code"].min() > floor for one, floor in FLOORS.items()),
    ),
    (
        "04-classification",
        "higher accuracy than all features without a network",
        lambda: scores().groupby("features").max().drop("supervised CNN").idxmax() == "VDVAE code",
    ),
    (
        "04-classification",
        "does not differ significantly from that of the supervised CNN",
        lambda: interval("MiraBest Confident").prod() <= 0,
    ),
    ("04-classification", "here the CNN is ahead", lambda: interval("FR-DEEP NVSS")["high"] < 0),
    (
        "04-classification",
        "Preparation has the largest effect",
        lambda: (
            scores()
            .groupby("features")
            .max()[["PCA, raw pixels", "PCA, canonical images", "PCA, averaged views", "VDVAE code"]]
            .diff()
            .idxmax()
            == "PCA, canonical images"
        ),
    ),
    (
        "04-classification",
        "higher mean accuracy than PCA at every number",
        lambda: (labels()[0] > labels()[1]).all(),
    ),
    (
        "04-classification",
        "Up to 50 labels the difference is smaller than the spread",
        lambda: (labels()[0] - labels()[1] < labels("spread")[0]).loc[:50].all(),
    ),
    (
        "04-classification",
        "Transfer is less accurate than training in the same sample",
        lambda: transfer().eval("transferred < `same sample` and aligned < `same sample`").all(),
    ),
    (
        "04-classification",
        "Standardising each sample helps in most cases between FIRST and NVSS",
        lambda: transfer("FIRST to NVSS", "NVSS to FIRST").eval("aligned > transferred").mean() > 0.5,
    ),
    (
        "04-classification",
        "lowers the accuracy from MiraBest to RGD",
        lambda: transfer("MiraBest to RGD").eval("aligned < transferred").all(),
    ),
    (
        "04-classification",
        "it is overconfident",
        lambda: values("uncertain", "group", metric="brier")["uncertain"] > 0.25,
    ),
    ("04-classification", "FRII galaxies are smaller than FRI in this catalogue", lambda: extents().diff()["FRII"] < 0),
    (
        "04-classification",
        "blocks at 4 × 4 carry nearly all of the class",
        lambda: values("blocks", "blocks", metric="accuracy").pipe(lambda one: one.iloc[0] > one.iloc[-1] - 0.005),
    ),
    (
        "04-classification",
        "as wide as the differences between most rows",
        lambda: (
            select("classification", protocol="official split", metric="accuracy", classifier="stack of four")
            .iloc[0]
            .pipe(lambda row: row["high"] - row["low"] > abs(row["value"] - 0.91))
        ),
    ),
    (
        "05-similarity",
        "Between FIRST and NVSS the search fails",
        lambda: max(search("other survey", one, 10) for one in (ACROSS, BACK)) < 0.1,
    ),
    (
        "05-similarity",
        "Unaligned pixels find more of them in both directions",
        lambda: all(raw("other survey", one, 10) > search("other survey", one, 10) for one in (ACROSS, BACK)),
    ),
    (
        "05-similarity",
        "components find the same galaxy nearly as often, but codes find more",
        lambda: (
            search("same galaxy", PAIR, 1) - search("same galaxy", PAIR, 1, COMPONENTS)
            < search("class", PAIR, 10) - search("class", PAIR, 10, COMPONENTS)
        ),
    ),
    (
        "05-similarity",
        "nearly all rotated and reflected images find their original",
        lambda: min(search("itself", one, 1) for one in ("turned", "mirrored")) > 0.95,
    ),
    (
        "05-similarity",
        "Unaligned pixels fail least often",
        lambda: raw("itself", NOISE, 1) == select("similarity", question="itself", pair=NOISE)["value"].max(),
    ),
    (
        "05-similarity",
        "find their original with all features but unaligned pixels, which hardly find any",
        lambda: all(
            raw("itself", one, 1)
            < 0.1
            < 0.95
            < select("similarity", question="itself", pair=one)
            .query("features != 'pixels, sky orientation'")["value"]
            .min()
            for one in ("turned", "mirrored")
        ),
    ),
    (
        "05-similarity",
        "the search fails with all features",
        lambda: select("similarity", question="itself", pair=NOISE)["value"].max() < 0.05,
    ),
    (
        "05-similarity",
        "(*sky orientation*) do almost as well",
        lambda: 0 < search("same galaxy", PAIR, 1) - raw("same galaxy", PAIR, 1) < 0.05,
    ),
    (
        "05-similarity",
        "Aligned pixels are far less reliable",
        lambda: (
            search("same galaxy", PAIR, 1, "pixels, aligned", "unscaled, cosine") < raw("same galaxy", PAIR, 1) - 0.1
        ),
    ),
    ("06-generation", "A small CNN that sees the images hardly can", lambda: samples("network_auc")[OWN] < 0.6),
    (
        "06-generation",
        "all three classifiers recognise samples more easily",
        lambda: all(samples(f"{one}_auc").diff()[COOL] > 0 for one in ("network", "forest", "properties")),
    ),
    (
        "06-generation",
        "more of them are close to a real galaxy",
        lambda: samples("precision")[COOL] > samples("precision")[OWN],
    ),
    (
        "06-generation",
        "hardly tells reconstructions from real galaxies",
        lambda: samples("properties_auc")[AGAIN] < 0.6 < samples("properties_auc")[OWN],
    ),
    (
        "06-generation",
        "the samples cover fewer real galaxies",
        lambda: samples("coverage")[OWN] < samples("coverage").iloc[0],
    ),
    ("06-generation", "The forest recognises reconstructions, too", lambda: samples("forest_auc")[AGAIN] > 0.9),
    (
        "06-generation",
        "also those with the coarse latents of real galaxies",
        lambda: samples("properties_auc")["coarse latents of real galaxies"] > 0.6 > samples("properties_auc")[AGAIN],
    ),
    (
        "06-generation",
        "samples were recognised more easily",
        lambda: ablation("before the finer part", "samples_auc") > ablation("this book$", "samples_auc") + 0.1,
    ),
    (
        "06-generation",
        "Continuing the training of all latents helps as much, but lowers the accuracy",
        lambda: (
            abs(ablation("more steps of all", "samples_auc") - ablation("this book$", "samples_auc")) < 0.02
            and ablation("more steps of all", "accuracy") < ablation("this book$", "accuracy") - 0.01
        ),
    ),
    ("07-anomaly", "no better than the best simple detector", lambda: lead() < 0),
    ("07-anomaly", "Hybrid galaxies are not outliers", lambda: hybrids("low") < 0.5),
    ("07-anomaly", "the width of the box alone better", lambda: likelihood()[BOX] > likelihood()["−log-likelihood"]),
    (
        "07-anomaly",
        "Compact sources have the highest likelihood, bent sources the lowest",
        lambda: (percentiles().idxmax(), percentiles().idxmin()) == ("compact", "bent"),
    ),
    (
        "07-anomaly",
        "All detectors find noise, stripes and rings",
        lambda: min(part.min(axis=None) for part in areas("noise", "stripes", "ring")) > 0.9,
    ),
    (
        "07-anomaly",
        "all but the two modified likelihoods",
        lambda: areas("spiral")[0].min(axis=None) > 0.95 > 0.9 > areas("spiral")[1].max(axis=None),
    ),
    (
        "07-anomaly",
        "For these detectors, mirrored halves are the hardest",
        lambda: set(areas()[0].idxmin(axis=1)) == {"mirrored halves"},
    ),
    (
        "07-anomaly",
        "both lower the mean ROC-AUC",
        lambda: areas()[1].mean(axis=1).max() < areas()[0].mean(axis=1)["MAF"],
    ),
    (
        "07-anomaly",
        "about the same as the likelihood",
        lambda: (
            abs(areas(resolved=True)[1].mean(axis=1)["MAF, typicality"] - areas(resolved=True)[0].mean(axis=1)["MAF"])
            < 0.01
        ),
    ),
    (
        "07-anomaly",
        "weaker among resolved sources",
        lambda: (
            values("density_checks", "check")
            .abs()
            .pipe(
                lambda one: all(
                    one[f"spearman_{key}_resolved"] < one[f"spearman_{key}_all"] for key in ("length", "complexity")
                )
            )
        ),
    ),
    (
        "07-anomaly",
        "and the ensemble has the highest",
        lambda: (
            read("density").groupby("model")["nats"].mean().sort_values().index[-2:].tolist() == ["flow", "ensemble"]
        ),
    ),
    (
        "07-anomaly",
        "a low likelihood (ROC-AUC",
        lambda: (
            areas("bent, excluded from training")[0].loc["MAF"].item() > 0.8
            and areas("compact, excluded from training")[0].loc["MAF"].item() < 0.2
        ),
    ),
    (
        "07-anomaly",
        "an isolation forest does as well",
        lambda: likelihood()[["−log-likelihood", FOREST]].diff().iloc[1] >= 0,
    ),
    (
        "07-anomaly",
        "is no better than chance",
        lambda: (
            select("interest", metric="auc", way="−log-likelihood, relative to length, area, S/N")
            .iloc[0]
            .pipe(lambda row: row["low"] < 0.5 < row["high"])
        ),
    ),
    (
        "07-anomaly",
        "30 of them do no better than the width of the box",
        lambda: active(30)["low"] < likelihood()[BOX] and likelihood()["−log-likelihood"] < active(30)["value"],
    ),
    (
        "07-anomaly",
        "the code adds little to them",
        lambda: 0 < active(100)["value"] - active(100, way="regression, plain numbers")["value"] < 0.02,
    ),
    (
        "07-anomaly",
        "are then harder to rank",
        lambda: active(100, "proposed")["value"] < active(100)["value"],
    ),
    (
        "07-anomaly",
        "its advantage over a ranking by size is within the uncertainties",
        lambda: active(100)["low"] < likelihood()[BOX] < active(100)["value"],
    ),
    (
        "09-strangers",
        "Less often than within one catalogue",
        lambda: outside(validity.HOST, "accuracy")["value"] < within("mirabest"),
    ),
    (
        "09-strangers",
        "the accuracy on it is lower than within it",
        lambda: all(outside(validity.HOST, "accuracy", one)["value"] < within(one) for one in CATALOGUES),
    ),
    (
        "09-strangers",
        "For each catalogue, the ROC-AUC with codes is higher than with either baseline",
        lambda: all(outside(lead, "roc_auc", one)["low"] > 0 for lead in LEADS for one in CATALOGUES),
    ),
    (
        "09-strangers",
        "higher than with the CNN only for MiraBest",
        lambda: [one for one in CATALOGUES if outside(LEADS[1], "accuracy", one)["low"] > 0] == ["mirabest"],
    ),
    (
        "09-strangers",
        "the ROC-AUC with codes is higher than with principal components",
        lambda: outside(LEADS[0], "roc_auc")["low"] > 0,
    ),
    ("09-strangers", "It is also higher than with the CNN", lambda: outside(LEADS[1], "roc_auc")["low"] > 0),
    (
        "09-strangers",
        "differences in accuracy are not significant",
        lambda: all(outside(one, "accuracy")["low"] <= 0 <= outside(one, "accuracy")["high"] for one in LEADS),
    ),
    (
        "09-strangers",
        "It is highest for FR-DEEP FIRST",
        lambda: max(CATALOGUES, key=lambda one: outside(validity.HOST, "accuracy", one)["value"]) == "frdeep-first",
    ),
    (
        "09-strangers",
        "The most frequent error is a bent galaxy that is called FRI",
        lambda: confusions().idxmax() == "bent called FRI",
    ),
    (
        "results",
        "more accurately than the decoder does; the decoder has the higher structural similarity",
        lambda: (
            all(decoded(f"{one}_error").eval("VDVAE > PCA").loc[64] for one in ("flux", "peak", "size"))
            and decoded("ssim").eval("VDVAE > PCA").loc[64]
        ),
    ),
]


@pytest.mark.parametrize("path", sorted((HOUSE / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_chapter_takes_the_time_that_the_first_page_says(path):
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    minutes = re.search(r"\*\*Time to read:\*\* (\d+) minutes", first)[1]
    listed = re.search(rf"\(\.\./notebooks/{path.stem}\) \|.*\| (\d+) \|", INTRO)
    assert listed
    assert listed[1] == minutes


@pytest.mark.parametrize(("chapter", "words", "holds"), STATEMENTS, ids=[words for _, words, _ in STATEMENTS])
def test_a_statement_is_in_its_chapter_and_holds(chapter, words, holds):
    page = HOUSE / "book" / f"{chapter}.md"
    if page.exists():
        cells, prose = [], [" ".join(page.read_text(encoding="utf-8").split())]
    else:
        cells = json.loads((HOUSE / "notebooks" / f"{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
        prose = [" ".join("".join(cell["source"]).split()) for cell in cells if cell["cell_type"] == "markdown"]
    figures = [cell["metadata"].get("mystnb", {}) for cell in cells]
    alts = [figure.get("image", {}).get("alt", "") for figure in figures]
    captions = [figure.get("figure", {}).get("caption", "") for figure in figures]
    assert any(words in text for text in (*prose, *alts, *captions)), "the words have changed: change them here, too"
    assert holds(), "the results say otherwise now: change the chapter"

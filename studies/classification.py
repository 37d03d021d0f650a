"""The results: every classifier on the codes and on the features that need no network, in one run.

The numbers in the book and in the README are read from the file that :func:`write` makes, so each can be had again with
``rgz classify``. What the CNN says of each held-out galaxy is kept in ``artifacts/cnn.csv``, from ``benchmarks/cnn.py``.
"""

import csv
import json
from html import escape
from pathlib import Path

import numpy as np
from astropy.table import Table
from joblib import parallel_config

from rgz import artifacts
from rgz.data import datasets
from rgz.data.sample import Sample, prepared, usable
from rgz.errors import BadInput, first_line
from rgz.features import codes as codefile
from rgz.features import embed
from rgz.models import checkpoint
from rgz.tasks import classify
from rgz.transforms import prepare
from studies import baselines, evidence

__all__ = [
    "CNN",
    "SAMPLES",
    "VARIANTS",
    "add_line",
    "best",
    "classes",
    "columns",
    "fit_committees",
    "floors",
    "html",
    "probe",
    "quoted",
    "read",
    "rows",
    "table",
    "write",
]

VARIANTS = {"code": "VDVAE code", "code_views": "VDVAE code, 12 views"}
SAMPLES = {"mirabest": "MiraBest Confident", "frdeep-nvss": "FR-DEEP NVSS", "frdeep-first": "FR-DEEP FIRST"}
SIZE = "angular size (catalogue)"
CNN = "CNN, told the classes"
METRICS = ("accuracy", "roc_auc", "specificity", "recall")


def classes(codes: Path, repeats: int = 10) -> dict:
    """Results of classification: samples, protocol, one row for each sample, features and classifier, and what lies behind.

    Raises
    ------
    BadInput
        The codes cannot be read, or hold no MiraBest; or the survey images are neither here nor to be had.
    """
    with parallel_config(n_jobs=-1):
        found = {name: _sample(codes, name, max(1, repeats // (1 if name == "mirabest" else 3))) for name in SAMPLES}
        behind = _behind(codes)
    return {
        "samples": {SAMPLES[name]: about for name, (about, _) in found.items()},
        "protocol": {
            "positive_class": classify.POSITIVE,
            "splits": 5,
            "spread": "standard deviation over folds",
            "official": "95 % interval over test galaxies drawn with replacement",
        },
        "codes_sha256": artifacts.sha256(codes),
        "rows": [row for _, rows in found.values() for row in rows],
        "behind": behind,
    }


def _known(codes: Path, name: str, variant: str) -> tuple[Table, np.ndarray]:
    """Table and codes of the rows of a sample whose class is not in doubt."""
    everything, code, _ = codefile.read_codes(codes, name, variant)
    rows = classify.confident(everything)
    return everything[rows], code[rows]


def fit_committees(codes: Path) -> dict[str, np.ndarray]:
    """Discriminants (members, 2 D + 1) on codes of twelve views for each sample of :data:`rgz.tasks.classify.COMMITTEES`."""
    found = {}
    for name in classify.COMMITTEES:
        known, code = _known(codes, name, "code_views")
        labels, group = classify.is_frii(known), classify.groups(known)
        found[name] = classify.bootstrap_ensemble(code, labels, group).astype(np.float32)
    return found


def _images(name: str, known: Table) -> Sample:
    """The survey images of rows of a sample."""
    return datasets.load_dataset(name).named(known["name"])


def _sample(codes: Path, name: str, repeats: int) -> tuple[dict, list[dict]]:
    """What there is of one sample, and its rows."""
    features = []
    for variant, title in VARIANTS.items():
        known, code = _known(codes, name, variant)
        features.append((classify.Features(title, code), classify.CLASSIFIERS))
    labels, group, test = classify.is_frii(known), classify.groups(known), np.asarray(known["split"]) == "test"
    plain = tuple(baselines.BASELINES) if name == "mirabest" else (baselines.BEST,)
    if name == "mirabest":
        features.append((classify.Features(SIZE, np.log(np.asarray(known["size"]))[:, None]), classify.BRIEF))
    features += [(one, classify.BRIEF) for one in baselines.describe(_images(name, known), plain)]
    rival, supervised = _supervised(known, name, labels, group, test)
    found = []
    for one, classifiers in features:
        found += classify.evaluate(one, labels, group, test, repeats, classifiers, rival)
    about = {
        "n": len(labels),
        "FRI": int((labels == 0).sum()),
        "FRII": int(labels.sum()),
        "official_train": int((~test).sum()),
        "official_test": int(test.sum()),
        "repeats": repeats,
    }
    return about, [{"sample": SAMPLES[name]} | row for row in found + supervised]


def _supervised(known: Table, name: str, labels, group, test) -> tuple[np.ndarray | None, list[dict]]:
    """What the CNN said of each galaxy when it was held out, and its row of the results; nothing where it was not trained."""
    path = artifacts.artifact("cnn.csv")
    kept = Table.read(path, format="ascii.csv")
    kept = kept[kept["sample"] == name]
    said = {(part, source): p for part, source, p in kept["round", "name", "probability"].iterrows()}
    rounds = list(classify.folds(labels, group, repeats=1))
    try:
        each = [
            np.array([said[f"fold {k}", source] for source in known["name"][held_out]])
            for k, (_, held_out) in enumerate(rounds)
        ]
        official = np.array([said["official", source] for source in known["name"][test]])
    except KeyError:  # other galaxies, or other folds
        return None, []
    row = {"features": CNN, "dimensions": 150 * 150, "classifier": "five convolutions, three dense layers"}
    row["cross_validation"] = classify.spread(labels, rounds, each)
    return classify.joined(rounds, each, len(labels)), [row | {"official": classify.bootstrap(labels[test], official)}]


def _behind(codes: Path) -> dict:
    """The studies of :mod:`studies.evidence` on the codes of twelve views."""
    everything, code, about = codefile.read_codes(codes, "mirabest", "code_views")
    every = classify.Features(VARIANTS["code_views"], code)
    known, code = _known(codes, "mirabest", "code_views")
    labels, group = classify.is_frii(known), classify.groups(known)
    features = [classify.Features(VARIANTS["code_views"], code)]
    features += baselines.describe(_images("mirabest", known), (baselines.BEST,))
    curve = [row for one in features for row in evidence.learning_curve(one, labels, group)]
    surveys = {name: _known(codes, name, "code_views") for name in ("frdeep-first", "frdeep-nvss")}
    first, nvss = ((t, classify.Features(SAMPLES[name], c)) for name, (t, c) in surveys.items())
    return {
        "learning_curve": curve,
        "blocks": evidence.blocks(code, about["blocks"], labels, group),
        "doubtful": evidence.doubtful(every, everything),
        "transfer": {"FIRST to NVSS": evidence.transfer(first, nvss), "NVSS to FIRST": evidence.transfer(nvss, first)},
    }


def probe(weights: Path, training: Sample, dimensions: int = 64, repeats: int = 3) -> dict:
    """One line on a run: step, held-out bits per dimension, and accuracy and ROC-AUC of a support vector machine on its codes.

    The machine is cross-validated on the official training images of MiraBest Confident; the test images are not looked
    at, so that runs may be chosen by these numbers.
    """
    model, recipe, about = checkpoint.load(weights)
    if dimensions > model.dimensions:
        raise BadInput(f"this model has {model.dimensions} latent dimensions: {dimensions} are more")
    means, _ = embed.full_codes(model, prepared(training[training.table["split"] == "train"], recipe))
    sample = datasets.load_dataset("mirabest")
    sample = sample[classify.confident(sample.table) & (sample.table["split"] != "test")]
    sample = sample[usable(sample, recipe)]
    views = embed.of_views(model, recipe, sample, embed.rank(means)[:dimensions], prepare.MIRRORED)
    codes = {"code": views[0], "code_views": prepare.pool(views)}
    labels, group = classify.is_frii(sample.table), classify.groups(sample.table)
    line = {"step": about["steps"], "bits_per_dimension": about["validation"]["bits_per_dimension"]}
    line |= {f"rate_{r}": rate for r, rate in about["validation"]["rate_nats"].items()} | {"latents": dimensions}
    machine = {"svm": classify.CLASSIFIERS["support vector machine"]}
    for name, values in codes.items():
        with parallel_config(n_jobs=-1):
            (row,) = classify.evaluate(classify.Features(name, values), labels, group, None, repeats, machine)
        line |= {f"{name}_{metric}": round(row["cross_validation"][metric][0], 4) for metric in ("accuracy", "roc_auc")}
    return line


def add_line(line: dict, path: Path):
    """Add a line to a CSV file, atomically; columns that the file does not have yet are added to it."""
    lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []
    names = list(dict.fromkeys(name for one in (*lines, line) for name in one))
    with artifacts.atomic(path) as partial, open(partial, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*lines, line])


def write(results: dict, path: Path):
    """Write results as JSON with four decimals, atomically.

    Entries of a file that is there already stay where ``results`` has none of that name.
    """
    try:
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none there, or one that nobody can read any more
        kept = {}
    with artifacts.atomic(path) as partial:
        partial.write_text(json.dumps(_rounded(kept | results), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _rounded(value):
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    return round(value, 4) if isinstance(value, float) else value


def read(path: Path | None = None) -> dict:
    """The committed results, or those of another file.

    Raises
    ------
    BadInput
        The file is missing or damaged.
    """
    path = artifacts.artifact("results.json") if path is None else path
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
        return results | {"rows": list(results["rows"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a results file ({first_line(error)}): make it with rgz classify") from error


def rows(results: dict, sample: str, features: str | None = None) -> list[dict]:
    """The rows of a sample, by its name or its title, and of one kind of features if asked for."""
    title = SAMPLES.get(sample, sample)
    return [r for r in results["rows"] if r["sample"] == title and features in (None, r["features"])]


def best(results: dict, features: str, metric: str = "accuracy", sample: str = "mirabest") -> dict:
    """The row of one kind of features with the highest cross-validated score on a sample."""
    found = rows(results, sample, features)
    if not found:
        known = sorted({row["features"] for row in rows(results, sample)})
        raise BadInput(f"the results have no features {features!r} of {sample}: they have {known}")
    return max(found, key=lambda row: row["cross_validation"][metric][0])


def floors(results: dict, paper: dict[str, float]) -> dict[str, list]:
    """The paper's floors beside the lowest and the best of our classifiers, as columns of text; single and twelve views."""
    shown = {
        "measure": [metric.replace("roc_auc", "ROC-AUC") for metric in paper],
        "the paper's floor": [f"{floor:.2f}" for floor in paper.values()],
    }
    for title in VARIANTS.values():
        own = {
            metric: sorted(
                (r["cross_validation"][metric][0], r["classifier"]) for r in rows(results, "mirabest", title)
            )
            for metric in paper
        }
        shown[f"{title}: lowest"] = ["{:.3f} ({})".format(*ranked[0]) for ranked in own.values()]
        shown[f"{title}: highest"] = ["{:.3f} ({})".format(*ranked[-1]) for ranked in own.values()]
    return shown


def quoted(results: dict) -> dict[str, float | str]:
    """The numbers that prose quotes, by name: for each sample the best classifier on each kind of features, and the rest."""
    found: dict[str, float | str] = {}

    def note(key: str, row: dict):
        found[f"{key}-classifier"], found[f"{key}-features"] = row["classifier"], row["features"]
        for metric in METRICS:
            found[f"{key}-{metric}"], found[f"{key}-{metric}-spread"] = row["cross_validation"][metric]
            for end, value in zip(("", "-low", "-high"), row["official"][metric], strict=True):
                found[f"{key}-{metric}-official{end}"] = value
        for end, value in zip(("", "-low", "-high"), row.get("ahead", {}).get("accuracy", ()), strict=False):
            found[f"{key}-ahead{end}"] = value

    for name, title in SAMPLES.items():
        for key, metric in (("own", "accuracy"), ("own-auc", "roc_auc")):
            note(f"{name}-{key}", best(results, VARIANTS["code_views"], metric, name))
        note(f"{name}-single", best(results, VARIANTS["code"], "accuracy", name))
        if told := rows(results, name, CNN):
            note(f"{name}-cnn", told[0])
        found |= {f"{name}-{key}": value for key, value in results["samples"][title].items()}
    features = [name for name in baselines.BASELINES if rows(results, "mirabest", name)]
    note(
        "baseline", max((best(results, name) for name in features), key=lambda r: r["cross_validation"]["accuracy"][0])
    )
    note("size", best(results, SIZE))
    for name, about in results["behind"]["doubtful"].items():
        found |= {f"{name}-{key}": value[0] if isinstance(value, list) else value for key, value in about.items()}
    return found


def table(results: dict) -> str:
    """The results as plain text: for each sample one line a kind of features and classifier."""
    lines = []
    for name, about in results["samples"].items():
        lines += [
            f"{name}: {about['n']} galaxies, {about['FRI']} FRI and {about['FRII']} FRII; positive class "
            f"{results['protocol']['positive_class']}",
            f"cross-validation: {about['repeats']} × {results['protocol']['splits']} folds, mean ± "
            f"{results['protocol']['spread']}; official split: {about['official_test']} test images, "
            f"{results['protocol']['official']}",
            "",
            f"{'features':27}{'classifier':24}"
            + "".join(f"{m:>14}" for m in ("accuracy", "AUC", "specificity", "recall"))
            + f"{'official accuracy':>24}{'AUC':>8}",
        ]
        previous = None
        for row in rows(results, name):
            title = row["features"]
            lines += [""] if previous not in (None, title) else []
            accuracy, low, high = row["official"]["accuracy"]
            lines.append(
                f"{title if previous != title else '':27}{row['classifier'][:23]:24}"
                + "".join("{:>8.3f} ±{:.3f}".format(*row["cross_validation"][m]) for m in METRICS)
                + f"{accuracy:>9.3f} ({low:.3f}–{high:.3f}){row['official']['roc_auc'][0]:>8.3f}"
            )
            previous = title
        lines.append("")
    return "\n".join(lines)


def columns(results: dict, sample: str = "mirabest") -> dict[str, list[str]]:
    """The results of a sample as columns of text, to be shown as a table."""
    chosen = rows(results, sample)
    shown = {"features": [row["features"] for row in chosen], "classifier": [row["classifier"] for row in chosen]}
    for metric, name in zip(METRICS, ("accuracy", "ROC-AUC", "specificity", "recall"), strict=True):
        shown[name] = ["{:.3f}\u202f±\u202f{:.3f}".format(*row["cross_validation"][metric]) for row in chosen]
    for metric, name in (("accuracy", "official accuracy"), ("roc_auc", "official ROC-AUC")):
        shown[name] = ["{:.3f} ({:.3f}–{:.3f})".format(*row["official"][metric]) for row in chosen]
    return shown


def html(columns: dict[str, list], caption: str) -> str:
    """Columns of equal length as an HTML table; a name in the first column that repeats is written once."""
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in columns)
    lines, previous = [], None
    for first, *others in zip(*columns.values(), strict=True):
        shown = "" if first == previous else escape(str(first))
        previous = first
        lines.append(
            f'<tr><th scope="row">{shown}</th>' + "".join(f"<td>{escape(str(o))}</td>" for o in others) + "</tr>"
        )
    body = "".join(lines)
    return (
        f'<div style="overflow-x: auto"><table class="table" style="font-size: 0.8em"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )

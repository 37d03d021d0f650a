"""The results table: every classifier on the codes and on the features that need no network, in one run.

The numbers in the book and in the README are read from the file that :func:`write` makes, so each can be had
again with ``rgz report``. Features that need the survey images are computed where these are at hand; elsewhere their rows are
carried over from the committed results and marked, so that a table without the comparison is never shown.
"""

import csv
import json
from html import escape
from pathlib import Path

import numpy as np
from joblib import parallel_config

from rgz import checkpoints, classify, fetch, latents, paths, readers
from rgz.errors import BadInput, first_line
from rgz.sample import Sample, prepared

__all__ = ["VARIANTS", "add_line", "best", "columns", "html", "mirabest_confident", "probe", "read", "table", "write"]

VARIANTS = {"code": "VDVAE code", "code_views": "VDVAE code, 4 views"}
SIZE = "angular size (catalogue)"
METRICS = ("accuracy", "roc_auc", "specificity", "recall")


def mirabest_confident(codes: Path, repeats: int = 10) -> dict:
    """Results on MiraBest Confident: sample, protocol, and one row for each kind of features and classifier.

    Raises
    ------
    BadInput
        The codes cannot be read, or hold no MiraBest.
    """
    features = []
    for variant, name in VARIANTS.items():
        everything, code, _ = latents.read_codes(codes, "mirabest", variant)
        rows = classify.confident(everything)
        features.append(classify.Features(name, code[rows]))
    known = everything[rows]
    labels, test = classify.is_frii(known), np.asarray(known["split"]) == "test"
    features.append(classify.Features(SIZE, np.log(np.asarray(known["size"]))[:, None]))
    carried = []
    if fetch.locate(readers.SAMPLES["mirabest"][0]) is not None:
        sample = readers.load("mirabest")
        row = {name: i for i, name in enumerate(sample.table["name"])}
        features += classify.baselines(sample[[row[name] for name in known["name"]]])
    else:
        carried = [r for r in read()["rows"] if r["features"] in classify.BASELINES]
    found = []
    with parallel_config(n_jobs=-1):
        for one in features:
            found += classify.evaluate(one, labels, classify.groups(known), test, repeats)
    return {
        "sample": {
            "name": "MiraBest Confident",
            "n": len(labels),
            "FRI": int((labels == 0).sum()),
            "FRII": int(labels.sum()),
            "official_train": int((~test).sum()),
            "official_test": int(test.sum()),
        },
        "protocol": {
            "positive_class": classify.POSITIVE,
            "splits": 5,
            "repeats": repeats,
            "spread": "standard deviation over folds",
        },
        "codes_sha256": fetch.sha256(codes),
        "rows": found + carried,
        "carried_over": sorted({r["features"] for r in carried}),
    }


def probe(weights: Path, training: Sample, dimensions: int = 128, repeats: int = 3) -> dict:
    """One line on a run: step, held-out bits per dimension, and accuracy and ROC-AUC of a support vector machine on its codes.

    The machine is cross-validated on the official training images of MiraBest Confident; the test images are not looked
    at, so that runs may be chosen by these numbers.
    """
    model, recipe, about = checkpoints.load(weights)
    if dimensions > model.dimensions:
        raise BadInput(f"this model has {model.dimensions} latent dimensions: {dimensions} are more")
    means, _ = latents.full_codes(model, prepared(training[training.table["split"] == "train"], recipe))
    sample = readers.load("mirabest")
    sample = sample[classify.confident(sample.table) & (sample.table["split"] != "test")]
    table, code, views, _ = latents.encode(model, recipe, sample, latents.rank(means)[:dimensions])
    labels, group = classify.is_frii(table), classify.groups(table)
    line = {"step": about["steps"], "bits_per_dimension": about["validation"]["bits_per_dimension"]}
    line |= {f"rate_{r}": rate for r, rate in about["validation"]["rate_nats"].items()} | {"latents": dimensions}
    machine = {"svm": classify.CLASSIFIERS["support vector machine"]}
    for name, values in (("code", code), ("code_views", views)):
        with parallel_config(n_jobs=-1):
            (row,) = classify.evaluate(classify.Features(name, values), labels, group, None, repeats, machine)
        line |= {f"{name}_{metric}": round(row["cross_validation"][metric][0], 4) for metric in ("accuracy", "roc_auc")}
    return line


def add_line(line: dict, path: Path):
    """Add a line to a CSV file, atomically; columns that the file does not have yet are added to it."""
    lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines())) if path.exists() else []
    names = list(dict.fromkeys(name for one in (*lines, line) for name in one))
    with paths.atomic(path) as partial, open(partial, "w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*lines, line])


def write(results: dict, path: Path):
    """Write results as JSON with four decimals, atomically; which rows were carried over is not written.

    Entries of a file that is there already stay where ``results`` has none of that name.
    """
    try:
        kept = dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none there, or one that nobody can read any more
        kept = {}
    kept |= {key: value for key, value in results.items() if key != "carried_over"}
    with paths.atomic(path) as partial:
        partial.write_text(json.dumps(_rounded(kept), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


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
    path = paths.artifact("results.json") if path is None else path
    try:
        results = json.loads(Path(path).read_text(encoding="utf-8"))
        return results | {"rows": list(results["rows"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path} is not a results file ({first_line(error)}): make it with rgz report") from error


def best(results: dict, features: str, metric: str = "accuracy") -> dict:
    """The row of one kind of features with the highest cross-validated score."""
    rows = [row for row in results["rows"] if row["features"] == features]
    if not rows:
        raise BadInput(
            f"the results have no features {features!r}: they have {sorted({r['features'] for r in results['rows']})}"
        )
    return max(rows, key=lambda row: row["cross_validation"][metric][0])


def table(results: dict) -> str:
    """The results as plain text, one line a kind of features and classifier."""
    sample, protocol = results["sample"], results["protocol"]
    carried = results.get("carried_over", [])
    lines = [
        f"{sample['name']}: {sample['n']} galaxies, {sample['FRI']} FRI and {sample['FRII']} FRII; "
        f"positive class {protocol['positive_class']}",
        f"cross-validation: {protocol['repeats']} × {protocol['splits']} folds, mean ± {protocol['spread']}; "
        f"official split: {sample['official_test']} test images",
        "",
        f"{'':27}{'':24}{'cross-validation':^56}   {'official split':^27}",
        f"{'features':27}{'classifier':24}"
        + "".join(f"{m:>14}" for m in ("accuracy", "AUC", "specificity", "recall"))
        + "   "
        + "".join(f"{m:>7}" for m in ("acc", "AUC", "spec", "rec")),
    ]
    previous = None
    for row in results["rows"]:
        name = row["features"] + (" †" if row["features"] in carried else "")
        if previous not in (None, row["features"]):
            lines.append("")
        lines.append(
            f"{name if previous != row['features'] else '':27}{row['classifier']:24}"
            + "".join("{:>8.3f} ±{:.3f}".format(*row["cross_validation"][m]) for m in METRICS)
            + "   "
            + "".join(f"{row['official'][m]:>7.3f}" for m in METRICS)
        )
        previous = row["features"]
    if carried:
        lines += ["", "† carried over from the committed results: these need the survey images (rgz data fetch)"]
    return "\n".join(lines)


def columns(results: dict) -> dict[str, list[str]]:
    """The results as columns of text, to be shown as a table."""
    rows = results["rows"]
    shown = {"features": [row["features"] for row in rows], "classifier": [row["classifier"] for row in rows]}
    for metric, name in zip(METRICS, ("accuracy", "ROC-AUC", "specificity", "recall"), strict=True):
        shown[name] = ["{:.3f}\u202f±\u202f{:.3f}".format(*row["cross_validation"][metric]) for row in rows]
    shown["official accuracy"] = [f"{row['official']['accuracy']:.3f}" for row in rows]
    shown["official ROC-AUC"] = [f"{row['official']['roc_auc']:.3f}" for row in rows]
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
        f'<table class="table" style="font-size: 0.8em"><caption>{escape(caption)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )

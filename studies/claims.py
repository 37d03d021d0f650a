"""The paper's claims beside our numbers and those of the baselines, and the comparisons that a baseline wins.

Every number is read from ``results/``. Run as a program, this module prints the claims; with a folder, it also writes
the tables of the book's pages there, as Markdown.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from rgz import artifacts
from studies.results import FOLDER, Row, read, run

COLUMNS = ("claim of the paper", "ours", "outside the catalogues", "baselines")
FLOORS = {"accuracy": 0.76, "roc_auc": 0.86, "specificity": 0.73, "recall": 0.78}  # of the paper's abstract
NAMES = {"roc_auc": "ROC-AUC", "flux_error": "total flux", "peak_error": "peak", "size_error": "size"}


def text(table: str, digits: int = 3, **wanted: Any) -> str:
    """The first value of ``results/TABLE.csv`` in a row like ``wanted``, with its spread over folds or interval."""
    row = select(table, **wanted).iloc[0]
    if pd.notna(row.get("spread")):
        return f"{row['value']:.{digits}f} ± {row['spread']:.{digits}f}"
    interval = f" ({row['low']:.{digits}f} to {row['high']:.{digits}f})" if pd.notna(row.get("low")) else ""
    return f"{row['value']:.{digits}f}{interval}".replace("-", "−")


def select(table: str, **wanted: Any) -> pd.DataFrame:
    """The rows of ``results/TABLE.csv`` in which these columns have these values."""
    found = read(table)
    return found.loc[(found[list(wanted)] == pd.Series(wanted)).all(axis=1)]


def score(sample: str, features: str, *metrics: str) -> str:
    """Cross-validated scores: of the CNN, or of a support vector machine on some features."""
    about: Row = {"sample": sample, "features": features, "protocol": "cross-validation"}
    about |= {} if features == "supervised CNN" else {"classifier": "support vector machine"}
    return ", ".join(f"{NAMES.get(one, one)} {text('classification', metric=one, **about)}" for one in metrics)


def found(features: str, question: str, pair: str, k: int) -> str:
    """A fraction of correct answers of the search."""
    about: Row = {"metric_space": "invariant, cosine", "question": question, "pair": pair, "k": k}
    return text("similarity", features=features, **about)


def latents(method: str) -> int:
    """Number of all latents of a network."""
    return int(select("reconstruction", method=method, code="all latents")["size"].iloc[0])


def claims() -> pd.DataFrame:
    """One row per claim: what the paper says, what we measure, also outside the catalogues, and the baselines."""
    sample, nvss, codes, cnn = "MiraBest Confident", "FR-DEEP NVSS", "VDVAE code", "supervised CNN"
    pair, across, search, pca = "mirabest → rgd", "frdeep-first → frdeep-nvss", "VDVAE codes", "PCA of the same views"
    ssim: Row = {"sample": "MiraBest", "metric": "ssim"}
    stranger: Row = {"tested": "strangers", "way": "code"}
    own: Row = {"way": "VDVAE, own prior"}
    auc = read("anomalies").query("metric == 'auc'").pivot(index="detector", columns="task", values="value")
    kinds = [task.removesuffix(", among resolved") for task in auc if task.endswith("resolved")]
    mean = auc[kinds].mean(axis=1)
    simple = mean[~mean.index.str.startswith(("MAF", "VDVAE"))].idxmax()
    rows = [
        (
            "Reconstructions capture the salient features",
            f"structural similarity {text('reconstruction', method='VDVAE', code='all latents', **ssim)}, "
            f"all {latents('VDVAE'):,} latents",
            "–",
            f"non-hierarchical VAE {text('reconstruction', method='plain VAE', **ssim)}, "
            f"{latents('plain VAE')} latents",
        ),
        (
            "FRI and FRII, MiraBest Confident: " + ", ".join(f"{NAMES.get(k, k)} ≥ {v}" for k, v in FLOORS.items()),
            score(sample, codes, *FLOORS),
            f"accuracy {text('validity', metric='accuracy', **stranger)}, "
            f"ROC-AUC {text('validity', metric='roc_auc', **stranger)}",
            f"PCA {score(sample, 'PCA, averaged views', 'accuracy')}; CNN {score(sample, cnn, *FLOORS)}",
        ),
        (
            "FR-DEEP NVSS: on par with a CNN",
            score(nvss, codes, "accuracy", "roc_auc"),
            "–",
            f"CNN {score(nvss, cnn, 'accuracy', 'roc_auc')}; "
            f"peak over threshold alone {score(nvss, 'peak over threshold', 'accuracy')}",
        ),
        (
            "A search finds similar galaxies in another data set",
            f"same galaxy first {found(search, 'same galaxy', pair, 1)}; "
            f"fraction of ten neighbours with the class {found(search, 'class', pair, 10)}",
            f"from FIRST to NVSS, among the first ten {found(search, 'other survey', across, 10)}",
            f"PCA {found(pca, 'same galaxy', pair, 1)}; {found(pca, 'class', pair, 10)}",
        ),
        (
            "The network is a relatively good emulator",
            f"ROC-AUC against real galaxies (0.5 is best): CNN {text('generation', 2, metric='network_auc', **own)}, "
            f"six properties {text('generation', 2, metric='properties_auc', **own)}",
            "–",
            f"non-hierarchical VAE: CNN {text('generation', 2, metric='network_auc', way='plain VAE')}",
        ),
        (
            "A density of codes (MAF) as a step towards anomaly detection",
            f"injected anomalies, mean ROC-AUC {mean['MAF']:.3f}",
            "–",
            f"{simple} {mean[simple]:.3f}",
        ),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def comparisons() -> pd.DataFrame:
    """Paired differences of codes and CNN, of flow and simple detectors, and what a baseline finds more often."""
    rows = []
    cnn = select("classification", features="VDVAE code", protocol="difference from CNN")
    cnn = cnn[cnn["classifier"].eq("support vector machine") & cnn["metric"].isin(FLOORS)]
    flow = select("anomalies", metric="auc_lead").assign(
        metric="mean ROC-AUC", task="injected anomalies, flow on codes"
    )
    flow = flow[~flow["detector"].str.startswith("MAF")]
    for table, what, other in ((cnn.assign(baseline="CNN"), "sample", "baseline"), (flow, "task", "detector")):
        for row in table.to_dict("records"):
            own = "codes" if other == "baseline" else "flow"
            ahead = own if row["low"] > 0 else row[other] if row["high"] < 0 else "neither"
            interval = f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})".replace("-", "−")
            rows.append((row[what], NAMES.get(row["metric"], row["metric"]), row[other], interval, ahead))
    asked = read("similarity").query("metric_space in ['invariant, cosine', 'unscaled, cosine']")
    asked = asked.pivot(index=["question", "pair", "k"], columns=["features", "metric_space"], values="value")
    for (question, pair, k), line in asked.iterrows():
        rival, own = line.drop("VDVAE codes", level="features"), line["VDVAE codes", "invariant, cosine"]
        if rival.max() > own:
            values = f"{own:.3f} against {rival.max():.3f}"
            test, measure = f"search, {question}: {pair}", f"found in the first {k}"
            rows.append((test, measure, rival.idxmax()[0], values, "baseline higher, no interval"))
    columns = ["test", "measure", "baseline", "difference (95 % interval)", "significantly better"]
    return pd.DataFrame(rows, columns=columns)


def record() -> pd.DataFrame:
    """Where each table comes from: whether it is the committed one or was computed here, its version and inputs."""
    rows = []
    for path in sorted(FOLDER.glob("*.csv")):
        comment = path.read_text(encoding="utf-8").partition("\n")[0]
        said = comment.lstrip("# ").removeprefix("made by ") if comment[0] == "#" else ""
        made, _, inputs = said.partition(" from ")
        changed, date = (
            subprocess.run(["git", *ask, "--", path], cwd=FOLDER, capture_output=True, text=True).stdout.strip()
            for ask in (("status", "-s"), ("log", "-1", "--format=%cs"))
        )
        origin = "computed here" if changed else f"committed {date}" if date else "as downloaded"
        rows.append((path.name, origin, made or "–", inputs or "–"))
    return pd.DataFrame(rows, columns=["file", "origin", "made by", "from, with the start of their sha256"])


def attempts() -> pd.DataFrame:
    """What was tried where a baseline or a target is not reached."""
    found = read("attempts")
    found.loc[found.duplicated(["measure", "wanted"]), ["measure", "wanted"]] = ""
    return found


def main() -> None:
    """Print the claims, and write all tables as Markdown into a folder if one is given."""
    for folder in map(Path, sys.argv[1:]):
        folder.mkdir(parents=True, exist_ok=True)
        for make in (claims, comparisons, attempts, record):
            with artifacts.atomic(folder / f"{make.__name__}.md") as partial:
                partial.write_text(make().to_markdown(index=False) + "\n", encoding="utf-8")
    for row in claims().to_dict("records"):
        print("\n" + "\n".join(f"{name:>22}  {value}" for name, value in row.items()))


if __name__ == "__main__":
    run(main)

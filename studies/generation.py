"""Which way of making galaxies makes the most real ones: the study behind the chapter on generation.

Codes are drawn from the flow at several temperatures and truncations, and from the network's own prior; beside them stand the
rivals that a network must beat: principal components with Gaussian coefficients, and a plain variational autoencoder. What
the flow makes too often can be *sifted*: a forest that was taught, on training images, to tell real from drawn galaxies gives
each draw the odds of being real, and draws are kept in proportion to them (discriminator rejection sampling, Azadi et al. 2019,
arXiv:1810.06758). Judges are taught with other images, and judge on sources that neither network nor forest has seen.

The probability of a Kolmogorov-Smirnov distance allows for sources that are shown four times: it is the share of random draws
of as many real training *sources*, shown in the same way, that lie at least as far from other real images.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy import stats
from sklearn.base import clone
from sklearn.decomposition import PCA

from rgz.data import datasets, loader
from rgz.data.sample import Sample, prepared, usable
from rgz.errors import BadInput
from rgz.features import embed
from rgz.models.flow import FlowEnsemble
from rgz.models.vae import PlainVAE
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.tasks import classify, generate
from rgz.transforms import prepare
from studies import realism

__all__ = ["COUNT", "FULL", "OWN", "SIFTED", "columns", "keep", "odds_of", "sift", "study", "table", "ways"]

COUNT = 1024  # galaxies of each kind that are judged
TAUGHT = 2048  # of each kind, to teach a judge with
ODDS = 90  # percentile of the odds from which on every draw is kept
RIGOUR = 0.75  # of those that benchmarks/sifting.py tries, the best on a held-out fifth of the training sources
COMPONENTS = 64
REAL = "real, other sources"
FULL = "VDVAE, T = 1"
OWN = "VDVAE, its own prior"
SIFTED = "VDVAE, sifted"


def odds_of(real: np.ndarray, drawn: np.ndarray, more: np.ndarray) -> np.ndarray:
    """Odds, (N,), that images ``more`` (N, H, W) are real, by a forest taught with ``real`` and ``drawn`` ones."""
    said = realism.by_forest(real, drawn, more, trees=400).clip(0.01, 0.99)
    return said / (1 - said)


def keep(odds: np.ndarray, rigour: float = RIGOUR) -> np.ndarray:
    """Which images to keep, (N,) bool, in proportion to their odds (N,) to the power of ``rigour``: at 0 all of them."""
    odds = odds**rigour
    return np.random.default_rng(0).random(len(odds)) < odds / np.percentile(odds, ODDS)


def sift(real: np.ndarray, drawn: np.ndarray, more: np.ndarray, rigour: float = RIGOUR) -> np.ndarray:
    """Which of ``more`` to keep, (N,) bool, by :func:`odds_of` and :func:`keep`."""
    return keep(odds_of(real, drawn, more), rigour)


def ways(
    model: VDVAE, flow: FlowEnsemble, plain: PlainVAE, training: np.ndarray, shown: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Names and images (COUNT + TAUGHT, H, W) of each way to make galaxies; ``flow`` is one of :func:`rgz.tasks.generate.prior`.

    ``training`` are real images as training shows them, (M, H, W), to take components from; ``shown`` more of them, to sift with.
    """
    count = COUNT + TAUGHT
    for temperature in (0.7, 0.85, 1.0):
        yield f"VDVAE, T = {temperature:g}", generate.new(model, count, temperature, flow=flow)
    for truncation in (1.0, 2.0):
        yield f"VDVAE, within {truncation:g} σ", generate.new(model, count, truncation=truncation, flow=flow)
    yield OWN, generate.new(model, count)
    drawn = generate.new(model, len(shown), seed=1, flow=flow)
    more = generate.new(model, 4 * count, seed=2, flow=flow)
    if (kept := sift(shown, drawn, more)).sum() < count:
        raise BadInput(
            f"of {len(more)} draws only {kept.sum()} were kept, {count} are needed: this model draws too few real ones"
        )
    yield SIFTED, more[kept][:count]
    rng = np.random.default_rng(0)
    pca = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(
        training.reshape(len(training), -1).astype(float)
    )
    score = rng.standard_normal((count, COMPONENTS)) * np.sqrt(pca.explained_variance_)
    grey = np.clip(pca.inverse_transform(score), 0, 255).reshape(count, *training.shape[1:])
    yield "PCA, Gaussian", generate.full_peak(grey)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grey = generate.painted(plain, torch.randn(count, plain.dimensions).numpy())
    yield "plain VAE", generate.full_peak(grey)


def _distances(reference: dict, real: dict, source: np.ndarray, count: int, rounds: int = 300) -> dict[str, np.ndarray]:
    """Kolmogorov-Smirnov distances (rounds,), for each property, of ``count`` real sources from real reference images."""
    rng = np.random.default_rng(0)
    rows_of = np.split(np.arange(len(source)), np.flatnonzero(np.diff(source)) + 1)
    drawn = [
        np.concatenate([rows_of[s] for s in rng.choice(len(rows_of), count, replace=False)]) for _ in range(rounds)
    ]
    return {
        name: np.array([stats.ks_2samp(values[rows], reference[name]).statistic for rows in drawn])
        for name, values in real.items()
    }


def _class_of(recipe: prepare.Recipe):
    """A function from prepared images to probabilities of FRII, by a support vector machine on components of MiraBest's pixels."""
    known = datasets.load_dataset("mirabest")
    known = known[classify.confident(known.table) & (known.table["split"] != "test")]
    known = known[usable(known, recipe)]
    pca = PCA(32, svd_solver="randomized", random_state=0)

    def flat(grey):
        return grey.reshape(len(grey), -1).astype(float) / 255

    machine = clone(classify.CLASSIFIERS["support vector machine"]).fit(
        pca.fit_transform(flat(prepared(known, recipe))), classify.is_frii(known.table)
    )
    return lambda grey: machine.predict_proba(pca.transform(flat(grey)))[:, 1]


def study(model: VDVAE, flow: FlowEnsemble, plain: PlainVAE, recipe: prepare.Recipe, sources: Sample) -> dict:
    """Measure every way of making galaxies against held-out sources.

    ``sources`` is the training set with its split; the validation sources are held out.

    Returns
    -------
    dict
        ``rows``: for each ``way`` what :func:`studies.realism.compare` and :func:`studies.realism.apart` find; ``held_out``: numbers of
        sources and images; ``class_score`` and
        ``quantiles`` of the properties: those of the real images.
    """
    taught, held_out = (sources[sources.table["split"] == split] for split in ("train", "valid"))
    real, source = realism.shown(held_out, recipe, 0)
    batch = loader.batches(taught, recipe, 4 * TAUGHT, 1)
    pictures = batch(0)[:, 0].numpy(), batch(1)[:, 0].numpy()
    judges, reference, other = pictures[0][:TAUGHT], pictures[0][TAUGHT:][:COUNT], pictures[0][TAUGHT + COUNT :]
    some = taught[np.random.default_rng(0).permutation(len(taught))[: 4 * len(held_out)]]
    again, its_source = realism.shown(some, recipe, len(held_out))
    chance = _distances(realism.properties(reference), realism.properties(again), its_source, len(held_out))
    encode, classified = lambda grey: embed.full_codes(plain, grey)[0], _class_of(recipe)
    training, rows = prepared(taught, recipe), []
    every = [(REAL, np.concatenate([reference, other])[: COUNT + TAUGHT])]
    bar = progress((*every, *ways(model, flow, plain, other, pictures[1])), "judging", 10, unit="way")
    for way, made in bar:
        row = {"way": way} | realism.compare(real, source, made[:COUNT], training, encode, classified)
        for name, one in row["properties"].items():
            one["p"] = float((1 + (chance[name] >= one["ks"]).sum()) / (1 + len(chance[name])))
        rows.append(row | {"apart": realism.apart((judges, made[COUNT:]), real, source, made[:COUNT])})
    return {
        "rows": rows,
        "held_out": {"sources": len(held_out), "images": len(real), "judged": COUNT},
        "class_score": realism.class_score(classified(real)),
        "quantiles": {name: realism.quantiles(values) for name, values in realism.properties(real).items()},
    }


def columns(found: dict) -> dict[str, list]:
    """The rows of a :func:`study` as columns of text."""
    rows = found["rows"]
    inside = realism.scales(32)
    return {
        "": [row["way"] for row in rows],
        "told apart by a network": ["{:.2f} ({:.2f}–{:.2f})".format(*row["apart"]["network"]) for row in rows],
        "by a forest": ["{:.2f} ({:.2f}–{:.2f})".format(*row["apart"]["forest"]) for row in rows],
        "properties alike": [f"{sum(p['p'] > 0.01 for p in row['properties'].values())} of 6" for row in rows],
        "energy distance": [f"{np.mean([p['energy'] for p in row['properties'].values()]):.2f}" for row in rows],
        "grey levels off by": [f"{row['grey_levels']:.1%}" for row in rows],
        "power off by": [f"{max(abs(row['power'][k][0] - 1) for k in inside):.0%}" for row in rows],
        "precision": [f"{row['precision']:.2f}" for row in rows],
        "coverage": [f"{row['coverage']:.2f}" for row in rows],
        "class score": [f"{row['class_score']:.2f}" for row in rows],
        "copies": [f"{row['nearest']['closer_than_1_percent']:.1%}" for row in rows],
    }


def table(found: dict) -> str:
    """A :func:`study` as plain text."""
    cells = columns(found)
    widths = [max(len(str(v)) for v in (name, *values)) + 2 for name, values in cells.items()]
    lines = [cells.keys(), *zip(*cells.values(), strict=True)]
    return "\n".join("".join(f"{v:{w}}" for v, w in zip(line, widths, strict=True)).rstrip() for line in lines)

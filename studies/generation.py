"""Comparison of samplers: which of them generates the most realistic galaxies?

Codes are sampled from the flow at several temperatures and truncations, and from the network's own prior. There are two
baselines: principal components with Gaussian coefficients, and a plain variational autoencoder. In discriminator
rejection sampling (Azadi et al. 2019, arXiv:1810.06758), a random forest is trained on training images to distinguish
real from generated galaxies. It gives the odds that a sample is real, and samples are kept in proportion to a power of
these odds. The classifiers of the two-sample tests are trained with other images, and tested on sources that neither
the network nor the forest was trained on.

The p-value of a Kolmogorov-Smirnov distance accounts for sources with four augmented images each. It is the fraction of
random sets of the same number of real training *sources*, augmented in the same way, with at least the same distance
from other real images.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import clone
from sklearn.decomposition import PCA

from rgz import artifacts
from rgz.data import datasets, loader
from rgz.data.sample import Sample, prepared, usable
from rgz.errors import BadInput
from rgz.features import embed
from rgz.models import checkpoint
from rgz.models.flow import FlowEnsemble
from rgz.models.vae import PlainVAE
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.tasks import classify, generate
from rgz.transforms import prepare
from studies import inputs, realism, results
from studies.classifiers import CLASSIFIERS
from studies.inputs import flat
from studies.results import Row

COUNT = 1024  # galaxies of each sampler in the tests
TRAINING = 2048  # of each sampler, to train a classifier
ODDS = 90  # percentile of the odds above which every sample is kept
EXPONENT = 0.75  # of the odds; the best in 0 … 1.5 on a fifth of the training sources, held out from the forest
COMPONENTS = 64
REAL, HELD_OUT = "real, other sources", "held out"


def odds_of(real: NDArray[Any], drawn: NDArray[Any], more: NDArray[Any]) -> NDArray[np.float64]:
    """Odds (N,) that images ``more`` (N, H, W) are real, from a random forest trained with ``real`` and ``drawn``
    ones."""
    probability = realism.by_forest(real, drawn, more, trees=400).clip(0.01, 0.99)
    return np.asarray(probability / (1 - probability))


def keep(odds: NDArray[Any], exponent: float = EXPONENT) -> NDArray[np.bool_]:
    """Mask (N,) of the images to keep, in proportion to their odds (N,) to the power of ``exponent``; 0 keeps all."""
    odds = odds**exponent
    return np.asarray(np.random.default_rng(0).random(len(odds)) < odds / np.percentile(odds, ODDS))


def samplers(
    model: VDVAE, flow: FlowEnsemble, plain: PlainVAE, training: NDArray[Any], shown: NDArray[Any]
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and images (COUNT + TRAINING, H, W) of each sampler.

    ``flow`` is a result of :func:`rgz.tasks.generate.fit_prior`. ``training`` are real images (M, H, W), augmented as
    in training, for the principal components; ``shown`` are more of them, for rejection sampling.
    """
    count = COUNT + TRAINING
    for temperature in (0.7, 0.85, 1.0):
        yield f"VDVAE, T = {temperature:g}", generate.generate(count, temperature, model=model, flow=flow)
    for truncation in (1.0, 2.0):
        yield (
            f"VDVAE, truncated at {truncation:g} σ",
            generate.generate(count, truncation=truncation, model=model, flow=flow),
        )
    yield "VDVAE, own prior", generate.generate(count, model=model)
    drawn = generate.generate(len(shown), seed=1, model=model, flow=flow)
    more = generate.generate(4 * count, seed=2, model=model, flow=flow)
    if (kept := keep(odds_of(shown, drawn, more))).sum() < count:
        raise BadInput(f"rejection sampling kept {kept.sum()} of {len(more)} galaxies, {count} are needed: draw more")
    yield "VDVAE, rejection sampling", more[kept][:count]
    rng = np.random.default_rng(0)
    pca = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(flat(training))
    score = rng.standard_normal((count, COMPONENTS)) * np.sqrt(pca.explained_variance_)
    grey = np.clip(pca.inverse_transform(score), 0, 255).reshape(count, *training.shape[1:])
    yield "PCA, Gaussian", generate.full_peak(grey)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grey = generate.decode_with_noise(plain, torch.randn(count, plain.dimensions).numpy())
    yield "plain VAE", generate.full_peak(grey)


def ks_by_chance(
    reference: dict[str, NDArray[Any]],
    real: dict[str, NDArray[Any]],
    source: NDArray[Any],
    count: int,
    draws: int = 300,
) -> dict[str, NDArray[np.float64]]:
    """Kolmogorov-Smirnov distances (draws,) of each property between ``count`` real sources and a real reference."""
    rng = np.random.default_rng(0)
    rows_of = np.split(np.arange(len(source)), np.flatnonzero(np.diff(source)) + 1)
    drawn = [np.concatenate([rows_of[s] for s in rng.choice(len(rows_of), count, replace=False)]) for _ in range(draws)]
    return {
        name: np.array([stats.ks_2samp(values[rows], reference[name]).statistic for rows in drawn])
        for name, values in real.items()
    }


def fr_classifier(recipe: prepare.Recipe) -> Callable[[NDArray[Any]], NDArray[np.float64]]:
    """A function from prepared images to probabilities of FRII: an SVM on principal components of MiraBest images."""
    known = datasets.load_dataset("mirabest")
    known = known[classify.confident(known.table) & (known.table["split"] != "test")]
    known = known[usable(known, recipe)]
    pca = PCA(32, svd_solver="randomized", random_state=0)
    codes = pca.fit_transform(flat(prepared(known, recipe)) / 255)
    machine = clone(CLASSIFIERS["support vector machine"]).fit(codes, classify.is_frii(known.table))
    return lambda grey: np.asarray(machine.predict_proba(pca.transform(flat(grey) / 255))[:, 1])


def compare(
    real: NDArray[Any], source: NDArray[Any], made: NDArray[Any], chance: dict[str, NDArray[Any]]
) -> tuple[list[Row], list[Row]]:
    """Rows that compare the properties and the power of generated images (N, H, W) with real ones, and rows of
    quantiles.

    ``source`` (M,) is the source of each real image (M, H, W), and ``chance`` a result of :func:`ks_by_chance`.
    """
    known, new = realism.properties(real), realism.properties(made)
    rows: list[Row] = []
    for name, values in new.items():
        ks = stats.ks_2samp(known[name], values).statistic
        p = (1 + (chance[name] >= ks).sum()) / (1 + len(chance[name]))
        energy = stats.energy_distance(known[name], values) / math.sqrt(known[name].std())
        rows.append({"metric": "ks", "item": name, "value": ks, "p": p})
        rows.append({"metric": "energy", "item": name, "value": energy})
    for periods, three in enumerate(realism.power_ratio(real, source, made), 1):
        rows.append({"metric": "power", "item": str(periods)} | dict(zip(results.INTERVAL, three, strict=True)))
    rows.append({"metric": "grey_levels", "value": realism.grey_levels(real, made)})
    return rows, _quantiles(new)


def _quantiles(found: dict[str, NDArray[Any]]) -> list[Row]:
    return [
        {"property": name, "quantile": quantile, "value": value}
        for name, values in found.items()
        for quantile, value in zip(realism.QUANTILES, realism.quantiles(values), strict=True)
    ]


def study(
    model: VDVAE, flow: FlowEnsemble, plain: PlainVAE, recipe: prepare.Recipe, seen: Sample, held_out: Sample
) -> dict[str, list[Row]]:
    """Rows of the tables of this chapter: every sampler compared with held-out sources."""
    real, source = realism.augmented(held_out, recipe, 0)
    batch = loader.batches(seen, recipe, 4 * TRAINING, 1)
    pictures = batch(0)[:, 0].numpy(), batch(1)[:, 0].numpy()
    judges, reference, other = np.split(pictures[0], (TRAINING, TRAINING + COUNT))
    some = seen[np.random.default_rng(0).permutation(len(seen))[: 4 * len(held_out)]]
    again, its_source = realism.augmented(some, recipe, len(held_out))
    chance = ks_by_chance(realism.properties(reference), realism.properties(again), its_source, len(held_out))
    probability, training = fr_classifier(recipe), prepared(seen, recipe)
    distance, codes = realism.nearest(real, training)[0], embed.full_codes(plain, real)[0]
    rows: list[Row] = [
        {"way": HELD_OUT, "metric": "class_score", "item": None, "value": realism.class_score(probability(real))},
        {"way": HELD_OUT, "metric": "nearest_median", "value": np.median(distance)},
    ]
    quantiles = [{"way": HELD_OUT} | row for row in _quantiles(realism.properties(real))]
    every = [(REAL, np.concatenate([reference, other])[: COUNT + TRAINING])]
    for way, made in progress((*every, *samplers(model, flow, plain, other, pictures[1])), "judging", 10, unit="way"):
        first, rest = made[:COUNT], made[COUNT:]
        apart = results.tidy({}, realism.two_sample_test((judges, rest), real, source, first))
        mine, its_quantiles = compare(real, source, first, chance)
        closest, _ = realism.nearest(first, training)
        single = realism.coverage(codes, embed.full_codes(plain, first)[0])
        single |= {"class_score": realism.class_score(probability(first))}
        single |= {"copies": (closest < np.percentile(distance, 1)).mean(), "nearest_median": np.median(closest)}
        mine += [{"metric": metric, "value": value} for metric, value in single.items()]
        rows += [{"way": way} | row for row in (*apart, *mine)]
        quantiles += [{"way": way} | row for row in its_quantiles]
    sources = [{"sources": len(held_out), "images": len(real), "judged": COUNT}]
    return {"generation": rows, "generation_quantiles": quantiles, "generation_sources": sources}


def main() -> None:
    """Compute and write the tables of this chapter; 25 minutes on two cores."""
    files = [artifacts.artifact(f"{name}.safetensors") for name in ("vdvae", "plain", "prior")]
    (model, recipe), (plain, _, _) = inputs.network(), checkpoint.load(files[1])
    tables = study(model, generate.load_prior(files[2], files[0]), plain, recipe, *inputs.training_set())
    for name, rows in tables.items():
        results.write(name, rows, files)


if __name__ == "__main__":
    results.run(main)

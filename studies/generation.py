"""How realistic are generated galaxies?

The network generates with its own prior, at two temperatures. It is compared with a plain variational autoencoder, and
with three references: other real galaxies, reconstructions of real galaxies from latents sampled from the posteriors,
and images for which only the coarse latents are those of real galaxies and the fine ones are sampled from their priors.
A judge that recognises the reconstructions, too, sees a fault of the pixel likelihood rather than one of the prior. The
classifiers of the two-sample tests are tested on sources that the network was not trained on.

The p-value of a Kolmogorov-Smirnov distance accounts for sources with several augmented images each. It is the fraction
of random sets of the same number of real training *sources*, augmented in the same way, with at least the same distance
from other real images.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.base import clone
from sklearn.decomposition import PCA

from rgz import artifacts
from rgz.app.training import TRAINING_SET, splits
from rgz.data import datasets, loader
from rgz.data.sample import Sample, usable
from rgz.features import embed
from rgz.models import checkpoint
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.tasks import generate
from rgz.transforms import prepare
from studies import labelled, latent, realism, results
from studies.classifiers import CLASSIFIERS
from studies.metrics import is_frii
from studies.reconstruction import flat
from studies.results import Row
from studies.vae import PlainVAE

COUNT = 256  # galaxies of each way in the tests
TRAINING = 512  # of each way, to train a classifier
TEMPERATURES = (1.0, 0.7)
COMPONENTS = 32
QUANTILES = np.arange(0.02, 1, 0.04)  # of the properties, to compare distributions in a figure
REAL, HELD_OUT = "real, other sources", "held out"


@torch.no_grad()
def decode_with_noise(model: VDVAE | PlainVAE, codes: NDArray[Any], **options: Any) -> NDArray[np.uint8]:
    """Images (N, H, W) of full codes (N, dimensions), with grey levels sampled as by
    :func:`rgz.tasks.generate.generate`; ``options`` are those of the model's ``decode``."""
    parts = torch.split(torch.from_numpy(np.asarray(codes, dtype=np.float32)), embed.BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        grey = [model.decode(part, **options, drawn=True) for part in parts]
    made = generate.full_peak(torch.cat(grey)[:, 0].numpy())
    return made[made.any((1, 2))]


def ways(model: VDVAE, plain: PlainVAE, real: NDArray[Any]) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and images (N, H, W) of each way to make galaxies; ``real`` ones (N, H, W) are reconstructed."""
    for temperature in TEMPERATURES:
        name = "VDVAE, own prior" if temperature == 1 else f"VDVAE, T = {temperature:g}"
        yield name, generate.generate(len(real), temperature, model=model)
    yield "plain VAE", decode_with_noise(plain, np.random.default_rng(0).standard_normal((len(real), plain.dimensions)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        latents, _ = latent.full_codes(model, real, drawn=True)
    yield "reconstructions", decode_with_noise(model, latents)
    latents[:, latent.blocks_of(model, np.arange(model.dimensions)) >= model.coarse] = np.nan
    yield "coarse latents of real galaxies", decode_with_noise(model, latents, temperature=1.0)


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
    known = known[labelled.confident(known.table) & (known.table["split"] != "test") & usable(known)]
    grey = prepare.prepare(known.images, known.pixel, recipe)[0]
    pca = PCA(32, svd_solver="randomized", random_state=0)
    codes = pca.fit_transform(flat(grey) / 255)
    machine = clone(CLASSIFIERS["support vector machine"]).fit(codes, is_frii(known.table))
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
        for quantile, value in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)
    ]


class Judges(NamedTuple):
    """What generated galaxies are compared with."""

    real: NDArray[np.uint8]  # held-out sources, augmented, (M, H, W)
    source: NDArray[np.intp]  # the source of each, (M,)
    known: NDArray[np.uint8]  # training sources, augmented, with which classifiers are trained, (TRAINING, H, W)
    training: NDArray[np.uint8]  # all training sources, prepared, among which copies are looked for
    copy: float  # distance from them that 1 in 100 real images are closer than
    chance: dict[str, NDArray[np.float64]]  # of ks_by_chance
    components: PCA  # of training images, in which coverage is measured
    probability: Callable[[NDArray[Any]], NDArray[np.float64]]  # of FRII

    def assess(self, made: NDArray[np.uint8]) -> tuple[list[Row], list[Row]]:
        """Rows of metrics and of quantiles for galaxies (N, H, W) made in one way."""
        first, rest = made[:COUNT], made[COUNT:]
        rows = results.tidy({}, realism.two_sample_test((self.known, rest), self.real, self.source, first))
        compared, quantiles = compare(self.real, self.source, first, self.chance)
        closest = realism.nearest(first, self.training)
        single = realism.coverage(*(self.components.transform(flat(grey)) for grey in (self.real, first)))
        single |= {"class_score": realism.class_score(self.probability(first))}
        single |= {"copies": (closest < self.copy).mean(), "nearest_median": np.median(closest)}
        return rows + compared + [{"metric": metric, "value": value} for metric, value in single.items()], quantiles


def judges(recipe: prepare.Recipe, seen: Sample, held_out: Sample) -> tuple[Judges, NDArray[np.uint8]]:
    """The judges, and training sources, augmented, that they have not seen, (2 COUNT + 2 TRAINING, H, W)."""
    real, source = realism.augmented(held_out, recipe, 0)
    batch = loader.batches(seen, recipe, COUNT, 1)
    total = 2 * COUNT + 3 * TRAINING
    pictures = np.concatenate([batch(step)[0][:, 0].numpy() for step in range(math.ceil(total / COUNT))])
    known, other = np.split(pictures[:total].astype(np.uint8), (TRAINING,))
    some = seen[np.random.default_rng(0).permutation(len(seen))[: 2 * len(held_out)]]
    again, its_source = realism.augmented(some, recipe, len(held_out))
    reference = realism.properties(other[:COUNT])
    chance = ks_by_chance(reference, realism.properties(again), its_source, len(held_out))
    training = prepare.prepare(seen.images, seen.pixel, recipe)[0]
    copy = float(np.percentile(realism.nearest(real, training), 1))
    components = PCA(COMPONENTS, svd_solver="randomized", random_state=0).fit(flat(training))
    return Judges(real, source, known, training, copy, chance, components, fr_classifier(recipe)), other


def study(
    model: VDVAE, plain: PlainVAE, recipe: prepare.Recipe, seen: Sample, held_out: Sample
) -> dict[str, list[Row]]:
    """Rows of the tables of this chapter: every way to make galaxies compared with held-out sources."""
    judge, other = judges(recipe, seen, held_out)
    about = {"class_score": realism.class_score(judge.probability(judge.real)), "sources": len(held_out)}
    about |= {"images": len(judge.real), "judged": COUNT}
    rows: list[Row] = [{"way": HELD_OUT, "metric": m, "item": None, "value": value} for m, value in about.items()]
    quantiles = [{"way": HELD_OUT} | row for row in _quantiles(realism.properties(judge.real))]
    fresh, rebuilt = np.split(other, (COUNT + TRAINING,))
    made_by = {REAL: fresh} | dict(ways(model, plain, rebuilt))
    for way, made in progress(made_by.items(), desc="judging", unit="way"):
        mine, its_quantiles = judge.assess(made)
        rows += [{"way": way} | row for row in mine]
        quantiles += [{"way": way} | row for row in its_quantiles]
    return {"generation": rows, "generation_quantiles": quantiles}


def main() -> None:
    """Compute and write the tables of this chapter; three minutes on one core."""
    files = [artifacts.artifact(f"{name}.safetensors") for name in ("vdvae", "plain")]
    (model, recipe, _), (plain, _, _) = checkpoint.load(files[0]), checkpoint.load(files[1], PlainVAE)
    for name, rows in study(model, plain, recipe, *splits(TRAINING_SET)).items():
        results.write(name, rows, files)


if __name__ == "__main__":
    results.run(main)

"""Tests of the similarity search.

There are four questions, for codes and for baselines without a network. *The same galaxy*: is its image from another
archive ranked first? *The galaxy itself*: does a rotated, mirrored, shifted or noisy image find its original? *Its
class*: do the ten nearest galaxies have the class of the query? *The other survey*: does a FIRST image find the NVSS
image of the same galaxy, and vice versa? For the class, trivial matches such as the query itself are excluded. Every
fraction of correct answers has a 95 % interval over queries.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray
from scipy import ndimage

from rgz import artifacts, metrics
from rgz.data import datasets
from rgz.data.datasets import FIRST_PIXEL, NVSS_PIXEL
from rgz.data.sample import Sample, prepared, usable
from rgz.data.training_set import SAME_SOURCE
from rgz.features import codes as codefile
from rgz.features import descriptors, metric
from rgz.features.embed import Encoder
from rgz.tasks import search
from rgz.tasks.classify import confident
from rgz.transforms import perturb, prepare
from studies import inputs, results
from studies.results import Row

PERTURBED: dict[str, Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]] = {
    "turned": perturb.rotate_randomly,
    "mirrored": perturb.mirror,
    "shifted": perturb.shift,
    "noise, peak at 5 σ": lambda image, rng: perturb.add_noise(image, rng, (5, 5)),
}
"""Name of a perturbation to its function."""

PAIRS = {
    "same galaxy": (("mirabest", "rgd"), ("rgd", "mirabest")),
    "class": (
        ("mirabest", "mirabest"),
        ("rgd", "rgd"),
        ("mirabest", "rgd"),
        ("rgd", "mirabest"),
        ("mirabest", "frdeep-first"),
        ("mirabest", "frdeep-nvss"),
        ("frdeep-nvss", "mirabest"),
    ),
    "other survey": (("frdeep-first", "frdeep-nvss"), ("frdeep-nvss", "frdeep-first")),
}
"""Question to samples of the queries and samples that are searched."""

ANGLES = {"cosine": True, "Euclidean": False}
CODES, COMPONENTS, TOGETHER = "VDVAE codes", "PCA of the same views", "VDVAE codes and components"
SEED = 0
QUERIES = 300  # galaxies drawn at random that are perturbed and should find their originals

Changed = dict[str, tuple[NDArray[Any], NDArray[Any]]]  # perturbation to perturbed rows and their vectors


def same_sky(table: Table, other: Table, arcsec: float = search.SAME) -> NDArray[np.bool_]:
    """Mask (N, M) of pairs of rows that are the same galaxy: the same object, or positions at most ``arcsec`` apart."""
    one, two = (np.asarray(t["object"])[:, None] for t in (table, other))
    same: NDArray[np.bool_] = np.equal(one, two.T) & np.not_equal(one, "")
    known, targets = (np.flatnonzero(np.isfinite(np.asarray(t["ra"], float))) for t in (table, other))
    if len(known) and len(targets):
        here, there = (
            SkyCoord(t["ra"][rows], t["dec"][rows], unit="deg") for t, rows in ((table, known), (other, targets))
        )
        row, column, _, _ = there.search_around_sky(here, arcsec * u.arcsec)
        same[known[row], targets[column]] = True
    return same


def ranked(queries: NDArray[Any], targets: NDArray[Any]) -> NDArray[np.intp]:
    """Rows of target vectors (M, K) from the nearest to the farthest, for each query vector (Q, K); (Q, M)."""
    score = queries.astype(float) @ targets.T.astype(float) - 0.5 * (targets.astype(float) ** 2).sum(axis=1)
    return np.argsort(-score, axis=1, kind="stable")


def hit_at_k(order: NDArray[Any], right: NDArray[Any], k: int) -> NDArray[np.bool_]:
    """Whether one of the first ``k`` rows of each order (Q, M) is correct (Q, M); (Q,)."""
    return np.asarray(np.take_along_axis(right, order[:, :k], axis=1).any(axis=1))


def precision_at_k(
    order: NDArray[Any], apart: NDArray[Any], label: NDArray[Any], of_target: NDArray[Any], k: int = 10
) -> NDArray[np.float64]:
    """Fraction (Q,) of each query's ``k`` nearest targets with its label, among those ``apart`` from it (Q, M)."""
    found = np.empty(len(order))
    for query, (rows, other) in enumerate(zip(order, apart, strict=True)):
        found[query] = (of_target[rows[other[rows]][:k]] == label[query]).mean()
    return found


def measure(table: Table, vectors: NDArray[Any], changed: Changed) -> list[Row]:
    """Fractions of correct answers to all questions, for galaxies in a table with vectors (N, K) and perturbed ones."""

    def answer(question: str, pair: str, k: int, right: NDArray[Any]) -> Row:
        share = metrics.interval(np.mean, right.astype(float), draws=1000)
        about = {"question": question, "pair": pair, "k": k, "n": len(right)}
        return about | dict(zip(results.INTERVAL, share, strict=True))

    sample, label = np.asarray(table["sample"]), np.asarray(table["label"])
    rows = {name: np.flatnonzero(sample == name) for name in dict.fromkeys(sample)}

    def other_image(question: str) -> Iterator[Row]:
        for one, two in PAIRS[question]:
            right = same_sky(table[rows[one]], table[rows[two]], SAME_SOURCE)
            asked = right.any(axis=1)
            order = ranked(vectors[rows[one]][asked], vectors[rows[two]])
            for k in (1, 10):
                yield answer(question, f"{one} → {two}", k, hit_at_k(order, right[asked], k))

    found = list(other_image("same galaxy"))
    for name, (of, placed) in changed.items():
        right = same_sky(table[of], table)
        right[np.arange(len(of)), of] = True
        found.append(answer("itself", name, 1, hit_at_k(ranked(placed, vectors), right, 1)))
    for one, two in PAIRS["class"]:
        asked, targets = (rows[name][confident(table[rows[name]])] for name in (one, two))
        apart = ~same_sky(table[asked], table[targets]) & (asked[:, None] != targets)
        order = ranked(vectors[asked], vectors[targets])
        share = precision_at_k(order, apart, label[asked], label[targets])
        found.append(answer("class", f"{one} → {two}", 10, share))
    return [*found, *other_image("other survey")]


def perturbed(sample: Sample, kind: str, recipe: prepare.Recipe) -> tuple[NDArray[np.intp], Sample]:
    """Rows of a sample that can still be prepared after a perturbation, and a sample of the perturbed images."""
    rng = np.random.default_rng((SEED, *kind.encode()))
    changed = replace(sample, images=np.stack([PERTURBED[kind](image, rng) for image in sample.images]))
    kept = usable(changed, recipe)
    return np.flatnonzero(kept), changed[kept]


def _low_resolution(first: Sample) -> NDArray[Any]:
    """FIRST images at the resolution of NVSS, with its beam and pixels."""
    sigma = np.sqrt(45.0**2 - 5.4**2) / np.sqrt(8 * np.log(2)) / FIRST_PIXEL
    size = int(first.images.shape[1] * FIRST_PIXEL / NVSS_PIXEL)
    grid = (np.arange(size) - (size - 1) / 2) * NVSS_PIXEL / FIRST_PIXEL + (first.images.shape[1] - 1) / 2
    places = np.meshgrid(grid, grid, indexing="ij")
    smooth = (ndimage.gaussian_filter(image.astype(float), sigma) for image in first.images)
    return np.stack([ndimage.map_coordinates(image, places, order=1) for image in smooth])


def seen_twice(first: Sample, nvss: Sample) -> Row:
    """Check with the images whether FIRST and NVSS images with the same number in the archives show the same galaxy.

    FIRST images are converted to the beam and the pixels of NVSS. The mean image, which is about a point source with
    the beam, is subtracted from both. Then for each image the most correlated image of the other survey is chosen, with
    shifts of up to one pixel.

    Returns
    -------
    dict
        ``pairs`` with the same number; ``mutual`` best matches; ``agree``, the fraction of those with the same number;
        ``chance``, that fraction for random choices.
    """

    def normalised(pictures: NDArray[Any]) -> NDArray[Any]:
        whole = pictures.reshape(len(pictures), -1)
        whole = whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1)  # an image may be blank
        rest = whole - whole.mean(axis=0)
        return np.asarray(rest / np.linalg.norm(rest, axis=1, keepdims=True))

    coarse = _low_resolution(first)
    alike = np.full((len(first), len(nvss)), -np.inf)
    for step in np.ndindex(3, 3):
        moved = np.roll(nvss.images.astype(float), np.array(step) - 1, axis=(1, 2))
        alike = np.maximum(alike, normalised(coarse) @ normalised(prepare.crop(moved, coarse.shape[1])).T)
    best, chosen = alike.argmax(axis=1), alike.argmax(axis=0)
    mutual = np.flatnonzero(chosen[best] == np.arange(len(first)))
    here, there = np.asarray(first.table["object"]), np.asarray(nvss.table["object"])
    pairs = here[:, None] == there
    return {
        "pairs": int(pairs.any(axis=1).sum()),
        "mutual": len(mutual),
        "agree": float((here[mutual] == there[best[mutual]]).mean()),
        "chance": float(pairs.sum() / pairs.size),
    }


def _fixed(values: NDArray[Any], whitened: bool = True) -> dict[str, metric.Metric]:
    """Metrics of values (N, D) that are not fitted to perturbations, by angle and by distance."""
    makers = {"unscaled": metric.plain} | ({"whitened": metric.whitened} if whitened else {})
    return {f"{name}, {title}": make(values, by) for name, make in makers.items() for title, by in ANGLES.items()}


def _invariant(learned: metric.Metric) -> dict[str, metric.Metric]:
    return {f"invariant, {title}": replace(learned, cosine=cosine) for title, cosine in ANGLES.items()}


@dataclass(frozen=True)
class Described:
    """One kind of features: values (N, D) of all galaxies, those of perturbed ones, and metrics for them."""

    features: str
    values: NDArray[Any]
    changed: dict[str, NDArray[Any]]
    metrics: dict[str, metric.Metric]


def _learned_features(
    encoder: Encoder, path: Path, training: Sample, kept: dict[str, Sample], changed: dict[str, Sample]
) -> Iterator[Described]:
    """The descriptors of the codes file, the codes alone, and principal components of the same views."""
    _, whole, space = search.for_search(path)
    alone, recipe = descriptors.alone(encoder.latents), encoder.recipe
    after = {kind: encoder.transform(one, "search") for kind, one in changed.items()}
    yield Described(TOGETHER, whole, after, _invariant(space))
    spaces = _fixed(whole[:, :alone]) | _invariant(codefile.read_space(codefile.ALONE, path))
    yield Described(CODES, whole[:, :alone], {kind: values[:, :alone] for kind, values in after.items()}, spaces)
    pixels = np.concatenate([prepared(one, recipe) for one in kept.values()])
    basis = descriptors.principal(pixels, len(encoder.latents))

    def components(one: Sample) -> NDArray[Any]:
        return descriptors.components(descriptors.framed_views(recipe, one), basis)

    values = np.concatenate([components(one) for one in kept.values()])
    learned = descriptors.space(values, descriptors.changes(components, recipe, training), 0)
    after = {kind: components(one) for kind, one in changed.items()}
    yield Described(COMPONENTS, values, after, _fixed(values) | _invariant(learned))


def _pixels(recipe: prepare.Recipe, kept: dict[str, Sample], changed: dict[str, Sample]) -> Iterator[Described]:
    """Grey levels of the images, aligned and in their orientation on the sky."""

    def aligned(one: Sample) -> NDArray[Any]:
        return prepared(one, recipe).reshape(len(one), -1).astype(np.float32)

    def sky(one: Sample) -> NDArray[Any]:
        return np.stack([_on_the_sky(image, one.pixel, recipe) for image in one.images]).reshape(len(one), -1)

    for title, function in (("pixels, aligned", aligned), ("pixels, sky orientation", sky)):
        values = np.concatenate([function(one) for one in kept.values()])
        after = {kind: function(one) for kind, one in changed.items()}
        yield Described(title, values, after, _fixed(values, whitened=False))


def _on_the_sky(image: NDArray[Any], pixel: float, recipe: prepare.Recipe) -> NDArray[Any]:
    """The middle of a clipped field, not aligned, 115″ wide, stretched as the network's images are; float32."""
    scale = 2 * recipe.radius / recipe.size / pixel
    square = prepare.render(prepare.smooth(np.asarray(image, float), scale), prepare.Orientation(), recipe.size, scale)
    return prepare.stretch(square).astype(np.float32) if square.any() else np.zeros((recipe.size,) * 2, np.float32)


def study(encoder: Encoder, path: Path, training: Sample) -> list[Row]:
    """All questions of :func:`measure`, for descriptors in each metric, and for components and pixels of the same
    images.

    The principal components are those of the aligned images of all samples. Their number is that of the latents of a
    code, they are pooled over the same views, and their metric is fitted in the same way as that of the codes. The
    survey images must be on this machine.

    Parameters
    ----------
    path
        The codes file.
    training
        Training images, to fit an invariant metric.
    """
    (table, *_), recipe = search.for_search(path), encoder.recipe
    kept = {
        name: datasets.load_dataset(name).named(table["name"][table["sample"] == name]) for name in datasets.SAMPLES
    }
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(kept["mirabest"]))[:QUERIES])
    own, rows, changed = np.flatnonzero(table["sample"] == "mirabest")[drawn], {}, {}
    for kind in PERTURBED:
        left, changed[kind] = perturbed(kept["mirabest"][drawn], kind, recipe)
        rows[kind] = own[left]
    found = []
    for one in (*_learned_features(encoder, path, training, kept, changed), *_pixels(recipe, kept, changed)):
        for name, space in one.metrics.items():
            placed = {kind: (rows[kind], space.transform(value)) for kind, value in one.changed.items()}
            about = {"features": one.features, "metric_space": name, "dimensions": space.matrix.shape[1]}
            found += [about | row for row in measure(table, space.transform(one.values), placed)]
    return found


def main() -> None:
    """Compute and write the tables of this chapter; half an hour on two cores."""
    encoder, (seen, _) = Encoder.from_pretrained(), inputs.training_set()
    files = [artifacts.artifact(name) for name in ("vdvae.safetensors", "codes.h5")]
    results.write("similarity", study(encoder, files[1], seen), files)
    first, nvss = (datasets.load_dataset(f"frdeep-{survey}") for survey in ("first", "nvss"))
    results.write("seen_twice", [seen_twice(first, nvss)])


if __name__ == "__main__":
    results.run(main)

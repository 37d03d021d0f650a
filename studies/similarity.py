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
from typing import Any, cast

import numpy as np
import torch
from astropy import units as u
from astropy.table import Table
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.decomposition import PCA
from torch import Tensor, nn

from rgz import artifacts
from rgz.app.training import TRAINING_SET, splits
from rgz.data import datasets
from rgz.data.datasets import FIRST_PIXEL, NVSS_PIXEL
from rgz.data.sample import SAME_SOURCE, Sample, positions, usable
from rgz.features import metric
from rgz.features.embed import PARTS, Encoder
from rgz.models.vdvae import VDVAE
from rgz.tasks import search
from rgz.transforms import fields, perturb
from rgz.transforms.prepare import FRAMES, Recipe, gaussian, prepare, stretch
from studies import metrics, results
from studies.encode import changes, invariant
from studies.injected import add_noise, rotate
from studies.labelled import confident
from studies.reconstruction import flat
from studies.results import Row


def shift(image: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    """Shift by two pixels along a row or a column."""
    step = [(2, 0), (-2, 0), (0, 2), (0, -2)][rng.integers(4)]
    return np.asarray(ndimage.shift(image, step, order=0))


PERTURBED: dict[str, Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]] = {
    "turned": rotate,
    "mirrored": lambda image, _: image[:, ::-1],
    "shifted": shift,
    "noise, peak at 5 σ": lambda image, rng: add_noise(image, rng, snr=5),
}
"""Name of a perturbation to its function of a clipped field (H, W)."""

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

CODES, COMPONENTS = "VDVAE codes", "PCA of the same views"
ALIGNED, SKY = "pixels, aligned", "pixels, sky orientation"
SEED = 0
QUERIES = 300  # galaxies drawn at random that are perturbed and should find their originals

Changed = dict[str, tuple[NDArray[Any], NDArray[Any]]]  # perturbation to perturbed rows and their vectors


def same_sky(table: Table, other: Table, arcsec: float = search.SAME) -> NDArray[np.bool_]:
    """Mask (N, M) of pairs of rows that are the same galaxy: their positions are at most ``arcsec`` apart."""
    same = np.zeros((len(table), len(other)), bool)
    known, targets = (np.flatnonzero(np.isfinite(np.asarray(t["ra"], float))) for t in (table, other))
    if len(known) and len(targets):
        here, there = positions(table[known]), positions(other[targets])
        row, column, _, _ = there.search_around_sky(here, arcsec * u.arcsec)
        same[known[row], targets[column]] = True
    return same


def ranked(queries: NDArray[Any], targets: NDArray[Any], most: int = 64) -> NDArray[np.intp]:
    """The ``most`` nearest rows of target vectors (M, K), nearest first, for each query vector (Q, K); (Q, most)."""
    far = 0.5 * (targets.astype(float) ** 2).sum(axis=1) - queries.astype(float) @ targets.T.astype(float)
    near = np.tile(np.arange(len(targets)), (len(far), 1))
    if most < len(targets):  # by row, so that a stable sort leaves equally near ones in this order
        near = np.sort(np.argpartition(far, most, axis=1)[:, :most], axis=1)
    return np.take_along_axis(near, np.argsort(np.take_along_axis(far, near, 1), axis=1, kind="stable"), 1)


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


def perturbed(sample: Sample, kind: str) -> tuple[NDArray[np.intp], Sample]:
    """Rows of a sample that can still be prepared after a perturbation, and a sample of the perturbed images."""
    rng = np.random.default_rng((SEED, *kind.encode()))
    images = np.stack([PERTURBED[kind](image.astype(float), rng) for image in sample.images])
    kept = usable(seen := replace(sample, images=images))
    return np.flatnonzero(kept), seen[kept]


def _low_resolution(first: Sample) -> NDArray[Any]:
    """FIRST images at the resolution of NVSS, with its beam and pixels."""
    sigma = np.sqrt(45.0**2 - 5.4**2) / np.sqrt(8 * np.log(2)) / FIRST_PIXEL
    size = int(first.images.shape[1] * FIRST_PIXEL / NVSS_PIXEL)
    grid = (np.arange(size) - (size - 1) / 2) * NVSS_PIXEL / FIRST_PIXEL + (first.images.shape[1] - 1) / 2
    places = np.meshgrid(grid, grid, indexing="ij")
    smooth = (ndimage.gaussian_filter(image.astype(float), sigma) for image in first.images)
    return np.stack([ndimage.map_coordinates(image, places, order=1) for image in smooth])


def seen_twice(first: Sample, nvss: Sample) -> Row:
    """Check with the images whether FIRST and NVSS images at the same position show the same galaxy.

    FIRST images are converted to the beam and the pixels of NVSS. The mean image, which is about a point source with
    the beam, is subtracted from both. Then for each image the most correlated image of the other survey is chosen, with
    shifts of up to one pixel.

    Returns ``pairs`` at most 10″ apart; ``mutual`` best matches; ``agree``, the fraction of those that are such pairs;
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
        alike = np.maximum(alike, normalised(coarse) @ normalised(fields.crop(moved, coarse.shape[1])).T)
    best, chosen = alike.argmax(axis=1), alike.argmax(axis=0)
    mutual = np.flatnonzero(chosen[best] == np.arange(len(first)))
    pairs = same_sky(first.table, nvss.table, SAME_SOURCE)
    return {
        "pairs": int(pairs.any(axis=1).sum()),
        "mutual": len(mutual),
        "agree": float(pairs[mutual, best[mutual]].mean()),
        "chance": float(pairs.mean()),
    }


class Components(nn.Module):
    """Principal components of prepared images (N, H, W), onto which :meth:`means` projects, in place of a network."""

    coded = None
    mean: Tensor
    basis: Tensor

    def __init__(self, pixels: NDArray[np.uint8], count: int):
        super().__init__()
        found = PCA(count, svd_solver="randomized", random_state=SEED).fit(flat(pixels))
        self.register_buffer("mean", torch.from_numpy(found.mean_).float())
        self.register_buffer("basis", torch.from_numpy(found.components_).float())

    def means(self, images: Tensor, _blocks: None = None) -> Tensor:
        """Components (N, D) of images (N, 1, H, W), 0 … 255, in place of posterior means."""
        return (images.flatten(1) - self.mean) @ self.basis.T


def on_the_sky(images: NDArray[Any], pixel: float, recipe: Recipe) -> NDArray[np.float32]:
    """The middle 115″ of clipped fields (N, H, W), not aligned, stretched like prepared images: (N, size, size)."""
    scale = 2 * recipe.radius / recipe.size / pixel  # width of a new pixel, in pixels of the field
    edge = (images.shape[1] - recipe.size) // 2
    middle, found = slice(edge, edge + recipe.size), []
    for part in torch.split(torch.from_numpy(np.asarray(images, np.float32)), 64):
        smooth = gaussian(part, part.new_full((len(part),), 0.42 * scale if scale > 1 else 0.0))
        same = scale * torch.eye(2).expand(len(part), 2, 2)
        found.append(stretch(perturb.resample(smooth, same, torch.zeros(len(part), 2))[:, middle, middle]))
    return torch.cat(found).numpy()


@dataclass(frozen=True)
class Described:
    """One kind of features: values (N, D) of all galaxies, those of perturbed ones, and metrics for them."""

    features: str
    values: NDArray[Any]
    changed: dict[str, NDArray[Any]]
    metrics: dict[str, metric.Metric]


def _metrics(values: NDArray[Any], learned: metric.Metric) -> dict[str, metric.Metric]:
    """Metrics for values (N, D); ``learned`` is the invariant one."""
    return {
        "unscaled, cosine": metric.plain(values),
        "whitened, cosine": metric.whitened(values),
        "invariant, cosine": replace(learned, cosine=True),
        "invariant, Euclidean": replace(learned, cosine=False),
    }


def described(
    encoder: Encoder, path: Path, training: Sample, kept: dict[str, Sample], changed: dict[str, Sample]
) -> Iterator[Described]:
    """All kinds of features of samples ``kept``, by name, and of perturbed ones, by perturbation.

    The principal components are those of training images about both centres, as many as the code has latents. They
    take the place of the network, so they are averaged over the same views, and their metric is fitted to the same
    perturbations.
    """
    _, codes, space = search.for_search(path)
    after: dict[str, NDArray[Any]] = {kind: encoder.transform(one) for kind, one in changed.items()}
    yield Described(CODES, codes, after, _metrics(codes, space))
    recipe = encoder.recipe
    pixels = np.concatenate(prepare(training.images, training.pixel, recipe, FRAMES))
    linear = Components(pixels, len(encoder.latents))
    basis = Encoder(cast(VDVAE, linear), recipe, np.arange(len(encoder.latents)))
    values = np.concatenate([basis.transform(one) for one in kept.values()])
    after = {kind: basis.transform(one) for kind, one in changed.items()}
    yield Described(COMPONENTS, values, after, _metrics(values, invariant(values, changes(basis, training), PARTS)))
    grey: dict[str, Callable[[Sample], NDArray[Any]]] = {
        ALIGNED: encoder.prepared,
        SKY: lambda one: on_the_sky(one.images, one.pixel, recipe),
    }
    for title, function in grey.items():
        values = np.concatenate([flat(function(one)) for one in kept.values()])
        after = {kind: flat(function(one)) for kind, one in changed.items()}
        yield Described(title, values, after, {"unscaled, cosine": metric.plain(values)})


def study(encoder: Encoder, path: Path, training: Sample) -> list[Row]:
    """All questions of :func:`measure`, for codes in the file ``path``, for principal components, and for pixels.

    Principal components and their invariant metric are fitted to training images.
    """
    table, *_ = search.for_search(path)
    kept = {
        name: datasets.load_dataset(name).named(table["name"][table["sample"] == name]) for name in datasets.SAMPLES
    }
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(kept["mirabest"]))[:QUERIES])
    own, rows, changed = np.flatnonzero(table["sample"] == "mirabest")[drawn], {}, {}
    for kind in PERTURBED:
        left, changed[kind] = perturbed(kept["mirabest"][drawn], kind)
        rows[kind] = own[left]
    found = []
    for one in described(encoder, path, training, kept, changed):
        for name, space in one.metrics.items():
            placed = {kind: (rows[kind], space.transform(value)) for kind, value in one.changed.items()}
            about = {"features": one.features, "metric_space": name, "dimensions": space.matrix.shape[1]}
            found += [about | row for row in measure(table, space.transform(one.values), placed)]
    return found


def main() -> None:
    """Compute and write the tables of this chapter; about two minutes on one core."""
    encoder, (seen, _) = Encoder.from_pretrained(), splits(TRAINING_SET)
    files = [artifacts.artifact(name) for name in ("vdvae.safetensors", "codes.h5")]
    results.write("similarity", study(encoder, files[1], seen), files)
    first, nvss = (datasets.load_dataset(f"frdeep-{survey}") for survey in ("first", "nvss"))
    results.write("seen_twice", [seen_twice(first, nvss)])


if __name__ == "__main__":
    results.run(main)

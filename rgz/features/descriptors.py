"""What a search compares, and in what space.

The code of a pose follows the middle of the image and the length of the source; a class needs that, a search does not. So here a
galaxy is seen in five frames (:data:`rgz.transforms.prepare.FRAMES`), and in each from the twelve views that everything else takes too; but
four of them are of the image as it lies, four of the image turned by 30° and four of it turned by 60°, since how a galaxy falls
on the grid of its pixels, and what is only just above a threshold there, is an accident too. (Turned by 90° a grid is the same
again.) The codes of all views are pooled; and as a code forgets what tells one point-like galaxy from the next, a few principal
components of the same views stand beside them.

Which differences between such numbers mean nothing is learned from training images that are altered on purpose
(:func:`changes`, :func:`rgz.features.metric.invariant`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from rgz.data.sample import Sample, usable
from rgz.features import embed, metric
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.transforms import perturb, prepare
from rgz.transforms.prepare import FRAMES, VIEWS

__all__ = [
    "COMPONENTS",
    "PERTURBATIONS",
    "alone",
    "changes",
    "codes",
    "components",
    "describe",
    "principal",
    "shown",
    "space",
]

TURNED = ((0, VIEWS[:4]), (30, VIEWS[4:8]), (60, VIEWS[8:]))  # degrees by which an image is turned, and its views
RESOLVED = 8.0  # arcsec, length of a source of which a turn or a shift says something
PERTURBATIONS = (
    perturb.rotate_randomly,
    perturb.shift,
    perturb.add_noise,
    perturb.raise_threshold,
    perturb.simulate_distance,
)
"""What is done to a galaxy to see what its description tolerates."""
COMPONENTS = 32  # principal components beside the codes; more find a little more, and take more room
KEPT, WEIGHT = 128, 0.7  # directions of the components about the centroid, and how much these count beside all numbers


def shown(recipe: prepare.Recipe, sample: Sample) -> np.ndarray:
    """All views of all images in all frames, (frames, views, N, H, W) uint8; all images must have a source."""

    def of(image):
        fields = [perturb.rotate(image, degrees) for degrees, _ in TURNED]
        seen = [field if prepare.has_source(field, sample.pixel, recipe) else image for field in fields]
        return np.hstack(
            [prepare.framed(one, sample.pixel, recipe, views) for one, (_, views) in zip(seen, TURNED, strict=True)]
        )

    with ThreadPoolExecutor() as pool:  # most of the time goes into scipy, which lets other threads work
        bar = progress(pool.map(of, sample.images), total=len(sample), desc="posing", unit="image")
        return np.stack(list(bar), axis=2)


def describe(
    model: VDVAE, recipe: prepare.Recipe, sample: Sample, chosen: np.ndarray, basis: metric.Metric
) -> np.ndarray:
    """What a search compares, (N, 10 D + 10 C), of a sample whose images can all be prepared.

    The codes of the latents ``chosen`` (D,), then the C components in a :func:`principal` basis, of the same views.
    """
    views = shown(recipe, sample)
    return np.hstack([codes(model, views, chosen), components(views, basis)])


def codes(model: VDVAE, views: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Codes of the latents ``chosen`` (D,) of images as :func:`shown`, pooled over views, all frames side by side, (N, 10 D)."""
    means = embed.posterior_means(
        model, views.reshape(-1, *views.shape[2:]), chosen
    )  # in one go: few galaxies fill no batch
    return np.hstack([prepare.pool(one) for one in means.reshape(*views.shape[:3], -1)])


def components(views: np.ndarray, basis: metric.Metric) -> np.ndarray:
    """C components in a :func:`principal` basis of images as :func:`shown`, pooled and side by side likewise, (N, 10 C)."""
    flat = (one.reshape(-1, len(basis.centre)) for one in views)
    return np.hstack([prepare.pool(basis.transform(one).reshape(*views.shape[1:3], -1)) for one in flat])


def principal(pixels: np.ndarray, count: int = COMPONENTS) -> metric.Metric:
    """The first ``count`` principal components of prepared images (N, H, W), peaks at one, as a space for flat images (·, H W)."""
    from sklearn.decomposition import PCA  # a second that a search need not wait

    pca = PCA(count, svd_solver="covariance_eigh").fit(pixels.reshape(len(pixels), -1))
    return metric.Metric(pca.mean_, pca.components_.T / 255, cosine=False)


def alone(chosen: np.ndarray) -> int:
    """How many of the numbers that a search compares are of the latents ``chosen`` (D,), 10 D; those of components come after."""
    return 2 * len(FRAMES) * len(chosen)


def changes(
    described: Callable[[Sample], np.ndarray], recipe: prepare.Recipe, sample: Sample, count: int = 800, seed: int = 0
) -> np.ndarray:
    """What it does to a description of galaxies (M, ·) when resolved sources of a sample are altered as ``TOLERATED`` says.

    One row a source and alteration, for ``count`` sources drawn at random; an alteration that leaves nothing is left out.
    ``described`` makes (N, ·) numbers of a sample of N.
    """
    rng = np.random.default_rng(seed)
    long = [prepare.length(image, sample.pixel, recipe) > RESOLVED for image in sample.images]
    rows = np.flatnonzero(long)
    asked = sample[np.sort(rng.permutation(rows)[:count])]
    before, found = described(asked), []
    for alter in PERTURBATIONS:
        after = replace(asked, images=np.stack([alter(image, rng) for image in asked.images]))
        kept = usable(after, recipe)
        found.append(described(after[kept]) - before[kept])
    return np.concatenate(found)


def space(described: np.ndarray, changes: np.ndarray, own: int) -> metric.Metric:
    """Where descriptions (N, ·) are compared: two spaces that tolerate ``changes`` (M, ·), side by side, by their angle.

    One is of all numbers; the other of the components about the centroid alone, which stay the same wherever an image was cut, and
    tell one galaxy from all that are like it. The first ``own`` numbers are of latents, the others of components.
    """
    whole = metric.invariant(described, changes)
    centred = np.repeat([frame.centred for frame in FRAMES], (described.shape[1] - own) // len(FRAMES))
    columns = own + np.flatnonzero(centred)
    parts = metric.invariant(described[:, columns], changes[:, columns], kept=KEPT).matrix
    beside = np.zeros((described.shape[1], parts.shape[1]))
    beside[columns] = WEIGHT * parts
    return replace(whole, matrix=np.hstack([whole.matrix, beside]))

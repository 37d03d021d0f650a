"""Retrieval descriptors for the similarity search, and their metric.

The code of one canonical orientation depends on the centre of the image and on the length of the source. That helps a
classifier but not a search. The retrieval descriptors therefore pool codes over twelve views in each of five frames
(:data:`rgz.transforms.prepare.FRAMES`). Four of the twelve views show the image unrotated, four show it rotated by 30°
and four by 60°, to average over the position of the source on the pixel grid. A few principal components of the same
views are added to the codes, because they distinguish point-like galaxies better than codes do.

The metric is learned from training images under label-preserving perturbations (:func:`changes`,
:func:`rgz.features.metric.invariant`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgz.data.sample import Sample, usable
from rgz.features import metric
from rgz.progress import progress
from rgz.transforms import perturb, prepare
from rgz.transforms.prepare import FRAMES, VIEWS

ROTATIONS = ((0, VIEWS[:4]), (30, VIEWS[4:8]), (60, VIEWS[8:]))  # degrees by which an image is rotated, and its views
PERTURBATIONS = (
    perturb.rotate_randomly,
    perturb.shift,
    perturb.add_noise,
    perturb.raise_threshold,
    perturb.simulate_distance,
)
"""Label-preserving perturbations to which the metric is made invariant."""
COMPONENTS = 32  # principal components; more of them improve recall slightly but enlarge the codes file
KEPT, WEIGHT = 128, 0.7  # directions of the centred components, and their weight relative to all descriptors


def framed_views(recipe: prepare.Recipe, sample: Sample) -> NDArray[np.uint8]:
    """All views of all images in all frames, (frames, views, N, H, W); all images must have a source."""

    def of(image: NDArray[Any]) -> NDArray[np.uint8]:
        parts = []
        for degrees, views in ROTATIONS:
            rotated = perturb.rotate(image, degrees)
            kept = rotated if prepare.has_source(rotated, sample.pixel, recipe) else image
            parts.append(prepare.framed(kept, sample.pixel, recipe, views))
        return np.hstack(parts)

    with ThreadPoolExecutor() as pool:  # scipy, which takes most of the time, releases the interpreter lock
        bar = progress(pool.map(of, sample.images), total=len(sample), desc="aligning", unit="image")
        return np.stack(list(bar), axis=2)


def components(views: NDArray[Any], basis: metric.Metric) -> NDArray[np.float32]:
    """Components of :func:`framed_views` in a :func:`principal` basis (C), pooled over views, (N, 10 C)."""
    flat = (one.reshape(-1, len(basis.centre)) for one in views)
    return np.hstack([prepare.pool(basis.transform(one).reshape(*views.shape[1:3], -1)) for one in flat])


def principal(pixels: NDArray[Any], count: int = COMPONENTS) -> metric.Metric:
    """The first principal components of prepared images (N, H, W), scaled to peaks of one, for flat images (·, H W)."""
    from sklearn.decomposition import PCA  # its import takes a second

    pca = PCA(count, svd_solver="covariance_eigh").fit(pixels.reshape(len(pixels), -1))
    return metric.Metric(pca.mean_, pca.components_.T / 255, cosine=False)


def alone(latents: NDArray[Any]) -> int:
    """Number of descriptors that come from ``latents`` (D,): the first 10 D; those of components follow."""
    return 2 * len(FRAMES) * len(latents)


def changes(
    described: Callable[[Sample], NDArray[Any]],
    recipe: prepare.Recipe,
    sample: Sample,
    count: int = 800,
    seed: int = 0,
) -> NDArray[Any]:
    """Changes (M, ·) of descriptors when resolved sources of a sample are perturbed (:data:`PERTURBATIONS`).

    One row per source and perturbation, for ``count`` random sources; a perturbation that removes the source is left
    out. ``described`` gives descriptors (N, ·) of a sample of N.
    """
    rng = np.random.default_rng(seed)
    resolved = [prepare.length(image, sample.pixel, recipe) > perturb.RESOLVED for image in sample.images]
    drawn = sample[np.sort(rng.permutation(np.flatnonzero(resolved))[:count])]
    before, found = described(drawn), []
    for perturbation in PERTURBATIONS:
        after = replace(drawn, images=np.stack([perturbation(image, rng) for image in drawn.images]))
        kept = usable(after, recipe)
        found.append(described(after[kept]) - before[kept])
    return np.concatenate(found)


def space(described: NDArray[Any], changes: NDArray[Any], own: int) -> metric.Metric:
    """The metric of the search: two concatenated invariant metrics, fitted to descriptors (N, ·) and changes (M, ·).

    One uses all descriptors, the other only the components in centred frames, which do not depend on how an image was
    cut out. The first ``own`` descriptors come from latents, the others from components.
    """
    whole = metric.invariant(described, changes)
    centred = np.repeat([frame.centred for frame in FRAMES], (described.shape[1] - own) // len(FRAMES))
    columns = own + np.flatnonzero(centred)
    parts = metric.invariant(described[:, columns], changes[:, columns], kept=KEPT).matrix
    beside = np.zeros((described.shape[1], parts.shape[1]))
    beside[columns] = WEIGHT * parts
    return replace(whole, matrix=np.hstack([whole.matrix, beside]))

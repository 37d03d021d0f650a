"""What a search compares, and in what space.

The code of a pose follows the middle of the image and the length of the source; a class needs that, a search does not. So here a
galaxy is seen in five frames (:data:`rgz.images.FRAMES`), and in each from the twelve views that everything else takes too; but
four of them are of the image as it lies, four of the image turned by 30° and four of it turned by 60°, since how a galaxy falls
on the grid of its pixels, and what is only just above a threshold there, is an accident too. (Turned by 90° a grid is the same
again.) The codes of all views are pooled; and as a code forgets what tells one point-like galaxy from the next, a few principal
components of the same views stand beside them.

Which differences between such numbers mean nothing is learned from training images that are altered on purpose
(:func:`changes`, :func:`rgz.similar.tolerant`).
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.table import Table

from rgz import altered, images, latents, paths, readers, similar
from rgz.images import FRAMES, VIEWS
from rgz.progress import progress
from rgz.sample import Sample, usable
from rgz.vdvae import VDVAE

__all__ = [
    "ALONE",
    "BASIS",
    "COMPONENTS",
    "SPACE",
    "TOLERATED",
    "alone",
    "changes",
    "codes",
    "components",
    "describe",
    "for_search",
    "index",
    "principal",
    "shown",
    "space",
]

TURNED = ((0, VIEWS[:4]), (30, VIEWS[4:8]), (60, VIEWS[8:]))  # degrees by which an image is turned, and its views
RESOLVED = 8.0  # arcsec, length of a source of which a turn or a shift says something
TOLERATED = altered.turned, altered.shifted, altered.observed_again, altered.clipped_higher, altered.farther
"""What is done to a galaxy to see what its description tolerates."""
COMPONENTS = 32  # principal components beside the codes; more find a little more, and take more room
KEPT, WEIGHT = 128, 0.7  # directions of the components about the centroid, and how much these count beside all numbers
SPACE, ALONE, BASIS = "space", "space_alone", "basis"
"""Names in a codes file of the space to search in, of the same for codes without components, and of what components are."""


def shown(recipe: images.Recipe, sample: Sample) -> np.ndarray:
    """All views of all images in all frames, (frames, views, N, H, W) uint8; all images must have a source."""

    def of(image):
        fields = [altered.turn(image, degrees) for degrees, _ in TURNED]
        seen = [field if images.has_source(field, sample.pixel, recipe) else image for field in fields]
        return np.hstack(
            [images.framed(one, sample.pixel, recipe, views) for one, (_, views) in zip(seen, TURNED, strict=True)]
        )

    with ThreadPoolExecutor() as pool:  # most of the time goes into scipy, which lets other threads work
        bar = progress(pool.map(of, sample.images), total=len(sample), desc="posing", unit="image")
        return np.stack(list(bar), axis=2)


def describe(
    model: VDVAE, recipe: images.Recipe, sample: Sample, chosen: np.ndarray, basis: similar.Space
) -> np.ndarray:
    """What a search compares, (N, 10 D + 10 C), of a sample whose images can all be prepared.

    The codes of the latents ``chosen`` (D,), then the C components in a :func:`principal` basis, of the same views.
    """
    views = shown(recipe, sample)
    return np.hstack([codes(model, views, chosen), components(views, basis)])


def codes(model: VDVAE, views: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Codes of the latents ``chosen`` (D,) of images as :func:`shown`, pooled over views, all frames side by side, (N, 10 D)."""
    means = latents.posterior_means(
        model, views.reshape(-1, *views.shape[2:]), chosen
    )  # in one go: few galaxies fill no batch
    return np.hstack([images.pool(one) for one in means.reshape(*views.shape[:3], -1)])


def components(views: np.ndarray, basis: similar.Space) -> np.ndarray:
    """C components in a :func:`principal` basis of images as :func:`shown`, pooled and side by side likewise, (N, 10 C)."""
    flat = (one.reshape(-1, len(basis.centre)) for one in views)
    return np.hstack([images.pool(basis.place(one).reshape(*views.shape[1:3], -1)) for one in flat])


def principal(pixels: np.ndarray, count: int = COMPONENTS) -> similar.Space:
    """The first ``count`` principal components of prepared images (N, H, W), peaks at one, as a space for flat images (·, H W)."""
    from sklearn.decomposition import PCA  # a second that a search need not wait

    pca = PCA(count, svd_solver="covariance_eigh").fit(pixels.reshape(len(pixels), -1))
    return similar.Space(pca.mean_, pca.components_.T / 255, cosine=False)


def alone(chosen: np.ndarray) -> int:
    """How many of the numbers that a search compares are of the latents ``chosen`` (D,), 10 D; those of components come after."""
    return 2 * len(FRAMES) * len(chosen)


def changes(
    described: Callable[[Sample], np.ndarray], recipe: images.Recipe, sample: Sample, count: int = 800, seed: int = 0
) -> np.ndarray:
    """What it does to a description of galaxies (M, ·) when resolved sources of a sample are altered as ``TOLERATED`` says.

    One row a source and alteration, for ``count`` sources drawn at random; an alteration that leaves nothing is left out.
    ``described`` makes (N, ·) numbers of a sample of N.
    """
    rng = np.random.default_rng(seed)
    long = [images.length(image, sample.pixel, recipe) > RESOLVED for image in sample.images]
    rows = np.flatnonzero(long)
    asked = sample[np.sort(rng.permutation(rows)[:count])]
    before, found = described(asked), []
    for alter in TOLERATED:
        after = replace(asked, images=np.stack([alter(image, rng) for image in asked.images]))
        kept = usable(after, recipe)
        found.append(described(after[kept]) - before[kept])
    return np.concatenate(found)


def space(described: np.ndarray, changes: np.ndarray, own: int) -> similar.Space:
    """Where descriptions (N, ·) are compared: two spaces that tolerate ``changes`` (M, ·), side by side, by their angle.

    One is of all numbers; the other of the components about the centroid alone, which stay the same wherever an image was cut, and
    tell one galaxy from all that are like it. The first ``own`` numbers are of latents, the others of components.
    """
    whole = similar.tolerant(described, changes)
    centred = np.repeat([frame.centred for frame in FRAMES], (described.shape[1] - own) // len(FRAMES))
    columns = own + np.flatnonzero(centred)
    parts = similar.tolerant(described[:, columns], changes[:, columns], kept=KEPT).matrix
    beside = np.zeros((described.shape[1], parts.shape[1]))
    beside[columns] = WEIGHT * parts
    return replace(whole, matrix=np.hstack([whole.matrix, beside]))


def for_search(path: Path | None = None) -> tuple[Table, np.ndarray, similar.Space]:
    """Table, descriptions as of :func:`describe`, and their space, of all samples of a codes file; the committed one by default."""
    path = paths.artifact("codes.h5") if path is None else path
    read = {name: latents.read_codes(path, name, "code_compared")[:2] for name in readers.SAMPLES}
    tables = {name: table for name, (table, _) in read.items()}
    return similar.stacked(tables), np.vstack([code for _, code in read.values()]), latents.read_space(SPACE, path)


def index(path: Path | None = None) -> similar.Index:
    """The galaxies of all samples of a codes file, ready to be searched; the committed one by default."""
    table, described, compared_in = for_search(path)
    return similar.build(described, table, compared_in)

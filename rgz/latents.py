"""Codes: what the network says of a galaxy, short enough to compute with.

A VDVAE has more latent dimensions than it uses, and those that it does not use never leave their prior. The code of a galaxy is
the posterior mean of those that do: the latents are ranked by the variance of their posterior means over the *training* images,
no label needed, and the first ones are kept. A code can be decoded again, the latents it lacks at their prior means.

A posed image has four mirrored views, along and across its axis, and none of them is more true than another; nor is the axis known
to a few degrees. The variant ``code_views`` holds, of each latent, the mean over twelve views (:data:`rgz.images.VIEWS`) and
the mean size: what does not depend on the choice. A search also wants what tells one point-like galaxy from the next, which a code
forgets: a few principal components of the same views stand beside the codes (``code_components``). And a density wants to know how
symmetric a galaxy is: how much its code changes from mirrored view to mirrored view (``code_asymmetry``).
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from astropy.table import Table
from torch import Tensor, nn
from tqdm import tqdm

from rgz import altered, checkpoints, fetch, images, paths, readers, similar
from rgz.errors import BadInput, first_line
from rgz.images import FRAMES, Frame
from rgz.likelihood import mixture_log_prob
from rgz.sample import CHECKED, Sample, prepared, read_columns, usable, write_columns
from rgz.vdvae import VDVAE

__all__ = [
    "ALONE",
    "BASIS",
    "COMPONENTS",
    "SPACE",
    "alone",
    "asymmetry",
    "beside",
    "blocks_of",
    "changes",
    "chosen",
    "components",
    "decode",
    "encode",
    "fitted",
    "for_comparison",
    "for_density",
    "for_search",
    "full_codes",
    "index",
    "of_views",
    "pictures",
    "principal",
    "rank",
    "read_codes",
    "read_space",
    "read_variants",
    "write_codes",
]

BATCH = 128
RESOLVED = 8.0  # arcsec, length of a source of which a turn or a shift says something
TOLERATED = altered.turned, altered.shifted, altered.observed_again, altered.clipped_higher, altered.farther
"""What is done to a galaxy to see what its code tolerates."""
EXACT = 0.02  # difference between codes of mirrored views that is as good as none; the median galaxy has about 0.5
COMPONENTS = 12  # principal components beside the codes; more find a little more, and take more room
COMPARED = "code_views", "code_frames", "code_components"  # what a search compares, side by side
SPACE, ALONE, BASIS = "space", "space_alone", "basis"
"""Names in a codes file of the space to search in, of the same for codes without components, and of what components are."""


def full_codes(model: nn.Module, pixels: np.ndarray, **how) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and rates (nats) of every latent, each (N, dimensions) float32, of prepared images (N, H, W).

    ``how`` is passed on to the model's ``encode``.
    """
    parts = torch.from_numpy(np.ascontiguousarray(pixels[:, None])).split(BATCH)
    encoded = [
        model.encode(part, **how) for part in tqdm(parts, desc="encoding", unit="batch", leave=False, disable=None)
    ]
    means, rates = (torch.cat(column).numpy() for column in zip(*encoded, strict=True))
    return means, rates


def rank(means: np.ndarray) -> np.ndarray:
    """Latents from the most to the least variable posterior mean over images; (dimensions,) integers."""
    return np.argsort(-means.var(axis=0), kind="stable")


def decode(model: nn.Module, code: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Images (N, H, W) float32, 0 … 255, of codes (N, D) made of the latents ``chosen`` (D,); the others at their prior means.

    Raises
    ------
    BadInput
        The codes do not have as many dimensions as latents are chosen.
    """
    if code.ndim != 2 or code.shape[1] != len(chosen):
        raise BadInput(f"codes here have shape (N, {len(chosen)}); these have {code.shape}")
    parts = torch.from_numpy(np.asarray(code, dtype=np.float32)).split(BATCH)
    return torch.cat([model.decode(_full(model, part, chosen)) for part in parts])[:, 0].numpy()


def _full(model: nn.Module, code: Tensor, chosen: np.ndarray) -> Tensor:
    """Full codes (N, dimensions) in which the latents ``chosen`` are those of codes (N, D) and the others not a number."""
    nothing = torch.full((len(code), model.dimensions), torch.nan)
    return nothing.index_copy(1, torch.from_numpy(np.ascontiguousarray(chosen)), code)


def fitted(model: nn.Module, pixels: np.ndarray, code: np.ndarray, chosen: np.ndarray, steps: int = 60) -> np.ndarray:
    """Codes (N, D) of the latents ``chosen`` (D,), moved to where the decoder gives prepared images (N, H, W) back best.

    An encoder answers at once, and so a little beside the best code (the amortisation gap: Cremer, Li & Duvenaud 2018,
    arXiv:1801.03558). From its answer ``code`` (N, D) these take ``steps`` of Adam down the distortion, the weights as they are. An
    image's code does not depend on the images beside it.
    """
    found = []
    images_ = torch.from_numpy(np.ascontiguousarray(pixels[:, None])).split(BATCH)
    starts = torch.from_numpy(np.asarray(code, dtype=np.float32)).split(BATCH)
    with tqdm(total=len(starts) * steps, desc="fitting codes", unit="step", leave=False, disable=None) as bar:
        for part, start in zip(images_, starts, strict=True):
            moving = start.clone().requires_grad_()
            optimizer = torch.optim.Adam([moving], lr=0.02)
            for _ in range(steps):
                distortion = -mixture_log_prob(part, model.mixture(_full(model, moving, chosen))).sum()
                (moving.grad,) = torch.autograd.grad(distortion, moving)
                optimizer.step()
                bar.update()
            found.append(moving.detach())
    return torch.cat(found).numpy()


def blocks_of(model: VDVAE, chosen: np.ndarray) -> np.ndarray:
    """Number of the stochastic block, from 0, to which each of the latents ``chosen`` (D,) belongs; (D,)."""
    return np.repeat(np.arange(len(model.levels)), [model.config.channels * r * r for r in model.levels])[chosen]


def encode(
    model: VDVAE, recipe: images.Recipe, sample: Sample, chosen: np.ndarray, basis: similar.Space
) -> tuple[Table, dict[str, np.ndarray], list[str]]:
    """Codes of a sample, made of the latents ``chosen`` (D,), and the C components of a :func:`principal` basis.

    Returns
    -------
    table, codes, left_out
        Rows that could be encoded, with a column ``length`` (arcsec), which the pose has taken out of the images; float32
        arrays ``code`` (N, D), of the pose itself, and, pooled over the views, ``code_views`` (N, 2 D), ``code_frames``
        (N, 8 D), of the other four :data:`rgz.images.FRAMES`, and ``code_components`` (N, 10 C), of all five; ``code_asymmetry``
        (N, 3), of the mirrored views (:func:`asymmetry`); names of the rows without emission in their middle.
    """
    found = usable(sample, recipe)
    kept = sample[found]
    shown = _framed(recipe, kept)
    first, *others = (_means(model, one, chosen) for one in shown)
    codes = {"code": first[0], "code_views": images.pool(first), "code_asymmetry": asymmetry(first)}
    codes["code_frames"] = np.hstack([images.pool(means) for means in others])
    codes["code_components"] = _projected(shown, basis)
    table = kept.table.copy()
    table["length"] = [images.length(image, kept.pixel, recipe) for image in kept.images]
    table["length"].unit = "arcsec"
    return table, codes, [str(name) for name in sample.table["name"][~found]]


def of_views(
    model: VDVAE,
    recipe: images.Recipe,
    sample: Sample,
    chosen: np.ndarray,
    views: Sequence[images.Pose] = images.VIEWS,
    frame: Frame = FRAMES[0],
) -> np.ndarray:
    """Posterior means (views, N, D) of the latents ``chosen`` (D,) for each view of each image; all must have a source."""
    shown = [images.views(image, sample.pixel, recipe, views, frame) for image in sample.images]
    return _means(model, np.stack(shown, axis=1), chosen)


def _means(model: VDVAE, shown: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Posterior means (views, N, D) of the latents ``chosen`` (D,) of prepared images (views, N, H, W)."""
    parts = torch.from_numpy(shown.reshape(-1, 1, *shown.shape[2:])).split(BATCH)
    latents = torch.from_numpy(np.ascontiguousarray(chosen))
    bar = tqdm(parts, desc="encoding", unit="batch", leave=False, disable=None)
    means = torch.cat(
        [model.encode(part)[0][:, latents] for part in bar]
    )  # all latents of all views would fill the memory
    return means.reshape(*shown.shape[:2], len(chosen)).numpy()


def _framed(recipe: images.Recipe, sample: Sample) -> np.ndarray:
    """All views of all images in all frames, (frames, views, N, H, W) uint8; all images must have a source."""
    bar = tqdm(sample.images, desc="posing", unit="image", leave=False, disable=None)
    return np.stack([images.framed(image, sample.pixel, recipe) for image in bar], axis=2)


def principal(pixels: np.ndarray, count: int = COMPONENTS) -> similar.Space:
    """The first ``count`` principal components of prepared images (N, H, W), peaks at one, as a space for flat images (·, H W)."""
    from sklearn.decomposition import PCA  # a second that a search need not wait

    pca = PCA(count, svd_solver="covariance_eigh").fit(pixels.reshape(len(pixels), -1))
    return similar.Space(pca.mean_, pca.components_.T / 255, cosine=False)


def components(recipe: images.Recipe, sample: Sample, basis: similar.Space) -> np.ndarray:
    """C components in a :func:`principal` basis, pooled over views, all frames side by side, (N, 10 C)."""
    return _projected(_framed(recipe, sample), basis)


def _projected(shown: np.ndarray, basis: similar.Space) -> np.ndarray:
    flat = (one.reshape(-1, len(basis.centre)) for one in shown)
    return np.hstack([images.pool(basis.place(views).reshape(*shown.shape[1:3], -1)) for views in flat])


def for_comparison(
    model: VDVAE, recipe: images.Recipe, sample: Sample, chosen: np.ndarray, basis: similar.Space
) -> np.ndarray:
    """What a search compares, (N, 10 D + 10 C), of a sample whose images can all be prepared.

    Codes of the latents ``chosen`` (D,) in all :data:`rgz.images.FRAMES`, side by side: so it does not matter where exactly the
    image was cut, nor, for three of them, how long the source seems. Then the C components of the same views (:func:`components`).
    """
    shown = _framed(recipe, sample)
    return np.hstack([*(images.pool(_means(model, one, chosen)) for one in shown), _projected(shown, basis)])


def beside(codes: dict[str, np.ndarray]) -> np.ndarray:
    """What :func:`encode` found, in the order of :func:`for_comparison`, (N, 10 D + 10 C)."""
    return np.hstack([codes[part] for part in COMPARED])


def asymmetry(views: np.ndarray) -> np.ndarray:
    """How much codes of several views (views, N, D) change when mirrored, which pooled ones do not tell, (N, 3).

    Logarithms of the root mean square difference between :data:`rgz.images.MIRRORED` views, which have to come first: of those
    mirrored across the axis, along it, and both ways. ``EXACT`` is added before, for perfect symmetry to have a logarithm.

    >>> asymmetry(np.ones((4, 1, 2))).round(1)
    array([[-3.9, -3.9, -3.9]])
    """
    own, across, along, both = views[:4]
    pairs = ((own, across, along, both), (own, along, across, both), (own, both, across, along))
    squares = [((a - b) ** 2 + (c - d) ** 2).mean(axis=1) / 2 for a, b, c, d in pairs]
    return np.log(np.sqrt(np.stack(squares, axis=1)) + EXACT)


def for_density(codes: dict[str, np.ndarray]) -> np.ndarray:
    """What a density is of, (N, D + 3): of what :func:`encode` found, means over the views (N, D) and asymmetries (N, 3)."""
    views = codes["code_views"]
    return np.hstack([views[:, : views.shape[1] // 2], codes["code_asymmetry"]])


def alone(chosen: np.ndarray) -> slice:
    """Where, in what a search compares, the codes of the latents ``chosen`` (D,) stand, without components."""
    return slice(2 * len(FRAMES) * len(chosen))


def changes(
    describe: Callable[[Sample], np.ndarray], recipe: images.Recipe, sample: Sample, count: int = 800, seed: int = 0
) -> np.ndarray:
    """What it does to a description of galaxies (M, ·) when resolved sources of a sample are altered as ``TOLERATED`` says.

    One row a source and alteration, for ``count`` sources drawn at random; an alteration that leaves nothing is left out.
    ``describe`` makes (N, ·) numbers of a sample of N.
    """
    rng = np.random.default_rng(seed)
    long = [images.length(image, sample.pixel, recipe) > RESOLVED for image in sample.images]
    rows = np.flatnonzero(long)
    asked = sample[np.sort(rng.permutation(rows)[:count])]
    before, found = describe(asked), []
    for alter in TOLERATED:
        after = replace(asked, images=np.stack([alter(image, rng) for image in asked.images]))
        kept = usable(after, recipe)
        found.append(describe(after[kept]) - before[kept])
    return np.concatenate(found)


def pictures(name: str, rows: np.ndarray) -> tuple[np.ndarray, str]:
    """Prepared images (N, H, W) of rows of a committed sample, and what they are.

    Where the survey images are on this machine they are shown; elsewhere the committed codes are decoded by the committed
    weights, and the second value says so.
    """
    model, recipe, _ = checkpoints.load(paths.artifact("vdvae.safetensors"))
    table, code, about = read_codes(paths.artifact("codes.h5"), name)
    if fetch.locate(readers.SAMPLES[name][0]) is None:
        return decode(model, code[rows], about["latents"]), "decoded from codes"
    return prepared(readers.load(name).named(table["name"][rows]), recipe), "survey images"


def for_search(path: Path | None = None) -> tuple[Table, np.ndarray, similar.Space]:
    """Table, codes as of :func:`for_comparison`, and their space, of all samples of a codes file; the committed one by default."""
    path = paths.artifact("codes.h5") if path is None else path
    tables, codes = {}, []
    for name in readers.SAMPLES:
        tables[name], parts, _ = read_variants(path, name, COMPARED)
        codes.append(beside(parts))
    return similar.stacked(tables), np.vstack(codes), read_space(SPACE, path)


def read_space(name: str, path: Path | None = None) -> similar.Space:
    """The space ``SPACE`` or ``ALONE`` of a codes file, or its ``BASIS``; the committed one by default.

    Raises
    ------
    BadInput
        The file has none.
    """
    path = paths.artifact("codes.h5") if path is None else path
    try:
        with h5py.File(path, "r") as file:
            group = file[name]
            return similar.Space(group["centre"][()], group["matrix"][()], bool(group.attrs["cosine"]))
    except (OSError, KeyError) as error:
        raise BadInput(f"{path} does not say how its codes are compared: make it again with rgz encode") from error


def chosen(path: Path | None = None) -> np.ndarray:
    """Which latents make the codes of a file, (D,); the committed one by default."""
    return read_codes(paths.artifact("codes.h5") if path is None else path, next(iter(readers.SAMPLES)))[2]["latents"]


def index(path: Path | None = None) -> similar.Index:
    """The galaxies of all samples of a codes file, ready to be searched; the committed one by default."""
    table, codes, space = for_search(path)
    return similar.build(codes, table, space)


def write_codes(
    path: Path,
    groups: dict[str, tuple[Table, dict[str, np.ndarray], dict]],
    attributes: dict,
    spaces: dict[str, similar.Space] | None = None,
):
    """Write codes of several samples to one HDF5 file, and the spaces in which to compare them.

    Parameters
    ----------
    groups
        Sample name to its table, its datasets (``code``, ``code_…``; one row a table row) and its attributes. Codes are
        rounded to half precision, the precision of the weights, which halves the file.
    attributes
        How all were made: strings and numbers as they are, anything else as JSON.
    spaces
        Those of :func:`read_space`, by name.
    """
    with paths.atomic(path) as partial, h5py.File(partial, "w") as file:
        _set(file, attributes)
        for name, (table, codes, about) in groups.items():
            group = file.create_group(name)
            write_columns(group, table)
            for key, code in codes.items():
                group.create_dataset(key, data=_halved(code), **CHECKED)
            _set(group, about)
        for name, space in (spaces or {}).items():
            group = file.create_group(name)
            group.create_dataset("centre", data=space.centre.astype(np.float32), **CHECKED)
            group.create_dataset("matrix", data=_halved(space.matrix), **CHECKED)
            group.attrs["cosine"] = space.cosine


def _halved(values: np.ndarray) -> np.ndarray:
    """Rounded to half precision, kept in single precision: half the file."""
    return values.astype(np.float16).astype(np.float32)


def _set(place, attributes):
    for key, value in attributes.items():
        place.attrs[key] = value if isinstance(value, str | int | float | np.ndarray) else json.dumps(value)


def read_codes(path: Path, name: str, variant: str = "code") -> tuple[Table, np.ndarray, dict]:
    """Table, codes (N, D) float32 and attributes of one sample in a codes file; raises as :func:`read_variants` does."""
    table, codes, about = read_variants(path, name, (variant,))
    return table, codes[variant], about


def read_variants(path: Path, name: str, variants: Sequence[str]) -> tuple[Table, dict[str, np.ndarray], dict]:
    """Table, several codes (N, ·) float32 by their names, and attributes of one sample in a codes file.

    Raises
    ------
    BadInput
        The file is missing or damaged, or has no such sample or variant.
    """
    try:
        with h5py.File(path, "r") as file:
            for variant in variants:
                if name not in file or variant not in file[name]:
                    known = [f"{group}/{key}" for group in file for key in file[group] if key.startswith("code")]
                    raise BadInput(f"{path} has no {name}/{variant}: it has {', '.join(known) or 'no codes'}")
            group = file[name]
            table = read_columns(group, [key for key in group if not key.startswith("code")])
            return table, {variant: group[variant][()] for variant in variants}, dict(file.attrs) | dict(group.attrs)
    except BadInput:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and more on damaged files
        raise BadInput(
            f"{path} is not a readable codes file ({first_line(error)}): make it again with rgz encode"
        ) from error

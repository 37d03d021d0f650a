"""Codes: what the network says of a galaxy, short enough to compute with.

A VDVAE has more latent dimensions than it uses, and those that it does not use never leave their prior. The code of a galaxy is
the posterior mean of those that do: the latents are ranked by the variance of their posterior means over the *training* images,
no label needed, and the first ones are kept. A code can be decoded again, the latents it lacks at their prior means.

A posed image has four mirrored views, along and across its axis, and none of them is more true than another; nor is the axis known
to a few degrees. The variant ``code_views`` holds, of each latent, the mean over twelve views (:data:`rgz.images.VIEWS`) and
the mean size: what does not depend on the choice. A density also wants to know how symmetric a galaxy is: how much its code changes
from mirrored view to mirrored view (``code_asymmetry``). What a search compares is more (``code_compared``): see
:mod:`rgz.compared`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import torch
from astropy.table import Table
from torch import Tensor, nn

from rgz import checkpoints, fetch, images, paths, readers, similar
from rgz.errors import BadInput, first_line
from rgz.likelihood import mixture_log_prob
from rgz.progress import progress
from rgz.sample import CHECKED, Sample, prepared, read_columns, usable, write_columns
from rgz.vdvae import VDVAE

__all__ = [
    "asymmetry",
    "blocks_of",
    "chosen",
    "decode",
    "encode",
    "fitted",
    "for_density",
    "full_codes",
    "of_views",
    "pictures",
    "posterior_means",
    "rank",
    "read_codes",
    "read_space",
    "read_variants",
    "write_codes",
]

BATCH = 128
EXACT = 0.02  # difference between codes of mirrored views that is as good as none; the median galaxy has about 0.5


def full_codes(model: nn.Module, pixels: np.ndarray, **how) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and rates (nats) of every latent, each (N, dimensions) float32, of prepared images (N, H, W).

    ``how`` is passed on to the model's ``encode``.
    """
    parts = torch.from_numpy(np.ascontiguousarray(pixels[:, None])).split(BATCH)
    encoded = [model.encode(part, **how) for part in progress(parts, desc="encoding", unit="batch")]
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


def fitted(model: nn.Module, pixels: np.ndarray, code: np.ndarray, chosen: np.ndarray, steps: int = 30) -> np.ndarray:
    """Codes (N, D) of the latents ``chosen`` (D,), moved to where the decoder gives prepared images (N, H, W) back best.

    An encoder answers at once, and so a little beside the best code (the amortisation gap: Cremer, Li & Duvenaud 2018,
    arXiv:1801.03558). From its answer ``code`` (N, D) these take ``steps`` of Adam down the distortion, the weights as they are. An
    image's code does not depend on the images beside it.
    """
    found = []
    images_ = torch.from_numpy(np.ascontiguousarray(pixels[:, None])).split(BATCH)
    starts = torch.from_numpy(np.asarray(code, dtype=np.float32)).split(BATCH)
    with progress(total=len(starts) * steps, desc="fitting codes", unit="step") as bar:
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
    model: VDVAE, recipe: images.Recipe, sample: Sample, chosen: np.ndarray
) -> tuple[Sample, dict[str, np.ndarray], list[str]]:
    """Codes of a sample, made of the latents ``chosen`` (D,).

    Returns
    -------
    sample, codes, left_out
        The part of the sample that could be encoded, with a column ``length`` (arcsec), which the pose has taken out of the images;
        float32 arrays ``code`` (N, D), of the pose itself, ``code_views`` (N, 2 D), pooled over the views, and ``code_asymmetry``
        (N, 3), of the mirrored views (:func:`asymmetry`); names of the rows without emission in their middle.
    """
    found = usable(sample, recipe)
    kept = sample[found]
    views = of_views(model, recipe, kept, chosen)
    codes = {"code": views[0], "code_views": images.pool(views), "code_asymmetry": asymmetry(views)}
    table = kept.table.copy()
    table["length"] = [images.length(image, kept.pixel, recipe) for image in kept.images]
    table["length"].unit = "arcsec"
    return replace(kept, table=table), codes, [str(name) for name in sample.table["name"][~found]]


def of_views(
    model: VDVAE,
    recipe: images.Recipe,
    sample: Sample,
    chosen: np.ndarray,
    views: Sequence[images.Pose] = images.VIEWS,
) -> np.ndarray:
    """Posterior means (views, N, D) of the latents ``chosen`` (D,) for each view of each image; all must have a source."""
    bar = progress(sample.images, desc="posing", unit="image")
    shown = [images.views(image, sample.pixel, recipe, views) for image in bar]
    return posterior_means(model, np.stack(shown, axis=1), chosen)


def posterior_means(model: VDVAE, shown: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Posterior means (views, N, D) of the latents ``chosen`` (D,) of prepared images (views, N, H, W)."""
    parts = torch.from_numpy(shown.reshape(-1, 1, *shown.shape[2:])).split(BATCH)
    latents = torch.from_numpy(np.ascontiguousarray(chosen))
    bar = progress(parts, desc="encoding", unit="batch")
    means = torch.cat(
        [model.encode(part)[0][:, latents] for part in bar]
    )  # all latents of all views would fill the memory
    return means.reshape(*shown.shape[:2], len(chosen)).numpy()


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
        rounded to eleven binary digits, those compared in a search to a 16th of their spread: it finds the same.
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
                group.create_dataset(key, data=(_stepped if key == "code_compared" else _rounded)(code), **CHECKED)
            _set(group, about)
        for name, space in (spaces or {}).items():
            group = file.create_group(name)
            group.create_dataset("centre", data=space.centre.astype(np.float32), **CHECKED)
            group.create_dataset("matrix", data=_rounded(space.matrix), **CHECKED)
            group.attrs["cosine"] = space.cosine


def _rounded(values: np.ndarray) -> np.ndarray:
    """Rounded to eleven binary digits, as many as half precision has, kept in single precision: half the file."""
    mantissa, exponent = np.frexp(values)
    return np.ldexp(np.rint(mantissa * 2**11) / 2**11, exponent).astype(np.float32)


def _stepped(values: np.ndarray) -> np.ndarray:
    """Each column of values (N, D) rounded to a power of two, at most a 16th of its spread: a fifth of the file."""
    spread = values.std(axis=0)
    step = 2.0 ** np.floor(np.log2(np.where(spread > 0, spread, 1) / 16))
    return (np.rint(values / step) * step).astype(np.float32)


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

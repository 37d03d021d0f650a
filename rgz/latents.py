"""Codes: what the network says of a galaxy, short enough to compute with.

A VDVAE has thousands of latent dimensions, and most never leave their prior. The code of a galaxy is the posterior
mean of those few that do: the latents are ranked by the variance of their posterior means over the *training* images, no
label needed, and the first ones are kept. A code can be decoded again, the latents it lacks at their prior means.

A posed image has four mirrored views, along and across its axis, and none of them is more true than another; nor is the axis known
to a few degrees. The variant ``code_views`` holds, of each latent, the mean over twelve views (:data:`rgz.images.VIEWS`) and
the mean size: what does not depend on the choice.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from astropy.table import Table
from torch import nn
from tqdm import tqdm

from rgz import checkpoints, fetch, images, paths, readers
from rgz.errors import BadInput, first_line
from rgz.sample import CHECKED, Sample, prepared, read_columns, usable, write_columns
from rgz.vdvae import VDVAE

__all__ = ["choose", "decode", "encode", "full_codes", "pictures", "rank", "read_codes", "write_codes"]

BATCH = 128


def full_codes(model: nn.Module, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Posterior means and rates (nats) of every latent, each (N, dimensions) float32, of prepared images (N, H, W)."""
    parts = torch.from_numpy(np.ascontiguousarray(pixels[:, None])).split(BATCH)
    encoded = [model.encode(part) for part in tqdm(parts, desc="encoding", unit="batch", leave=False, disable=None)]
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
    full = torch.full((len(code), model.dimensions), torch.nan)
    full[:, torch.from_numpy(np.ascontiguousarray(chosen))] = torch.from_numpy(np.asarray(code, dtype=np.float32))
    return torch.cat([model.decode(part) for part in full.split(BATCH)])[:, 0].numpy()


def choose(model: VDVAE, means: np.ndarray, dimensions: int, of_level: int = 64) -> dict[str, np.ndarray]:
    """Which latents make which code, from posterior means (N, dimensions) of training images.

    Returns
    -------
    dict
        ``code``: the ``dimensions`` most variable ones; ``level_…``, for each resolution: its ``of_level`` most variable ones.
    """
    ranked = rank(means)
    at = np.repeat(model.levels, [model.config.channels * r * r for r in model.levels])
    levels = {f"level_{r}": ranked[at[ranked] == r][:of_level] for r in dict.fromkeys(model.levels)}
    return {"code": ranked[:dimensions]} | levels


def encode(
    model: VDVAE,
    recipe: images.Recipe,
    sample: Sample,
    choices: dict[str, np.ndarray],
    views: Sequence[images.Pose] = images.VIEWS,
) -> tuple[Table, dict[str, np.ndarray], list[str]]:
    """Codes of a sample; ``choices`` maps ``code`` and other names to latents (D,), as :func:`choose` does.

    The first of the ``views`` is the pose itself.

    Returns
    -------
    table, codes, left_out
        Rows that could be encoded, with a column ``length`` (arcsec), which the pose has taken out of the images; float32
        arrays ``code`` (N, D), of the pose itself, ``code_views`` (N, 2 D) and ``code_…`` (N, 2 D) for the other choices, pooled
        over the views; names of the rows without emission in their middle.
    """
    found = usable(sample, recipe)
    kept = sample[found]
    every = np.unique(np.concatenate(list(choices.values())))
    shown = np.stack([images.views(image, kept.pixel, recipe, views) for image in kept.images], axis=1)
    means = np.stack([full_codes(model, view)[0][:, every] for view in shown])
    parts = {name: means[:, :, np.searchsorted(every, latents)] for name, latents in choices.items()}
    codes = {"code": parts["code"][0], "code_views": images.pool(parts.pop("code"))}
    codes |= {f"code_{name}": images.pool(part) for name, part in parts.items()}
    table = kept.table.copy()
    table["length"] = [images.length(image, kept.pixel, recipe) for image in kept.images]
    table["length"].unit = "arcsec"
    return table, codes, [str(name) for name in sample.table["name"][~found]]


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


def write_codes(path: Path, groups: dict[str, tuple[Table, dict[str, np.ndarray], dict]], attributes: dict):
    """Write codes of several samples to one HDF5 file.

    Parameters
    ----------
    groups
        Sample name to its table, its datasets (``code``, ``code_…``; one row a table row) and its attributes. Codes are
        rounded to half precision, the precision of the weights, which halves the file.
    attributes
        How all were made: strings and numbers as they are, anything else as JSON.
    """
    with paths.atomic(path) as partial, h5py.File(partial, "w") as file:
        _set(file, attributes)
        for name, (table, codes, about) in groups.items():
            group = file.create_group(name)
            write_columns(group, table)
            for key, code in codes.items():
                group.create_dataset(key, data=code.astype(np.float16).astype(np.float32), **CHECKED)
            _set(group, about)


def _set(place, attributes):
    for key, value in attributes.items():
        place.attrs[key] = value if isinstance(value, str | int | float | np.ndarray) else json.dumps(value)


def read_codes(path: Path, name: str, variant: str = "code") -> tuple[Table, np.ndarray, dict]:
    """Table, codes (N, D) float32 and attributes of one sample in a codes file.

    Raises
    ------
    BadInput
        The file is missing or damaged, or has no such sample or variant.
    """
    try:
        with h5py.File(path, "r") as file:
            if name not in file or variant not in file[name]:
                known = [f"{group}/{key}" for group in file for key in file[group] if key.startswith("code")]
                raise BadInput(f"{path} has no {name}/{variant}: it has {', '.join(known) or 'no codes'}")
            group = file[name]
            columns = [key for key in group if not key.startswith("code")]
            return read_columns(group, columns), group[variant][()], dict(file.attrs) | dict(group.attrs)
    except BadInput:
        raise
    except Exception as error:  # h5py raises OSError, KeyError, RuntimeError and more on damaged files
        raise BadInput(
            f"{path} is not a readable codes file ({first_line(error)}): make it again with rgz encode"
        ) from error

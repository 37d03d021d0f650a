"""Encode all samples with a trained network: the codes file, and the classifiers fitted to it.

Latents are ranked on the training images alone. The file also contains codes of other observations of each galaxy
(:func:`rgz.transforms.perturb.observe`), and the metric of the search, which is fitted to codes of training images and
of other observations of them. The classifiers of :func:`rgz.inspect` are written to the same folder. It takes twenty
minutes on two cores. Codes are posterior means of latents; they have no unit. Another network than that of the
repository: ``python -m studies.encode --weights runs/deep/vdvae.safetensors --out runs/deep/codes.h5``.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes
from scipy.linalg import block_diag

from rgz import artifacts
from rgz.app.training import TRAINING_SET, splits
from rgz.data import datasets
from rgz.data.sample import CHECKED, Sample, usable, write_columns
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import embed
from rgz.features.metric import Metric, whitened
from rgz.models import checkpoint
from rgz.transforms import fields, perturb
from rgz.transforms.prepare import lengths, prepare
from studies import labelled, latent, results

__all__ = ["CLASSIFIERS", "changes", "encode", "fit_classifiers"]

RULE = (
    "of the latents up to 8 × 8 with the highest rate over the training images, the posterior means of four mirrored "
    "views: their mean weighted by how certainly each is the canonical view, and their standard deviation; then the "
    "mean and the standard deviation for the image about the centroid of its emission; space: what to subtract from a "
    "code, and to multiply it with, before two codes are compared"
)
DIMENSIONS = 64  # latents in a code, each of which gives four numbers
SOURCES, OBSERVATIONS = 1000, 4  # training sources for the metric, and other observations of each
AGAIN = 2  # other observations of each galaxy of the samples, for the classifiers
CUT = 150  # pixels, width of the fields that are observed again
FIRST = ("mirabest", "frdeep-first", "rgd")
CLASSIFIERS = {"host": (FIRST, 0), "centroid": (FIRST, 2), "coarse": (("frdeep-nvss",), 0)}
"""The samples to which each classifier of :func:`rgz.inspect` is fitted, and the first part of a code that it uses.

``host`` is for images whose middle is the position of the host galaxy; ``centroid`` does not depend on the middle;
``coarse`` is for images with the resolution of NVSS.
"""
SEED = 0
DIGITS, COARSE_DIGITS = 11, 5  # binary, of codes and of those of other observations, which vary anyway
FLOOR = 0.003
"""Added to the covariance of changes, in units of its mean variance. It was chosen by how many other observations of
training sources find their source, in a metric from other sources."""


def encode(weights: Path, seen: Sample, out: Path) -> dict[str, int]:
    """Write codes of all samples to an HDF5 file, and ``classifier.safetensors`` to the same folder.

    The training sources ``seen`` are used to rank the latents and to fit the metric. Returns the number of galaxies by
    sample, and raises :class:`rgz.errors.BadInput` if an archive is missing.
    """
    model, recipe, _ = checkpoint.load(weights)
    _, rates = latent.full_codes(model, prepare(seen.images, seen.pixel, recipe)[0], blocks=model.coded)
    encoder = embed.Encoder(model, recipe, latent.rank(rates)[:DIMENSIONS])
    groups = {name: _encoded(encoder, name) for name in datasets.SAMPLES}
    attributes = artifacts.describe(
        weights_sha256=artifacts.sha256(weights),
        rule=RULE,
        latents=encoder.latents,
        blocks=latent.blocks_of(model, encoder.latents),
        rate=rates.mean(axis=0),
    )
    print("encoding other observations", file=sys.stderr)
    codes = np.vstack([code for _, code, *_ in groups.values()])
    space = invariant(codes, changes(encoder, seen), embed.PARTS)
    write_codes(out, groups, attributes, space)
    with artifacts.atomic(out.with_name("classifier.safetensors")) as partial:
        partial.write_bytes(to_bytes(fit_classifiers(out), metadata={"codes_sha256": artifacts.sha256(out)}))
    return {name: len(table) for name, (table, *_) in groups.items()}


def _encoded(
    encoder: embed.Encoder, name: str
) -> tuple[Table, NDArray[np.float32], NDArray[np.float32], dict[str, Any]]:
    """Table, codes, codes of other observations, and attributes of one sample; rows without emission in their middle
    are left out."""
    print(f"encoding {name}", file=sys.stderr)
    sample = datasets.load_dataset(name)
    found = usable(sample)
    kept = sample[found]
    kept.table["length"] = lengths(kept.images, kept.pixel)
    kept.table["length"].unit = "arcsec"
    about = {"left_out": list(map(str, sample.table["name"][~found]))}
    return kept.table, encoder.transform(kept), observed(encoder.transform, kept), about


def observed(transform: Callable[[Sample], NDArray[Any]], sample: Sample, times: int = AGAIN) -> NDArray[np.float32]:
    """What ``transform`` makes of other observations of each source, (N, times, D), NaN where one does not show it."""
    size = min(CUT, sample.images.shape[1])
    images = torch.from_numpy(np.asarray(fields.crop(sample.images, size), np.float32))
    same, still = torch.eye(2).expand(len(sample), 2, 2), torch.zeros(len(sample), 2)
    faintest = perturb.LIT * perturb.threshold(images)
    parts = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for _ in range(times):
            seen = perturb.observe(images, sample.pixel, same, still, still[:, 0], faintest)[0].numpy()
            kept = fields.has_source(seen, sample.pixel)
            codes = transform(Sample(seen[kept], sample.table[kept], sample.pixel))
            parts.append(np.full((len(sample), codes.shape[1]), np.nan, np.float32))
            parts[-1][kept] = codes
    return np.stack(parts, axis=1)


def changes(encoder: embed.Encoder, sample: Sample) -> NDArray[np.float32]:
    """Changes (M, 4 D) of the codes of 1,000 random sources when they are observed again.

    One row per source and observation; an observation that does not show the source is left out.
    """
    drawn = sample[np.sort(np.random.default_rng(SEED).permutation(len(sample))[:SOURCES])]
    found = observed(encoder.transform, drawn, OBSERVATIONS) - encoder.transform(drawn)[:, None]
    found = found.swapaxes(0, 1)
    return np.asarray(found[np.isfinite(found).all(2)])


def fit_classifiers(codes: Path) -> dict[str, NDArray[Any]]:
    """Arrays of all :data:`CLASSIFIERS`, fitted to a codes file."""
    found: dict[str, NDArray[Any]] = {}
    for kind, (names, part) in CLASSIFIERS.items():
        print(f"fitting the classifier {kind}", file=sys.stderr)
        known = labelled.labelled(names, codes)
        found |= labelled.fit(known, part * known.codes.shape[1] // embed.PARTS).tensors(kind)
    return found


def invariant(codes: NDArray[Any], changes: NDArray[Any], parts: int = 1) -> Metric:
    r"""Within-class whitening: directions in which perturbations change a galaxy count less.

    Codes are standardised first. Let :math:`S_w` be the covariance of the changes. Standardised codes are multiplied by
    :math:`(S_w + \epsilon)^{-1/2}`, as in linear discriminant analysis with each galaxy as its own class (Fisher 1936,
    doi:10.1111/j.1469-1809.1936.tb02137.x); :math:`\epsilon` is :data:`FLOOR`.

    ``codes`` (N, D) are those of many galaxies, and ``changes`` (M, D) those of perturbed images minus those of the
    images. Each of the ``parts`` of a code, which have the same length, is whitened by itself.
    """
    if codes.shape[1] % parts:
        raise BadInput(f"codes of {codes.shape[1]} numbers do not have {parts} parts of equal length")
    whole = whitened(codes)
    each = np.split((changes - changes.mean(axis=0)) @ whole.matrix, parts, axis=1)
    return Metric(whole.centre, whole.matrix @ block_diag(*map(_whitening, each)), True, parts)


def _whitening(changes: NDArray[Any]) -> NDArray[Any]:
    """The symmetric matrix (D, D) that makes the covariance of changes (M, D) nearly the identity."""
    within = np.atleast_2d(np.cov(changes.T))
    if not np.trace(within) > 0:
        raise BadInput(
            "the changes of a part of the codes are all the same, or not finite: no metric can be fitted to them"
        )
    within = within / np.trace(within) * len(within) + FLOOR * np.eye(len(within))
    values, vectors = np.linalg.eigh(within)
    return np.asarray((vectors / np.sqrt(values)) @ vectors.T)


def write_codes(
    path: Path,
    groups: dict[str, tuple[Table, NDArray[Any], NDArray[Any], dict[str, Any]]],
    attributes: dict[str, Any],
    space: Metric | None = None,
) -> None:
    """Write codes of several samples, and the metric in which they are compared, to one HDF5 file.

    ``groups`` has for each sample its table, its codes (N, D), those of other observations of its galaxies (N, K, D),
    and its attributes. Codes are rounded to eleven binary digits, those of other observations to five. Of attributes,
    strings, numbers and arrays are stored unchanged, anything else as JSON.
    """
    with artifacts.atomic(path) as partial, h5py.File(partial, "w") as file:
        _set_attributes(file, attributes)
        for name, (table, code, observed, about) in groups.items():
            group = file.create_group(name)
            write_columns(group, table)
            group.create_dataset("code", data=_rounded(code), **CHECKED)
            group.create_dataset("observed", data=_rounded(observed, COARSE_DIGITS), **CHECKED)
            _set_attributes(group, about)
        if space is not None:
            group = file.create_group(codefile.SPACE)
            group.create_dataset("centre", data=space.centre.astype(np.float32), **CHECKED)
            group.create_dataset("matrix", data=_rounded(space.matrix), **CHECKED)
            group.attrs["cosine"], group.attrs["parts"] = space.cosine, space.parts


def _rounded(values: NDArray[Any], digits: int = DIGITS) -> NDArray[np.float32]:
    """Single precision, rounded to some binary digits, which makes the file smaller."""
    mantissa, exponent = np.frexp(values)
    return np.asarray(np.ldexp(np.rint(mantissa * 2**digits) / 2**digits, exponent), dtype=np.float32)


def _set_attributes(place: h5py.Group, attributes: dict[str, Any]) -> None:
    for key, value in attributes.items():
        place.attrs[key] = value if isinstance(value, str | int | float | np.ndarray) else json.dumps(value)


def main() -> None:
    """Encode all samples with the network that the command line names, by default that of the repository."""
    parser = argparse.ArgumentParser(description="Encode all samples, and fit the classifiers to their codes.")
    parser.add_argument("--weights", type=Path, help="weights of the network; by default those of the repository")
    parser.add_argument("--out", type=Path, help="HDF5 file to write; by default artifacts/codes.h5")
    parser.add_argument("--data", type=Path, default=TRAINING_SET, help="training set")
    given = parser.parse_args()
    out = given.out or artifacts.artifacts() / "codes.h5"
    counts = encode(given.weights or artifacts.artifact("vdvae.safetensors"), splits(given.data)[0], out)
    print(f"{out}: {', '.join(f'{name} {n}' for name, n in counts.items())}")


if __name__ == "__main__":
    results.run(main)

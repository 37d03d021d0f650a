"""Encode all samples with a trained network: the codes file, and the classifiers fitted to it.

Latents are ranked on the training images alone. The file also contains codes of other observations of each galaxy
(:func:`rgz.transforms.perturb.observe`), and the metric of the search, which is fitted to codes of training images and
of other observations of them. The classifiers of :func:`rgz.inspect` are written to the same folder.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes

from rgz import artifacts
from rgz.data import datasets
from rgz.data.sample import Sample, usable
from rgz.features import codes as codefile
from rgz.features import embed, metric
from rgz.models import checkpoint
from rgz.tasks import classify
from rgz.transforms import fields, perturb
from rgz.transforms.prepare import lengths, prepare

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


def encode(weights: Path, sources: Sample, out: Path) -> dict[str, int]:
    """Write codes of all samples to an HDF5 file, and ``classifier.safetensors`` to the same folder.

    The rows of ``sources``, the training set, in the split ``train`` are used to rank the latents and to fit the
    metric. Returns the number of galaxies by sample, and raises :class:`rgz.errors.BadInput` if an archive is missing.
    """
    model, recipe, _ = checkpoint.load(weights)
    seen = sources[sources.table["split"] == "train"]
    _, rates = embed.full_codes(model, prepare(seen.images, seen.pixel, recipe)[0], blocks=model.coded)
    encoder = embed.Encoder(model, recipe, embed.rank(rates)[:DIMENSIONS])
    groups = {name: _encoded(encoder, name) for name in datasets.SAMPLES}
    attributes = artifacts.describe(
        weights_sha256=artifacts.sha256(weights),
        rule=RULE,
        latents=encoder.latents,
        blocks=embed.blocks_of(model, encoder.latents),
        rate=rates.mean(axis=0),
    )
    print("encoding other observations", file=sys.stderr)
    codes = np.vstack([code for _, code, *_ in groups.values()])
    space = metric.invariant(codes, changes(encoder, seen), embed.PARTS)
    codefile.write_codes(out, groups, attributes, space)
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
        known = classify.labelled(names, codes)
        found |= classify.fit(known, part * known.codes.shape[1] // embed.PARTS).tensors(kind)
    return found

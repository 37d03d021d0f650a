"""Encode all samples with a trained network: the codes file, and the FRI/FRII classifiers fitted to it.

Latents are ranked on the training images alone. The file also contains the metric of the search, which is fitted to
codes of training images and of other observations of the same galaxies (:func:`rgz.transforms.perturb.observe`). The
bootstrap ensembles with which :func:`rgz.inspect` classifies are written to the same folder.
"""

import sys
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
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import embed, metric
from rgz.models import checkpoint
from rgz.tasks import classify
from rgz.transforms import fields, perturb
from rgz.transforms.prepare import lengths, prepare

__all__ = ["changes", "encode", "fit_committees"]

RULE = (
    "of the latents up to 8 × 8 with the highest rate over the training images, the posterior means of four mirrored "
    "views: their mean weighted by how certainly each is the canonical view, and their standard deviation; then the "
    "mean and the standard deviation for the image about the centroid of its emission; space: what to subtract from a "
    "code, and to multiply it with, before two codes are compared"
)
SOURCES, OBSERVATIONS = 1000, 4  # training sources for the metric, and other observations of each
SEED = 0


def encode(weights: Path, sources: Sample, out: Path, dimensions: int = 64) -> dict[str, int]:
    """Write codes of all samples to an HDF5 file, and ``committees.safetensors`` to the same folder.

    Parameters
    ----------
    sources
        The training set; its rows in the split ``train`` are used to rank the latents and to fit the metric.
    dimensions
        Number of latents in a code, each of which gives four numbers.

    Returns
    -------
    dict
        Number of galaxies by sample.

    Raises
    ------
    BadInput
        The network has fewer latents of these resolutions, or an archive is not available.
    """
    model, recipe, _ = checkpoint.load(weights)
    seen = sources[sources.table["split"] == "train"]
    most = int((embed.blocks_of(model, np.arange(model.dimensions)) < model.coded).sum())
    if dimensions > most:
        raise BadInput(f"this model has {most} latents up to 8 × 8: --dimensions {dimensions} is more")
    _, rates = embed.full_codes(model, prepare(seen.images, seen.pixel, recipe)[0], blocks=model.coded)
    encoder = embed.Encoder(embed.Embed(model, recipe, embed.rank(rates)[:dimensions]))
    groups = {name: _encoded(encoder, name) for name in datasets.SAMPLES}
    attributes = artifacts.describe(
        weights_sha256=artifacts.sha256(weights),
        rule=RULE,
        latents=encoder.latents,
        blocks=embed.blocks_of(model, encoder.latents),
        rate=rates.mean(axis=0),
    )
    print("encoding other observations", file=sys.stderr)
    codes = np.vstack([code for _, code, _ in groups.values()])
    space = metric.invariant(codes, changes(encoder, seen), embed.PARTS)
    codefile.write_codes(out, groups, attributes, space)
    with artifacts.atomic(out.with_name("committees.safetensors")) as partial:
        partial.write_bytes(to_bytes(fit_committees(out), metadata={"codes_sha256": artifacts.sha256(out)}))
    return {name: len(table) for name, (table, *_) in groups.items()}


def _encoded(encoder: embed.Encoder, name: str) -> tuple[Table, NDArray[np.float32], dict[str, Any]]:
    """Table, codes and attributes of one sample; rows without emission in their middle are left out."""
    print(f"encoding {name}", file=sys.stderr)
    sample = datasets.load_dataset(name)
    found = usable(sample)
    kept, table = sample[found], sample.table[found]
    table["length"] = lengths(kept.images, kept.pixel)
    table["length"].unit = "arcsec"
    return table, encoder.transform(kept), {"left_out": list(map(str, sample.table["name"][~found]))}


def changes(encoder: embed.Encoder, sample: Sample) -> NDArray[np.float32]:
    """Changes (M, 4 D) of the codes of 1,000 random sources when they are observed again.

    One row per source and observation; an observation that does not show the source is left out.
    """
    drawn = sample[np.sort(np.random.default_rng(SEED).permutation(len(sample))[:SOURCES])]
    before, images = encoder.transform(drawn), torch.from_numpy(np.asarray(drawn.images, np.float32))
    same, still = torch.eye(2).expand(len(drawn), 2, 2), torch.zeros(len(drawn), 2)
    faintest, found = perturb.LIT * perturb.threshold(images), []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for _ in range(OBSERVATIONS):
            seen = perturb.observe(images, drawn.pixel, same, still, still[:, 0], faintest)[0].numpy()
            kept = fields.has_source(seen, drawn.pixel)
            found.append(encoder.transform(Sample(seen[kept], drawn.table[kept], drawn.pixel)) - before[kept])
    return np.concatenate(found)


def fit_committees(codes: Path) -> dict[str, NDArray[np.float32]]:
    """Bootstrap ensembles (members, D + 1) of linear discriminants on codes (D), by sample."""
    found = {}
    for name in classify.COMMITTEES:
        table, code, _ = codefile.read_codes(codes, name)
        rows = classify.confident(table)
        labels, group = classify.is_frii(table[rows]), classify.groups(table[rows])
        found[name] = classify.bootstrap_ensemble(code[rows], labels, group).astype(np.float32)
    return found

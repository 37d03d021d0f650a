"""Encode all samples with a trained network: the codes file, and the FRI/FRII classifiers fitted to it.

Latents are ranked on the training images alone. The file also contains the metric of the similarity search, which is
fitted to training images under label-preserving perturbations. The bootstrap ensembles with which :func:`rgz.inspect`
classifies are written to the same folder.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from numpy.typing import NDArray
from safetensors.numpy import save as to_bytes

from rgz import artifacts
from rgz.data import datasets
from rgz.data.sample import Sample, prepared, usable
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import descriptors, embed, metric
from rgz.models import checkpoint
from rgz.tasks import classify
from rgz.transforms import prepare

__all__ = ["encode", "fit_committees"]

RULE = (
    "posterior means of the most variable latents over the training images; code_views: mean and mean absolute value "
    "over twelve views; code_asymmetry: logarithm of the rms difference between codes of mirrored views; "
    "code_compared: mean and mean absolute value over twelve views, four of them of the image as it is, four rotated "
    "by 30° and four by 60°, in five frames side by side: canonical, about the centroid of the emission, 115″ wide "
    "about the middle and about the centroid, and 58″ wide about the centroid; then of principal components of the "
    "same views; basis: what to subtract from a flat prepared image, and to multiply it with, for the components; "
    "space: what to subtract from code_compared, and to multiply it with, before it is compared; space_alone: the "
    "same for its part that comes from the latents"
)


def encode(weights: Path, sources: Sample, out: Path, dimensions: int = 64) -> dict[str, int]:
    """Write codes of all samples to an HDF5 file, and ``committees.safetensors`` to the same folder.

    Parameters
    ----------
    sources
        The training set; its rows in the split ``train`` are used to rank the latents and to fit the metric.
    dimensions
        Number of latents in a code.

    Returns
    -------
    dict
        Number of galaxies by sample.

    Raises
    ------
    BadInput
        The network has fewer latents, or an archive is not available.
    """
    model, recipe, _ = checkpoint.load(weights)
    if dimensions > model.dimensions:
        raise BadInput(f"this model has {model.dimensions} latents: --dimensions {dimensions} is more")
    seen = sources[sources.table["split"] == "train"]
    pixels = prepared(seen, recipe)
    means, _ = embed.full_codes(model, pixels)
    encoder = embed.Encoder(model, recipe, embed.rank(means)[:dimensions], descriptors.principal(pixels))
    groups = {name: _encoded(encoder, name) for name in datasets.SAMPLES}
    attributes = artifacts.describe(
        weights_sha256=artifacts.sha256(weights),
        rule=RULE,
        latents=encoder.latents,
        blocks=embed.blocks_of(model, encoder.latents),
        variance=means.var(axis=0),
    )
    codefile.write_codes(out, groups, attributes, _metrics(encoder, groups, seen))
    with artifacts.atomic(out.with_name("committees.safetensors")) as partial:
        partial.write_bytes(to_bytes(fit_committees(out), metadata={"codes_sha256": artifacts.sha256(out)}))
    return {name: len(table) for name, (table, *_) in groups.items()}


def _encoded(encoder: embed.Encoder, name: str) -> tuple[Table, dict[str, NDArray[Any]], dict[str, Any]]:
    """Table, codes and attributes of one sample; rows without emission in their middle are left out."""
    print(f"encoding {name}", file=sys.stderr)
    sample = datasets.load_dataset(name)
    if name == "frdeep-first":  # has no positions, but some of its images are in MiraBest
        sample = datasets.placed(sample, datasets.load_dataset("mirabest"))
    found = usable(sample, encoder.recipe)
    kept, table = sample[found], sample.table[found]
    table["length"] = [prepare.length(image, kept.pixel, encoder.recipe) for image in kept.images]
    table["length"].unit = "arcsec"
    return table, encoder.variants(kept), {"left_out": list(map(str, sample.table["name"][~found]))}


def _metrics(encoder: embed.Encoder, groups: dict[str, Any], seen: Sample) -> dict[str, metric.Metric]:
    """The metrics of a codes file, fitted to perturbed training images."""
    print("encoding perturbed images", file=sys.stderr)
    changes = descriptors.changes(lambda sample: encoder.transform(sample, "search"), encoder.recipe, seen)
    described = np.vstack([codes["code_compared"] for _, codes, _ in groups.values()])
    own = descriptors.alone(encoder.latents)
    return {
        codefile.BASIS: encoder.basis,
        codefile.SPACE: descriptors.space(described, changes, own),
        codefile.ALONE: metric.invariant(described[:, :own], changes[:, :own]),
    }


def fit_committees(codes: Path) -> dict[str, NDArray[np.float32]]:
    """Bootstrap ensembles (members, 2 D + 1) of linear discriminants on the codes over twelve views, by sample."""
    found = {}
    for name in classify.COMMITTEES:
        table, code, _ = codefile.read_codes(codes, name, "code_views")
        rows = classify.confident(table)
        labels, group = classify.is_frii(table[rows]), classify.groups(table[rows])
        found[name] = classify.bootstrap_ensemble(code[rows], labels, group).astype(np.float32)
    return found

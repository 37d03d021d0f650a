"""Codes: posterior means of the active latents.

A VDVAE has more latents than it uses; inactive ones stay at their prior (posterior collapse). Latents are ranked by the
variance of their posterior means over the *training* images, without labels, and the first ones form the code. A code
can be decoded, with the other latents at their prior means.

The canonical orientation of a source is ambiguous: its axis has two ends and two sides, and is uncertain by a few
degrees. Codes are therefore averaged over twelve views, four mirror images at each of three angles
(:data:`rgz.transforms.prepare.VIEWS`), as in test-time augmentation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from astropy.table import Table
from numpy.typing import NDArray
from torch import Tensor

from rgz import artifacts
from rgz.data import datasets, fetch
from rgz.data.sample import COLUMNS, Sample, prepared, usable
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import descriptors, metric
from rgz.models import checkpoint
from rgz.models.checkpoint import Model
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.transforms import prepare

if TYPE_CHECKING:
    from rgz.data.cutout import Cutout

FEATURES = ("classification", "density", "search")
BATCH = 128
EXACT = 0.02  # difference between codes of mirrored views that counts as zero; the median galaxy has about 0.5


@dataclass(frozen=True)
class Encoder:
    """Encodes images of galaxies with a trained network.

    Parameters
    ----------
    model, recipe
        The network, and how images are prepared for it.
    latents
        Indices of the latents in a code, (D,).
    basis
        Principal components (C) of prepared images, for the retrieval descriptors (:mod:`rgz.features.descriptors`).
    """

    model: VDVAE
    recipe: prepare.Recipe
    latents: NDArray[np.intp]
    basis: metric.Metric

    @classmethod
    def from_pretrained(cls, path: Path | None = None) -> "Encoder":
        """The trained encoder, or one from the files ``vdvae.safetensors`` and ``codes.h5`` in the folder ``path``."""
        files = "vdvae.safetensors", "codes.h5"
        weights, codes = (artifacts.artifact(name) if path is None else Path(path) / name for name in files)
        model, recipe, _ = checkpoint.load(weights)
        return cls(model, recipe, codefile.chosen(codes), codefile.read_space(codefile.BASIS, codes))

    def transform(self, sample: "Sample | Cutout", features: str = "classification") -> NDArray[np.float32]:
        """Features of each galaxy, one row per galaxy; a cut-out gives one row.

        Parameters
        ----------
        features
            ``classification``: mean code over twelve views and mean absolute code, (N, 2 D). ``density``: mean code and
            three asymmetries (:func:`asymmetry`), (N, D + 3). ``search``: retrieval descriptors, (N, 10 D + 10 C).

        Raises
        ------
        BadInput
            An image has no emission in its middle, or the features are unknown.
        """
        if features not in FEATURES:
            raise BadInput(f"features are {', '.join(FEATURES)}; {features!r} is not one of them")
        if features == "search":
            return self._descriptors(self._galaxies(sample))
        codes = self._codes(self._galaxies(sample))
        return codes["code_views"] if features == "classification" else for_density(codes)

    def variants(self, sample: "Sample | Cutout") -> dict[str, NDArray[np.float32]]:
        """All codes that a codes file holds, by name.

        ``code`` (N, D) in the canonical orientation, ``code_views`` (N, 2 D) over twelve views, ``code_asymmetry`` (N,
        3), and the retrieval descriptors ``code_compared`` (N, 10 D + 10 C).
        """
        galaxies = self._galaxies(sample)
        return self._codes(galaxies) | {"code_compared": self._descriptors(galaxies)}

    def reconstruct(self, sample: "Sample | Cutout") -> NDArray[np.float32]:
        """Images (N, H, W), 0 … 255, decoded from the posterior means of all latents."""
        means, _ = full_codes(self.model, prepared(self._galaxies(sample), self.recipe))
        return decode(self.model, means, np.arange(self.model.dimensions))

    def decode(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        """Images (N, H, W), 0 … 255, of codes (N, D); the other latents are at their prior means."""
        return decode(self.model, codes, self.latents)

    def _galaxies(self, sample: "Sample | Cutout") -> Sample:
        """The sample, or a sample of one cut-out, checked that all images can be prepared."""
        if not isinstance(sample, Sample):
            sample = Sample(sample.pixels[None], Table({name: [""] for name in COLUMNS}), sample.pixel)
        found = usable(sample, self.recipe)
        if not found.all():
            blank = ", ".join(map(str, sample.table["name"][~found][:5]))
            raise BadInput(
                f"{(~found).sum()} images have no emission in their middle ({blank}): leave them out with "
                "sample[rgz.data.sample.usable(sample, encoder.recipe)]"
            )
        return sample

    def _codes(self, galaxies: Sample) -> dict[str, NDArray[np.float32]]:
        views = of_views(self.model, self.recipe, galaxies, self.latents)
        return {"code": views[0], "code_views": prepare.pool(views), "code_asymmetry": asymmetry(views)}

    def _descriptors(self, galaxies: Sample) -> NDArray[np.float32]:
        views = descriptors.framed_views(self.recipe, galaxies)  # (frames, views, N, H, W)
        means = posterior_means(self.model, views, self.latents)
        return np.hstack([*map(prepare.pool, means), descriptors.components(views, self.basis)])


def full_codes(model: Model, pixels: NDArray[Any], **options: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Posterior means and rates (nats) of all latents, each (N, dimensions), of prepared images (N, H, W).

    ``options`` are passed to the model's ``encode``.
    """
    parts = torch.split(torch.from_numpy(np.ascontiguousarray(pixels[:, None])), BATCH)
    encoded = [model.encode(part, **options) for part in progress(parts, desc="encoding", unit="batch")]
    means, rates = (torch.cat(column).numpy() for column in zip(*encoded, strict=True))
    return means, rates


def posterior_means(model: Model, pixels: NDArray[Any], latents: NDArray[Any]) -> NDArray[np.float32]:
    """Posterior means (…, D) of some latents (D,) of prepared images (…, H, W)."""
    parts = torch.split(torch.from_numpy(pixels.reshape(-1, 1, *pixels.shape[-2:])), BATCH)
    columns = torch.from_numpy(np.ascontiguousarray(latents))
    means = [model.encode(part)[0][:, columns] for part in progress(parts, desc="encoding", unit="batch")]
    return torch.cat(means).numpy().reshape(*pixels.shape[:-2], len(latents))


def of_views(
    model: Model,
    recipe: prepare.Recipe,
    sample: Sample,
    latents: NDArray[Any],
    views: Sequence[prepare.Orientation] = prepare.VIEWS,
) -> NDArray[np.float32]:
    """Posterior means (views, N, D) of some latents (D,) for each view of each image; all images must have a source."""
    bar = progress(sample.images, desc="aligning", unit="image")
    pixels = [prepare.views(image, sample.pixel, recipe, views) for image in bar]
    return posterior_means(model, np.stack(pixels, axis=1), latents)


def rank(means: NDArray[Any]) -> NDArray[np.intp]:
    """Latents from the most to the least variable posterior mean (N, dimensions) over images; (dimensions,)."""
    return np.argsort(-means.var(axis=0), kind="stable")


def blocks_of(model: VDVAE, latents: NDArray[Any]) -> NDArray[np.intp]:
    """Index, from 0, of the stochastic block of each of some latents (D,); (D,)."""
    sizes = [model.config.channels * r * r for r in model.levels]
    return np.asarray(np.repeat(np.arange(len(sizes)), sizes)[latents])


def decode(model: Model, code: NDArray[Any], latents: NDArray[Any]) -> NDArray[np.float32]:
    """Images (N, H, W), 0 … 255, of codes (N, D) of some latents (D,); the others are at their prior means.

    Raises
    ------
    BadInput
        Codes and latents differ in number.
    """
    if code.ndim != 2 or code.shape[1] != len(latents):
        raise BadInput(f"codes here have shape (N, {len(latents)}); these have {code.shape}")
    parts = torch.split(torch.from_numpy(np.asarray(code, dtype=np.float32)), BATCH)
    return torch.cat([model.decode(full(model, part, latents)) for part in parts])[:, 0].numpy()


def full(model: Model, code: Tensor, latents: NDArray[Any]) -> Tensor:
    """Full codes (N, dimensions) of codes (N, D) of some latents (D,); NaN, for the prior mean, for the others."""
    nothing = torch.full((len(code), model.dimensions), torch.nan)
    return nothing.index_copy(1, torch.from_numpy(np.ascontiguousarray(latents)), code)


def asymmetry(views: NDArray[Any]) -> NDArray[np.float32]:
    """Asymmetries (N, 3): changes of codes of several views (views, N, D) between mirror images.

    Logarithms of the root mean square difference between the :data:`rgz.transforms.prepare.MIRRORED` views, which must
    come first: mirrored across the axis, along it, and both. ``EXACT`` is added, so that the logarithm is finite for
    perfect symmetry.

    >>> asymmetry(np.ones((4, 1, 2))).round(1)
    array([[-3.9, -3.9, -3.9]])
    """
    own, across, along, both = views[:4]
    pairs = ((own, across, along, both), (own, along, across, both), (own, both, across, along))
    squares = [((a - b) ** 2 + (c - d) ** 2).mean(axis=1) / 2 for a, b, c, d in pairs]
    return np.asarray(np.log(np.sqrt(np.stack(squares, axis=1)) + EXACT))


def for_density(codes: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Input features of the density model, (N, D + 3): from ``code_views`` the mean code, and ``code_asymmetry``."""
    views = codes["code_views"]
    return np.hstack([views[:, : views.shape[1] // 2], codes["code_asymmetry"]])


def pictures(name: str, rows: NDArray[Any]) -> tuple[NDArray[Any], str]:
    """Prepared images (N, H, W) of rows of a sample in the codes file, and what they are.

    These are survey images if they are on this machine, otherwise images decoded from the codes; the second value says
    which.
    """
    table, code, about = codefile.read_codes(None, name)
    model, recipe, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    if fetch.locate(datasets.SAMPLES[name][0]) is None:
        return decode(model, code[rows], about["latents"]), "decoded from codes"
    return prepared(datasets.load_dataset(name).named(table["name"][rows]), recipe), "survey images"

"""Accuracy of reconstructions from codes: total flux, peak flux, largest angular size and structural similarity.

A prepared image is the square root of brightness over its peak (:func:`rgz.transforms.prepare.stretch`), so brightness
is recovered by squaring. Errors of total flux and peak are relative, errors of the largest angular size are in arcsec,
and whole images are compared by the structural similarity of Wang et al. 2004 (doi:10.1109/TIP.2003.819861).

The size of a code is measured in two ways. A code of :math:`k` *numbers* consists of the :math:`k` latents with the
largest rate, with the others at their prior means; or of :math:`k` principal components of the pixels; or of the
:math:`k` latents of a plain VAE. For principal components the projection is the best code, while the code of an encoder
is only close to the best one for its decoder. We therefore use both the code of the encoder and a *fitted* code that
starts from it (:func:`fitted`).

Numbers contain different amounts of information, so the second measure is *bits*: the length of a message with the
code, for a receiver that has the model. The cost of latents sampled from a posterior is their rate (bits-back coding).
The cost of principal components, rounded to steps, is their entropy over the training images. All methods are compared
by the same measures on MiraBest's test split, to which none was fitted.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import regionprops
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA

from rgz import artifacts
from rgz.data import datasets
from rgz.data.sample import Sample, pixel_widths, prepared, usable
from rgz.errors import BadInput
from rgz.features import embed
from rgz.models import checkpoint, train
from rgz.models.likelihood import mixture_log_prob
from rgz.models.vae import PlainVAE
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.transforms import prepare
from studies import inputs, results
from studies.inputs import flat
from studies.results import Row, tidy

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.3)  # of all latents: sizes of the codes
FITTED = 0.1  # size of the shortest fitted codes; fitting takes most of the time
CODE = 64  # one more size, that of the codes in the repository
STEPS = (512, 256, 128, 64, 32, 16, 8)  # grey levels to which principal components are rounded when they are sent
FAINTEST = 0.01  # of the peak: threshold for the size of a source


def brightness(grey: NDArray[Any]) -> NDArray[np.float64]:
    """Brightness of stretched grey levels 0 … 255, the peak of a prepared image at 1."""
    return (np.asarray(grey, dtype=float) / 255) ** 2


def largest_size(grey: NDArray[Any]) -> float:
    """Largest extent, in pixels, of what is brighter than 1 % of the peak in a prepared image (H, W)."""
    bright = brightness(grey)
    lit = (bright >= FAINTEST * bright.max()).astype(int)
    (region,) = regionprops(lit)  # type: ignore[no-untyped-call]
    return float(region.feret_diameter_max)


def _similarity(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Structural similarity with the Gaussian window of Wang et al."""
    window = {"data_range": 255, "gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    pair = one.astype(float), other.astype(float)
    return float(structural_similarity(*pair, **window))  # type: ignore[no-untyped-call]


def measure(truth: NDArray[Any], made: NDArray[Any], pixel: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Compare images with their reconstructions.

    Parameters
    ----------
    truth, made
        Grey levels 0 … 255, (N, H, W).
    pixel
        Width of a pixel of each image in arcsec, (N,).

    Returns
    -------
    dict
        (N,) each: ``flux_error`` and ``peak_error``, relative; ``size_error``, arcsec; ``ssim``, 1 for identity.
    """
    light, found = brightness(truth), brightness(made)
    pairs = list(zip(truth, made, strict=True))
    return {
        "flux_error": found.sum((1, 2)) / light.sum((1, 2)) - 1,
        "peak_error": found.max((1, 2)) / light.max((1, 2)) - 1,
        "size_error": pixel * np.array([largest_size(b) - largest_size(a) for a, b in pairs]),
        "ssim": np.array([_similarity(a, b) for a, b in pairs]),
    }


def summary(measured: dict[str, NDArray[Any]]) -> dict[str, list[float]]:
    """Median and 16th and 84th percentiles over images: of absolute errors, and of the structural similarity."""
    sizes = {name: np.abs(values) if name.endswith("error") else values for name, values in measured.items()}
    return {name: [float(v) for v in np.percentile(values, (50, 16, 84))] for name, values in sizes.items()}


def reconstruct(model: VDVAE | PlainVAE, pixels: NDArray[Any]) -> NDArray[Any]:
    """Images (N, H, W) from the posterior means of all latents of prepared images (N, H, W)."""
    return embed.decode(model, embed.full_codes(model, pixels)[0], np.arange(model.dimensions))


def test_samples(recipe: prepare.Recipe) -> dict[str, Sample]:
    """The samples for the measurements: MiraBest's test split first, and both FR-DEEP samples completely."""
    mirabest, nvss, first = (datasets.load_dataset(name) for name in ("mirabest", "frdeep-nvss", "frdeep-first"))
    test = mirabest[mirabest.table["split"] == "test"]
    samples = {"MiraBest, test batch": test, "FR-DEEP NVSS": nvss, "FR-DEEP FIRST": first}
    return {name: sample[usable(sample, recipe)] for name, sample in samples.items()}


def study(
    model: VDVAE, plain: PlainVAE, recipe: prepare.Recipe, training: Sample, samples: dict[str, Sample]
) -> list[Row]:
    """Reconstruction of samples from all latents, and of the first sample from codes of increasing size.

    Latents are ranked by rate, and principal components computed, over ``training``; nothing was fitted to the first
    sample.
    """
    seen, rows = prepared(training, recipe), []
    for name, sample in progress(samples.items(), desc="reconstructing", unit="sample"):
        truth, width = prepared(sample, recipe), pixel_widths(sample, recipe)
        about = {"sample": name, "method": "VDVAE", "code": "all latents", "size": model.dimensions, "n": len(truth)}
        rows += tidy(about, summary(measure(truth, reconstruct(model, truth), width)))
        rows += _likelihood(about, model, truth)
    name = next(iter(samples))
    truth, width = prepared(samples[name], recipe), pixel_widths(samples[name], recipe)
    about = {"sample": name, "method": "plain VAE", "code": "all latents", "size": plain.dimensions, "n": len(truth)}
    rows += _likelihood(about, plain, truth)
    pca = PCA(min(len(seen), seen[0].size), svd_solver="covariance_eigh").fit(flat(seen))
    for code, found in (
        ("numbers", _numbers(model, plain, pca, seen, truth)),
        ("bits", _bits(model, plain, pca, seen, truth)),
    ):
        for method, size, made in found:
            rows += tidy(about | {"method": method, "code": code, "size": size}, summary(measure(truth, made, width)))
    return rows


def _likelihood(about: Row, model: VDVAE | PlainVAE, truth: NDArray[Any]) -> list[Row]:
    found = train.describe(model, torch.from_numpy(truth[:, None]))
    nats = {"distortion_nats": found["distortion_nats"], "rate_nats": sum(found["rate_nats"].values())}
    every = {"bits_per_dimension": found["bits_per_dimension"]} | nats
    return tidy(about, {name: [value] for name, value in every.items()}, ("value",))


Found = Iterator[tuple[str, float, NDArray[Any]]]  # method, size of the code, images (N, H, W)


def _numbers(model: VDVAE, plain: PlainVAE, pca: PCA, seen: NDArray[Any], truth: NDArray[Any]) -> Found:
    """Reconstructions from codes of different numbers of latents or components."""
    order = np.argsort(-embed.full_codes(model, seen)[1].mean(axis=0), kind="stable")
    whole = model.dimensions
    sizes = sorted({CODE, whole, *(round(f * whole) for f in FRACTIONS)})
    means, _ = embed.full_codes(model, truth)
    for k in sizes:
        yield "VDVAE", k, embed.decode(model, means[:, order[:k]], order[:k])
    for k in sorted({round(FITTED * whole), CODE, whole}):
        yield "VDVAE, fitted", k, _refitted(model, truth, means[:, order[:k]], order[:k])
    for k in sizes:
        if k < truth[0].size:
            yield "PCA", k, _of_components(pca, truth, k)
    code, every = embed.full_codes(plain, truth)[0], np.arange(plain.dimensions)
    yield "plain VAE", plain.dimensions, embed.decode(plain, code, every)
    yield "plain VAE, fitted", plain.dimensions, _refitted(plain, truth, code, every)


def fitted(
    model: VDVAE | PlainVAE, pixels: NDArray[Any], code: NDArray[Any], latents: NDArray[Any], steps: int = 30
) -> NDArray[np.float32]:
    """Codes (N, D) of some latents (D,) that minimise the distortion of prepared images (N, H, W).

    The code of an encoder is not the best one (amortisation gap: Cremer, Li & Duvenaud 2018, arXiv:1801.03558).
    Starting at ``code`` (N, D), the distortion is minimised by ``steps`` steps of Adam, with fixed weights. Images do
    not affect each other.
    """
    found = []
    images = torch.split(torch.from_numpy(np.ascontiguousarray(pixels[:, None])), embed.BATCH)
    starts = torch.split(torch.from_numpy(np.asarray(code, dtype=np.float32)), embed.BATCH)
    with progress(total=len(starts) * steps, desc="fitting codes", unit="step") as bar:
        for part, start in zip(images, starts, strict=True):
            moving = start.clone().requires_grad_()
            optimizer = torch.optim.Adam([moving], lr=0.02)
            for _ in range(steps):
                distortion = -mixture_log_prob(part, model.mixture(embed.full(model, moving, latents))).sum()
                (moving.grad,) = torch.autograd.grad(distortion, moving)
                optimizer.step()
                bar.update()
            found.append(moving.detach())
    return torch.cat(found).numpy()


def _refitted(model: VDVAE | PlainVAE, truth: NDArray[Any], code: NDArray[Any], chosen: NDArray[Any]) -> NDArray[Any]:
    """Images (N, H, W) of codes fitted to them, starting at the code of the encoder."""
    return embed.decode(model, fitted(model, truth, code, chosen), chosen)


def _of_components(pca: PCA, pixels: NDArray[Any], count: int) -> NDArray[Any]:
    """Images from their first principal components, limited to 0 … 255."""
    offset, basis = pixels.reshape(len(pixels), -1) - pca.mean_, pca.components_[:count]
    return np.asarray(np.clip(pca.mean_ + offset @ basis.T @ basis, 0, 255).reshape(pixels.shape))


def _bits(model: VDVAE, plain: PlainVAE, pca: PCA, seen: NDArray[Any], truth: NDArray[Any]) -> Found:
    """Reconstructions from codes of different mean numbers of bits."""
    pixels = torch.from_numpy(truth[:, None])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for blocks in range(1, len(model.levels) + 1):
            made, rate = model.transmit(pixels, blocks)
            yield "VDVAE", rate.mean().item() / math.log(2), made[:, 0].numpy()
        made, rate = plain.transmit(pixels)
        yield "plain VAE", rate.mean().item() / math.log(2), made[:, 0].numpy()
    known, code = (pca.transform(flat(images)) for images in (seen, truth))
    for step in STEPS:
        rounded = np.rint(code / step)
        grey = np.clip(pca.mean_ + step * rounded @ pca.components_, 0, 255).reshape(truth.shape)
        yield "PCA", _cost(np.rint(known / step), rounded), grey


def _cost(known: NDArray[Any], sent: NDArray[Any]) -> float:
    """Mean bits to send rows of integers (N, D), each column by a code fitted to the same column of ``known`` (M, D).

    The cost of an integer is minus the logarithm of its frequency. A tenth of a count is added to every integer in
    range, so that integers that do not occur in ``known`` can be sent, too.
    """
    bits = 0.0
    for old, new in zip(known.T.astype(int), sent.T.astype(int), strict=True):
        lowest = min(old.min(), new.min())
        count = np.bincount(old - lowest, minlength=max(old.max(), new.max()) - lowest + 1) + 0.1
        bits -= np.log2(count / count.sum())[new - lowest].mean()
    return float(bits)


def main() -> None:
    """Compute and write ``results/reconstruction.csv``; five minutes on two cores."""
    model, recipe = inputs.network()
    plain, its_recipe, _ = checkpoint.load(artifacts.artifact("plain.safetensors"))
    if its_recipe != recipe:
        raise BadInput(
            "vdvae.safetensors and plain.safetensors need different image preparations: train one of them again"
        )
    seen, _ = inputs.training_set()
    files = [artifacts.artifact(f"{name}.safetensors") for name in ("vdvae", "plain")]
    results.write("reconstruction", study(model, plain, recipe, seen, test_samples(recipe)), files)


if __name__ == "__main__":
    results.run(main)

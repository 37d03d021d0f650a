"""Accuracy of reconstructions from codes: total flux, peak flux, largest angular size and structural similarity.

A prepared image is the square root of brightness over its peak (:func:`rgz.transforms.prepare.stretch`), so brightness
is recovered by squaring. Errors of total flux and peak are relative, errors of the largest angular size are in arcsec,
and whole images are compared by the structural similarity of Wang et al. 2004 (doi:10.1109/TIP.2003.819861).

Images are reconstructed from all latents of the network, and from short codes of :math:`k` numbers: the first :math:`k`
latents of the code of a galaxy, with all others at their prior means; the first :math:`k` principal
components of the pixels; or the latents of a plain VAE. All methods are compared on MiraBest's test split, to which
none was fitted.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from skimage.measure import regionprops
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA

from rgz import artifacts
from rgz.app.training import TRAINING_SET, splits
from rgz.data import datasets
from rgz.data.sample import Sample, usable
from rgz.errors import BadInput
from rgz.features import codes, embed
from rgz.models import checkpoint, train
from rgz.models.vdvae import VDVAE
from rgz.progress import progress
from rgz.transforms import prepare
from studies import latent, results
from studies.results import Row, tidy
from studies.vae import PlainVAE

LENGTHS = (8, 16, 32, 64, 128)  # numbers of a code
FAINTEST = 0.01  # of the peak: threshold for the size of a source


def flat(grey: NDArray[Any]) -> NDArray[np.float64]:
    """Images (N, H, W) as rows of numbers (N, H W)."""
    return grey.reshape(len(grey), -1).astype(float)


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
    """Compare images, grey levels 0 … 255, (N, H, W), with their reconstructions; ``pixel`` (N,) is in arcsec.

    Returns ``flux_error`` and ``peak_error``, relative; ``size_error``, arcsec; ``ssim``, 1 for identity, (N,) each.
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


def pixel_widths(sample: Sample, recipe: prepare.Recipe) -> NDArray[np.float64]:
    """Width of a pixel of each prepared image, in arcsec, (N,)."""
    length = torch.from_numpy(prepare.lengths(sample.images, sample.pixel) / sample.pixel)
    return sample.pixel * prepare.Prepare(recipe).scale(length, sample.pixel).numpy()


def test_samples() -> dict[str, Sample]:
    """The test splits of MiraBest, which comes first, and of both FR-DEEP samples."""
    names = {"MiraBest": "mirabest", "FR-DEEP NVSS": "frdeep-nvss", "FR-DEEP FIRST": "frdeep-first"}
    samples = {title: datasets.load_dataset(name) for title, name in names.items()}
    return {title: sample[usable(sample) & (sample.table["split"] == "test")] for title, sample in samples.items()}


def study(
    model: VDVAE,
    plain: PlainVAE,
    recipe: prepare.Recipe,
    latents: NDArray[np.intp],
    training: Sample,
    samples: dict[str, Sample],
) -> list[Row]:
    """Reconstruction of samples from all latents, and of the first sample from codes of increasing length.

    ``latents`` (D,) are those of a code, by decreasing rate. Principal components are computed over ``training``.
    """
    rows = []
    for name, sample in progress(samples.items(), desc="reconstructing", unit="sample"):
        truth, width = _prepared(sample, recipe), pixel_widths(sample, recipe)
        about = {"sample": name, "method": "VDVAE", "code": "all latents", "size": model.dimensions, "n": len(truth)}
        rows += tidy(about, summary(measure(truth, embed.reconstruct(model, truth), width)))
    name, sample = next(iter(samples.items()))
    truth, width = _prepared(sample, recipe), pixel_widths(sample, recipe)
    for method, network in (("VDVAE", model), ("plain VAE", plain)):
        about = {"sample": name, "method": method, "code": "all latents", "size": network.dimensions, "n": len(truth)}
        rows += _likelihood(about, network, truth)
    made = _numbers(model, plain, latents, _prepared(training, recipe), truth)
    for (method, size), grey in made.items():
        about = {"sample": name, "method": method, "code": "numbers", "size": size, "n": len(truth)}
        rows += tidy(about, summary(measure(truth, grey, width)))
    return rows


def _prepared(sample: Sample, recipe: prepare.Recipe) -> NDArray[np.uint8]:
    """Prepared images (N, H, W), around the middle of each field."""
    return np.asarray(prepare.prepare(sample.images, sample.pixel, recipe)[0])


def _likelihood(about: Row, model: VDVAE | PlainVAE, truth: NDArray[Any]) -> list[Row]:
    found = train.describe(model, torch.from_numpy(truth[:, None]))
    nats = {"distortion_nats": found["distortion_nats"], "rate_nats": sum(found["rate_nats"].values())}
    every = {"bits_per_dimension": found["bits_per_dimension"]} | nats
    return tidy(about, {name: [value] for name, value in every.items()}, ("value",))


def _numbers(
    model: VDVAE, plain: PlainVAE, latents: NDArray[np.intp], seen: NDArray[Any], truth: NDArray[Any]
) -> dict[tuple[str, int], NDArray[Any]]:
    """Images (N, H, W) reconstructed from codes of images ``truth`` (N, H, W), by method and length of the code."""
    means = latent.full_codes(model, truth, blocks=model.coded)[0][:, latents]
    lengths = [k for k in LENGTHS if k < len(latents)] + [len(latents)]
    made = {("VDVAE", k): embed.decode(model, means[:, :k], latents[:k]) for k in lengths}
    most = min(max(lengths), len(seen) - 1)
    pca = PCA(most, svd_solver="randomized", random_state=0).fit(flat(seen))
    made |= {("PCA", k): _of_components(pca, truth, k) for k in lengths if k <= most}
    return made | {("plain VAE", plain.dimensions): embed.reconstruct(plain, truth)}


def _of_components(pca: PCA, pixels: NDArray[Any], count: int) -> NDArray[Any]:
    """Images from their first principal components, limited to 0 … 255."""
    offset, basis = flat(pixels) - pca.mean_, pca.components_[:count]
    return np.asarray(np.clip(pca.mean_ + offset @ basis.T @ basis, 0, 255).reshape(pixels.shape))


def main() -> None:
    """Compute and write ``results/reconstruction.csv``; two minutes on one core."""
    files = [artifacts.artifact(name) for name in ("vdvae.safetensors", "plain.safetensors", "codes.h5")]
    (model, recipe, _), (plain, its_recipe, _) = checkpoint.load(files[0]), checkpoint.load(files[1], PlainVAE)
    if its_recipe != recipe:
        raise BadInput(
            "vdvae.safetensors and plain.safetensors need different image preparations: train one of them again"
        )
    seen, _ = splits(TRAINING_SET)
    rows = study(model, plain, recipe, codes.chosen(files[2]), seen, test_samples())
    results.write("reconstruction", rows, files)


if __name__ == "__main__":
    results.run(main)

"""How much of a galaxy a code keeps, measured on quantities that an astronomer would measure.

A prepared image is the square root of brightness over its peak (:func:`rgz.images.stretch`), so brightness is had back by
squaring. Total flux and peak are compared as fractions of the input's, the largest angular size in arcsec, and the image as
a whole by the structural similarity of Wang et al. 2004 (doi:10.1109/TIP.2003.819861).

The size of a code can be counted in two ways. A code of :math:`k` *numbers* can be the :math:`k` latents with the largest rate,
the others at their prior means; or :math:`k` principal components of the pixels; or a plain autoencoder's :math:`k` latents.
Components are the numbers that give an image back best; what an encoder says is near its decoder's best, and so both are
tried, its answer and the code *fitted* from there (:func:`rgz.latents.fitted`).

A number can hold much or little, so the other currency is the *bit*: what it takes to send the code to someone who holds the
model. Latents drawn from a posterior cost their rate (bits-back coding); principal components, rounded to steps, cost their
entropy among the training images. All are judged by the same measures, on MiraBest's test batch, to which none was fitted.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from skimage.measure import regionprops
from skimage.metrics import structural_similarity
from sklearn.decomposition import PCA
from torch import Tensor

from rgz import images, latents, paths, plots, readers, train
from rgz.plain import PlainVAE
from rgz.progress import progress
from rgz.sample import Sample, pixel_widths, prepared, usable
from rgz.vdvae import VDVAE

__all__ = [
    "FRACTIONS",
    "brightness",
    "columns",
    "figure",
    "largest_size",
    "measure",
    "rebuilt",
    "study",
    "summary",
    "table",
    "tests",
]

FRACTIONS = (0.01, 0.02, 0.05, 0.1, 0.3)
FITTED = (
    0.1  # the shortest codes that are fitted too, as a fraction of all latents; fitting takes most of the study's time
)
STEPS = (512, 256, 128, 64, 32, 16, 8)  # grey levels; to which principal components are rounded when they are sent
FAINTEST = 0.01  # of the peak: what counts as part of a source when its size is measured


def brightness(grey: np.ndarray) -> np.ndarray:
    """Stretched grey levels 0 … 255 back to brightness, the peak of a prepared image at 1."""
    return (np.asarray(grey, dtype=float) / 255) ** 2


def largest_size(grey: np.ndarray) -> float:
    """Largest extent, in pixels, of what is brighter than 1 % of the peak in a prepared image (H, W)."""
    bright = brightness(grey)
    (region,) = regionprops((bright >= FAINTEST * bright.max()).astype(int))
    return float(region.feret_diameter_max)


def measure(truth: np.ndarray, made: np.ndarray, pixel: np.ndarray) -> dict[str, np.ndarray]:
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
    return {
        "flux_error": found.sum((1, 2)) / light.sum((1, 2)) - 1,
        "peak_error": found.max((1, 2)) / light.max((1, 2)) - 1,
        "size_error": pixel * np.array([largest_size(b) - largest_size(a) for a, b in zip(truth, made, strict=True)]),
        "ssim": np.array(
            [
                structural_similarity(
                    a.astype(float),
                    b.astype(float),
                    data_range=255,
                    gaussian_weights=True,
                    sigma=1.5,
                    use_sample_covariance=False,
                )
                for a, b in zip(truth, made, strict=True)
            ]
        ),
    }


def summary(measured: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """Median and 16th and 84th percentiles over images: of sizes of errors, and of the structural similarity."""
    sizes = {name: np.abs(values) if name.endswith("error") else values for name, values in measured.items()}
    return {name: [float(v) for v in np.percentile(values, (50, 16, 84))] for name, values in sizes.items()}


def rebuilt(model: VDVAE | PlainVAE, pixels: np.ndarray) -> np.ndarray:
    """Images (N, H, W) from the posterior means of all latents of prepared images."""
    return latents.decode(model, latents.full_codes(model, pixels)[0], np.arange(model.dimensions))


def study(
    model: VDVAE, plain: PlainVAE, recipe: images.Recipe, training: Sample, tests: dict[str, Sample], code: int = 64
) -> dict:
    """Reconstruction of samples by all latents, and of the first sample by codes of growing length.

    Parameters
    ----------
    training
        What ranks the latents by rate and is decomposed into principal components.
    tests
        Samples by name; the first one nothing was fitted to.
    code
        One more code length to compare at.

    Returns
    -------
    dict
        ``samples``: by name ``n``, bits per dimension, distortion, rates and the :func:`summary` of :func:`measure`;
        ``growth``: the summary for each ``method`` and number of ``dimensions``, on the first sample; ``plain``: bits per
        dimension of the plain autoencoder there; ``sent``: the summary for each ``method`` and mean number of ``bits``.
    """
    seen = prepared(training, recipe)
    squares = {name: prepared(sample, recipe) for name, sample in tests.items()}
    widths = {name: pixel_widths(sample, recipe) for name, sample in tests.items()}
    samples = {}
    for name, truth in progress(squares.items(), desc="reconstructing", unit="sample"):
        samples[name] = {"n": len(truth)} | train.describe(model, torch.from_numpy(truth[:, None]))
        samples[name] |= summary(measure(truth, rebuilt(model, truth), widths[name]))
    first = next(iter(tests))
    truth = squares[first]
    order = np.argsort(-latents.full_codes(model, seen)[1].mean(axis=0), kind="stable")
    sizes = sorted({code, model.dimensions, *(round(f * model.dimensions) for f in FRACTIONS)})
    components = PCA(min(len(seen), seen[0].size), svd_solver="covariance_eigh").fit(seen.reshape(len(seen), -1))
    means, _ = latents.full_codes(model, truth)
    made = {("VDVAE", k): latents.decode(model, means[:, order[:k]], order[:k]) for k in sizes}
    for k in sorted({round(FITTED * model.dimensions), code, model.dimensions}):
        made["VDVAE, fitted", k] = _refitted(model, truth, means[:, order[:k]], order[:k])
    made |= {("PCA", k): _of_components(components, truth, k) for k in sizes if k < seen[0].size}
    all_of_it = latents.full_codes(plain, truth)[0], np.arange(plain.dimensions)
    made["plain VAE", plain.dimensions] = latents.decode(plain, *all_of_it)
    made["plain VAE, fitted", plain.dimensions] = _refitted(plain, truth, *all_of_it)
    growth = [
        {"method": method, "dimensions": k} | summary(measure(truth, images_, widths[first]))
        for (method, k), images_ in made.items()
    ]
    sent = [
        {"method": method, "bits": bits} | summary(measure(truth, images_, widths[first]))
        for method, bits, images_ in _sent(model, plain, components, seen, truth)
    ]
    of_plain = train.describe(plain, torch.from_numpy(truth[:, None]))
    return {"samples": samples, "growth": growth, "sent": sent, "plain": of_plain}


def _refitted(model: VDVAE | PlainVAE, truth: np.ndarray, code: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Images (N, H, W) of codes fitted to them, from where the encoder put them."""
    return latents.decode(model, latents.fitted(model, truth, code, chosen), chosen)


def _sent(model: VDVAE, plain: PlainVAE, pca: PCA, seen: np.ndarray, truth: np.ndarray) -> Iterator[tuple]:
    """Method, mean bits an image and images (N, H, W), for codes of growing size in bits."""
    pixels = torch.from_numpy(truth[:, None])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for blocks in range(1, len(model.levels) + 1):
            made, rate = model.transmit(pixels, blocks)
            yield "VDVAE", rate.mean().item() / math.log(2), made[:, 0].numpy()
        made, rate = plain.transmit(pixels)
        yield "plain VAE", rate.mean().item() / math.log(2), made[:, 0].numpy()
    known, code = (pca.transform(images_.reshape(len(images_), -1).astype(float)) for images_ in (seen, truth))
    for step in STEPS:
        rounded = np.rint(code / step)
        made = np.clip(pca.mean_ + step * rounded @ pca.components_, 0, 255).reshape(truth.shape)
        yield "PCA", _cost(np.rint(known / step), rounded), made


def _cost(known: np.ndarray, sent: np.ndarray) -> float:
    """Mean bits to send rows of integers (N, D), each column by a code fitted to the same column of ``known`` (M, D).

    Each integer costs minus the logarithm of its frequency, with a tenth of a count added to every integer in range, so that one
    which was never seen can be sent too.
    """
    bits = 0.0
    for old, new in zip(known.T.astype(int), sent.T.astype(int), strict=True):
        lowest = min(old.min(), new.min())
        count = np.bincount(old - lowest, minlength=max(old.max(), new.max()) - lowest + 1) + 0.1
        bits -= np.log2(count / count.sum())[new - lowest].mean()
    return float(bits)


def _of_components(pca: PCA, pixels: np.ndarray, count: int) -> np.ndarray:
    """Images from their first principal components, cut to 0 … 255."""
    offset = pixels.reshape(len(pixels), -1) - pca.mean_
    basis = pca.components_[:count]
    return np.clip(pca.mean_ + offset @ basis.T @ basis, 0, 255).reshape(pixels.shape)


def tests(recipe: images.Recipe) -> dict[str, Sample]:
    """The samples on which reconstruction is measured: MiraBest's test batch first, and both of FR-DEEP whole."""
    samples = {name: readers.load(name) for name in ("mirabest", "frdeep-nvss", "frdeep-first")}
    test = samples.pop("mirabest")
    samples = {"MiraBest, test batch": test[test.table["split"] == "test"]} | {
        "FR-DEEP NVSS": samples["frdeep-nvss"],
        "FR-DEEP FIRST": samples["frdeep-first"],
    }
    return {name: sample[usable(sample, recipe)] for name, sample in samples.items()}


def table(found: dict) -> str:
    """A :func:`study` as plain text."""
    head = f"{'flux error':>12}{'peak error':>12}{'size error':>12}{'SSIM':>8}"

    def line(row):
        flux, peak, size, ssim = (row[name][0] for name in ("flux_error", "peak_error", "size_error", "ssim"))
        return f"{flux:>12.1%}{peak:>12.1%}{size:>11.1f}″{ssim:>8.3f}"

    lines = [f"medians{'':16}{'images':>8}{'bits/dim':>10}" + head]
    for name, row in found["samples"].items():
        lines.append(f"{name:23}{row['n']:>8}{row['bits_per_dimension']:>10.3f}" + line(row))
    lines += ["", f"{next(iter(found['samples'])):23}{'numbers':>18}" + head]
    for row in found["growth"]:
        lines.append(f"{row['method']:23}{row['dimensions']:>18}" + line(row))
    lines += ["", f"{next(iter(found['samples'])):23}{'bits':>18}" + head]
    for row in found["sent"]:
        lines.append(f"{row['method']:23}{row['bits']:>18.1f}" + line(row))
    return "\n".join(lines)


def columns(found: dict) -> dict[str, list]:
    """The samples of a :func:`study` as columns of text: medians with the 16th and 84th percentile."""

    def cells(name, digits, scale=1.0):
        values = [[scale * v for v in row[name]] for row in found["samples"].values()]
        return ["{:.{d}f} ({:.{d}f} – {:.{d}f})".format(*three, d=digits) for three in values]

    return {
        "sample": list(found["samples"]),
        "galaxies": [row["n"] for row in found["samples"].values()],
        "bits/dim": [f"{row['bits_per_dimension']:.3f}" for row in found["samples"].values()],
        "flux error (%)": cells("flux_error", 1, 100),
        "peak error (%)": cells("peak_error", 1, 100),
        "size error (″)": cells("size_error", 1),
        "SSIM": cells("ssim", 3),
    }


def figure(model: VDVAE | PlainVAE, pixels: Tensor, path: Path):
    """Save images (N, 1, H, W), their reconstructions and the differences as a PNG, atomically."""
    truth = pixels[:, 0].numpy()
    device = next(model.parameters()).device
    made = model.decode(model.encode(pixels.to(device))[0])[:, 0].float().cpu().numpy()
    canvas = plots.reconstructions(truth, made)[0, 0].figure
    with paths.atomic(path) as partial:
        canvas.savefig(partial, format="png", dpi=110)
    plt.close(canvas)

r"""Measures of realism: generated galaxies compared with held-out real ones.

Real galaxies are the validation sources, on which no model was trained. They are augmented as in training: slightly
stretched, with some noise, mirrored, in both frames, and resolved ones more often. Generated galaxies are compared with
them by six properties of an image (two-sample Kolmogorov-Smirnov test and energy distance), by the power at each scale,
and by the grey levels. Classifier two-sample tests give a ROC-AUC, which is 0.5 if a classifier cannot distinguish
them. Coverage (Naeem et al. 2020, arXiv:2002.09797) and precision (Kynkäänniemi et al. 2019, arXiv:1904.06991) are
measured in the principal components of real images. Copies of training images are counted.

The *class score* is the inception score with a classifier of FRI and FRII instead of the inception network, as in
Bastien et al. 2021 (arXiv:2102.01007). It is :math:`\exp \mathbb{E}_x \mathrm{KL}(p(y \mid x) \,\|\, p(y))`, from 1
(all images have the same class probability) to 2.
"""

import math
from functools import lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage
from skimage import morphology
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import NearestNeighbors
from torch import nn

from rgz.data import loader
from rgz.data.sample import Sample
from rgz.progress import progress
from rgz.transforms import prepare
from studies.metrics import auc, interval
from studies.reconstruction import brightness, largest_size

BEAM = 5.4 / prepare.Recipe.narrowest  # full width of FIRST's beam, of the width of the smallest prepared image
FAINTEST = 0.05  # of the peak: threshold of a separate peak
PROPERTIES = {
    "total flux": "flux / peak (pixels)",
    "peak": "flux within a beam of the peak / peak",
    "peaks": "number of peaks",
    "size": "largest angular size (pixels)",
    "asymmetry": "asymmetry",
    "concentration": "concentration",
}
"""The properties of an image, and their axis labels."""

Interval = list[float]  # value, low, high


def augmented(sample: Sample, recipe: prepare.Recipe, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.intp]]:
    """Sources augmented as in training, resolved ones four times: images (M, size, size), and the row of each, (M,)."""
    resolved = prepare.lengths(sample.images, sample.pixel) > loader.EXTENDED
    parts = []
    for row in progress(range(len(sample)), desc="augmenting", unit="source"):
        batch = loader.batches(sample[[row]], recipe, len(prepare.FRAMES), seed + row)
        times = loader.REPEATS if resolved[row] else 1
        parts.append(np.concatenate([batch(step)[0][:, 0].numpy() for step in range(times)]).astype(np.uint8))
    return np.concatenate(parts), np.repeat(np.arange(len(sample)), [len(part) for part in parts])


def properties(grey: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """The :data:`PROPERTIES` of images (N, H, W), each (N,).

    Total flux is in units of the peak; ``peak`` is the flux of a square of one beam about it in the same units.
    Peaks are local maxima above 5 % of the highest; the size is the largest extent of what is above 1 %. Asymmetry is
    that of Conselice 2003 (arXiv:astro-ph/0303065) about the middle, and concentration :math:`5 \\log_{10}
    r_{80}/r_{20}`.
    """
    columns = zip(*(_of_one(image.tobytes(), image.dtype, len(image)) for image in grey), strict=True)
    return {name: np.array(column) for name, column in zip(PROPERTIES, columns, strict=True)}


@lru_cache(8192)  # every way to make galaxies is compared with the same real ones
def _of_one(pixels: bytes, kind: np.dtype[Any], size: int) -> tuple[float, ...]:
    grey = np.frombuffer(pixels, kind).reshape(size, -1)
    light = brightness(grey)
    light /= light.max()
    total = light.sum()
    beam = 2 * round(BEAM * len(light) / 2) - 1  # pixels, odd
    top = beam**2 * ndimage.uniform_filter(light, beam, mode="constant")[light == 1].max()
    peaks = morphology.local_maxima(light, connectivity=2) & (light > FAINTEST)  # type: ignore[no-untyped-call]
    _, count = ndimage.label(peaks, np.ones((3, 3)))
    asymmetry = np.abs(light - light[::-1, ::-1]).sum() / (2 * total)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    distance = np.hypot(x - (light * x).sum() / total, y - (light * y).sum() / total).ravel()
    order = np.argsort(distance)
    inside = np.cumsum(light.ravel()[order]) / total
    r20, r80 = np.interp((0.2, 0.8), inside, distance[order])
    return total, top, count, largest_size(grey), asymmetry, 5 * math.log10(max(r80, 0.5) / max(r20, 0.25))


def power(grey: NDArray[Any]) -> NDArray[np.float64]:
    """Power of the brightness of images (N, H, W) at spatial frequencies of 1 … H / 2 periods an image, (N, H // 2)."""
    light = np.stack([brightness(one) for one in grey])
    spectrum = np.abs(np.fft.fft2(light)) ** 2
    frequency = np.fft.fftfreq(grey.shape[1]) * grey.shape[1]
    ring = np.rint(np.hypot(*np.meshgrid(frequency, frequency))).astype(int)
    return np.stack([spectrum[:, ring == k].mean(1) for k in range(1, grey.shape[1] // 2 + 1)], axis=1)


def power_ratio(held_out: NDArray[Any], source: NDArray[Any], made: NDArray[Any]) -> list[Interval]:
    """Mean power of generated images over that of real ones, for each ring of :func:`power`, with intervals over
    sources.

    ``held_out`` are real images (M, H, W), ``source`` the source of each, (M,), and ``made`` generated images (N, H,
    W).
    """
    grouped = by_source(power(held_out), source)
    return [
        interval(lambda real, new: new.mean() / np.nanmean(real), grouped[:, :, k], column)
        for k, column in enumerate(power(made).T)
    ]


def _discriminator() -> nn.Sequential:
    """(N, 1, H, W) in 0 … 1 to (N, 1) logits of being real."""

    def block(before: int, after: int, stride: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(before, after, 3, stride, 1), nn.GELU()

    model = nn.Sequential(
        *block(1, 32, 2),
        *block(32, 32, 2),
        *block(32, 64, 1),
        *block(64, 64, 2),
        *block(64, 64, 1),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(1024, 64),
        nn.GELU(),
        nn.Dropout(0.3),
        nn.Linear(64, 1),
    )
    return cast(nn.Sequential, cast(Any, model).to(memory_format=torch.channels_last))  # a quarter faster


def by_network(real: NDArray[Any], made: NDArray[Any], asked: NDArray[Any], epochs: int) -> NDArray[np.float32]:
    """Logits (·,) that images ``asked`` are real, from a small network trained with ``real`` and ``made``, all (·, H,
    W)."""
    pixels = torch.from_numpy(np.concatenate([real, made])[:, None]).float() / 255
    target = torch.cat([torch.ones(len(real)), torch.zeros(len(made))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _discriminator()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        steps = epochs * math.ceil(len(pixels) / 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(pixels)), 64):
                sides = [axis for axis in (2, 3) if torch.rand(()) < 0.5]
                logits = model(pixels[rows].flip(sides))[:, 0]
                loss = F.binary_cross_entropy_with_logits(logits, target[rows])
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()
        model.eval()
        with torch.no_grad():
            return np.asarray(model(torch.from_numpy(asked[:, None]).float() / 255)[:, 0])


def features(grey: NDArray[Any]) -> NDArray[np.float64]:
    """The six properties and the logarithm of the power spectrum of images (N, H, W), (N, 6 + H // 2)."""
    return np.column_stack([*properties(grey).values(), np.log(power(grey) + 1e-9)])


def by_forest(real: NDArray[Any], made: NDArray[Any], asked: NDArray[Any], trees: int = 300) -> NDArray[np.float64]:
    """Probability (·,) that features ``asked`` are of real images, from a random forest trained with those of ``real``
    and ``made`` images, all (·, F)."""
    forest = RandomForestClassifier(trees, min_samples_leaf=3, random_state=0, n_jobs=-1)
    forest.fit(np.vstack([real, made]), np.r_[np.ones(len(real)), np.zeros(len(made))])
    return np.asarray(forest.predict_proba(asked)[:, 1])


def by_source(values: NDArray[Any], source: NDArray[Any]) -> NDArray[np.float64]:
    """Values (M, …) of images as (sources, most, …), one row a source; NaN where a source has fewer images."""
    count = np.bincount(source)
    order = np.argsort(source, kind="stable")
    place = np.concatenate([np.arange(n) for n in count])
    grouped = np.full((len(count), count.max(), *values.shape[1:]), np.nan)
    grouped[source[order], place] = values[order]
    return grouped


def two_sample_test(
    training: tuple[NDArray[Any], NDArray[Any]],
    held_out: NDArray[Any],
    source: NDArray[Any],
    made: NDArray[Any],
    epochs: int = 12,
) -> dict[str, Interval]:
    """Classifier two-sample tests by a network and a random forest: ROC-AUC and its 95 % interval.

    The features of the forest are the six properties and the power spectrum; ``properties_auc`` is that of another
    forest on the six properties alone. They are trained with the real and generated images ``training``, and tested
    with real images (M, H, W) of sources on which no model was trained, ``source`` (M,), and with other generated ones.
    """
    asked, found = np.concatenate([held_out, made]), {}
    one, two, three = (features(grey) for grey in (*training, asked))
    some = len(PROPERTIES)
    for name, logits in (
        ("network_auc", by_network(*training, asked, epochs)),
        ("forest_auc", by_forest(one, two, three)),
        ("properties_auc", by_forest(one[:, :some], two[:, :some], three[:, :some])),
    ):
        real, new = by_source(logits[: len(source)], source), logits[len(source) :]
        found[name] = interval(auc, real, new)
    return found


def nearest(made: NDArray[Any], training: NDArray[Any]) -> NDArray[np.float64]:
    """Distance (N,) of each image (N, H, W) to the nearest of ``training`` (M, H, W), in grey levels (rms).

    All four mirrored views count.
    """
    mirrored = np.concatenate([made, made[:, ::-1], made[:, :, ::-1], made[:, ::-1, ::-1]])
    asked, known = (np.asarray(grey.reshape(len(grey), -1), np.float32) for grey in (mirrored, training))
    distance, _ = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(known).kneighbors(asked)
    return np.asarray(distance.reshape(4, -1).min(0) / math.sqrt(known.shape[1]))


def coverage(real: NDArray[Any], made: NDArray[Any], k: int = 5) -> dict[str, float]:
    """Precision and coverage of codes (·, D): generated ones near real ones, and real ones near generated ones."""
    radius = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, -1]
    distance = np.sqrt(np.maximum((real**2).sum(1)[:, None] + (made**2).sum(1) - 2 * real @ made.T, 0))
    within = distance <= radius[:, None]
    return {"precision": float(within.any(axis=0).mean()), "coverage": float(within.any(axis=1).mean())}


def class_score(probability: NDArray[Any]) -> float:
    """Exponential of the mean divergence of p(class | image) from its mean, from probabilities of FRII (N,)."""
    each = np.stack([probability, 1 - probability]).clip(1e-6)
    return float(np.exp((each * np.log(each / each.mean(axis=1, keepdims=True))).sum(0).mean()))


def grey_levels(real: NDArray[Any], made: NDArray[Any]) -> float:
    """Total variation distance between the grey levels of two stacks of images, in 32 bins."""
    one, two = (np.bincount(grey.ravel() // 8, minlength=32) / grey.size for grey in (real, made))
    return float(np.abs(one - two).sum() / 2)

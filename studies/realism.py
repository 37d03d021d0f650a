r"""Are the new galaxies like the real ones? Measured as the field does, on held-out sources.

Real galaxies are the validation sources, which no model has seen, shown as training shows them: mirrored, turned a little,
resolved ones more often. Generated ones are held against them by six properties of an image (two-sample Kolmogorov-Smirnov
test and energy distance), the power at each scale, the grey levels, and by three questions. Can a classifier tell them
apart (ROC-AUC, 0.5 if it cannot)? Do they cover the real ones in the code space of another encoder, and stay among them
(density and coverage's coverage, Naeem et al. 2020, arXiv:2002.09797; precision, Kynkäänniemi et al. 2019,
arXiv:1904.06991)? Is any of them a copy of a training image?

The *class score* is the inception score with a classifier of FRI and FRII in the place of the inception network, after Bastien
et al. 2021 (arXiv:2102.01007): :math:`\exp \mathbb{E}_x \mathrm{KL}(p(y \mid x) \,\|\, p(y))`, from 1, all alike, to 2.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage, stats
from skimage.morphology import local_maxima
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

from rgz.data import loader
from rgz.data.sample import Sample
from rgz.transforms import prepare
from studies.reconstruction import brightness, largest_size

__all__ = [
    "PROPERTIES",
    "apart",
    "auc",
    "by_forest",
    "class_score",
    "compare",
    "described",
    "interval",
    "nearest",
    "power",
    "properties",
    "quantiles",
    "scales",
    "shown",
]

BEAM = 3  # pixels, full width of FIRST's beam where a prepared pixel is as wide as the survey's
FAINTEST = 0.05  # of the peak: what counts as a peak of its own
PROPERTIES = {
    "total flux": "flux / peak (pixels)",
    "peak": "flux within a beam of the peak / peak",
    "peaks": "number of peaks",
    "size": "largest angular size (pixels)",
    "asymmetry": "asymmetry",
    "concentration": "concentration",
}
"""The properties of an image, and what to write beside an axis."""


def shown(sample: Sample, recipe: prepare.Recipe, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources as training shows them: images (M, size, size) uint8, and the row of each, (M,); resolved ones come four times."""
    resolved = [prepare.length(image, sample.pixel, recipe) > loader.RESOLVED for image in sample.images]
    times = np.where(resolved, loader.OFTEN, 1)
    parts = [
        loader.batches(sample[[row]], recipe, int(count), seed + row)(0)[:, 0].numpy()
        for row, count in enumerate(times)
    ]
    return np.concatenate(parts), np.repeat(np.arange(len(sample)), times)


def properties(grey: np.ndarray) -> dict[str, np.ndarray]:
    """The :data:`PROPERTIES` of images (N, H, W), each (N,).

    Total flux is in units of the peak; ``peak`` is the flux of the three by three pixels about it in the same units. Peaks are
    local maxima above 5 % of the highest; the size is the largest extent of what is above 1 %. Asymmetry is that of
    Conselice 2003 (arXiv:astro-ph/0303065) about the middle, and concentration :math:`5 \\log_{10} r_{80}/r_{20}`.
    """
    return {
        name: np.array(column) for name, column in zip(PROPERTIES, zip(*map(_of_one, grey), strict=True), strict=True)
    }


def quantiles(values: np.ndarray) -> list[float]:
    """Values (N,) at 2, 6, … 98 per cent, to compare distributions in a figure."""
    return [float(v) for v in np.quantile(values, np.arange(0.02, 1, 0.04))]


def _of_one(grey: np.ndarray) -> tuple[float, ...]:
    light = brightness(grey)
    light /= light.max()
    total = light.sum()
    top = 9 * ndimage.uniform_filter(light, 3, mode="constant")[light == 1].max()
    _, count = ndimage.label(local_maxima(light, connectivity=2) & (light > FAINTEST), np.ones((3, 3)))
    asymmetry = np.abs(light - light[::-1, ::-1]).sum() / (2 * total)
    y, x = np.mgrid[: light.shape[0], : light.shape[1]]
    distance = np.hypot(x - (light * x).sum() / total, y - (light * y).sum() / total).ravel()
    order = np.argsort(distance)
    inside = np.cumsum(light.ravel()[order]) / total
    r20, r80 = np.interp((0.2, 0.8), inside, distance[order])
    return total, top, count, largest_size(grey), asymmetry, 5 * math.log10(max(r80, 0.5) / max(r20, 0.25))


def power(grey: np.ndarray) -> np.ndarray:
    """Power of the brightness of images (N, H, W) in rings of spatial frequency, (N, H // 2): 1 … H / 2 periods an image."""
    light = np.stack([brightness(one) for one in grey])
    spectrum = np.abs(np.fft.fft2(light)) ** 2
    frequency = np.fft.fftfreq(grey.shape[1]) * grey.shape[1]
    ring = np.rint(np.hypot(*np.meshgrid(frequency, frequency))).astype(int)
    return np.stack([spectrum[:, ring == k].mean(1) for k in range(1, grey.shape[1] // 2 + 1)], axis=1)


def scales(size: int) -> np.ndarray:
    """Rings of :func:`power` between half an image and two beams, as indices."""
    periods = np.arange(1, size // 2 + 1)
    return np.flatnonzero((periods >= 2) & (size / periods >= 2 * BEAM))


def _network() -> nn.Sequential:
    """(N, 1, 32, 32) in 0 … 1 to (N, 1) logits of being real."""

    def block(before, after, stride):
        return nn.Conv2d(before, after, 3, stride, 1), nn.GELU()

    return nn.Sequential(
        *block(1, 32, 1),
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


def _by_network(real: np.ndarray, made: np.ndarray, asked: np.ndarray, epochs: int) -> np.ndarray:
    """What a small network that was shown ``real`` and ``made`` says of ``asked``, all (·, H, W): higher is more real."""
    pixels = torch.from_numpy(np.concatenate([real, made])[:, None]).float() / 255
    target = torch.cat([torch.ones(len(real)), torch.zeros(len(made))])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = _network()
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        steps = epochs * math.ceil(len(pixels) / 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
        for _ in range(epochs):
            for rows in torch.randperm(len(pixels)).split(64):
                sides = [axis for axis in (2, 3) if torch.rand(()) < 0.5]
                logits = model(pixels[rows].flip(sides))[:, 0]
                loss = F.binary_cross_entropy_with_logits(logits, target[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        model.eval()
        with torch.no_grad():
            return model(torch.from_numpy(asked[:, None]).float() / 255)[:, 0].numpy()


def described(grey: np.ndarray) -> np.ndarray:
    """Images (N, H, W) as the numbers a forest sees: the six properties and the logarithm of the power spectrum."""
    return np.column_stack([*properties(grey).values(), np.log(power(grey) + 1e-9)])


def by_forest(real: np.ndarray, made: np.ndarray, asked: np.ndarray, trees: int = 300) -> np.ndarray:
    """Probability, (·,), that ``asked`` are real, from a random forest taught with ``real`` and ``made`` as :func:`described`."""
    forest = RandomForestClassifier(trees, min_samples_leaf=3, random_state=0, n_jobs=-1)
    forest.fit(np.vstack([described(real), described(made)]), np.r_[np.ones(len(real)), np.zeros(len(made))])
    return forest.predict_proba(described(asked))[:, 1]


def interval(statistic, *arrays: np.ndarray, rounds: int = 200) -> list[float]:
    """A statistic of arrays (N, …), and the middle 95 % of what it is when the rows of each are drawn with replacement."""
    rng = np.random.default_rng(0)
    drawn = [statistic(*(a[rng.integers(len(a), size=len(a))] for a in arrays)) for _ in range(rounds)]
    return [float(statistic(*arrays)), *map(float, np.percentile(drawn, (2.5, 97.5)))]


def _of_sources(values: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Values (M, …) as (sources, most, …): images of one source stay together when sources are drawn; NaN where there are fewer."""
    count = np.bincount(source)
    order = np.argsort(source, kind="stable")
    place = np.concatenate([np.arange(n) for n in count])
    grouped = np.full((len(count), count.max(), *values.shape[1:]), np.nan)
    grouped[source[order], place] = values[order]
    return grouped


def apart(taught: tuple, held_out: np.ndarray, source: np.ndarray, made: np.ndarray, epochs: int = 12) -> dict:
    """How well real and generated images are told apart, by a network and by a forest: ROC-AUC and its 95 % interval.

    Parameters
    ----------
    taught
        Real training images and generated images, each (·, H, W), to teach the classifiers with.
    held_out, source
        Real images (M, H, W) of sources that nothing has seen, and the source of each.
    made
        Generated images other than those taught.
    """
    asked, found = np.concatenate([held_out, made]), {}
    for name, said in (("network", _by_network(*taught, asked, epochs)), ("forest", by_forest(*taught, asked))):
        real, new = _of_sources(said[: len(source)], source), said[len(source) :]
        found[name] = interval(auc, real, new)
    return found


def auc(high: np.ndarray, low: np.ndarray) -> float:
    """ROC-AUC of scores that should be high, of any shape, NaN left out, and of others (M,) that should be low."""
    high = high[np.isfinite(high)]
    return roc_auc_score(np.r_[np.ones(len(high)), np.zeros(len(low))], np.r_[high, low])


def nearest(made: np.ndarray, training: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of each image (N, H, W) to the nearest of ``training`` (M, H, W), in grey levels (rms), and its row.

    All four mirrored views of the training images count.
    """
    flipped = [training, training[:, ::-1], training[:, :, ::-1], training[:, ::-1, ::-1]]
    known = np.concatenate(flipped).reshape(4 * len(training), -1).astype(np.float32)
    distance, row = (
        NearestNeighbors(n_neighbors=1, algorithm="brute")
        .fit(known)
        .kneighbors(made.reshape(len(made), -1).astype(np.float32))
    )
    return distance[:, 0] / math.sqrt(known.shape[1]), row[:, 0] % len(training)


def _manifold(real: np.ndarray, made: np.ndarray, k: int = 5) -> tuple[float, float]:
    """Precision and coverage of codes (·, D): made among the real ones, real ones with a made one in their neighbourhood."""
    radius = NearestNeighbors(n_neighbors=k + 1).fit(real).kneighbors(real)[0][:, -1]
    distance = np.sqrt(np.maximum((real**2).sum(1)[:, None] + (made**2).sum(1) - 2 * real @ made.T, 0))
    within = distance <= radius[:, None]
    return float(within.any(axis=0).mean()), float(within.any(axis=1).mean())


def class_score(probability: np.ndarray) -> float:
    """Exponential of the mean divergence of p(class | image) from its mean, from probabilities of FRII (N,)."""
    each = np.stack([probability, 1 - probability]).clip(1e-6)
    return float(np.exp((each * np.log(each / each.mean(axis=1, keepdims=True))).sum(0).mean()))


def compare(held_out: np.ndarray, source: np.ndarray, made: np.ndarray, training: np.ndarray, encode, classify) -> dict:
    """All that does not need a trained judge.

    Parameters
    ----------
    held_out, source
        Real images (M, H, W) and the source of each, (M,).
    made
        Generated images (N, H, W).
    training
        Images that the model was trained with, to look for copies of.
    encode, classify
        Functions from images to codes of another encoder (·, D), and to probabilities of FRII (·,).
    """
    real, new = properties(held_out), properties(made)
    found = {"properties": {}}
    for name in PROPERTIES:
        distance = stats.energy_distance(real[name], new[name]) / math.sqrt(real[name].std())
        found["properties"][name] = {
            "ks": float(stats.ks_2samp(real[name], new[name]).statistic),
            "energy": float(distance),
            "quantiles": quantiles(new[name]),
        }
    grouped = _of_sources(power(held_out), source)
    found["power"] = np.array(
        [
            interval(lambda a, b: b.mean() / np.nanmean(a), grouped[:, :, k], column)
            for k, column in enumerate(power(made).T)
        ]
    ).tolist()
    levels = [np.bincount(grey.ravel() // 8, minlength=32) / grey.size for grey in (held_out, made)]
    found["grey_levels"] = float(np.abs(levels[0] - levels[1]).sum() / 2)
    found["precision"], found["coverage"] = _manifold(encode(held_out), encode(made))
    found["class_score"] = class_score(classify(made))
    own, _ = nearest(held_out, training)
    closest, _ = nearest(made, training)
    found["nearest"] = {"median": float(np.median(closest)), "real": float(np.median(own))}
    found["nearest"]["closer_than_1_percent"] = float((closest < np.percentile(own, 1)).mean())
    return found

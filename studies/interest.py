"""Does the likelihood find the galaxies that a person finds interesting, and how many scores of that person help?

A radio astronomer scored 544 MeerKAT sources from 1 to 5 by how interesting they look (Lochner & Rudnick 2024,
arXiv:2411.04188). The pictures are for evaluation alone: network, density and regression were made and chosen without
them, with anomalies injected into FIRST galaxies and with unusual galaxies of the catalogues.

Each picture shows the box around one source, stretched to one width and saturated. Here it is brought to pixels of 1.8″
such that the beam is as wide as that of FIRST, or to the width of the circle that a code covers, if that is less, and
clipped at three times the rms of the sky. After the scores had been seen once, this clipping replaced a lower one that
left noise in most pictures, and the mean rank was added; the regression with the width was added after the second look.
At the third, a ridge regression chosen on FIRST galaxies was worse than the Gaussian process, which was kept.

*Unsupervised* rankings use no scores; in the *active* mode (:mod:`rgz.tasks.rank`) some are given, drawn at random or
as proposed, and the other galaxies are ranked. *Interesting* is a score of 4 or 5.
"""

from itertools import product
from typing import Any

import h5py
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import stats
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import average_precision_score

from rgz import artifacts
from rgz.data import datasets, fetch
from rgz.data.cutout import Cutout
from rgz.features import codes as codefile
from rgz.features.embed import Encoder
from rgz.models.flow import FlowEnsemble
from rgz.tasks import inspect, rank
from rgz.transforms import fields
from rgz.transforms.prepare import lengths
from studies import metrics, results
from studies.results import Row, tidy

MEERKAT = "meerkat_interest.h5"
PIXEL, BEAM = 1.25, 8.0  # arcsec, of MeerKAT
FIRST_BEAM = 5.4  # arcsec
WIDEST = round(2 * fields.RADIUS / datasets.FIRST_PIXEL)  # pixels
GREYS = 5, 153  # least and largest threshold, of 255: the faintest source that is accepted peaks at 5/3 of it
NOWHERE = (np.nan, np.nan)
INTERESTING, TOP = 4, 50
GIVEN, STEP, SEEDS = (30, 100), 10, 20
PLAIN = ("length", "area", "S/N")
DENSITY, SIZE, PUBLISHED, ACTIVE = "−log-likelihood", "width of the box", "published, after 400 scores", "regression"
BOTH = f"{DENSITY} and {SIZE}, mean rank"
METRICS = "auc", "average_precision", "recall_top_50"


def sources() -> tuple[list[Cutout], dict[str, NDArray[Any]]]:
    """Clipped fields of the MeerKAT sources, and their other columns; :class:`rgz.errors.BadInput` if not here."""
    with h5py.File(fetch.fetch(MEERKAT)) as file:
        images = file["images"][()].astype(np.float32)
        table = {name: file[name][()] for name in ("score", "obj_size_pixels", "peak_flux", "protege_score")}
    cutouts = []
    for number, (image, size) in enumerate(zip(images, table["obj_size_pixels"], strict=True)):
        wanted = size * PIXEL * FIRST_BEAM / BEAM / datasets.FIRST_PIXEL
        width = min(round(wanted), WIDEST)
        grey = F.interpolate(torch.from_numpy(image)[None, None], (width, width), mode="area")[0, 0].numpy()
        limit = np.clip(3 * _rms(grey, float((image < 1).mean())), *GREYS)
        before = (WIDEST - width) // 2
        field = np.pad(np.where(grey >= limit, grey, 0), (before, WIDEST - width - before))
        beam = FIRST_BEAM * min(1, WIDEST / wanted)
        cutouts.append(Cutout(f"meerkat-{number:03d}", field, datasets.FIRST_PIXEL, NOWHERE, np.nan, 0, (), beam))
    return cutouts, table


def _rms(grey: NDArray[Any], black: float) -> float:
    """Noise of a picture in which what is below the sky is black, a fraction ``black`` of its pixels.

    As many pixels of the sky are as far above it: of them, half of a Gaussian, the median is 0.67 rms.
    """
    count = round(black * grey.size)
    above = np.sort(grey, axis=None)[count : 2 * count]
    return float(np.median(above) / stats.norm.ppf(0.75)) if len(above) else 0.0


def plain(cutouts: list[Cutout]) -> NDArray[np.float64]:
    """Logarithms of length (beams), area over that of a point, and S/N, (N, 3)."""
    rows = []
    for one in cutouts:
        beam = one.beam if np.isfinite(one.beam) else FIRST_BEAM
        (length,) = lengths(one.pixels[None], one.pixel)
        rows.append((length / beam, inspect.area(one), inspect.signal_to_noise(one)))
    return np.log(rows)


def catalogued() -> tuple[NDArray[Any], NDArray[Any]]:
    """Codes and plain numbers of the Radio Galaxy Dataset."""
    table, codes, _ = codefile.read_codes(None, "rgd")
    sample = datasets.load_dataset("rgd").named(table["name"])
    middle = fields.crop(sample.images, 2 * WIDEST).astype(np.float32)
    cutouts = [Cutout("", one, sample.pixel, NOWHERE, np.nan, 0, ()) for one in middle]
    return codes.astype(float), plain(cutouts)


def quality(odd: NDArray[np.bool_], score: NDArray[Any]) -> dict[str, float]:
    """ROC-AUC, average precision and recall in the top 50 of scores (N,) for interesting galaxies (N,)."""
    first = np.argsort(-score, kind="stable")[:TOP]
    values = metrics.auc(score[odd], score[~odd]), average_precision_score(odd, score), odd[first].sum() / odd.sum()
    return dict(zip(METRICS, map(float, values), strict=True))


def unsupervised(codes: NDArray[Any], numbers: NDArray[Any], flows: FlowEnsemble) -> dict[str, NDArray[Any]]:
    """Scores (N,) of codes (N, D) and plain numbers (N, 3) that need no person."""
    known, measured = catalogued()
    below = -flows.score_samples(codes)
    found = {DENSITY: below}
    for used in (PLAIN[:1], PLAIN):
        columns = [PLAIN.index(name) for name in used]
        powers, asked = (np.hstack([rows[:, columns], rows[:, columns] ** 2]) for rows in (measured, numbers))
        usual = LinearRegression().fit(powers, -flows.score_samples(known))
        found[f"{DENSITY}, relative to {', '.join(used)}"] = below - usual.predict(asked)
    forest = IsolationForest(n_estimators=300, random_state=0).fit(flows.whitened(known))
    return found | {"isolation forest": -forest.score_samples(flows.whitened(codes))}


def active(x: NDArray[Any], nats: NDArray[Any], score: NDArray[Any], count: int, proposed: bool, seed: int) -> Row:
    """How well the galaxies without a score are ranked, if ``count`` have one, and the share of all that is found."""
    known = np.full(len(score), np.nan)
    start = np.random.default_rng(seed).permutation(len(score))[: STEP if proposed else count]
    known[start] = score[start]
    while np.isfinite(known).sum() < count:
        more = rank.propose(x, nats, known, STEP, seed)
        known[more] = score[more]
    rest, odd = ~np.isfinite(known), score >= INTERESTING
    found: Row = {"found": float(odd[~rest].sum() / odd.sum())}
    return found | quality(odd[rest], rank.predict(x, known)[rest])


def of_ways(odd: NDArray[np.bool_], ways: dict[str, NDArray[Any]]) -> list[Row]:
    """Rows of the quality of scores (N,) that use none of the person's, with intervals."""
    rows = []
    for way, score in ways.items():
        both = np.column_stack([odd, score])

        def measured(metric: str, both: NDArray[Any] = both) -> list[float]:
            return metrics.interval(lambda drawn: quality(drawn[:, 0] > 0, drawn[:, 1])[metric], both)

        about: Row = {"way": way, "galaxies": len(odd), "interesting": int(odd.sum())}
        rows += tidy(about, {name: measured(name) for name in METRICS})
    return rows


def of_person(x: dict[str, NDArray[Any]], nats: NDArray[Any], score: NDArray[Any]) -> list[Row]:
    """Rows of the quality of regressions, by their features (N, K): means, and 95 % of the draws."""
    rows = []
    for way, values in x.items():
        for count, proposed in product(GIVEN, (False, True)):
            each = [active(values, nats, score, count, proposed, seed) for seed in range(SEEDS)]
            about: Row = {"way": way, "given": count, "chosen": "proposed" if proposed else "at random"}
            columns = {name: [one[name] for one in each] for name in each[0]}
            spread = {name: [float(np.mean(one)), *np.percentile(one, (2.5, 97.5))] for name, one in columns.items()}
            rows += tidy(about | {"galaxies": len(score) - count}, spread)
    return rows


def main() -> None:
    """Compute and write ``results/interest.csv``; two minutes on one core."""
    files = [artifacts.artifact(name) for name in ("vdvae.safetensors", "codes.h5", "density.safetensors")]
    cutouts, table = sources()
    codes, numbers = Encoder.from_pretrained().transform(cutouts).astype(float), plain(cutouts)
    ways = unsupervised(codes, numbers, FlowEnsemble.from_pretrained())
    size = table["obj_size_pixels"]
    ways[BOTH] = stats.rankdata(ways[DENSITY]) + stats.rankdata(size)
    ways |= {SIZE: size, "peak flux": table["peak_flux"], PUBLISHED: table["protege_score"]}
    nats, score = -ways[DENSITY], table["score"].astype(float)
    inputs, half = np.column_stack([numbers[:, 1:], nats]), codes.shape[1]
    x = rank.features(codes, inputs)
    features = {ACTIVE: x, f"{ACTIVE}, codes": x[:, :half], f"{ACTIVE}, plain numbers": x[:, half:]}
    features[f"{ACTIVE}, with {SIZE}"] = rank.features(codes, np.column_stack([inputs, size]))
    rows = of_ways(score >= INTERESTING, ways) + of_person(features, nats, score)
    results.write("interest", rows, files)


if __name__ == "__main__":
    results.run(main)

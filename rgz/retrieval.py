"""Does the search find what it should?

Three questions, for codes and for what needs no network. *The same galaxy*, as another archive prepared its image: is it found
first? *The galaxy itself*, turned, mirrored, moved or drowned in noise: does it find itself? *Its kind*: are the ten nearest
galaxies of its class? And one across surveys: is what NVSS saw found from what FIRST saw? Answers that a search must not
be praised for, the queried source itself among them, are left out of the last two.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from scipy import ndimage

from rgz import altered, compared, images, latents, readers, similar
from rgz.classify import confident
from rgz.fields import SAME_SOURCE
from rgz.readers import FIRST_PIXEL, NVSS_PIXEL
from rgz.sample import Sample, prepared, usable
from rgz.vdvae import VDVAE

__all__ = [
    "ALTERED",
    "CODES",
    "COMPONENTS",
    "PAIRS",
    "TOGETHER",
    "alter",
    "bars",
    "columns",
    "hits",
    "kin",
    "measure",
    "ranked",
    "same_sky",
    "seen_twice",
    "share",
    "study",
    "table",
]

ALTERED: dict[str, Callable] = {
    "turned": altered.turned,
    "mirrored": altered.mirrored,
    "shifted": altered.shifted,
    "noise, peak at 5 σ": lambda image, rng: altered.observed_again(image, rng, (5, 5)),
}
"""Name of an alteration to what does it."""

PAIRS = (
    ("mirabest", "mirabest"),
    ("rgd", "rgd"),
    ("mirabest", "rgd"),
    ("rgd", "mirabest"),
    ("mirabest", "frdeep-first"),
    ("mirabest", "frdeep-nvss"),
    ("frdeep-nvss", "mirabest"),
)
"""Sample of the queries and sample that is searched, for the question of kind."""

TITLES = {"mirabest": "MiraBest", "rgd": "RGD", "frdeep-first": "FR-DEEP FIRST", "frdeep-nvss": "FR-DEEP NVSS"}
SEED = 0
QUERIES = 300  # galaxies drawn at random that are altered and have to find themselves


def share(found: np.ndarray, draws: int = 1000) -> list[float]:
    """Mean of values (N,), one a query, with its 95 % interval over queries drawn with replacement: ``[value, low, high]``."""
    drawn = np.random.default_rng(SEED).choice(np.asarray(found, dtype=float), (draws, len(found))).mean(axis=1)
    return [float(np.mean(found)), *(float(v) for v in np.percentile(drawn, (2.5, 97.5)))]


def same_sky(table: Table, other: Table, arcsec: float = similar.SAME) -> np.ndarray:
    """Which rows of two tables are one galaxy, (N, M): the same object, or places at most ``arcsec`` apart."""
    one, two = (np.asarray(t["object"])[:, None] for t in (table, other))
    same = (one == two.T) & (one != "")
    known, targets = (np.flatnonzero(np.isfinite(np.asarray(t["ra"], float))) for t in (table, other))
    if len(known) and len(targets):
        here, there = (
            SkyCoord(t["ra"][rows], t["dec"][rows], unit="deg") for t, rows in ((table, known), (other, targets))
        )
        row, column, _, _ = there.search_around_sky(here, arcsec * u.arcsec)
        same[known[row], targets[column]] = True
    return same


def ranked(queries: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Rows of placed targets (M, K) from the nearest to the farthest, for each placed query (Q, K); (Q, M)."""
    score = queries.astype(float) @ targets.T.astype(float) - 0.5 * (targets.astype(float) ** 2).sum(axis=1)
    return np.argsort(-score, axis=1, kind="stable")


def hits(order: np.ndarray, right: np.ndarray, k: int) -> np.ndarray:
    """Whether one of the first ``k`` rows of each order (Q, M) is right (Q, M)."""
    return np.take_along_axis(right, order[:, :k], axis=1).any(axis=1)


def kin(order: np.ndarray, apart: np.ndarray, label: np.ndarray, of_target: np.ndarray, k: int = 10) -> np.ndarray:
    """Share of each query's ``k`` nearest targets that have its label, (Q,), among those that are ``apart`` from it (Q, M)."""
    found = np.empty(len(order))
    for query, (rows, other) in enumerate(zip(order, apart, strict=True)):
        found[query] = (of_target[rows[other[rows]][:k]] == label[query]).mean()
    return found


def measure(table: Table, vectors: np.ndarray, changed: dict[str, tuple[np.ndarray, np.ndarray]]) -> dict:
    """Answers to all questions for galaxies in a table, described by placed vectors (N, K).

    Parameters
    ----------
    changed
        Name of an alteration to the rows that were altered and their placed vectors.

    Returns
    -------
    dict
        ``same``, ``itself``, ``kind`` and ``surveys``: name of each question to :func:`share`; for ``same`` and ``surveys``, one
        list for the first answer and one for the first ten.
    """
    sample = np.asarray(table["sample"])
    rows = {name: np.flatnonzero(sample == name) for name in dict.fromkeys(sample)}
    found: dict[str, dict] = {"same": {}, "itself": {}, "kind": {}, "surveys": {}}
    for question, arcsec, one, two in (
        ("same", SAME_SOURCE, "mirabest", "rgd"),
        ("same", SAME_SOURCE, "rgd", "mirabest"),
        ("surveys", SAME_SOURCE, "frdeep-first", "frdeep-nvss"),
        ("surveys", SAME_SOURCE, "frdeep-nvss", "frdeep-first"),
    ):
        right = same_sky(table[rows[one]], table[rows[two]], arcsec)
        asked = right.any(axis=1)
        order = ranked(vectors[rows[one]][asked], vectors[rows[two]])
        found[question][f"{one} → {two}"] = [share(hits(order, right[asked], k)) for k in (1, 10)]
    for name, (of, placed) in changed.items():
        right = same_sky(table[of], table)
        right[np.arange(len(of)), of] = True
        found["itself"][name] = share(hits(ranked(placed, vectors), right, 1))
    for one, two in PAIRS:
        asked, targets = (rows[name][confident(table[rows[name]])] for name in (one, two))
        apart = ~same_sky(table[asked], table[targets])
        apart &= asked[:, None] != targets
        label = np.asarray(table["label"])
        order = ranked(vectors[asked], vectors[targets])
        found["kind"][f"{one} → {two}"] = share(kin(order, apart, label[asked], label[targets]))
    return found


def alter(sample: Sample, kind: str, recipe: images.Recipe) -> tuple[np.ndarray, Sample]:
    """Rows of a sample that can still be prepared after an alteration, and a sample of the altered images."""
    rng = np.random.default_rng((SEED, *kind.encode()))
    changed = replace(sample, images=np.stack([ALTERED[kind](image, rng) for image in sample.images]))
    kept = usable(changed, recipe)
    return np.flatnonzero(kept), changed[kept]


def seen_twice(first: Sample, nvss: Sample) -> dict:
    """Do the archives' numbers tell which FIRST and NVSS image show one galaxy? Checked on the images.

    FIRST's images are brought to the beam and the pixels of NVSS; what all sources share, a point with its beam, is taken
    off both; then each image asks which of the other survey correlates best with it, allowing for one pixel of shift.

    Returns
    -------
    dict
        ``pairs`` that share a number; ``mutual``, images that choose each other; ``agree``, the share of those that share a
        number too; ``chance``, what that share would be if choices were blind.
    """
    sigma = np.sqrt(45.0**2 - 5.4**2) / np.sqrt(8 * np.log(2)) / FIRST_PIXEL
    size = int(first.images.shape[1] * FIRST_PIXEL / NVSS_PIXEL)
    grid = (np.arange(size) - (size - 1) / 2) * NVSS_PIXEL / FIRST_PIXEL + (first.images.shape[1] - 1) / 2
    coarse = np.stack(
        [
            ndimage.map_coordinates(
                ndimage.gaussian_filter(image.astype(float), sigma), np.meshgrid(grid, grid, indexing="ij"), order=1
            )
            for image in first.images
        ]
    )

    def flat(pictures):
        whole = pictures.reshape(len(pictures), -1)
        whole = whole / np.maximum(np.linalg.norm(whole, axis=1, keepdims=True), 1)  # an image may be blank
        rest = whole - whole.mean(axis=0)
        return rest / np.linalg.norm(rest, axis=1, keepdims=True)

    alike = np.full((len(first), len(nvss)), -np.inf)
    for step in np.ndindex(3, 3):
        moved = np.roll(nvss.images.astype(float), np.array(step) - 1, axis=(1, 2))
        alike = np.maximum(alike, flat(coarse) @ flat(images.crop(moved, size)).T)
    best, chosen = alike.argmax(axis=1), alike.argmax(axis=0)
    mutual = np.flatnonzero(chosen[best] == np.arange(len(first)))
    here, there = np.asarray(first.table["object"]), np.asarray(nvss.table["object"])
    pairs = here[:, None] == there
    return {
        "pairs": int(pairs.any(axis=1).sum()),
        "mutual": len(mutual),
        "agree": float((here[mutual] == there[best[mutual]]).mean()),
        "chance": float(pairs.sum() / pairs.size),
    }


SPACES = {
    "as they are": similar.plain,
    "whitened": similar.whitened,
}
CODES, COMPONENTS, TOGETHER = "VDVAE codes", "PCA of the same views", "VDVAE codes and components"


def _plainly(values: np.ndarray, names: Sequence[str] = tuple(SPACES)) -> dict[str, similar.Space]:
    """Spaces of values (N, D) that are not learned, by angle and by distance."""
    return {
        f"{name}, {title}": SPACES[name](values, cosine)
        for name in names
        for cosine, title in ((True, "cosine"), (False, "Euclidean"))
    }


def _tolerant(space: similar.Space) -> dict[str, similar.Space]:
    return {
        f"tolerant, {title}": replace(space, cosine=cosine)
        for cosine, title in ((True, "cosine"), (False, "Euclidean"))
    }


def study(model: VDVAE, recipe: images.Recipe, path: Path, training: Sample) -> dict:
    """All questions of :func:`measure`, for codes in each space, and for components and pixels of the same images.

    Components are those of the posed images of all samples, as many as the code has latents, pooled over the same views, and their
    space tolerates what that of the codes does. The survey images have to be at hand.

    Parameters
    ----------
    path
        The codes file.
    training
        Training images, to learn tolerance from.

    Returns
    -------
    dict
        ``rows``, each ``features``, ``space``, ``dimensions`` and what :func:`measure` found; ``seen_twice``; ``altered``, how
        many images of each kind of alteration could still be prepared.
    """
    (table, whole, space), chosen = compared.for_search(path), latents.chosen(path)
    samples = {name: readers.load(name) for name in readers.SAMPLES}
    kept = {name: one.named(table["name"][table["sample"] == name]) for name, one in samples.items()}
    drawn = np.sort(np.random.default_rng(SEED).permutation(len(kept["mirabest"]))[:QUERIES])
    changed = {}
    for kind in ALTERED:
        rows, sample = alter(kept["mirabest"][drawn], kind, recipe)
        changed[kind] = np.flatnonzero(table["sample"] == "mirabest")[drawn[rows]], sample

    def asked(title: str, values: np.ndarray, after: dict[str, np.ndarray], spaces: dict[str, similar.Space]):
        for name, one in spaces.items():
            placed = {kind: (changed[kind][0], one.place(value)) for kind, value in after.items()}
            about = {"features": title, "space": name, "dimensions": one.matrix.shape[1]}
            yield about | measure(table, one.place(values), placed)

    basis, alone = latents.read_space(compared.BASIS, path), compared.alone(chosen)
    shown = {kind: compared.shown(recipe, one) for kind, (_, one) in changed.items()}
    codes = {kind: compared.codes(model, views, chosen) for kind, views in shown.items()}
    after = {kind: np.hstack([code, compared.components(shown[kind], basis)]) for kind, code in codes.items()}
    found = list(asked(TOGETHER, whole, after, _tolerant(space)))
    spaces = _plainly(whole[:, :alone]) | _tolerant(latents.read_space(compared.ALONE, path))
    found += asked(CODES, whole[:, :alone], codes, spaces)

    pixels = np.concatenate([prepared(one, recipe) for one in kept.values()])
    own_basis = compared.principal(pixels, len(chosen))

    def components(one: Sample) -> np.ndarray:
        return compared.components(compared.shown(recipe, one), own_basis)

    values = np.concatenate([components(one) for one in kept.values()])
    learned = compared.space(values, compared.changes(components, recipe, training), 0)
    after = {kind: compared.components(views, own_basis) for kind, views in shown.items()}
    found += asked(COMPONENTS, values, after, _plainly(values) | _tolerant(learned))

    def altered_by(described: Callable[[Sample], np.ndarray]) -> dict[str, np.ndarray]:
        return {kind: described(one) for kind, (_, one) in changed.items()}

    def flat(one: Sample) -> np.ndarray:
        return prepared(one, recipe).reshape(len(one), -1).astype(np.float32)

    values = pixels.reshape(len(table), -1).astype(np.float32)
    found += asked("pixels, posed", values, altered_by(flat), _plainly(values, ("as they are",)))

    def as_they_lie(one: Sample) -> np.ndarray:
        return np.stack([_on_the_sky(image, one.pixel, recipe) for image in one.images]).reshape(len(one), -1)

    values = np.concatenate([as_they_lie(one) for one in kept.values()])
    found += asked("pixels, as they lie", values, altered_by(as_they_lie), _plainly(values, ("as they are",)))
    return {
        "rows": found,
        "altered": {kind: len(of) for kind, (of, _) in changed.items()},
        "seen_twice": seen_twice(samples["frdeep-first"], samples["frdeep-nvss"]),
    }


def _on_the_sky(image: np.ndarray, pixel: float, recipe: images.Recipe) -> np.ndarray:
    """The middle of a clipped field, not posed, 115″ wide, stretched as the network's images are; float32."""
    scale = 2 * recipe.radius / recipe.size / pixel
    square = images.render(images.smooth(np.asarray(image, float), scale), images.Pose(), recipe.size, scale)
    return images.stretch(square).astype(np.float32) if square.any() else np.zeros((recipe.size,) * 2, np.float32)


def columns(found: dict) -> dict[str, list]:
    """A :func:`study` as columns of text: shares of right answers, each with its 95 % interval."""
    rows = found["rows"]
    shown = {"features": [row["features"] for row in rows], "compared": [row["space"] for row in rows]}

    def cell(three):
        return "{:.3f} ({:.3f}–{:.3f})".format(*three)

    for name in rows[0]["same"]:
        shown[f"same galaxy first, {_titled(name)}"] = [cell(row["same"][name][0]) for row in rows]
    for name in rows[0]["itself"]:
        shown[f"finds itself, {name}"] = [cell(row["itself"][name]) for row in rows]
    for name in rows[0]["kind"]:
        shown[f"same class in ten, {_titled(name)}"] = [cell(row["kind"][name]) for row in rows]
    for name in rows[0]["surveys"]:
        shown[f"same object in ten, {_titled(name)}"] = [cell(row["surveys"][name][1]) for row in rows]
    return shown


def _titled(pair: str) -> str:
    return " → ".join(TITLES.get(name, name) for name in pair.split(" → "))


def table(found: dict) -> str:
    """A :func:`study` as plain text, one block a question."""
    shown = columns(found)
    kinds = [f"{features}, {compared}" for features, compared in zip(shown["features"], shown["compared"], strict=True)]
    lines = []
    for question, answers in list(shown.items())[2:]:
        lines += [question, *(f"    {kind:48}{answer}" for kind, answer in zip(kinds, answers, strict=True)), ""]
    return "\n".join(lines)


def bars(found: dict, question: str) -> dict[str, dict[str, list[float]]]:
    """Answers of a :func:`study` to one question, for :func:`rgz.plots.dots`: ``[value, half of the interval]``.

    One group for each kind of features, as they are and in a tolerant space, by angle; of ``same`` and ``surveys`` the
    first answers.
    """
    groups = {}
    for row in found["rows"]:
        space, by = row["space"].split(", ")
        if space != "whitened" and by == "cosine":
            group = groups[f"{row['features']}, {space}"] = {}
            for name, three in row[question].items():
                value, low, high = three[0] if isinstance(three[0], list) else three
                group[_titled(name)] = [value, (high - low) / 2]
    return groups

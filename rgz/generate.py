r"""New galaxies: drawn from a density of codes, drawn about a real one, or on the way from one to another.

To draw a galaxy the decoder walks up and takes each block's latents from its prior, :math:`z_i \sim p(z_i \mid z_{<i})`. A network
whose rate weighs little in training has codes that stray from that prior, so a masked autoregressive flow
(:mod:`rgz.density`) learns where they are. The *aggregate posterior* :math:`q(z) = \mathbb{E}_x\, q(z \mid x)` is the prior
that costs the least rate (Tomczak & Welling 2018, arXiv:1705.07120), and codes drawn from it are decoded. A
*temperature* below one narrows what is drawn from, a *truncation* cuts off its tails: what comes out is more ordinary, and less
varied. The latents of the first blocks of a real galaxy can be kept while the later ones are drawn anew. Between two galaxies lie
the codes on the straight line between their own.

A decoder's mean image is smoother than any photograph: what a code does not say is averaged away. So the grey levels of a drawn
galaxy are drawn too, each from its mixture, neighbours alike, as a beam makes them.

Prepared images have their peak at grey level 255 by construction; a generated image is brought there too. A blank one is no
galaxy, and is drawn again.
"""

import math
from pathlib import Path

import h5py
import numpy as np
import torch
from astropy.io import fits
from PIL import Image
from torch import nn

from rgz import augment, fetch, images, latents, paths, plots
from rgz.density import MEMBERS, Config, Density, first_fold, fit_flow, load, whitening
from rgz.errors import BadInput
from rgz.likelihood import mixture_sample
from rgz.progress import progress
from rgz.sample import CHECKED, Sample
from rgz.vdvae import VDVAE

__all__ = ["between", "check_ending", "full_peak", "load_prior", "new", "painted", "prior", "redrawn", "write"]

BATCH = 128
SHOWN = 32768  # images whose codes a flow is fitted to
PRIOR = Config(
    kept=128, layers=5, hidden=256, blocks=1, dropout=0.0, decay=1e-4, learning_rate=3e-3, batch=512, epochs=40
)
MOST = 4096  # latents of a model whose codes can be whitened in memory
BLANK = 10  # draws for one galaxy at which to give up
GRAIN = 0.9  # pixels, σ: reconstructed training images are then hardest to tell from others; about FIRST's beam in a middling pixel


def full_peak(grey: np.ndarray) -> np.ndarray:
    """Images (N, H, W) brought to a peak of 255, uint8, the last step of :func:`rgz.images.stretch`; black ones stay black."""
    peak = np.asarray(grey, dtype=float).max((1, 2), keepdims=True)
    return np.rint(255 * np.divide(grey, peak, out=np.zeros(grey.shape), where=peak > 0)).astype(np.uint8)


def new(
    model: VDVAE,
    count: int,
    temperature: float = 1.0,
    truncation: float = math.inf,
    seed: int = 0,
    flow: Density | None = None,
) -> np.ndarray:
    """Galaxies that nobody has seen, (count, H, W) uint8.

    Parameters
    ----------
    temperature, truncation
        As of :meth:`rgz.vdvae.VDVAE.sample`, or of :meth:`rgz.density.Flow.draw`.
    flow
        What full codes are drawn from, made by :func:`prior`; without it latents are drawn from the model's own priors.

    Raises
    ------
    BadInput
        The count is below one, or temperature or truncation is not positive.
    """
    if count < 1 or not (0 < temperature < math.inf) or not truncation > 0:
        raise BadInput(
            f"count, temperature and truncation are positive numbers; they are {count}, {temperature}, {truncation}"
        )

    def draw() -> np.ndarray:
        if flow is None:
            return model.sample(BATCH, temperature, truncation, GRAIN)[:, 0].numpy()
        return painted(model, flow.draw(BATCH, temperature, truncation))

    kept, drawn = np.zeros((0, model.config.size, model.config.size), np.uint8), 0
    bar = progress(total=count, desc="drawing galaxies", unit="galaxy")
    with torch.random.fork_rng(devices=[]), bar:
        torch.manual_seed(seed)
        while len(kept) < count:
            grey = draw()
            kept, drawn = np.concatenate([kept, grey[grey.any((1, 2))]]), drawn + BATCH
            if len(kept) < count and drawn >= BLANK * max(BATCH, len(kept)):
                raise BadInput("this model draws hardly anything but blank images: train it longer")
            bar.update(min(len(kept), count) - bar.n)
    return full_peak(kept[:count])


@torch.no_grad()
def painted(model: nn.Module, codes: np.ndarray, grain: float = GRAIN) -> np.ndarray:
    """Images (N, H, W) uint8 of full codes (N, dimensions), their grey levels drawn by noise as smooth as ``grain`` pixels (σ)."""
    parts = torch.from_numpy(np.asarray(codes, dtype=np.float32)).split(BATCH)
    return torch.cat([mixture_sample(model.mixture(part), grain) for part in parts])[:, 0].numpy()


def prior(model: VDVAE, recipe: images.Recipe, sources: Sample, groups: np.ndarray, config: Config = PRIOR) -> Density:
    """A flow over the model's full codes, drawn from the posteriors of training images as training shows them.

    ``groups`` (N,) says which of the N sources stay together: a fifth of them is held out to stop the flow.

    Raises
    ------
    BadInput
        The model has thousands of latents, or there are fewer than five groups.
    """
    if model.dimensions > MOST:
        raise BadInput(f"a model with {model.dimensions} latents has too many for a flow: its own prior draws galaxies")
    if len(set(groups)) < MEMBERS:
        raise BadInput(
            f"a fifth of the sources is held out, by square degrees; these lie in {len(set(groups))} of them"
        )
    taught, asked = first_fold(groups)
    drawn = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for rows, count in ((taught, SHOWN), (asked, SHOWN // 8)):
            grey = augment.batches(sources[rows], recipe, count, 0)(0)[:, 0].numpy()
            drawn.append(latents.full_codes(model, grey, drawn=True)[0].astype(float))
    centre, matrix = whitening(drawn[0], config.kept)
    flow, _ = fit_flow(*((codes - centre) @ matrix for codes in drawn), config)
    return Density(config, centre, matrix, (flow,), np.zeros(0))


def load_prior(path: Path, weights: Path) -> Density:
    """The flow of a file written by ``rgz prior``.

    Raises
    ------
    BadInput
        It is damaged, or was fitted to the codes of other weights.
    """
    flow, about = load(path)
    if about.get("weights_sha256") != fetch.sha256(weights):
        raise BadInput(
            f"{path} was fitted to the codes of other weights than {weights}: rgz prior --weights fits it anew"
        )
    return flow


def redrawn(model: VDVAE, pixels: np.ndarray, blocks: int, times: int = 1, seed: int = 0) -> np.ndarray:
    """Each prepared image (N, H, W) ``times`` times again, (times, N, H, W) uint8, latents after the first ``blocks`` drawn anew.

    Raises
    ------
    BadInput
        The model has fewer blocks.
    """
    if not 0 <= blocks <= len(model.levels):
        raise BadInput(f"this model has {len(model.levels)} stochastic blocks; {blocks} of them cannot be kept")
    parts = torch.from_numpy(np.ascontiguousarray(pixels[:, None])).split(BATCH)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.stack(
            [full_peak(torch.cat([model.vary(part, blocks) for part in parts])[:, 0].numpy()) for _ in range(times)]
        )


def between(model: nn.Module, first: np.ndarray, second: np.ndarray, steps: int = 9) -> np.ndarray:
    """Images (steps, H, W) uint8 on the way from one prepared image (H, W) to another, both ends included, all latents mixed."""
    ends, _ = latents.full_codes(model, np.stack([first, second]))
    way = np.linspace(0, 1, steps)[:, None]
    return full_peak(latents.decode(model, (1 - way) * ends[0] + way * ends[1], np.arange(model.dimensions)))


def check_ending(path: Path):
    """Whether galaxies can be written to a file of this name.

    Raises
    ------
    BadInput
        It ends in something else than ``.h5``, ``.fits`` or ``.png``.
    """
    if path.suffix not in (".h5", ".fits", ".png"):
        raise BadInput(f"{path} ends in {path.suffix or 'nothing'}: galaxies are written to .h5, .fits or .png")


def write(galaxies: np.ndarray, path: Path, settings: dict):
    """Write galaxies (N, H, W) uint8 to ``.h5`` (``images``), ``.fits`` (a cube) or ``.png`` (a sheet), with their settings.

    Raises
    ------
    BadInput
        The file ends in something else.
    """
    check_ending(path)
    with paths.atomic(path) as partial:
        if path.suffix == ".h5":
            with h5py.File(partial, "w") as file:
                file.create_dataset("images", data=galaxies, **CHECKED)
                file.attrs.update(settings)
        elif path.suffix == ".fits":
            header = fits.Header([(name[:8].upper(), str(value)) for name, value in settings.items()])
            fits.PrimaryHDU(galaxies, header).writeto(partial)
        else:
            across = math.ceil(math.sqrt(len(galaxies)))
            sheet = np.zeros((-(-len(galaxies) // across) * across, *galaxies.shape[1:]), np.uint8)
            sheet[: len(galaxies)] = galaxies[:, ::-1]
            rows = [np.hstack(line) for line in sheet.reshape(-1, across, *galaxies.shape[1:])]
            picture = Image.fromarray(plots.colours(np.vstack(rows) / 255))
            picture.resize((3 * picture.width, 3 * picture.height), Image.Resampling.BICUBIC).save(partial, "PNG")

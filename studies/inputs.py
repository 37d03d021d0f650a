"""Common inputs of the studies: the trained network, the training set, and images as rows for scikit-learn."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rgz import artifacts
from rgz.data import sample
from rgz.errors import BadInput
from rgz.models import checkpoint
from rgz.models.vdvae import VDVAE
from rgz.transforms import prepare

TRAINING_SET = Path("runs/train.h5")


def network() -> tuple[VDVAE, prepare.Recipe]:
    """The trained VDVAE of the repository and the recipe for its images."""
    model, recipe, _ = checkpoint.load(artifacts.artifact("vdvae.safetensors"))
    return model, recipe


def training_set() -> tuple[sample.Sample, sample.Sample]:
    """Training and validation sources of ``runs/train.h5``.

    Raises
    ------
    BadInput
        The file is missing.
    """
    if not TRAINING_SET.exists():
        raise BadInput(f"{TRAINING_SET} is missing: make it with rgz data build")
    sources = sample.read(TRAINING_SET)
    seen, held_out = (sources[sources.table["split"] == split] for split in ("train", "valid"))
    return seen, held_out


def flat(grey: NDArray[Any]) -> NDArray[np.float64]:
    """Images (N, H, W) as rows of numbers (N, H W)."""
    return grey.reshape(len(grey), -1).astype(float)

"""A network that is told the classes: the comparator of codes that were learned without them.

Five convolutions and three dense layers on the whole image, of the kind with which Tang, Scaife & Leahy 2019
(arXiv:1903.11921) classified FR-DEEP. It sees its training galaxies turned by any angle and mirrored, since the sky has no
preferred direction, and its probability for a galaxy is the mean over eight such views.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rgz.progress import progress

__all__ = ["network", "predict", "train", "turned"]

SIZE = 150  # pixels along a side
BATCH = 32


def network() -> nn.Sequential:
    """(N, 1, 150, 150) in 0 … 1 to (N,) logits of FRII.

    >>> network()(torch.zeros(2, 1, 150, 150)).shape
    torch.Size([2])
    """

    def block(before, after, kernel, *, stride=1, pool=True):
        layers = [nn.Conv2d(before, after, kernel, stride, kernel // 2), nn.BatchNorm2d(after), nn.ReLU()]
        return [*layers, nn.MaxPool2d(2)] if pool else layers

    model = nn.Sequential(
        *block(1, 6, 11, stride=2, pool=False),
        *block(6, 16, 5),
        *block(16, 24, 3),
        *block(24, 24, 3, pool=False),
        *block(24, 16, 3),
        nn.Flatten(),
        nn.Linear(16 * (SIZE // 16) ** 2, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 256),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Linear(256, 1),
        nn.Flatten(0),
    )
    return model.to(memory_format=torch.channels_last)


def turned(pixels: Tensor, angle: Tensor, mirror: Tensor) -> Tensor:
    """Images (N, 1, H, W) turned by angles (N,) in radians, after mirroring (N,) by ±1, in one linear interpolation."""
    cos, sin = torch.cos(angle), torch.sin(angle)
    zero = torch.zeros_like(cos)
    matrix = torch.stack([cos * mirror, -sin, zero, sin * mirror, cos, zero], dim=1).reshape(-1, 2, 3)
    return F.grid_sample(pixels, F.affine_grid(matrix, list(pixels.shape), align_corners=False), align_corners=False)


def _scaled(images: np.ndarray) -> Tensor:
    """Grey levels (N, 150, 150) as (N, 1, 150, 150) in 0 … 1."""
    return torch.from_numpy(np.ascontiguousarray(images[:, None])).float() / 255


def train(images: np.ndarray, labels: np.ndarray, epochs: int = 60, seed: int = 0) -> nn.Sequential:
    """Fit a :func:`network` to images (N, 150, 150) uint8 and labels (N,), 1 for FRII.

    Adam, a learning rate that falls from 10⁻³ to zero along a cosine, and no look at anything but the images given: all
    epochs are done, and none is chosen.
    """
    torch.manual_seed(seed)
    model, pixels = network(), _scaled(images)
    target = torch.from_numpy(np.asarray(labels, dtype=np.float32))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * math.ceil(len(pixels) / BATCH))
    for _ in progress(range(epochs), desc="training the CNN", unit="epoch", leave=False, disable=None):
        for rows in torch.randperm(len(pixels)).split(BATCH):
            if len(rows) < 2:  # batch normalisation needs two
                continue
            shown = turned(pixels[rows], 2 * math.pi * torch.rand(len(rows)), 2.0 * torch.randint(2, (len(rows),)) - 1)
            loss = F.binary_cross_entropy_with_logits(model(shown), target[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def predict(model: nn.Sequential, images: np.ndarray) -> np.ndarray:
    """Probability of FRII of images (N, 150, 150) uint8: the mean over four quarter turns, each as it is and mirrored."""
    pixels = _scaled(images)
    found = []
    for part in pixels.split(4 * BATCH):
        views = [
            turned(part, torch.full((len(part),), quarter * math.pi / 2), torch.full((len(part),), mirror))
            for quarter in range(4)
            for mirror in (1.0, -1.0)
        ]
        found.append(torch.stack([torch.sigmoid(model(view)) for view in views]).mean(0))
    return torch.cat(found).numpy()

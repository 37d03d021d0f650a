"""What the network is shown in training: each source many times, never twice the same.

A radio galaxy is the same object whichever way it lies on the sky, and a repeated observation would place it differently on
the pixels. So each batch shows posed sources mirrored, turned a little and shifted by fractions of a pixel. Batch ``n``
depends on the seed and on ``n`` alone, which is what makes a run that was interrupted end where it would have ended.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from rgz import images
from rgz.sample import Sample

__all__ = ["batches"]


def batches(sample: Sample, recipe: images.Recipe, size: int, seed: int) -> Callable[[int], Tensor]:
    """Batch ``n`` of an endless, shuffled, augmented walk through a sample, as a function of ``n``.

    Each image is posed, then mirrored along and across its axis at random, turned by a few degrees (σ = 6°) and shifted by up
    to a pixel, in the one interpolation that also crops and scales it.

    Returns
    -------
    callable
        Step number to grey levels, (size, 1, H, W) uint8.
    """
    fields = [images.fill(image) for image in sample.images]
    scale = recipe.pixel / sample.pixel
    poses = [images.find_pose(field, recipe.radius / sample.pixel) for field in fields]
    fields = [images.smooth(field, scale).astype(np.float32) for field in fields]

    def batch(step: int) -> Tensor:
        rng = np.random.default_rng((seed, step))
        epoch, place = divmod(step * size, len(fields))
        order = np.concatenate(
            [
                np.random.default_rng((seed, 1 << 40, epoch + k)).permutation(len(fields))
                for k in range(1 + (place + size - 1) // len(fields))
            ]
        )[place : place + size]
        pixels = []
        for row in order:
            pose = poses[row]
            jittered = images.Pose(
                pose.angle + rng.normal(0, np.radians(6)),
                int(rng.choice((-1, 1))),
                int(rng.choice((-1, 1))),
                tuple(rng.uniform(-1, 1, 2)),
            )
            pixels.append(images.stretch(images.render(fields[row], jittered, recipe.size, scale)))
        return torch.from_numpy(np.stack(pixels)[:, None])

    return batch

"""The comparator learns, turns images without losing them, and says the same twice."""

import math

import numpy as np
import pytest
import torch

from studies import cnn, simulate


def test_a_quarter_turn_is_a_quarter_turn():
    image = torch.rand(1, 1, 150, 150)
    made = cnn.turned(image, torch.tensor([math.pi / 2]), torch.ones(1))
    assert min((made - torch.rot90(image, k, (2, 3))).abs().max() for k in (1, 3)) < 1e-4
    mirrored = cnn.turned(image, torch.zeros(1), -torch.ones(1))
    torch.testing.assert_close(mirrored, image.flip(3), atol=1e-4, rtol=0)


@pytest.mark.slow
def test_it_learns_a_clear_difference():
    sample = simulate.sources(64, seed=0)
    labels = np.arange(64) % 2
    images = sample.images.copy()
    images[labels == 1] = np.roll(images[labels == 1], 40, axis=2)
    model = cnn.train(images, labels, epochs=12)
    assert ((cnn.predict(model, images) > 0.5) == labels).mean() > 0.9


def test_the_same_seed_gives_the_same_network():
    images = simulate.sources(6, seed=1).images
    one, two = (cnn.predict(cnn.train(images, np.arange(6) % 2, 1, seed=3), images) for _ in range(2))
    np.testing.assert_array_equal(one, two)

"""Retrieval descriptors hold codes and components in five frames, and hardly change under rotations of an image."""

import numpy as np
import pytest

from rgz.data import simulate
from rgz.data.sample import Sample
from rgz.features import descriptors, embed, metric
from rgz.transforms import perturb, prepare

CHOSEN, RECIPE = np.array([3, 130, 7]), prepare.Recipe()


@pytest.fixture(scope="module")
def basis(pixels):
    return descriptors.principal(pixels[:, 0].numpy(), 5)


def components(sample, basis):
    return descriptors.components(descriptors.framed_views(RECIPE, sample), basis)


def test_all_views_of_each_frame_are_pooled(tiny, simulated, basis):
    some = simulated[:4]
    whole = embed.Encoder(tiny.eval(), RECIPE, CHOSEN, basis).transform(some, "search")
    assert whole.shape == (4, 2 * (3 + 5) * len(prepare.FRAMES))
    own, parts = np.split(whole, [descriptors.alone(CHOSEN)], axis=1)
    np.testing.assert_array_equal(parts, components(some, basis))
    fields = [[perturb.rotate(image, degrees) for image in some.images] for degrees in (0, 30, 60)]
    for number, frame in enumerate(prepare.FRAMES):
        seen = [
            np.stack(
                [prepare.views(image, some.pixel, RECIPE, prepare.VIEWS[4 * n : 4 * n + 4], frame) for image in turned],
                1,
            )
            for n, turned in enumerate(fields)
        ]
        code = prepare.pool(embed.posterior_means(tiny, np.concatenate(seen), CHOSEN))
        np.testing.assert_allclose(own[:, 6 * number : 6 * number + 6], code, rtol=1e-4, atol=1e-5)


def test_descriptors_hardly_change_under_a_right_angle(simulated, basis):
    """A rotation by 90° needs no interpolation; what remains is that 30° + 90° samples other pixels than 30°."""
    some = simulated[:6]
    again = Sample(np.rot90(some.images, axes=(1, 2)).copy(), some.table, some.pixel)
    before, after = (components(one, basis) for one in (some, again))
    apart = np.linalg.norm(before - before[[1, 2, 3, 4, 5, 0]], axis=1)
    assert (np.linalg.norm(before - after, axis=1) < 0.02 * apart).all()


def test_a_source_that_rotation_would_lose_is_not_rotated():
    """One lit pixel at the rim of the circle within which a source is looked for."""
    image = np.zeros((150, 150))
    image[43, 70] = 1.0
    assert prepare.has_source(image, 1.8, RECIPE)
    assert not prepare.has_source(perturb.rotate(image, 30), 1.8, RECIPE)
    views = descriptors.framed_views(RECIPE, Sample(image[None], simulate.sources(1).table, 1.8))
    np.testing.assert_array_equal(views[0, 4:8, 0], prepare.views(image, 1.8, RECIPE, prepare.VIEWS[4:8]))


def test_components_are_those_of_the_prepared_images(simulated, pixels, basis):
    flat = pixels[:, 0].numpy().reshape(24, -1).astype(float)
    _, vectors = np.linalg.eigh(np.cov(flat.T))
    own = (flat - flat.mean(0)) @ vectors[:, ::-1][:, :5] / 255
    np.testing.assert_allclose(np.abs(basis.transform(flat)), np.abs(own), rtol=1e-3, atol=1e-4)
    first = prepare.pool(
        np.stack([basis.transform(view.reshape(24, -1)) for view in descriptors.framed_views(RECIPE, simulated)[0]])
    )
    np.testing.assert_allclose(components(simulated, basis)[:, :10], first, rtol=1e-4, atol=1e-5)


def test_changes_are_those_of_descriptors_under_perturbations(simulated):
    def lengths(sample):
        return np.array([[prepare.length(one, sample.pixel, RECIPE)] for one in sample.images])

    long = (lengths(simulated)[:, 0] > perturb.RESOLVED).sum()
    found = descriptors.changes(lengths, RECIPE, simulated, count=6)
    assert found.shape == (min(6, long) * len(descriptors.PERTURBATIONS), 1)
    rotated, farther = found[: len(found) // 5], found[-len(found) // 5 :]
    assert np.abs(rotated).max() < 1.0  # arcsec
    assert (farther < 0).all()


def test_centred_components_have_a_second_metric():
    rng, own, each = np.random.default_rng(0), 20, 4
    described, changes = (rng.normal(size=(count, own + len(prepare.FRAMES) * each)) for count in (400, 300))
    space = descriptors.space(described, changes, own)
    whole = metric.invariant(described, changes)
    first, beside = np.split(space.matrix, [whole.matrix.shape[1]], axis=1)
    np.testing.assert_array_equal(first, whole.matrix)
    used = np.repeat([False] * 5 + [frame.centred for frame in prepare.FRAMES], each)
    alone = metric.invariant(described[:, used], changes[:, used], kept=descriptors.KEPT)
    np.testing.assert_array_equal(beside[used], descriptors.WEIGHT * alone.matrix)
    assert not beside[~used].any()

"""What a search compares: codes and components in five frames, whichever way a galaxy lies on its pixels."""

import numpy as np
import pytest

from rgz import altered, compared, images, latents, readers, similar, synthetic
from rgz.errors import BadInput
from rgz.sample import Sample

CHOSEN, RECIPE = np.array([3, 130, 7]), images.Recipe()


@pytest.fixture(scope="module")
def basis(pixels):
    return compared.principal(pixels[:, 0].numpy(), 5)


def components(sample, basis):
    return compared.components(compared.shown(RECIPE, sample), basis)


def test_all_views_in_all_frames_are_pooled_and_stand_side_by_side(tiny, simulated, basis):
    some = simulated[:4]
    whole = compared.describe(tiny.eval(), RECIPE, some, CHOSEN, basis)
    assert whole.shape == (4, 2 * (3 + 5) * len(images.FRAMES))
    own, parts = np.split(whole, [compared.alone(CHOSEN)], axis=1)
    np.testing.assert_array_equal(parts, components(some, basis))
    fields = [[altered.turn(image, degrees) for image in some.images] for degrees in (0, 30, 60)]
    for number, frame in enumerate(images.FRAMES):
        seen = [
            np.stack(
                [images.views(image, some.pixel, RECIPE, images.VIEWS[4 * n : 4 * n + 4], frame) for image in turned], 1
            )
            for n, turned in enumerate(fields)
        ]
        code = images.pool(latents.posterior_means(tiny, np.concatenate(seen), CHOSEN))
        np.testing.assert_allclose(own[:, 6 * number : 6 * number + 6], code, rtol=1e-4, atol=1e-5)


def test_an_image_turned_by_a_right_angle_is_described_alike(tiny, simulated, basis):
    """A turn by 90° moves no light between pixels; what remains is that 30° then 90° is another turn than 30°."""
    some = simulated[:6]
    again = Sample(np.rot90(some.images, axes=(1, 2)).copy(), some.table, some.pixel)
    before, after = (components(one, basis) for one in (some, again))
    apart = np.linalg.norm(before - before[[1, 2, 3, 4, 5, 0]], axis=1)
    assert (np.linalg.norm(before - after, axis=1) < 0.02 * apart).all()


def test_what_a_turn_would_lose_is_shown_as_it_lies():
    """One lit pixel at the rim of the circle within which a source is looked for."""
    image = np.zeros((150, 150))
    image[43, 70] = 1.0
    assert images.has_source(image, 1.8, RECIPE)
    assert not images.has_source(altered.turn(image, 30), 1.8, RECIPE)
    views = compared.shown(RECIPE, Sample(image[None], synthetic.sources(1).table, 1.8))
    np.testing.assert_array_equal(views[0, 4:8, 0], images.views(image, 1.8, RECIPE, images.VIEWS[4:8]))


def test_components_are_those_of_the_prepared_images(simulated, pixels, basis):
    flat = pixels[:, 0].numpy().reshape(24, -1).astype(float)
    _, vectors = np.linalg.eigh(np.cov(flat.T))
    own = (flat - flat.mean(0)) @ vectors[:, ::-1][:, :5] / 255
    np.testing.assert_allclose(np.abs(basis.place(flat)), np.abs(own), rtol=1e-3, atol=1e-4)
    first = images.pool(np.stack([basis.place(view.reshape(24, -1)) for view in compared.shown(RECIPE, simulated)[0]]))
    np.testing.assert_allclose(components(simulated, basis)[:, :10], first, rtol=1e-4, atol=1e-5)


def test_changes_are_what_an_alteration_does_to_a_description(simulated):
    def lengths(sample):
        return np.array([[images.length(one, sample.pixel, RECIPE)] for one in sample.images])

    long = (lengths(simulated)[:, 0] > compared.RESOLVED).sum()
    found = compared.changes(lengths, RECIPE, simulated, count=6)
    assert found.shape == (min(6, long) * len(compared.TOLERATED), 1)
    turned, farther = found[: len(found) // 5], found[-len(found) // 5 :]
    assert np.abs(turned).max() < 1.0  # arcsec
    assert (farther < 0).all()


def test_components_about_the_centroid_have_a_space_of_their_own_beside():
    rng, own, each = np.random.default_rng(0), 20, 4
    described, changes = (rng.normal(size=(count, own + len(images.FRAMES) * each)) for count in (400, 300))
    space = compared.space(described, changes, own)
    whole = similar.tolerant(described, changes)
    first, beside = np.split(space.matrix, [whole.matrix.shape[1]], axis=1)
    np.testing.assert_array_equal(first, whole.matrix)
    used = np.repeat([False] * 5 + [frame.centred for frame in images.FRAMES], each)
    alone = similar.tolerant(described[:, used], changes[:, used], kept=compared.KEPT)
    np.testing.assert_array_equal(beside[used], compared.WEIGHT * alone.matrix)
    assert not beside[~used].any()


def test_what_is_searched_comes_back_from_its_file(tmp_path, tiny, simulated, basis):
    path, code = tmp_path / "c.h5", compared.describe(tiny.eval(), RECIPE, simulated, CHOSEN, basis)
    spaces = {compared.BASIS: basis, compared.SPACE: similar.plain(code)}
    latents.write_codes(
        path, dict.fromkeys(readers.SAMPLES, (simulated.table, {"code_compared": code}, {})), {}, spaces
    )
    for name, space in spaces.items():
        read = latents.read_space(name, path)
        np.testing.assert_allclose(read.centre, space.centre, rtol=1e-6)
        np.testing.assert_allclose(read.matrix, space.matrix, rtol=1e-3, atol=1e-6)
        assert read.cosine == space.cosine
    table, found, space = compared.for_search(path)
    assert len(table) == len(found) == 24 * len(readers.SAMPLES)
    assert (np.abs(found[:24] - code) <= code.std(axis=0) / 32).all()
    assert space.matrix.shape == (found.shape[1],) * 2
    with pytest.raises(BadInput, match="rgz encode"):
        latents.read_space(compared.ALONE, path)

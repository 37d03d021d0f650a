"""Preparation removes the orientation of a source, and nothing else, as a plain reference with scipy does."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from rgz.data import sample
from rgz.errors import BadInput
from rgz.transforms import fields, prepare
from studies import simulate

RECIPE, PIXEL = prepare.Recipe(), simulate.PIXEL


def double(angle=0.0, size=151):
    """Two blobs, the right one twice as bright, a third one across the axis; turned by ``angle`` radians."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return sum(
        a * np.exp(-((along - u) ** 2 + (across - v) ** 2) / 18) for a, u, v in ((2, 15, 0), (1, -15, 0), (0.3, 0, 8))
    )


def one(field, pixel=PIXEL, recipe=RECIPE, centred=False):
    """A single field, prepared, as floats."""
    return prepare.prepare(field[None], pixel, recipe, (centred,))[0, 0].astype(float)


def reference(field, pixel, centred):
    """The steps of the module for one field (H, W), one after the other."""
    lit = np.nan_to_num(field.astype(float), posinf=0.0, neginf=0.0).clip(min=0)
    y, x = np.mgrid[: field.shape[0], : field.shape[1]] - (np.array(field.shape).reshape(2, 1, 1) - 1) / 2
    radius, middle = fields.RADIUS / pixel, np.hypot(x, y) <= fields.RADIUS / pixel
    large = large_islands(lit)
    lit = np.where(large, lit, 0) if (large & middle).any() else lit
    lower = np.where(lit > 0, lit - lit[lit > 0].min(), 0)
    lit = lower if lower[middle].any() else lit
    shift = np.zeros(2)
    for _ in range(prepare.ROUNDS):
        weight = np.where(np.hypot(x - shift[0], y - shift[1]) <= radius, lit, 0)
        centroid = np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()
        if not centred:
            break
        shift = centroid
    if centred:
        weight = np.where(np.hypot(x - shift[0], y - shift[1]) <= radius, lit, 0)
    dx, dy = x - centroid[0], y - centroid[1]
    angle = 0.5 * np.arctan2(2 * (weight * dx * dy).sum(), (weight * (dx**2 - dy**2)).sum())
    cos, sin, dx, dy = np.cos(angle), np.sin(angle), x - shift[0], y - shift[1]
    sides = [(weight * np.sign(part)).sum() for part in (dx * cos + dy * sin, dy * cos - dx * sin)]
    root = np.sqrt(weight)
    length = np.sqrt((root * (dx**2 + dy**2)).sum() / root.sum())
    width = np.clip(2 * RECIPE.reach * length * pixel, RECIPE.narrowest, RECIPE.widest)
    scale = max(width / RECIPE.size, pixel / 2) / pixel
    if scale > 1:
        lit = ndimage.gaussian_filter(lit, 0.42 * scale, mode="constant", truncate=8)
    u = (np.arange(RECIPE.size) - (RECIPE.size - 1) / 2) * scale
    along, across = u[None, :] * (1 if sides[0] >= 0 else -1), u[:, None] * (1 if sides[1] >= 0 else -1)
    places = along * sin + across * cos + shift[1], along * cos - across * sin + shift[0]
    places = [place + (n - 1) / 2 for place, n in zip(places, field.shape, strict=True)]
    square = ndimage.map_coordinates(lit, places, order=1, mode="grid-constant")
    return np.rint(255 * np.sqrt(square / square.max()))


def large_islands(image):
    labels, _ = ndimage.label(image > 0, structure=np.ones((3, 3)))
    large = np.bincount(labels.ravel()) >= fields.SMALLEST_ISLAND
    large[0] = False
    return large[labels]


def agree(images, pixel):
    """Within one grey level, but for a per mille of the pixels."""
    found = prepare.prepare(images, pixel, RECIPE, (False, True))
    for centred in (False, True):
        expected = np.stack([reference(image, pixel, centred) for image in images])
        assert (np.abs(found[int(centred)] - expected) > 1).mean() < 1e-3


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_simulated_fields_are_prepared_as_by_the_reference(simulated, kind):
    agree((simulated.images / (1 if kind == np.uint8 else 255)).astype(kind), simulated.pixel)


@pytest.mark.parametrize("pixel", [0.5, 5.0, 15.0])
def test_and_so_are_fields_of_another_pixel_scale(simulated, pixel):
    agree(simulated.images[fields.has_source(simulated.images, pixel)][:8], pixel)


@pytest.mark.parametrize("name", ["mirabest", "frdeep-nvss"])
def test_and_so_are_survey_images(survey, name):
    found = survey(name)
    agree(found[sample.usable(found)].images[::14][:40], found.pixel)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.35])
def test_small_islands_are_those_of_a_connected_component_labelling(share):
    masks = np.random.default_rng(int(100 * share)).random((60, 40, 41)) < share
    lit = prepare._lit(torch.from_numpy(masks))
    found = np.zeros(masks.shape, bool)
    found[lit.row, lit.y, lit.x] = prepare._large(lit, torch.Size(masks.shape))
    np.testing.assert_array_equal(found, np.stack([large_islands(mask) for mask in masks]))


def test_an_image_is_prepared_alike_whatever_its_batch(simulated):
    whole = prepare.prepare(simulated.images, PIXEL, RECIPE, (False, True))
    parts = [prepare.prepare(simulated.images[[k]], PIXEL, RECIPE, (False, True)) for k in range(6)]
    assert np.abs(whole[:, :6].astype(int) - np.concatenate(parts, 1)).max() <= 1


@pytest.mark.parametrize("angle", np.linspace(0.1, 6.2, 7))
def test_a_turned_source_is_prepared_alike(angle):
    assert np.abs(one(double()) - one(double(angle))).mean() < 3


@pytest.mark.parametrize("mirror", [np.fliplr, np.flipud])
@pytest.mark.parametrize("centred", [False, True])
def test_a_mirrored_source_is_prepared_alike(mirror, centred):
    assert np.abs(one(double(), centred=centred) - one(mirror(double()), centred=centred)).max() <= 1


def test_the_brighter_half_is_right_and_below():
    light = one(double(2.0)) ** 2
    assert light[:, 32:].sum() > 1.2 * light[:, :32].sum()
    assert light[32:].sum() > light[:32].sum()


def test_about_its_centroid_a_source_looks_the_same_wherever_it_was_cut_out():
    field = np.zeros((150, 150))
    field[60:64, 55:60] = field[80:84, 70:74] = 1.0
    field[50:54, 104:110] = 0.3  # comes into the circle about the middle when the image moves
    moved = np.roll(field, (5, -8), axis=(0, 1))
    assert np.abs(one(field, centred=True) - one(moved, centred=True)).max() <= 2
    assert np.abs(one(field) - one(moved)).max() > 100


def test_a_source_twice_as_far_is_prepared_alike():
    near, far = double(), ndimage.zoom(double(), 0.6, order=1)
    (one_length,), (another,) = (prepare.lengths(image[None], PIXEL) for image in (near, far))
    assert one_length / another == pytest.approx(1 / 0.6, rel=0.05)
    assert np.corrcoef(one(near).ravel(), one(far).ravel())[0, 1] > 0.97


def test_the_same_sky_at_another_pixel_scale():
    coarse = ndimage.zoom(double(), 75 / 151, order=1)
    assert np.corrcoef(one(double()).ravel(), one(coarse, 1.8 * 151 / 75).ravel())[0, 1] > 0.98


def test_a_square_has_the_same_sky_at_any_size():
    small = one(double(), recipe=prepare.Recipe(32))
    assert np.corrcoef(small.ravel(), one(double()).reshape(32, 2, 32, 2).mean((1, 3)).ravel())[0, 1] > 0.98


def test_scale_follows_the_length_within_bounds_and_magnifies_no_more_than_twice():
    module = prepare.Prepare(RECIPE)
    arcsec = torch.tensor([1.0, 20.0, 1000.0])
    torch.testing.assert_close(module.scale(arcsec / 1.8, 1.8) * 1.8, torch.tensor([57.6, 100.0, 230.4]) / 64)
    torch.testing.assert_close(module.scale(arcsec / 15, 15.0) * 15, torch.full((3,), 7.5))


@pytest.mark.parametrize("pixel", [PIXEL, 15.0])
def test_the_width_of_a_recipe_is_that_of_the_square(pixel):
    lengths = np.array([0.5, 5, 50])  # pixels
    scale = prepare.Prepare(RECIPE).scale(torch.from_numpy(lengths), pixel).numpy()
    assert RECIPE.width(lengths * pixel, pixel) == pytest.approx(scale * RECIPE.size * pixel)


def test_between_two_distant_lobes_the_square_shows_both():
    lobes = np.zeros((150, 150))
    lobes[73:77, 50:54] = lobes[73:77, 96:100] = np.arange(1, 17).reshape(4, 4)
    shown = one(lobes, centred=True)
    assert (shown[:, :24] > 100).any()
    assert (shown[:, 40:] > 100).any()
    assert not shown[:, 28:36].any()


def test_a_pose_has_the_angle_the_lean_and_the_shift_of_the_source():
    images = torch.from_numpy(np.stack([double(0.4) * (double(0.4) > 0.05), np.zeros((151, 151))])).float()
    _, (middle, centred) = prepare.Prepare(RECIPE)(images, PIXEL, (False, True))
    assert middle.angle[0].item() == pytest.approx(0.4, abs=0.05)
    assert middle.lean[0, 0].item() == pytest.approx(1 / 3.3, abs=0.1)
    assert not middle.shift.any()
    along = centred.shift[0] @ torch.tensor([np.cos(0.4), np.sin(0.4)]).float()
    assert along.item() == pytest.approx(15 / 3.3, abs=1)
    for part in (*middle, *centred):
        assert part.isfinite().all()  # of the blank field too


def test_nan_edges_do_not_matter():
    field = double()
    field[:10], field[-10:] = np.nan, np.inf
    assert one(field).max() == 255
    np.testing.assert_array_equal(one(field), one(np.nan_to_num(field, posinf=0.0)))


@pytest.mark.parametrize("image", [np.zeros((60, 60)), np.full((60, 60), np.nan), -double()])
def test_an_image_without_a_source_is_refused_and_gives_a_blank_square(image):
    assert not fields.has_source(image[None], PIXEL).any()
    with pytest.raises(BadInput, match="1 of 1 images have no emission"):
        prepare.prepare(image[None], PIXEL, RECIPE)
    squares, _ = prepare.Prepare(RECIPE)(torch.from_numpy(image[None]), PIXEL)
    assert squares.shape == (1, 1, 1, 64, 64)
    assert not squares.any()


@pytest.mark.parametrize("shape", [(1, 1), (5, 5), (3, 40), (300, 300)])
def test_fields_of_any_size_are_prepared_even_if_all_pixels_are_equal(shape):
    field = np.zeros(shape)
    field[shape[0] // 2, shape[1] // 2] = 3.0
    constant = one(np.full(shape, 7.0))
    assert one(field).max() == constant.max() == 255
    np.testing.assert_array_equal(np.unique(constant), np.unique(one(np.ones(shape))))


def test_what_is_no_stack_of_images_is_refused():
    with pytest.raises(BadInput, match=r"\(N, H, W\)"):
        prepare.prepare(np.ones((8, 8)), PIXEL, RECIPE)


def test_speckles_go_unless_nothing_else_is_in_the_middle():
    field = np.zeros((150, 150))
    field[73:78, 70:80] = np.arange(1, 51).reshape(5, 10)
    speckled = field.copy()
    speckled[60, 60:65] = 30.0  # five pixels
    np.testing.assert_array_equal(one(field), one(speckled))
    speckled[60, 65] = 30.0
    assert np.abs(one(field) - one(speckled)).max() > 50
    alone = np.zeros((150, 150))
    alone[75, 75:78], alone[5:9, 5:9] = (1.0, 2.0, 3.0), 1.0
    assert one(alone).max() == 255


def test_the_threshold_is_subtracted():
    field = np.zeros((150, 150))
    field[73:78, 70:80] = np.arange(50).reshape(5, 10)
    raised = np.where(field > 0, field + 20, 0)
    assert np.abs(one(field) - one(raised)).max() <= 1


def test_a_source_away_from_the_centre_is_in_the_square():
    for x, y in ((20, 0), (0, 20), (-15, 15)):
        assert one(np.roll(double(0.3) * (double(0.3) > 1), (y, x), axis=(0, 1))).max() == 255


def test_stretch_is_a_square_root_to_255_of_each_image():
    squares = torch.tensor([[[0.0, 0.25, 1.0, -1.0]], [[2.0, 8.0, 0.0, 0.0]], [[0.0, 0.0, 0.0, 0.0]]])[:, None]
    assert prepare.stretch(squares)[:, 0, 0].tolist() == [[0, 128, 255, 0], [128, 255, 0, 0], [0, 0, 0, 0]]


def test_each_field_is_smoothed_by_its_own_width():
    points = torch.zeros(3, 41, 41)
    points[:, 20, 20] = 1
    made = prepare.gaussian(points, torch.tensor([0.0, 1.0, 2.5]))
    torch.testing.assert_close(made[0], points[0])
    for field, sigma in zip(made[1:], (1.0, 2.5), strict=True):
        expected = ndimage.gaussian_filter(points[0].numpy(), sigma, mode="constant")
        np.testing.assert_allclose(field, expected, atol=1e-4)


def test_clip_keeps_the_source_and_drops_the_sky():
    field = simulate.source("FRI", np.random.default_rng(0), snr=100) + 5
    clipped = fields.clip(field)
    assert (clipped == 0).mean() > 0.9
    assert clipped.max() == pytest.approx(100, rel=0.1)
    assert clipped[clipped > 0].min() > 2.5
    assert not fields.clip(np.zeros((9, 9))).any()


def test_despeckle_keeps_the_islands_that_the_module_keeps():
    field = np.zeros((60, 60))
    field[30, 28:33] = field[31, 28:33] = 5.0  # ten pixels
    field[10, 10], field[50, 50:55] = 9.0, 9.0
    assert fields.despeckle(field).sum() == 50
    field[30:32] = 0
    np.testing.assert_array_equal(fields.despeckle(field), field)  # there are no others


def test_crop_is_central():
    assert fields.crop(np.arange(25).reshape(5, 5), 1).item() == 12
    assert fields.crop(np.ones((3, 5, 7)), 3).shape == (3, 3, 3)
    with pytest.raises(BadInput, match="larger"):
        fields.crop(np.ones((5, 5)), 6)

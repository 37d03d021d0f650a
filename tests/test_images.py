"""Preparation takes out how a source lies on the sky, and nothing else."""

import numpy as np
import pytest
from scipy import ndimage

from rgz import images, synthetic
from rgz.errors import BadInput

RECIPE = images.Recipe()


def double(angle=0.0, size=151):
    """Two blobs, the right one twice as bright, a third one across the axis; turned by ``angle`` radians."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    return sum(
        a * np.exp(-((along - u) ** 2 + (across - v) ** 2) / 18) for a, u, v in ((2, 15, 0), (1, -15, 0), (0.3, 0, 8))
    )


@pytest.mark.parametrize("angle", np.linspace(0.1, 6.2, 7))
def test_a_turned_source_is_prepared_alike(angle):
    upright, turned = (images.prepare(double(a), 1.8, RECIPE).astype(float) for a in (0.0, angle))
    assert np.abs(upright - turned).mean() < 3


@pytest.mark.parametrize("mirror", [np.fliplr, np.flipud])
def test_a_mirrored_source_is_prepared_alike(mirror):
    assert (
        np.abs(images.prepare(double(), 1.8, RECIPE).astype(int) - images.prepare(mirror(double()), 1.8, RECIPE)).max()
        <= 1
    )


def test_the_brighter_half_is_right_and_below():
    prepared = images.prepare(double(2.0), 1.8, RECIPE).astype(float) ** 2
    assert prepared[:, 16:].sum() > prepared[:, :16].sum()
    assert prepared[16:].sum() > prepared[:16].sum()


def test_views_are_what_each_turn_prepares():
    field = images.clip(synthetic.source("FRII", np.random.default_rng(3)))
    made = images.views(field, synthetic.PIXEL, images.Recipe())
    assert made.shape == (12, 32, 32)
    for view, turn in zip(made, images.VIEWS, strict=True):
        np.testing.assert_array_equal(view, images.prepare(field, synthetic.PIXEL, images.Recipe(), turn))


def test_a_frame_of_its_own_width_does_not_follow_the_length():
    bright = np.zeros((150, 150))
    bright[70:80, 70:80] = np.hypot(*np.mgrid[-5:5, -5:5]) < 4
    faint = bright.copy()
    faint[73:77, 40:110] += np.linspace(0.02, 0.05, 70)  # wings that only a deep image shows
    own, fixed = (
        [images.views(one, 1.8, images.Recipe(), images.MIRRORED[:1], frame)[0].astype(int) for one in (bright, faint)]
        for frame in (images.Frame(), images.Frame(width=115.2))
    )
    assert (own[0] > 100).sum() > 2 * (own[1] > 100).sum()
    assert abs((fixed[0] > 100).sum() - (fixed[1] > 100).sum()) <= 2


def test_about_its_centroid_a_source_looks_the_same_wherever_it_was_cut_out():
    field = np.zeros((150, 150))
    field[60:64, 55:60] = field[80:84, 70:74] = 1.0
    field[50:54, 104:110] = 0.3  # comes into the circle about the middle when the image moves
    recipe, frame = images.Recipe(), images.Frame(centred=True)
    here, there = (
        images.views(np.roll(field, step, axis=(0, 1)), 1.8, recipe, frame=frame) for step in ((0, 0), (5, -8))
    )
    assert np.abs(here.astype(int) - there).max() <= 2
    own = [images.views(np.roll(field, step, axis=(0, 1)), 1.8, recipe) for step in ((0, 0), (5, -8))]
    assert np.abs(own[0].astype(int) - own[1]).max() > 100


def test_between_two_distant_lobes_a_narrow_frame_is_black():
    lobes = np.zeros((150, 150))
    lobes[73:77, 50:54] = lobes[73:77, 96:100] = np.arange(1, 17).reshape(4, 4)
    narrow = images.views(lobes, 1.8, images.Recipe(), frame=images.Frame(centred=True, width=57.6))
    assert narrow.shape == (12, 32, 32)
    assert not narrow.any()
    assert images.views(lobes, 1.8, images.Recipe(), frame=images.Frame(centred=True)).any(axis=(1, 2)).all()


def test_a_coarse_survey_is_not_magnified():
    recipe = images.Recipe()
    assert recipe.pixel(20.0, own=1.8) == recipe.pixel(20.0)  # FIRST
    assert recipe.pixel(5.0, own=15.0) == recipe.pixel(40.0, own=15.0) == 7.5  # NVSS


def test_mirrored_views_mirror_the_prepared_image():
    plain = images.prepare(double(1.0), 1.8, RECIPE)
    assert (images.prepare(double(1.0), 1.8, RECIPE, images.Pose(along=-1)) == plain[:, ::-1]).mean() > 0.99
    assert (images.prepare(double(1.0), 1.8, RECIPE, images.Pose(across=-1)) == plain[::-1]).mean() > 0.99


def test_the_same_sky_at_another_pixel_scale():
    fine = double()
    coarse = ndimage.zoom(fine, 75 / 151, order=1)
    a, b = images.prepare(fine, 1.8, RECIPE).astype(float), images.prepare(coarse, 1.8 * 151 / 75, RECIPE).astype(float)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.98


def test_clip_keeps_the_source_and_drops_the_sky():
    field = synthetic.source("FRI", np.random.default_rng(0), snr=100) + 5
    clipped = images.clip(field)
    assert (clipped == 0).mean() > 0.9
    assert clipped.max() == pytest.approx(100, rel=0.1)
    assert clipped[clipped > 0].min() > 2.5


def test_clip_of_a_blank_field_is_blank():
    assert not images.clip(np.zeros((9, 9))).any()


def test_nan_edges_do_not_matter():
    field = double()
    field[:10] = np.nan
    assert images.prepare(field, 1.8, RECIPE).max() == 255


def test_stretch_is_a_square_root_to_255():
    assert images.stretch(np.array([[0.0, 0.25, 1.0, -1.0]])).tolist() == [[0, 128, 255, 0]]


@pytest.mark.parametrize("image", [np.zeros((60, 60)), np.full((60, 60), np.nan), -double()])
def test_an_image_without_a_source_is_refused(image):
    assert not images.has_source(image, 1.8, RECIPE)
    with pytest.raises(BadInput, match="no emission"):
        images.prepare(image, 1.8, RECIPE)


def test_an_image_with_three_axes_is_refused():
    with pytest.raises(BadInput, match="two axes"):
        images.prepare(np.ones((2, 8, 8)), 1.8, RECIPE)


def test_crop_is_central():
    assert images.crop(np.arange(25).reshape(5, 5), 1).item() == 12
    with pytest.raises(BadInput, match="larger"):
        images.crop(np.ones((5, 5)), 6)


def test_a_source_twice_as_far_is_prepared_alike():
    near, far = double(), ndimage.zoom(double(), 0.6, order=1)
    a, b = (images.prepare(image, 1.8, RECIPE).astype(float) for image in (near, far))
    assert images.length(near, 1.8, RECIPE) / images.length(far, 1.8, RECIPE) == pytest.approx(1 / 0.6, rel=0.05)
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.97


def test_a_source_away_from_the_centre_is_in_the_square():
    for x, y in ((20, 0), (0, 20), (-15, 15)):
        moved = np.roll(double(0.3) * (double(0.3) > 1), (y, x), axis=(0, 1))
        assert images.prepare(moved, 1.8, RECIPE).max() == 255


def test_speckles_go_and_sources_stay():
    field = np.zeros((60, 60))
    field[30, 28:33] = field[31, 28:33] = 5.0  # ten pixels
    field[10, 10], field[50, 50:55] = 9.0, 9.0
    assert np.unique(images.despeckle(field)).tolist() == [0, 5]
    assert images.despeckle(field).sum() == 50
    field[30:32] = 0
    field[30, 30], field[5:9, 5:9] = 1.0, 1.0
    assert (images.despeckle(field, radius=10) == field).all()  # nothing else in the middle
    assert images.despeckle(field).sum() == 16


def test_a_square_has_the_same_sky_at_any_size():
    coarse, fine = (images.Recipe(size) for size in (32, 64))
    assert coarse.pixel(20.0) == 2 * fine.pixel(20.0)
    a, b = (images.prepare(double(), 1.8, recipe).astype(float) for recipe in (coarse, fine))
    assert np.corrcoef(a.ravel(), b.reshape(32, 2, 32, 2).mean((1, 3)).ravel())[0, 1] > 0.98

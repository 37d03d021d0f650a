"""Images of every kind become cut-outs, with notes, or are refused."""

import io
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from scipy import ndimage

from rgz.data import cutout, detect
from rgz.errors import BadInput
from rgz.transforms import fields, prepare
from studies import simulate

SKY = (150.0, 20.0)


def wcs_of(shape, pixel, turn=0.0, stretch=1.0):
    """A tangential WCS around SKY: pixels of ``pixel`` arcsec, along y ``stretch`` times as wide, turned by degrees."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ("RA---TAN", "DEC--TAN"), SKY
    wcs.wcs.crpix = (shape[1] + 1) / 2, (shape[0] + 1) / 2
    cos, sin = np.cos(np.radians(turn)), np.sin(np.radians(turn))
    wcs.wcs.cd = np.array([[-pixel * cos, pixel * stretch * sin], [pixel * sin, pixel * stretch * cos]]) / 3600
    return wcs


RECIPE = prepare.Recipe()


def fits_file(path, pixels, wcs=None, axes=0):
    header = wcs.to_header() if wcs is not None else None
    fits.PrimaryHDU(np.asarray(pixels, np.float32)[(None,) * axes], header).writeto(path)
    return path


@pytest.fixture(scope="module")
def source():
    return simulate.source("FRII", np.random.default_rng(4), size=300, snr=80)


def alike(one, other, centred=False):
    """Correlation of two fields after preparation, about their middles or about the centroids of their emission."""
    squares = [prepare.prepare(field.pixels[None], field.pixel, RECIPE, (centred,)) for field in (one, other)]
    return np.corrcoef(*(square.ravel().astype(float) for square in squares))[0, 1]


def test_a_plain_field_passes_as_the_archives_hold_it(source, tmp_path):
    field = cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8), axes=2))
    assert field.pixels.shape == (150, 150)
    assert field.place == pytest.approx(SKY, abs=1e-6)
    assert field.pixel == pytest.approx(1.8)
    assert field.snr == pytest.approx(80, rel=0.1)
    own = fields.despeckle(fields.clip(source))[75:225, 75:225]
    np.testing.assert_allclose(field.pixels, own, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("pixel", "turn", "stretch"), [(0.6, 0, 1), (0.9, 30, 1), (1.8, 0, 1.5), (3.0, 0, 1)])
def test_other_pixels_show_the_same_galaxy(source, tmp_path, pixel, turn, stretch):
    plain = cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8)))
    count = int(480 / pixel)
    new, old = wcs_of((int(count / stretch), count), pixel, turn, stretch), wcs_of(source.shape, 1.8)
    down, across = np.mgrid[: int(count / stretch), :count]
    x, y = old.world_to_pixel(new.pixel_to_world(across, down))
    smooth = ndimage.gaussian_filter(source, 0.42 * pixel / 1.8) if pixel > 1.8 else source
    field = cutout.open_cutout(fits_file(tmp_path / "b.fits", ndimage.map_coordinates(smooth, [y, x], order=3), new))
    assert field.pixel == pytest.approx(max(1.8, pixel * np.sqrt(stretch)), rel=0.02)
    assert any("resampled" in note for note in field.notes) == (pixel != 3.0)
    assert alike(plain, field) > 0.95
    assert field.place == pytest.approx(SKY, abs=3 / 3600)


def test_a_source_beside_the_middle_is_moved_there(source, tmp_path):
    plain = cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8)))
    aside = np.roll(source, (60, -40), (0, 1))
    field = cutout.open_cutout(fits_file(tmp_path / "b.fits", aside, wcs_of(source.shape, 1.8)))
    assert any("centred on it" in note for note in field.notes)
    assert alike(plain, field, centred=True) > 0.95
    assert field.place[1] == pytest.approx(SKY[1] + 60 * 1.8 / 3600, abs=20 / 3600)


@pytest.mark.parametrize("at", [(150, 150), (180, 180)])
@pytest.mark.parametrize("radius", [45, 50, 72])
def test_a_ring_wider_than_the_search_is_cut_out_where_it_shines(radius, at):
    y, x = np.mgrid[:300, :300]
    distance = np.hypot(x - at[0], y - at[1])
    pixels = 80 * np.exp(-((distance - radius) ** 2) / 4) + np.random.default_rng(0).normal(size=x.shape)
    field = cutout.centre(cutout.Observation("a ring", pixels, 1.8))
    assert fields.has_source(field.pixels[None], 1.8).all()


def test_of_many_sources_the_one_asked_for_is_taken(source, tmp_path):
    rng = np.random.default_rng(9)
    both = source + np.roll(simulate.source("FRI", rng, size=300, snr=60), (100, 100), (0, 1))
    wcs = wcs_of(source.shape, 1.8)
    path = fits_file(tmp_path / "a.fits", both, wcs)
    there = wcs.pixel_to_world(149.5 + 100, 149.5 + 100)
    middle, other = cutout.open_cutout(path), cutout.open_cutout(path, at=(there.ra.deg, there.dec.deg))
    assert middle.others >= 1
    assert any("rgz look --at" in note for note in middle.notes)
    assert middle.place == pytest.approx(SKY, abs=1e-6)
    assert other.place == pytest.approx((there.ra.deg, there.dec.deg), abs=8 / 3600)
    assert alike(middle, other) < 0.95


def test_blank_edges_are_noted(source, tmp_path):
    cut = source.copy()
    cut[:130] = np.nan
    field = cutout.open_cutout(fits_file(tmp_path / "a.fits", cut, wcs_of(source.shape, 1.8)))
    assert any("blank" in note for note in field.notes)
    cut[:149] = np.nan
    cut[151:] = np.nan
    with pytest.raises(BadInput, match=r"blank or outside|no source"):
        cutout.open_cutout(fits_file(tmp_path / "b.fits", cut, wcs_of(source.shape, 1.8)))


def test_a_sky_far_from_zero_and_blank_edges_go_together(source, tmp_path):
    low = source - 500
    low[:100] = np.nan
    field = cutout.open_cutout(fits_file(tmp_path / "a.fits", low, wcs_of(source.shape, 1.8)))
    plain = cutout.open_cutout(fits_file(tmp_path / "b.fits", source, wcs_of(source.shape, 1.8)))
    assert alike(plain, field) > 0.99
    assert field.snr == pytest.approx(plain.snr, rel=0.1)


def test_pixels_too_coarse_to_show_a_shape(source, tmp_path):
    with pytest.raises(BadInput, match="at most 20″"):
        cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 60.0)))
    with pytest.raises(BadInput, match="at most 20″"):
        cutout.open_cutout(fits_file(tmp_path / "b.fits", source), pixel=float("nan"))


def test_pictures_of_clipped_and_of_raw_fields(source, tmp_path):
    clipped = fields.clip(source)
    Image.fromarray(np.rint(255 * clipped / clipped.max()).astype(np.uint8)).save(tmp_path / "clipped.png")
    raw = (source - source.min()) / np.ptp(source)
    Image.fromarray(np.rint(65535 * raw).astype(np.uint16)).save(tmp_path / "raw.png")
    whole = cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8)))
    for name in ("clipped.png", "raw.png"):
        field = cutout.open_cutout(tmp_path / name)
        assert field.pixel == 1.8
        assert np.isnan(field.place).all()
        assert alike(whole, field) > 0.95
    assert np.isnan(cutout.open_cutout(tmp_path / "clipped.png").snr)
    assert cutout.open_cutout(tmp_path / "raw.png").snr == pytest.approx(80, rel=0.1)


def test_transparent_is_blank_and_colour_is_refused(source, tmp_path):
    grey = np.rint(255 * (source - source.min()) / np.ptp(source)).astype(np.uint8)
    alpha = np.full_like(grey, 255)
    alpha[:100] = 0
    Image.fromarray(np.dstack([grey, grey, grey, alpha]), "RGBA").save(tmp_path / "alpha.png")
    assert np.isnan(cutout.read_image((tmp_path / "alpha.png").read_bytes(), "alpha.png").pixels[:100]).all()
    Image.fromarray(np.dstack([grey, grey // 2, 255 - grey]), "RGB").save(tmp_path / "colour.png")
    with pytest.raises(BadInput, match="shades of grey"):
        cutout.open_cutout(tmp_path / "colour.png")


def test_an_image_without_a_source_is_refused(tmp_path):
    rng = np.random.default_rng(2)
    noise = ndimage.gaussian_filter(rng.normal(size=(200, 200)), 1.27)
    with pytest.raises(BadInput, match="no source above 5 times its rms noise"):
        cutout.open_cutout(fits_file(tmp_path / "noise.fits", noise, wcs_of(noise.shape, 1.8)))
    with pytest.raises(BadInput, match="blank"):
        cutout.open_cutout(fits_file(tmp_path / "flat.fits", np.full((200, 200), 3.0), wcs_of(noise.shape, 1.8)))
    with pytest.raises(BadInput, match="blank"):
        cutout.open_cutout(fits_file(tmp_path / "nan.fits", np.full((200, 200), np.nan), wcs_of(noise.shape, 1.8)))
    with pytest.raises(BadInput, match="too small"):
        cutout.open_cutout(fits_file(tmp_path / "tiny.fits", noise[:8, :8], wcs_of((8, 8), 1.8)))
    hot = noise.copy()
    hot[100, 100] = 1000 * noise.std()  # one pixel is no source
    with pytest.raises(BadInput, match="of at least 6 pixels"):
        cutout.open_cutout(fits_file(tmp_path / "hot.fits", hot, wcs_of(noise.shape, 1.8)))


def test_what_is_not_an_image_is_refused(source, tmp_path):
    whole = io.BytesIO()
    Image.fromarray(np.rint(np.clip(source, 0, 255)).astype(np.uint8)).save(whole, "PNG")
    (tmp_path / "half.png").write_bytes(whole.getvalue()[:3000])
    (tmp_path / "words.fits").write_text("not an image")
    with pytest.raises(BadInput, match="not a complete PNG"):
        cutout.open_cutout(tmp_path / "half.png")
    with pytest.raises(BadInput, match="not a readable FITS"):
        cutout.open_cutout(tmp_path / "words.fits")
    with pytest.raises(BadInput, match="cannot be read"):
        cutout.open_cutout(tmp_path / "absent.fits")
    with pytest.raises(BadInput, match="--pixel"):
        cutout.open_cutout(fits_file(tmp_path / "bare.fits", source))
    assert cutout.open_cutout(tmp_path / "bare.fits", pixel=1.8).pixel == 1.8
    with pytest.raises(BadInput, match="does not say where"):
        cutout.open_cutout(tmp_path / "bare.fits", at=SKY, pixel=1.8)
    with pytest.raises(BadInput, match="does not show"):
        cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8)), at=(10.0, 20.0))


@pytest.mark.parametrize("place", [("far", "away"), ("nan", "2"), ("10", "95"), ("400", "2")])
def test_no_position_on_the_sky(place):
    with pytest.raises(BadInput, match="no position on the sky"):
        cutout.parse_position(*place)


def test_without_a_network_the_message_says_so():
    pytest.importorskip("astroquery")
    with pytest.raises(BadInput, match=r"FIRST: .*NVSS: .*check the network"):
        cutout.download_cutout(*SKY)


def test_the_second_survey_is_asked_where_the_first_has_nothing(source, monkeypatch):
    pytest.importorskip("astroquery")
    from astroquery.hips2fits import hips2fits
    from astroquery.image_cutouts.first import First

    def nothing(*_, **__):
        raise TimeoutError("no answer")

    def image(*_, **asked):
        return fits.HDUList([fits.PrimaryHDU(source.astype(np.float32), wcs_of(source.shape, 15.0).to_header())])

    monkeypatch.setattr(First, "get_images", nothing)
    monkeypatch.setattr(hips2fits, "query", image)
    found = cutout.download_cutout(*SKY)
    assert found.name.endswith("(NVSS)")
    assert found.pixel == pytest.approx(15.0)
    monkeypatch.setattr(First, "get_images", image)
    assert cutout.download_cutout(*SKY).name.endswith("(FIRST)")


def noted(field, words):
    return any(words in note for note in field.notes)


def seen_in(source, wcs, shape):
    """The source, drawn north up on 1.8″ around SKY, as an image with another WCS shows it."""
    down, across = np.mgrid[: shape[0], : shape[1]]
    x, y = wcs_of(source.shape, 1.8).world_to_pixel(wcs.pixel_to_world(across, down))
    return ndimage.map_coordinates(source, [y, x], order=3)


def test_the_scale_is_that_of_the_place_in_a_plate_carree(source, tmp_path):
    """Far from its reference point a plate carrée's pixels are narrower in right ascension than CDELT says."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.cdelt = ("RA---CAR", "DEC--CAR"), (150.0, 0.0), (-1.8 / 3600, 1.8 / 3600)
    wcs.wcs.crpix = 160.5, 150.5 - 20 * 2000
    plain = cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8)))
    field = cutout.open_cutout(fits_file(tmp_path / "b.fits", seen_in(source, wcs, (300, 320)), wcs))
    assert noted(field, "1.69″ × 1.80″ were resampled to 1.80″")
    assert field.place == pytest.approx(SKY, abs=1 / 3600)
    assert alike(plain, field) > 0.99


@pytest.mark.parametrize("frame", ["", "FK5", "ICRS"])
def test_galactic_coordinates_give_the_same_place(source, tmp_path, frame):
    middle = wcs_of(source.shape, 1.8).pixel_to_world(149.5, 149.5).galactic
    wcs = wcs_of(source.shape, 1.8)
    wcs.wcs.ctype, wcs.wcs.crval = ("GLON-TAN", "GLAT-TAN"), (middle.l.deg, middle.b.deg)
    path = fits_file(tmp_path / "a.fits", source, wcs)
    fits.setval(path, "RADESYS", value=frame)
    assert cutout.open_cutout(path).place == pytest.approx(SKY, abs=1e-6)


def test_celestial_axes_without_a_width_take_the_one_given(source, tmp_path):
    path = fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8))
    with fits.open(path, mode="update") as units:
        for key in ("CDELT1", "CDELT2", "PC1_1", "PC2_2"):
            units[0].header.remove(key, ignore_missing=True)
    field = cutout.open_cutout(path, pixel=1.8)
    assert field.place == pytest.approx(SKY, abs=1e-6)
    assert noted(field, "as given")
    with pytest.raises(BadInput, match="--pixel"):
        cutout.open_cutout(path)


def test_a_width_that_contradicts_the_header_is_refused(source, tmp_path):
    path = fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, 1.8))
    assert cutout.open_cutout(path, pixel=1.83).pixel == pytest.approx(1.8)
    with pytest.raises(BadInput, match=r"1\.8″ by its header, not of 2″: omit --pixel"):
        cutout.open_cutout(path, pixel=2.0)


@pytest.mark.parametrize("width", [1e-10, 5e-6])
def test_an_image_of_no_extent_is_refused(source, tmp_path, width):
    with pytest.raises(BadInput, match="too small"):
        cutout.open_cutout(fits_file(tmp_path / "a.fits", source, wcs_of(source.shape, width * 3600)))


@pytest.mark.parametrize("value", [-9999, -32768, 9999, 1e10, 1e30, -1e30, 40])
def test_values_that_stand_for_blank_are_blank(source, tmp_path, value):
    whole, cut = (source.copy() for _ in range(2))
    whole[:40], cut[:40] = np.nan, value
    if value != 40:  # which is not beyond all others: blank along the edge only
        whole[60:64, 60:90], cut[60:64, 60:90] = np.nan, value
    wcs = wcs_of(source.shape, 1.8)
    blank, field = (
        cutout.open_cutout(fits_file(tmp_path / f"{name}.fits", one, wcs)) for name, one in (("a", whole), ("b", cut))
    )
    np.testing.assert_allclose(field.pixels, blank.pixels, atol=1e-4)
    assert noted(field, "treated as blank")


def test_the_sky_of_a_clipped_image_and_a_saturated_source_are_not_blank(source, tmp_path):
    for number, pixels in enumerate((fields.clip(source), np.minimum(source, 20))):
        field = cutout.open_cutout(fits_file(tmp_path / f"{number}.fits", pixels, wcs_of(source.shape, 1.8)))
        assert not noted(field, "treated as blank")


def grey(pixels, low=None, high=None):
    """Grey levels, uint8, of brightness between two values."""
    low, high = (np.min(pixels) if low is None else low), (np.max(pixels) if high is None else high)
    return np.rint(255 * np.clip((pixels - low) / (high - low), 0, 1)).astype(np.uint8)


def picture(levels, kind="PNG", **options):
    stream = io.BytesIO()
    Image.fromarray(levels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize("high", [None, 5.0])
@pytest.mark.parametrize("clipped", [True, False])
def test_black_on_white_is_inverted(source, clipped, high):
    levels = grey(np.where(source > 3, source, 0) if clipped else source, None if clipped else -3.0, high)
    plain, field = (cutout.read_cutout(picture(one), "a.png") for one in (levels, 255 - levels))
    np.testing.assert_array_equal(field.pixels, plain.pixels)
    assert noted(field, "black on white")
    assert not noted(plain, "black on white")


def test_a_jpeg_is_read_like_a_png(source):
    png, jpeg = (cutout.read_cutout(picture(grey(source), kind), "a") for kind in ("PNG", "JPEG"))
    assert alike(png, jpeg) > 0.98
    assert jpeg.snr == pytest.approx(png.snr, rel=0.2)


def test_traces_of_compression_are_no_emission(source):
    clipped = grey(fields.clip(source))
    plain, *packed = (cutout.read_cutout(picture(clipped, kind), "a") for kind in ("PNG", "JPEG"))
    packed.append(cutout.read_cutout(picture(grey(source, low=0), "JPEG", quality=80), "a"))  # half of the sky is black
    for one in packed:
        assert noted(one, "traces of the compression")
        assert alike(plain, one) > 0.95
    packed = packed[0]
    assert (packed.pixels > 0).sum() < 1.15 * (plain.pixels > 0).sum()


def test_what_a_picture_does_not_say_is_noted(source):
    field = cutout.read_cutout(picture(grey(source)), "a.png")
    assert noted(field, "pixels of 1.8″ were assumed")
    assert noted(field, "stretched")
    assert not noted(cutout.read_cutout(picture(grey(source)), "a.png", None, 1.8), "assumed")


def test_a_frame_around_a_picture_is_blank(source):
    levels = grey(source)
    framed = np.pad(levels[3:-3, 3:-3], 3, constant_values=200)
    plain, field = (cutout.read_cutout(picture(one), "a.png") for one in (levels, framed))
    assert noted(field, "value 200 were treated as blank")
    assert alike(plain, field) > 0.99


@pytest.mark.parametrize("margin", [0, 255])
@pytest.mark.parametrize("width", [51, 80])
def test_a_noisy_strip_in_a_margin_is_all_that_there_is(source, margin, width):
    levels, (left, right) = grey(source), (150 - width // 2, 150 + width // 2)
    strip = np.full_like(levels, margin)
    strip[40:, left:right] = levels[40:, left:right]
    plain, field = (cutout.read_cutout(picture(one), "a.png") for one in (levels, strip))
    assert noted(field, f"value {margin} were treated as blank")
    assert alike(plain, field) > 0.95
    assert field.snr == pytest.approx(plain.snr, rel=0.3)


@pytest.mark.parametrize("snr", [400, 1500])
def test_a_sky_of_few_grey_levels_is_still_a_sky(source, snr):
    bright = simulate.source("FRII", np.random.default_rng(4), size=300, snr=snr)
    plain, field = (cutout.read_cutout(picture(grey(one)), "a.png") for one in (source, bright))
    assert not noted(field, "treated as blank")
    assert np.isfinite(field.snr)
    assert alike(plain, field) > 0.95


def test_the_noise_of_a_picture_with_half_a_sky_is_clipped(source):
    plain = cutout.read_cutout(picture(grey(source)), "a.png")
    field = cutout.read_cutout(picture(grey(np.clip(source, 0, None))), "a.png")
    assert noted(field, "darker half")
    assert alike(plain, field) > 0.95
    assert (field.pixels > 0).sum() < 2 * (plain.pixels > 0).sum()


@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_other_pictures_are_refused_with_what_is_read(source, kind):
    with pytest.raises(BadInput, match="not a readable FITS, PNG or JPEG image"):
        cutout.read_cutout(picture(grey(source), kind), "a")


def test_a_truncated_jpeg_is_refused(source):
    data = picture(grey(source), "JPEG")
    with pytest.raises(BadInput, match="not a complete PNG or JPEG"):
        cutout.read_cutout(data[: len(data) // 2], "a.jpg")


def double(size):
    """A double of 14″, two points under a beam of three pixels in noise of 1, (size, size)."""
    sky = np.zeros((size, size))
    sky[size // 2, [size // 2 - 4, size // 2 + 4]] = 1000.0
    noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(size, size)), 1.27)
    return ndimage.gaussian_filter(sky, 1.27) + noise / noise.std()


def test_a_small_stamp_of_a_whole_source_is_accepted_with_a_note(tmp_path):
    whole, stamp = (
        cutout.open_cutout(fits_file(tmp_path / f"{len(one)}.fits", one, wcs_of(one.shape, 1.8)))
        for one in (double(150), double(150)[55:95, 55:95])
    )
    assert noted(stamp, "outside of the image")
    assert alike(whole, stamp) > 0.98


def test_a_small_stamp_that_cuts_its_source_is_refused(tmp_path):
    cut = np.roll(double(40), 15, axis=1)[:, :36]
    with pytest.raises(BadInput, match=r"does not show the whole source.*use a larger image"):
        cutout.open_cutout(fits_file(tmp_path / "a.fits", cut, wcs_of(cut.shape, 1.8)))


def test_the_name_is_the_path_as_given(source, tmp_path):
    (tmp_path / "a").mkdir()
    path = fits_file(tmp_path / "a" / "b.fits", source, wcs_of(source.shape, 1.8))
    assert cutout.open_cutout(str(path)).name == str(path)


def with_beam(tmp_path, pixels, wcs, beam):
    path = fits_file(tmp_path / f"{len(list(tmp_path.iterdir()))}.fits", pixels, wcs)
    for key, value in beam.items():
        fits.setval(path, key, value=value)
    return cutout.open_cutout(path).beam


@pytest.mark.parametrize("beam", [{}, {"BMAJ": 5.4, "BMIN": 5.4}, {"BMAJ": "wide", "BMIN": 0.001}, {"BMAJ": -1.0}])
def test_an_unknown_beam_is_nan_and_a_wrong_one_is_noted(source, tmp_path, beam):
    assert np.isnan(with_beam(tmp_path, source, wcs_of(source.shape, 1.8), beam))
    field = cutout.open_cutout(next(tmp_path.iterdir()))
    assert noted(field, "cannot be right") == ("BMAJ" in beam)


def test_the_beam_is_that_of_the_resampled_image(tmp_path):
    """Its area is that of a resampled point source, flux over peak."""
    beam, wcs = {"BMAJ": 4 / 3600, "BMIN": 9 / 3600}, wcs_of((500, 500), 0.9)
    y, x = np.mgrid[:500, :500]
    sigma = np.array([4, 9]) / 2.3548 / 0.9
    point = 1e5 * np.exp(-0.5 * (((x - 250.5) / sigma[0]) ** 2 + ((y - 250.5) / sigma[1]) ** 2))
    path = fits_file(tmp_path / "a.fits", point + np.random.default_rng(0).normal(size=(500, 500)), wcs)
    for key, value in beam.items():
        fits.setval(path, key, value=value)
    field = cutout.open_cutout(path)
    area = field.pixels.sum() / field.pixels.max() * field.pixel**2
    assert field.beam == pytest.approx(2.3548 * np.sqrt(area / (2 * np.pi)), rel=0.03)
    assert with_beam(tmp_path, double(200), wcs_of((200, 200), 1.8), beam) == pytest.approx(6)


@pytest.mark.parametrize("size", [(601, 598), (900, 330)])
def test_a_turned_image_gives_the_same(size, tmp_path):
    """Of an image with pixels finer than those of FIRST, nothing is lost at its sides or corners."""
    pixels, wcs = np.random.default_rng(0).normal(size=size), wcs_of(size, 0.9)
    wide = ndimage.zoom(simulate.source("FRII", np.random.default_rng(4), size=150, snr=80), 2, order=1)
    pixels[-300:, -300:] += wide  # reaches into a corner
    at = tuple(map(float, wcs.pixel_to_world_values(size[1] - 150, size[0] - 150)))
    plain = cutout.open_cutout(fits_file(tmp_path / "a.fits", pixels, wcs), at)
    turned = WCS(naxis=2)
    turned.wcs.ctype, turned.wcs.crval, turned.wcs.crpix = wcs.wcs.ctype, SKY, ((size[0] + 1) / 2, (size[1] + 1) / 2)
    turned.wcs.cd = wcs.wcs.cd @ [[0, -1], [1, 0]]
    other = cutout.open_cutout(fits_file(tmp_path / "b.fits", np.rot90(pixels), turned), at)
    np.testing.assert_allclose(other.pixels, plain.pixels, atol=1e-4)
    assert (other.snr, other.notes) == (pytest.approx(plain.snr), plain.notes)
    oblique = wcs_of((1400, 1400), 0.9, turn=45.0)  # shows the same and more
    inside = np.round(wcs.world_to_pixel(oblique.pixel_to_world(*np.indices((1400, 1400))[::-1]))).astype(int)
    seen = ((inside >= 0) & (inside < np.array(size[::-1])[:, None, None])).all(0)
    shown = np.where(seen, pixels[tuple(np.where(seen, inside, 0)[::-1])], np.nan)
    third = cutout.open_cutout(fits_file(tmp_path / "c.fits", shown, oblique), at)
    assert third.partial == plain.partial
    assert alike(third, plain) > 0.98


@pytest.mark.parametrize(
    ("projection", "ra", "dec"),
    [("TAN", 150, 20), ("SIN", 30, 52), ("ZEA", 10, -60), ("CAR", 179.99, 0), ("AIT", 180, 10), ("HPX", 45, 41.81)],
)
def test_pixels_are_found_as_if_each_were_computed(projection, ra, dec, monkeypatch):
    """In the middle of a projection, far from it, and where it is cut at RA 180 or is not smooth."""
    old, shape = WCS(naxis=2), (337, 290)
    old.wcs.ctype, old.wcs.cdelt = (f"RA---{projection}", f"DEC--{projection}"), (-1.5 / 3600, 1.5 / 3600)
    old.wcs.crval, old.wcs.radesys = (ra // 60 * 60 if projection in ("TAN", "SIN", "ZEA") else 0, 0), "FK5"
    new = detect.north_up(shape, 1.8, ra, dec)
    exact = old.world_to_pixel(new.pixel_to_world(*np.indices(shape, float)[::-1]))
    assert np.isfinite(exact).all()
    sizes, plain = [], WCS.pixel_to_world
    monkeypatch.setattr(WCS, "pixel_to_world", lambda self, x, y: sizes.append(np.size(x)) or plain(self, x, y))
    np.testing.assert_allclose(cutout._places(new, shape, old), exact, rtol=0, atol=1e-6)
    assert (sum(sizes) < 200) == (projection in ("TAN", "SIN", "ZEA"))


def test_a_clipped_image_may_be_turned(source, tmp_path):
    """Most of what is left of the sky in a turned image is blank, but not at the lowest value."""
    wcs, turned = wcs_of((300, 300), 0.9), wcs_of((300, 300), 0.9, turn=45.0)
    clipped = fields.despeckle(fields.clip(source))
    one, other = (
        cutout.open_cutout(fits_file(tmp_path / f"{n}.fits", clipped, w)) for n, w in enumerate((wcs, turned))
    )
    assert noted(one, "clipped before")
    assert one.notes == other.notes
    assert other.pixels.max() == pytest.approx(one.pixels.max(), rel=0.15)


@pytest.mark.parametrize(("x", "width"), [(599.4, 1.2), (-0.4, 1.2), (299.499, 1.8)])
def test_a_position_on_blank_pixels_is_said_to_be_blank(tmp_path, x, width):
    """Also at the very edge of the image."""
    pixels = np.random.default_rng(0).normal(size=(300, 300 if width == 1.8 else 600))
    pixels[:, :60] = pixels[:, -60:] = np.nan
    wcs = wcs_of(pixels.shape, width)
    at = tuple(map(float, wcs.pixel_to_world_values(x, 150)))
    with pytest.raises(BadInput, match="is blank at"):
        cutout.open_cutout(fits_file(tmp_path / "a.fits", pixels, wcs), at)


def test_a_turned_image_of_narrow_pixels_is_not_made_too_large(tmp_path):
    wcs = wcs_of((1000, 1000), 0.05, turn=45.0, stretch=360.0)
    with pytest.raises(BadInput, match="too wide to be turned"):
        cutout.open_cutout(fits_file(tmp_path / "a.fits", np.zeros((1000, 1000)), wcs))


CASES = Path(__file__).parents[2] / "shared" / "cases"
OPTIONS = {"no_cdelt.fits": {"pixel": 1.8}, "two_planes.fits": {"plane": 0}}
SAME = ("plain.fits.gz", "origin_newline.fits", "spectrum_first.fits", "wcs_in_primary.fits", "no_cdelt.fits")


@pytest.fixture(scope="module")
def cases():
    """Cut-outs of the small inputs beside the repository by path, or the reasons why they are refused."""
    if not CASES.is_dir():
        pytest.skip("the cases are not here: ../shared/cases")
    found = {}
    for path in (one for one in CASES.rglob("*") if one.suffix in (".fits", ".gz", ".png", ".jpg")):
        try:
            found[str(path.relative_to(CASES))] = cutout.open_cutout(path, **OPTIONS.get(path.name, {}))
        except BadInput as error:
            found[str(path.relative_to(CASES))] = str(error)
    return found


def test_of_the_cases_only_the_damaged_one_is_refused(cases):
    assert [name for name, field in cases.items() if isinstance(field, str)] == ["bitflip.fits"]


@pytest.mark.parametrize("name", SAME)
def test_cases_of_one_image_give_the_same_pixels(cases, name):
    np.testing.assert_array_equal(cases[name].pixels, cases["plain.fits"].pixels)
    assert cases[name].place == pytest.approx(cases["plain.fits"].place)


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("car_dec60.fits", "tan_dec60.fits"),
        ("picture_inverted.png", "picture.png"),
        ("fri_inverted.png", "fri.png"),
        ("picture.jpg", "picture.png"),
        ("small_72.fits", "small_ref.fits"),
    ],
)
def test_cases_of_one_galaxy_look_alike(cases, name, other):
    assert alike(cases[name], cases[other]) > 0.98


def wide_double(arms, flux=(1.0, 1.0), core=0.0, shape=(300, 300)):
    """Two lobes with arms of some arcsec to the west and the east of the middle, and noise of one."""
    rng, (height, width) = np.random.default_rng(0), shape
    y, x = np.mgrid[:height, :width] - (np.array([height, width]).reshape(2, 1, 1) - 1) / 2
    places = (arms[0], flux[0]), (-arms[1], flux[1]), (0, core)
    sky = sum(f * np.exp(-((x - arm / 1.8) ** 2 + y**2) / (2 * 3**2)) for arm, f in places)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 1.27)
    return 50 * sky + noise / noise.std()


@pytest.mark.parametrize(
    ("arms", "flux", "core", "partial"),
    [
        ((65, 65), (1, 1), 0, True),
        ((70, 60), (1, 0.5), 1, True),
        ((20, 20), (1, 1), 0, False),
        ((65, 65), (1, 0.1), 1, False),
        ((110, 110), (1, 1), 1, False),
    ],
)
def test_lobes_too_wide_to_be_classified_are_said(arms, flux, core, partial, tmp_path):
    pixels = wide_double(arms, flux, core)
    wcs = wcs_of(pixels.shape, 1.8)
    path = fits_file(tmp_path / "double.fits", pixels, wcs)
    for at in (None, (150.0, 20.0)):
        field = cutout.open_cutout(path, at)
        assert field.partial == partial
        assert noted(field, "may be lobes of one galaxy") == partial


def test_a_source_at_the_edge_of_an_image_is_partly_outside(tmp_path):
    pixels = wide_double((20, 20))
    path = fits_file(tmp_path / "cut.fits", pixels[:, 135:], wcs_of(pixels[:, 135:].shape, 1.8))
    field = cutout.open_cutout(path)
    assert field.partial
    assert noted(field, "the source reaches an edge of the image")
    whole = pixels.copy()
    whole[:, :100] = np.nan
    assert not cutout.open_cutout(fits_file(tmp_path / "whole.fits", whole, wcs_of(whole.shape, 1.8))).partial


def test_in_a_picture_with_a_margin_the_peak_of_the_source_is_no_margin(tmp_path):
    source = simulate.source("FRII", np.random.default_rng(4), snr=80)
    grey = np.rint(255 * np.clip(source / source.max(), -0.03, 1) / 1.03 + 255 * 0.03 / 1.03).astype(np.uint8)
    wide = np.pad(grey, 30, constant_values=255)
    for name, levels in {"white": wide, "black": 255 - wide}.items():
        Image.fromarray(levels).save(tmp_path / f"{name}.png")
        found = cutout.open_cutout(tmp_path / f"{name}.png")
        assert not found.partial, found.notes
        assert any(f"{wide.size - grey.size} pixels" in note for note in found.notes)

"""Images of every kind become cut-outs, with notes, or are refused."""

import io

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image
from scipy import ndimage

from rgz.data import cutout, simulate
from rgz.errors import BadInput
from rgz.transforms import fields, prepare

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


def test_of_many_sources_the_one_asked_for_is_taken(source, tmp_path):
    rng = np.random.default_rng(9)
    both = source + np.roll(simulate.source("FRI", rng, size=300, snr=60), (100, 100), (0, 1))
    wcs = wcs_of(source.shape, 1.8)
    path = fits_file(tmp_path / "a.fits", both, wcs)
    there = wcs.pixel_to_world(149.5 + 100, 149.5 + 100)
    middle, other = cutout.open_cutout(path), cutout.open_cutout(path, at=(there.ra.deg, there.dec.deg))
    assert middle.others >= 1
    assert any("choose one with --at" in note for note in middle.notes)
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


@pytest.mark.parametrize("place", [("far", "away"), ("nan", "2"), ("10", "95")])
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

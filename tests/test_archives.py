"""Archives are read completely and correctly, or refused in one line; no code in them runs."""

import bz2
import gzip
import io
import os
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from rgz.data import archives, sample
from rgz.errors import BadInput


def batch(count=3, start=0):
    rng = np.random.default_rng(start)
    names = [np.str_(f"./100_{10 + start + i:03d}.000+01.000_0.1000_0030.00.png") for i in range(count)]
    return {
        "batch_label": "x",
        "labels": [np.int64(0)] * count,
        "filenames": names,
        "data": [rng.integers(0, 256, (150, 150), dtype=np.uint8) for _ in range(count)],
    }


def archive(path, files, mode="w:gz"):
    with tarfile.open(path, mode) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.fixture
def batches(tmp_path):
    return archive(
        tmp_path / "good.tar.gz",
        {
            "b/data_batch_1": pickle.dumps(batch(), protocol=3),
            "b/data_batch_2": pickle.dumps(batch(2, 50), protocol=3),
            "b/test_batch": pickle.dumps(batch(2, 70), protocol=3),
        },
    )


def test_a_pickle_does_not_change_the_dtypes_of_numpy():
    """A dtype whose state says big-endian must not turn every int64 of this process around."""
    big = pickle.dumps({"data": np.arange(3, dtype=">i8")}, protocol=3)
    np.testing.assert_array_equal(archives.unpickle(big)["data"], [0, 1, 2])
    assert np.dtype("i8").isnative
    assert np.arange(3).tolist() == [0, 1, 2]


class Command:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_batches_come_in_order_with_their_split(batches):
    images, classes, names, splits = archives.read_batches(batches)
    assert images.shape == (7, 150, 150)
    assert splits == ["train"] * 5 + ["test"] * 2
    assert (images[3] == batch(2, 50)["data"][0]).all()
    assert len(classes) == len(names) == 7


def test_a_pickle_that_calls_a_command_runs_nothing(tmp_path):
    trap = tmp_path / "ran"
    path = archive(tmp_path / "evil.tar.gz", {"data_batch_1": pickle.dumps({"data": Command(trap)}), "test_batch": b""})
    with pytest.raises(BadInput, match="system"):
        archives.read_batches(path)
    assert not trap.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"cnumpy.lib.npyio\nload\n.",
        b"cnumpy\nload\n.",
        b"cnumpy.core.multiarray\n_reconstruct\n.",
        pickle.dumps([1, 2]),
        pickle.dumps({"data": np.array([{}], dtype=object)}),
        b"",
        b"\x80",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff",
    ],
)
def test_anything_but_a_dict_of_plain_data_is_refused(payload):
    with pytest.raises(BadInput):
        archives.unpickle(payload)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_tar_member_outside_its_folder(tmp_path, name):
    with pytest.raises(BadInput, match="no data_batch"):
        archives.read_batches(archive(tmp_path / "slip.tar.gz", {name: b"x"}))
    assert [p.name for p in tmp_path.iterdir()] == ["slip.tar.gz"]  # nothing is unpacked to the disk


def test_a_link_in_a_tar_is_not_followed(tmp_path):
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        entry = tarfile.TarInfo("data_batch_1")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(BadInput, match="no data_batch"):
        archives.read_batches(tmp_path / "link.tar")


@pytest.mark.parametrize("keep", [0, 10, 200, 0.5, 0.99])
def test_truncated_batches(batches, keep):
    data = batches.read_bytes()
    batches.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(BadInput, match=r"batches|data_batch"):
        archives.read_batches(batches)


def flipped(data, rng):
    damaged = bytearray(data)
    damaged[rng.integers(len(damaged))] ^= 1 << rng.integers(8)
    return bytes(damaged)


def test_a_flipped_bit_in_batches_is_found(batches):
    rng, whole = np.random.default_rng(0), batches.read_bytes()
    good = archives.read_batches(batches)[0]
    caught = 0
    for _ in range(20):
        batches.write_bytes(flipped(whole, rng))
        try:
            assert (archives.read_batches(batches)[0] == good).all()  # harmless: in the gzip header's name or time
        except BadInput:
            caught += 1
    assert caught >= 18


def test_images_without_labels_are_refused(tmp_path):
    short = batch()
    short["labels"] = short["labels"][:1]
    path = archive(
        tmp_path / "short.tar.gz", {"data_batch_1": pickle.dumps(short, 3), "test_batch": pickle.dumps(batch(), 3)}
    )
    with pytest.raises(BadInput, match="one label"):
        archives.read_batches(path)


def image_hdu(shape=(40, 50)):
    header = WCS(naxis=2).to_header()
    header.update(
        CTYPE1="RA---TAN", CTYPE2="DEC--TAN", CRVAL1=150.0, CRVAL2=2.0, CDELT1=-5e-4, CDELT2=5e-4, CRPIX1=25, CRPIX2=20
    )
    return fits.ImageHDU(np.random.default_rng(0).normal(size=shape).astype(np.float32), header)


def test_fits_with_degenerate_axes(tmp_path):
    fits.PrimaryHDU(np.zeros((1, 1, 30, 20), np.float32)).writeto(tmp_path / "four.fits")
    pixels, wcs, *_ = archives.read_plane(tmp_path / "four.fits")
    assert pixels.shape == (30, 20)
    assert wcs is None


def test_fits_compressed_with_wcs(tmp_path):
    unit = image_hdu()
    fits.HDUList(
        [fits.PrimaryHDU(), fits.CompImageHDU(unit.data, unit.header, compression_type="RICE_1", quantize_level=16)]
    ).writeto(tmp_path / "c.fits.fz")
    pixels, wcs, *_ = archives.read_plane(tmp_path / "c.fits.fz")
    assert pixels.shape == (40, 50)
    assert np.abs(pixels - unit.data).max() < 0.1
    assert wcs.pixel_to_world(24, 19).ra.deg == pytest.approx(150.0)


def test_fits_blank_pixels_are_nan(tmp_path):
    unit = image_hdu()
    unit.data[:3] = np.nan
    unit.writeto(tmp_path / "blank.fits")
    assert np.isnan(archives.read_plane(tmp_path / "blank.fits")[0][:3]).all()


def test_fits_cube_is_refused(tmp_path):
    fits.PrimaryHDU(np.zeros((3, 30, 20), np.float32)).writeto(tmp_path / "cube.fits")
    with pytest.raises(BadInput, match="one plane"):
        archives.read_plane(tmp_path / "cube.fits")


FIVE = ("CTYPE", "CRVAL", "CRPIX", "CDELT")  # first five letters of the WCS keywords


def written(*units, **options):
    stream = io.BytesIO()
    fits.HDUList(list(units)).writeto(stream, **options)
    return stream.getvalue()


def zipped(**files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return stream.getvalue()


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "zip": lambda data: zipped(a=data)}


@pytest.mark.parametrize("kind", PACK)
def test_packed_fits_has_the_same_pixels(tmp_path, kind):
    unit = image_hdu()
    (tmp_path / "a").write_bytes(PACK[kind](written(fits.PrimaryHDU(), unit)))
    np.testing.assert_array_equal(archives.read_plane(tmp_path / "a")[0], unit.data)


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_truncated_packed_files_are_refused(kind, keep):
    data = PACK[kind](written(fits.PrimaryHDU(), image_hdu()))
    with pytest.raises(BadInput, match=r"not a complete (gzip|bzip2|zip) file"):
        archives.content(data[: int(len(data) * keep)], "a")


@pytest.mark.parametrize("kind", PACK)
def test_what_unpacks_to_too_much_is_refused(kind, monkeypatch):
    monkeypatch.setattr(archives, "LARGEST", 1 << 16)
    with pytest.raises(BadInput, match=r"512 MiB .*unpack it"):
        archives.content(PACK[kind](bytes(1 << 17)), "a")


def test_a_zip_of_two_images_is_refused():
    with pytest.raises(BadInput, match="holds 2 files"):
        archives.content(zipped(a=b"1", b=b"2"), "a.zip")


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/"])
def test_devices_and_folders_are_not_read(path):
    with pytest.raises(BadInput, match="folder or a device"):
        archives.content(Path(path), path)


def test_the_first_celestial_image_is_read_and_said():
    data = written(fits.PrimaryHDU(np.arange(8)), fits.ImageHDU(np.ones((9, 9))), image_hdu())
    pixels, wcs, _, notes = archives.read_plane(data)
    assert pixels.shape == (40, 50)
    assert wcs is not None
    assert "--hdu" in notes[0]


@pytest.mark.parametrize("hdu", [2, "2", "err", "ERR"])
def test_an_hdu_is_chosen_by_number_or_name(hdu):
    other = image_hdu((30, 30))
    other.name = "ERR"
    pixels, _, _, notes = archives.read_plane(written(fits.PrimaryHDU(), image_hdu(), other), hdu=hdu)
    assert (pixels.shape, notes) == ((30, 30), [])


@pytest.mark.parametrize("hdu", [0, 7, "-1", "SCI"])
def test_a_missing_hdu_is_named_with_the_option(hdu):
    with pytest.raises(BadInput, match=r"HDU .*\(1\) with --hdu"):
        archives.read_plane(written(fits.PrimaryHDU(), image_hdu()), hdu=hdu)


@pytest.mark.parametrize("first", [True, False])
def test_a_plane_is_chosen_along_the_axis_that_is_not_of_the_sky(first):
    cube, header = np.arange(3)[:, None, None] * np.ones((40, 50)), image_hdu().header
    if first:  # FREQ is axis 1
        header = fits.Header({key[:5] + str(int(key[5]) + 1): header[key] for key in header if key[:5] in FIVE})
        cube = np.moveaxis(cube, 0, -1)
    data = written(fits.PrimaryHDU(cube.astype(np.float32), header))
    pixels, wcs, *_ = archives.read_plane(data, plane=2)
    assert wcs is not None
    np.testing.assert_array_equal(pixels, np.full((40, 50), 2))
    for plane in (None, 3, -1):
        with pytest.raises(BadInput, match="--plane 0 to 2"):
            archives.read_plane(data, plane=plane)


@pytest.mark.parametrize("inherit", [None, True, False])
def test_an_empty_primary_gives_its_wcs_to_an_extension(inherit):
    header = image_hdu().header
    bare = fits.ImageHDU(image_hdu().data)
    if inherit is not None:
        bare.header["INHERIT"] = inherit
    primary = fits.PrimaryHDU(header=fits.Header({key: header[key] for key in header if key[:5] in FIVE}))
    wcs = archives.read_plane(written(primary, bare))[1]
    assert (wcs is None) == (inherit is False)


def with_card(text):
    """A FITS image with a card of any characters before END."""
    data = bytearray(written(fits.PrimaryHDU(image_hdu().data, image_hdu().header)))
    end = data.find(b"END".ljust(80))
    data[end : end + 160] = text.ljust(80).encode("latin1") + b"END".ljust(80)
    return bytes(data)


@pytest.mark.parametrize("card", ["ORIGIN  = 'CASA\n'", "COMMENT \t\x01 caf\xe9", "OBJECT  = 'no end", "BMAJ    = 1.x"])
def test_cards_beside_the_standard_do_not_matter(card):
    pixels, wcs, *_ = archives.read_plane(with_card(card))
    np.testing.assert_array_equal(pixels, image_hdu().data)
    assert wcs is not None


@pytest.mark.parametrize(
    ("key", "value"), [("CRVAL1", "NaN"), ("CRVAL2", "'north'"), ("CTYPE1", "'RA---QQQ'"), ("CTYPE1", "'ELON-TAN'")]
)
def test_coordinates_without_a_place_are_none(key, value):
    data = written(fits.PrimaryHDU(image_hdu().data, image_hdu().header))
    start = data.find(key.encode())
    data = data[:start] + f"{key:8}= {value}".ljust(80).encode() + data[start + 80 :]
    assert archives.read_plane(data)[1] is None


def test_an_unknown_frame_is_noted():
    unit = image_hdu()
    unit.header["RADESYS"] = "J2000"
    _, wcs, _, notes = archives.read_plane(written(fits.PrimaryHDU(), unit))
    assert wcs.pixel_to_world(24, 19).icrs.ra.deg == pytest.approx(150.0)
    assert "J2000 is unknown" in notes[0]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_header_that_claims_more_pixels_than_there_are(compressed):
    unit = image_hdu()
    unit = fits.CompImageHDU(unit.data, unit.header) if compressed else fits.ImageHDU(unit.data, unit.header)
    data = written(fits.PrimaryHDU(), unit)
    for axis, n in enumerate((50, 40), 1):
        key = f"{'Z' * compressed}NAXIS{axis}"
        data = data.replace(f"{key:8}= {n:20}".encode(), f"{key:8}= {31623:20}".encode())
    with pytest.raises(BadInput, match="claims"):
        archives.read_plane(data)


def test_of_a_large_image_the_surroundings_of_a_position_are_read(tmp_path):
    unit = image_hdu((400, 300))
    unit.writeto(tmp_path / "a.fits")
    there = WCS(unit.header).pixel_to_world(250, 180)
    pixels, wcs, *_ = archives.read_plane(tmp_path / "a.fits", at=there, side=100)
    np.testing.assert_array_equal(pixels, unit.data[130:230, 200:300])
    np.testing.assert_allclose(wcs.world_to_pixel(there), (50, 50), atol=1e-6)
    with pytest.raises(BadInput, match="--at"):
        archives.read_plane(tmp_path / "a.fits", side=100)


def test_an_image_may_be_larger_along_one_axis_alone(tmp_path):
    unit = image_hdu((40, 300))
    unit.writeto(tmp_path / "a.fits")
    pixels, *_ = archives.read_plane(tmp_path / "a.fits", at=WCS(unit.header).pixel_to_world(250, 20), side=100)
    np.testing.assert_array_equal(pixels, unit.data[:, 200:])


def test_fits_table_only_is_refused(tmp_path):
    fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])]).writeto(tmp_path / "t.fits")
    with pytest.raises(BadInput, match="no image"):
        archives.read_plane(tmp_path / "t.fits")


def test_fits_truncated_flipped_or_foreign(tmp_path, run):
    path = tmp_path / "x.fits"
    fits.HDUList([fits.PrimaryHDU(), image_hdu()]).writeto(path, checksum=True)
    whole = path.read_bytes()
    at = len(whole) - 2880 - 100  # a pixel
    for damaged in (
        whole[:1000],
        whole[:3000],
        whole[: len(whole) - 4000],
        b"not a FITS file",
        b"",
        whole[:at] + bytes([whole[at] ^ 64]) + whole[at + 1 :],
    ):
        path.write_bytes(damaged)
        status, out, err = run("look", path)
        assert (status, out, err.count("\n")) == (1, "", 1)


def test_fits_never_fails_in_another_way(tmp_path):
    rng, path = np.random.default_rng(1), tmp_path / "x.fits"
    unit = image_hdu()
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(unit.data, unit.header)]).writeto(path, checksum=True)
    whole = path.read_bytes()
    for _ in range(40):
        try:
            archives.read_plane(flipped(whole, rng))
        except BadInput:
            continue


def test_sample_file_truncated_flipped_or_foreign(tmp_path, simulated):
    path = tmp_path / "s.h5"
    sample.write(path, simulated)
    whole, found = path.read_bytes(), 0
    for damaged in (whole[:100], whole[: len(whole) // 2], b"not HDF5", b""):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match="not a readable sample file"):
            sample.read(path)
    rng = np.random.default_rng(2)
    for _ in range(30):
        path.write_bytes(flipped(whole, rng))
        try:
            read = sample.read(path)
            found += (read.images != simulated.images).any()
        except BadInput:
            continue
    assert found == 0  # what can be read is right

"""Archives are read completely and correctly, or refused in one line; no code in them runs."""

import io
import os
import pickle
import tarfile
import zipfile

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
            "b/data_batch_1": pickle.dumps(batch()),
            "b/data_batch_2": pickle.dumps(batch(2, 50)),
            "b/test_batch": pickle.dumps(batch(2, 70), protocol=2),
        },
    )


def test_a_pickle_does_not_change_the_dtypes_of_numpy():
    """A dtype whose state says big-endian must not turn every int64 of this process around."""
    big = pickle.dumps({"data": np.arange(3, dtype=">i8")})
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
    with pytest.raises(BadInput, match="outside"):
        archives.read_batches(archive(tmp_path / "slip.tar.gz", {name: b"x"}))
    assert [p.name for p in tmp_path.iterdir()] == ["slip.tar.gz"]


def test_tar_link_is_refused(tmp_path):
    with tarfile.open(tmp_path / "link.tar", "w") as tar:
        entry = tarfile.TarInfo("data_batch_1")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(entry)
    with pytest.raises(BadInput, match="link"):
        archives.read_batches(tmp_path / "link.tar")


def test_zip_member_outside_its_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "slip.zip", "w") as file:
        file.writestr("../outside", "x")
    with pytest.raises(BadInput, match="outside"):
        list(archives.members(tmp_path / "slip.zip"))


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
        tmp_path / "short.tar.gz", {"data_batch_1": pickle.dumps(short), "test_batch": pickle.dumps(batch())}
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
    pixels, wcs = archives.read_fits(tmp_path / "four.fits")
    assert pixels.shape == (30, 20)
    assert wcs is None


def test_fits_compressed_with_wcs(tmp_path):
    unit = image_hdu()
    fits.HDUList(
        [fits.PrimaryHDU(), fits.CompImageHDU(unit.data, unit.header, compression_type="RICE_1", quantize_level=16)]
    ).writeto(tmp_path / "c.fits.fz")
    pixels, wcs = archives.read_fits(tmp_path / "c.fits.fz")
    assert pixels.shape == (40, 50)
    assert np.abs(pixels - unit.data).max() < 0.1
    assert wcs.pixel_to_world(24, 19).ra.deg == pytest.approx(150.0)


def test_fits_blank_pixels_are_nan(tmp_path):
    unit = image_hdu()
    unit.data[:3] = np.nan
    unit.writeto(tmp_path / "blank.fits")
    assert np.isnan(archives.read_fits(tmp_path / "blank.fits")[0][:3]).all()


def test_fits_cube_is_refused(tmp_path):
    fits.PrimaryHDU(np.zeros((3, 30, 20), np.float32)).writeto(tmp_path / "cube.fits")
    with pytest.raises(BadInput, match="one plane"):
        archives.read_fits(tmp_path / "cube.fits")


def test_fits_table_only_is_refused(tmp_path):
    fits.BinTableHDU.from_columns([fits.Column("a", "E", array=[1.0])]).writeto(tmp_path / "t.fits")
    with pytest.raises(BadInput, match="no image"):
        archives.read_fits(tmp_path / "t.fits")


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
            archives.read_fits(flipped(whole, rng))
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

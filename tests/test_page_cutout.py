"""The page's own cut-out, in a real browser, is that of the library to the pixel, for fields of many kinds."""

import base64
import io
import json
import shutil
import tarfile
import warnings

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from PIL import Image, ImageOps
from scipy import ndimage

from rgz.data import cutout, datasets, detect, fetch
from rgz.errors import BadInput
from studies import page as pages
from studies import simulate

SIMULATED, REAL = 48, 24  # fields
READ = """async (names) => {
  const { C } = await import("./library.mjs"), { centre } = await import("./cutout.mjs");
  const { readFits } = await import("./fits.mjs"), { isPicture, readPicture } = await import("./picture.mjs");
  Object.assign(C, await (await fetch("library.json")).json());
  const found = [];
  for (const name of names) {
    const bytes = new Uint8Array(await (await fetch(encodeURI(name))).arrayBuffer());
    try {
      const image = isPicture(bytes) ? await readPicture(bytes, name) : readFits(bytes, name);
      const cutout = centre(image, image.assumed), text = String.fromCharCode(...new Uint8Array(cutout.field.buffer));
      found.push({ ...cutout, field: btoa(text), snr: String(cutout.snr), beam: String(cutout.beam) });
    } catch (error) {
      found.push({ refused: error.message });
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def cut(browser, served, tmp_path_factory):
    """Cut out the sources in files, by name, in the browser; the answers by name."""
    folder = tmp_path_factory.mktemp("cutout")
    for path in pages.SOURCE.glob("*.mjs"):
        shutil.copy(path, folder)
    (folder / "library.json").write_text(json.dumps(pages.library()))
    with served(folder) as address:
        page = browser.new_page()
        page.goto(f"{address}library.json")

        def ask(files):
            for name, content in files.items():
                (folder / name).write_bytes(content)
            return dict(zip(files, page.evaluate(READ, list(files)), strict=True))

        yield ask
        page.close()


def unlike(found, files, close):
    """What the browser's answers have unlike the library's, in words, by the names of files."""
    told = {name: differences(name, content, found[name], close) for name, content in files.items()}
    return {name: words for name, words in told.items() if words}


def differences(name, content, found, close):
    """What the browser's answer has unlike the library's, in words; ``close`` is relative to the peak."""
    try:
        expected = cutout.read_cutout(content, name)
    except BadInput as error:
        return [] if found.get("refused") == str(error) else [f"not refused: {error}"]
    if "refused" in found:
        return [f"refused: {found['refused']}"]
    field = np.frombuffer(base64.b64decode(found["field"]), np.float32).reshape(expected.pixels.shape)
    count = int((np.abs(field - expected.pixels) > close * expected.pixels.max()).sum())
    said = [f"{count} pixels"] if count else []
    for key in ("pixel", "snr", "beam"):
        if not np.isclose(float(found[key]), getattr(expected, key), rtol=close, atol=0, equal_nan=True):
            said.append(f"{key} {found[key]}, not {getattr(expected, key)}")
    said += [key for key in ("others", "partial") if found[key] != getattr(expected, key)]
    place = found["place"] or (np.nan, np.nan)
    if not np.allclose(place, expected.place, rtol=0, atol=0.1 / 3600, equal_nan=True):
        said.append(f"place {place}, not {expected.place}")
    shown, known = (
        [one for one in notes if "further" not in one and "assumed" not in one]  # name options of rgz look
        for notes in (found["notes"], expected.notes)
    )
    return said + [f"notes {shown}, not {known}"] * (shown != known)


def written(pixels, pixel=simulate.PIXEL, **cards):
    """Content of a FITS file with north up."""
    header = detect.north_up(pixels.shape[-2:], pixel, 150.0, 20.0).to_header()
    header.update(cards)
    stream = io.BytesIO()
    fits.PrimaryHDU(pixels, header).writeto(stream)
    return stream.getvalue()


def field(seed):
    """A FITS file with some sources of any brightness and size, blank, clipped or quantised, in pixels of any width."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(60, 180))
    image = np.zeros((size, size))
    for number in range(rng.integers(1, 4)):
        one = simulate.source(rng.choice(["FRI", "FRII"]), rng, size=size, snr=float(rng.lognormal(3, 1)))
        image += np.roll(one, rng.integers(-size // 2, size // 2, 2) * (number > 0), (0, 1))
    image = np.roll(image, rng.integers(-size // 5, size // 5, 2) * rng.integers(0, 2), (0, 1))
    image *= 10 ** rng.uniform(-6, 3)
    edge = int(rng.integers(1, size // 3))
    match seed % 8:
        case 1:
            image[:, :edge] = np.nan
        case 2:
            image[rng.random(image.shape) < 0.02] = np.nan
        case 3:
            image = np.where(image > image.std(), image, 0)
        case 4:
            image = np.maximum(image, np.median(image))
        case 5:
            image[:edge] = -9999
        case 6:
            image = np.rint((image - image.min()) / np.ptp(image) * 255).astype(np.uint8)
        case 7:
            image += rng.normal()
    pixel = float(rng.choice([1.8, 1.8, 1.2, 2.5, 5.0, 15.0]))
    cards = {"BMAJ": 3 * pixel / 3600, "BMIN": 2.5 * pixel / 3600} if rng.integers(2) else {}
    cards |= {} if rng.integers(8) else {"CDELT1": -1.3 * pixel / 3600}
    kind = np.uint8 if image.dtype == np.uint8 else (np.float32, np.float64)[rng.integers(2)]
    return written(image.astype(kind), pixel, **cards)


@pytest.mark.slow
def test_many_fields_are_those_of_the_library(cut):
    files = {f"{seed}.fits": field(seed) for seed in range(SIMULATED)}
    if path := fetch.locate(datasets.FITS_FIELDS):  # real fields of FIRST, 9′ wide, with further sources
        with tarfile.open(path) as tar:
            members = [one for one in tar if one.name.endswith(".fits.fz")]
            for one in members[:: len(members) // REAL]:
                with fits.open(tar.extractfile(one)) as packed:
                    stream = io.BytesIO()
                    with warnings.catch_warnings(action="ignore"):
                        fits.PrimaryHDU(packed[1].data, packed[1].header).writeto(stream)
                files[one.name.removesuffix(".fz").replace("/", "-")] = stream.getvalue()
    found = cut(files)
    assert unlike(found, files, 1e-5) == {}  # single precision
    assert sum("refused" in one for one in found.values()) < len(files) / 5


def kinds_of_files():
    """Files of many kinds, by name: what the page reads must be what the library reads."""
    rng = np.random.default_rng(8)
    image = simulate.source("FRII", rng, size=220, snr=90)
    apart = np.roll(image, (60, -40), (0, 1)) + simulate.source("FRI", rng, size=220, snr=30)
    edge, whole = np.pad(image, ((0, 0), (0, 30)), constant_values=np.nan), image.astype(np.float32)
    clipped = np.where(image > 3, image, 0).astype(np.float32)

    def turned(pixels, along=1.2, across=1.2, crpix=(100, 90), dec=-5):
        wcs, stream = WCS(naxis=2), io.BytesIO()
        wcs.wcs.ctype, wcs.wcs.crval, wcs.wcs.crpix = ("RA---SIN", "DEC--SIN"), (10, dec), crpix
        wcs.wcs.cd = np.array([[-np.cos(0.7), np.sin(0.7)], [np.sin(0.7), np.cos(0.7)]]) * (along, across) / 3600
        fits.PrimaryHDU(pixels, wcs.to_header()).writeto(stream)
        return stream.getvalue()

    second = io.BytesIO()
    fits.HDUList(
        [fits.PrimaryHDU(), fits.ImageHDU(whole, detect.north_up(whole.shape, 1.8, 5, 5).to_header())]
    ).writeto(second)
    scaled = fits.PrimaryHDU(whole, detect.north_up(whole.shape, 1.8, 5, 5).to_header())
    scaled.scale("int16", bscale=0.01, bzero=3.0)
    short = io.BytesIO()
    scaled.writeto(short)
    return {
        "float": written(whole),
        "double": written(image),
        "int32": written(np.rint(1000 * image).astype(np.int32)),
        "bytes": written(np.clip(60 + 2 * image, 0, 255).astype(np.uint8)),
        "scaled": short.getvalue(),
        "four axes": written(whole[None, None]),
        "extension": second.getvalue(),
        "two sources": written(apart.astype(np.float32)),
        "blank edge": written(edge.astype(np.float32)),
        "sentinel": written(np.where(np.isfinite(edge), edge, -9999).astype(np.float32)),
        "turned": turned(ndimage.zoom(image, 1.5, order=1).astype(">f8")),
        "turned and long": turned(np.concatenate([whole, rng.normal(size=(300, 220)).astype(np.float32)])),
        "turned and clipped": turned(clipped),
        "far from its reference": turned(whole, crpix=(2600, -1500), dec=60),
        "too oblong to be turned": turned(np.zeros((1000, 1000), np.float32), along=0.05, across=18),
        "clipped": written(clipped),
        "zero below": written(np.maximum(image, 0).astype(np.float32)),
        "wide": written(whole, CDELT1=-15 / 3600, CDELT2=15 / 3600),
        "oblong": written(whole, CDELT1=-2.4 / 3600),
        "lobes": written((np.roll(image, 40, 1) + np.roll(image, -40, 1)).astype(np.float32)),
        "cut": written(np.roll(whole, 60, 1)[:, 45:]),
        "far off": written(np.roll(image, 45, 1).astype(np.float32)),
    }


def picture(seed):
    """A PNG or JPEG file, light on dark or dark on light, some with a black sky, a margin or transparent pixels."""
    rng = np.random.default_rng(seed)
    size = int(rng.integers(80, 200))
    image = simulate.source(("FRI", "FRII")[seed % 2], rng, size=size, snr=float(rng.lognormal(3.5, 0.7)))
    sky = rng.integers(0, 40)
    levels = np.clip(sky + image * (255 - sky) / image.max(), 0, 255)
    if seed % 3 == 1:
        levels = 255 - levels
    made = Image.fromarray(np.rint(levels).astype(np.uint8))
    if seed % 5 == 1:
        made = ImageOps.expand(made, int(rng.integers(4, 20)), int(rng.integers(0, 255)))
    if seed % 4 == 2:
        made.putalpha(
            Image.fromarray(np.where(np.arange(made.width) < 9, 0, 255 * np.ones(made.size[::-1])).astype("u1"))
        )
    stream = io.BytesIO()
    made.convert("L" if seed % 4 == 3 else made.mode).save(stream, "JPEG" if seed % 4 == 3 else "PNG")
    return stream.getvalue()


def test_pictures_give_the_field_of_the_library(cut):
    files = {f"{seed}.picture": picture(seed) for seed in range(40)}
    found = cut(files)
    assert unlike(found, files, 1e-4) == {}
    assert sum("refused" in one for one in found.values()) < 10


def test_files_of_many_kinds_give_the_field_of_the_library(cut):
    assert unlike(cut(kinds_of_files()), kinds_of_files(), 1e-4) == {}  # the page takes projections as flat

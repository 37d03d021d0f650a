"""The page for a reader's own galaxy: its graph gives the library's numbers, and it answers as rgz look does."""

import gzip
import io

import numpy as np
import pytest
from astropy.io import fits
from PIL import Image
from scipy import ndimage

from rgz.data import cutout, detect
from rgz.errors import BadInput
from rgz.features.embed import Encoder
from rgz.models.flow import FlowEnsemble
from rgz.tasks import inspect
from rgz.tasks.classify import Classifier
from rgz.tasks.search import SearchIndex
from studies import figures, simulate
from studies import page as pages

pytestmark = pytest.mark.slow  # the export takes a minute


@pytest.fixture(scope="module")
def graph():
    """The exported graph; all tests here share it."""
    pytest.importorskip("onnxscript", reason="onnxscript is not installed: pip install -e '.[page]'")
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install -e '.[page]'")
    return pages.export()


@pytest.fixture(scope="module")
def outputs(graph):
    """Run the graph with ONNX Runtime: field (H, W) and pixel width to arrays by name."""
    import onnxruntime

    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def run(field, pixel):
        feeds = {"field": field[None].astype(np.float32), "pixel": np.array(pixel, np.float32)}
        return dict(zip(pages.OUTPUTS, session.run(None, feeds), strict=True))

    return run


FIELDS = [(kind, seed, pixel) for seed, kind in enumerate(("FRI", "FRII") * 3) for pixel in (1.8, 15.0)]


@pytest.mark.parametrize(("kind", "seed", "pixel"), FIELDS)
def test_the_graph_gives_the_numbers_of_the_library(outputs, kind, seed, pixel):
    image = simulate.source(kind, np.random.default_rng(seed), snr=40.0 + 30 * seed)
    image += np.roll(simulate.source("FRI", np.random.default_rng(9)), (40, -50), (0, 1))  # another source beside it
    one = cutout.centre(cutout.Observation("field", image, pixel))
    found, encoder, flows = outputs(one.pixels, one.pixel), Encoder.from_pretrained(), FlowEnsemble.from_pretrained()
    (code,) = codes = encoder.transform(one)
    np.testing.assert_allclose(found["code"], code, atol=5e-4)  # a processor may round a grey level the other way
    for name in ("centroid", "coarse"):
        expected = Classifier.from_pretrained(name).predict_proba(codes)[0]
        np.testing.assert_allclose(found[name], expected, atol=1e-4)
    (score,) = flows.score_samples(codes)
    expected = score, flows.member_scores(codes).std(ddof=1), flows.percentile(np.array([score]), hosts=False)[0]
    np.testing.assert_allclose(found["likelihood"], expected, rtol=1e-4, atol=0.02)
    rows, separation = SearchIndex.from_pretrained().about_centroid.neighbours(codes[:, len(code) // 2 :], 10)
    np.testing.assert_allclose(1 - found["cosines"][rows[0]], separation[0], atol=1e-3)
    assert len(set(np.argsort(-found["cosines"])[:10]) & set(rows[0])) >= 9
    assert np.abs(found["prepared"] - encoder.prepared(one)[0]).max() <= 1
    np.testing.assert_allclose(found["reconstruction"], encoder.reconstruct(one)[0], atol=1)


def test_only_exact_weights_are_stored_in_half_precision():
    onnx = pytest.importorskip("onnx")
    exact, fine = np.arange(100, dtype=np.float32), np.full(100, 0.1, np.float32)
    weights = [onnx.numpy_helper.from_array(value, name) for name, value in (("exact", exact), ("fine", fine))]
    add = onnx.helper.make_node("Add", ["exact", "fine"], ["sum"])
    shape = onnx.helper.make_tensor_value_info("sum", onnx.TensorProto.FLOAT, [100])
    model = onnx.helper.make_model(onnx.helper.make_graph([add], "sum", [], [shape], weights))
    halved = onnx.load_from_string(pages.halved(model))
    kinds = {tensor.name: tensor.data_type for tensor in halved.graph.initializer}
    assert kinds == {"exact.half": onnx.TensorProto.FLOAT16, "fine": onnx.TensorProto.FLOAT}
    (total,) = onnx.reference.ReferenceEvaluator(halved).run(None, {})
    np.testing.assert_array_equal(total, exact + fine)


def test_a_damaged_download_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("RGZ_CACHE", str(tmp_path))
    (tmp_path / "{}-{}.tgz".format(*pages.RUNTIME)).write_bytes(b"something else")
    with pytest.raises(BadInput, match="sha256"):
        pages.runtime()


def test_without_npm_the_page_says_what_it_needs(tmp_path, monkeypatch):
    monkeypatch.setenv("RGZ_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match="install npm"):
        pages.runtime()


# ---- in a browser ----


@pytest.fixture(scope="module")
def built(graph, tmp_path_factory):
    """Folder of the built page."""
    try:
        pages.runtime()
    except BadInput as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "export", lambda: graph)
        patch.setattr(figures, "pictures", lambda _, rows: (np.zeros((len(rows), 64, 64)), "blank"))
        pages.build(folder)  # refuses pages that are too large
    return folder


@pytest.fixture(scope="module")
def address(built, served):
    """Address of the page on a plain static server."""
    with served(built) as address:
        yield address


@pytest.fixture(scope="module")
def page(browser, address):
    """The page, ready; at the end there was no console message, and nothing was asked of or sent to another place."""
    page, said, asked = browser.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append((request.method, request.url)))
    page.goto(f"{address}look.html")
    page.locator("#status", has_text="Ready").wait_for(timeout=120_000)
    yield page
    assert said == []
    assert all(method == "GET" and url.startswith((address, "data:", "blob:")) for method, url in asked)


def ask(page, content, name, pixel="", ends="done in"):
    """Choose a file, wait for the answer, and return the status line."""
    page.fill("#pixel", pixel)
    page.set_input_files("#file", [])
    page.set_input_files("#file", {"name": name, "mimeType": "application/octet-stream", "buffer": content})
    status = page.locator("#status", has_text=name).filter(has_text=ends)
    status.wait_for(timeout=60_000)
    return status.inner_text()


def texts(page, selector):
    return page.eval_on_selector_all(selector, "all => all.map((one) => one.textContent)")


def fits_bytes(pixels, **cards):
    header = detect.north_up(pixels.shape[-2:], simulate.PIXEL, 150.0, 20.0).to_header()
    header.update(cards)
    stream = io.BytesIO()
    fits.PrimaryHDU(pixels, header).writeto(stream)
    return stream.getvalue()


def agrees(page, expected):
    """The page shows what an inspection says."""
    values = page.eval_on_selector_all("meter", "all => all.map((one) => one.value)")
    probabilities = dict(zip(texts(page, "#shares dt"), values, strict=True))
    assert page.inner_text("#verdict").startswith(expected.label or f"No class: {expected.status}")
    assert probabilities == pytest.approx(expected.probabilities, abs=0.02)
    if expected.label:
        assert page.inner_text("#set") == f"Not excluded at 90 %: {', '.join(expected.set90)}"
    assert page.inner_text("#anomaly").lower().startswith(expected.anomaly.split(":")[0])
    listed = page.eval_on_selector_all(
        "#neighbours a", "all => all.map((one) => decodeURIComponent(one.hash.slice(1)))"
    )
    assert len(set(listed) & set(expected.neighbours["name"])) >= 9
    shown, said = (
        [note for note in notes if "further source" not in note] for notes in (texts(page, "#notes li"), expected.notes)
    )
    assert shown == said


@pytest.mark.parametrize("kind", ["FRI", "FRII", "unresolved"])
def test_a_fits_file_gets_the_answer_of_rgz_look(page, kind):
    image = simulate.source(kind.replace("unresolved", "FRI"), np.random.default_rng(4), size=201, snr=80)
    if kind == "unresolved":
        y, x = np.mgrid[:201, :201] - 100
        noise = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=image.shape), 1.27)
        image = 30 * np.exp(-4 * np.log(2) * (x**2 + y**2) / 3**2) + noise / noise.std()
    content = fits_bytes(image.astype(np.float32), BMAJ=5.4 / 3600, BMIN=5.4 / 3600)
    ask(page, gzip.compress(content) if kind == "FRI" else content, f"{kind}.fits")
    agrees(page, inspect.inspect(cutout.read_cutout(content, f"{kind}.fits")))


def test_a_picture_gets_the_answer_of_rgz_look(page):
    image = simulate.source("FRII", np.random.default_rng(6), snr=60)
    stream = io.BytesIO()
    Image.fromarray(np.clip(20 + 3.5 * image, 0, 255).astype(np.uint8)).save(stream, "PNG")
    ask(page, stream.getvalue(), "picture.png")
    expected = inspect.inspect(cutout.read_cutout(stream.getvalue(), "picture.png"))
    listed = [note for note in texts(page, "#notes li") if "assumed" not in note]
    assert listed == [note for note in expected.notes if "assumed" not in note]
    label, *_ = page.inner_text("#verdict").split(",")
    assert label == expected.label


GALAXY = fits_bytes(simulate.source("FRII", np.random.default_rng(8), size=220, snr=90).astype(np.float32))


def colour():
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), dtype=np.uint8)).save(stream, "PNG")
    return stream.getvalue()


BAD = {
    "text": (b"hello", "not a readable FITS, PNG or JPEG"),
    "empty": (b"", "not a readable"),
    "short": (GALAXY[:9000], "ends before its pixels"),
    "headless": (GALAXY[:400], "no end"),
    "damaged": (gzip.compress(b"SIMPLE  =" * 999)[:60], "cannot be unpacked"),
    "blank": (fits_bytes(np.zeros((99, 99), np.float32)), "blank"),
    "noise": (fits_bytes(np.random.default_rng(0).normal(size=(150, 150)).astype(np.float32)), "no source"),
    "nan": (fits_bytes(np.full((99, 99), np.nan, np.float32)), "blank"),
    "tiny": (fits_bytes(np.ones((9, 9), np.float32)), "too small"),
    "coarse": (fits_bytes(np.ones((99, 99), np.float32), CDELT1=-0.01, CDELT2=0.01), "at most 20"),
    "cube": (fits_bytes(np.ones((3, 99, 99), np.float32)), "cube"),
    "colour": (colour(), "in colour"),
    "half a picture": (b"\x89PNG\r\n\x1a\n" + bytes(99), "not a complete"),
}


def test_the_name_of_a_file_is_shown_as_text(page):
    name = "<img src=x onerror=alert(1)>.fits"
    ask(page, GALAXY, name)
    assert page.inner_text("#name") == name
    ask(page, b"hello", name, ends="not a readable")
    assert page.query_selector("img") is None


@pytest.mark.parametrize("name", list(BAD))
def test_bad_files_get_one_line_and_the_page_goes_on(page, name):
    content, reason = BAD[name]
    assert "\n" not in ask(page, content, name, ends=reason)
    assert not page.is_visible("#result")


def test_a_file_without_coordinates_needs_the_pixel_width(page):
    stream = io.BytesIO()
    fits.PrimaryHDU(simulate.source("FRII", np.random.default_rng(3)).astype(np.float32)).writeto(stream)
    ask(page, stream.getvalue(), "bare.fits", ends="give the width of its pixels")
    ask(page, stream.getvalue(), "bare.fits", pixel="1.8")
    agrees(page, inspect.inspect(cutout.read_cutout(stream.getvalue(), "bare.fits", None, 1.8)))


def test_examples_answer_to_the_keyboard(page):
    page.focus("#examples li:nth-child(8) button")
    page.keyboard.press("Enter")
    page.locator("#status", has_text="example-8.fits: done").wait_for(timeout=60_000)
    assert page.evaluate("document.activeElement.id") == "result"
    assert page.locator("#status").get_attribute("aria-live") == "polite"
    assert len(texts(page, "#neighbours a")) == 10


def test_examples_are_those_of_the_command(page, built):
    for number in (2, 9):
        path = built / f"example-{number}.fits"
        page.click(f"#examples li:nth-child({number}) button")
        page.locator("#status", has_text=f"{path.name}: done").wait_for(timeout=60_000)
        agrees(page, inspect.inspect(cutout.open_cutout(path)))


def test_on_a_phone_the_page_is_not_wider_than_the_screen(browser, address):
    context = browser.new_context(viewport={"width": 390, "height": 844}, has_touch=True, color_scheme="dark")
    page = context.new_page()
    page.goto(f"{address}look.html")
    page.tap("#examples li:nth-child(4) button")
    page.locator("#status", has_text="example-4.fits: done").wait_for(timeout=120_000)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_opened_as_a_file_the_page_says_that_it_needs_a_server(browser, built):
    page = browser.new_page()
    page.goto((built / "look.html").as_uri())
    page.locator("#status", has_text="needs a web server").wait_for(timeout=10_000)
    assert not page.is_visible("#drop")  # which would not answer
    page.close()


@pytest.mark.parametrize("file", ["index.html", "look.html"])
def test_the_policies_admit_files_of_the_book_alone(browser, address, file):
    page, stopped = browser.new_page(), []
    page.on("console", lambda message: stopped.append(message.text))
    page.goto(f"{address}{file}")
    for attempt in (
        "fetch('https://example.org').catch(() => 0)",
        "document.head.append(Object.assign(document.createElement('script'), {text: 'window.broken = true'}))",
        "document.body.append(Object.assign(new Image(), {src: 'https://example.org/x.png'}))",
    ):
        stopped.clear()
        page.evaluate(f"() => {{ {attempt}; }}")
        page.wait_for_timeout(200)
        assert any("Content Security Policy" in one for one in stopped), attempt
    assert page.evaluate("window.broken") is None
    page.close()

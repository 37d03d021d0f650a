"""The explorer in a real browser: it gives the same neighbours as Python, and works by mouse, touch and keyboard."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table

from rgz.app import explorer, survey
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import metric
from rgz.tasks import search

HOSTILE = "galaxy 13 <img src=x onerror=alert(1)>\"'&"


def simulated(count=400, dimensions=32):
    """An index of galaxies in two samples, some without a position or a class, or in both samples; their pictures."""
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 3, count)
    codes = rng.normal(size=(count, dimensions)) + 3 * np.eye(dimensions)[kinds]
    ra, dec = rng.uniform(0, 360, count), rng.uniform(-60, 60, count)
    ra[::7] = dec[::7] = np.nan
    first = count * 5 // 8
    ra[first : first + 20], dec[first : first + 20] = ra[:20], dec[:20] + 3 / 3600  # the same galaxies, 3″ apart
    codes[first : first + 20] = codes[:20] + 0.1 * rng.normal(size=(20, dimensions))
    names = [HOSTILE if i == 13 else f"galaxy {i}" for i in range(count)]
    label = np.array(["FRI", "FRII", ""])[kinds]
    samples = ["mirabest"] * first + ["rgd"] * (count - first)
    table = Table({"name": names, "sample": samples, "ra": ra, "dec": dec, "label": label})
    y, x = np.mgrid[:16, :16] - 7.5
    pictures = np.stack([255 * np.exp(-((x / (1 + kind * 2)) ** 2) - (y / 2) ** 2) for kind in kinds])
    index = search.build(codes, table, metric.whitened(codes))
    place = index.vectors[:, :2] - index.vectors[:, :2].min(axis=0)
    table["x"], table["y"] = (9999 * place / place.max()).astype(int).T
    table["size"], table["snr"] = rng.lognormal(3, 1, count), np.where(kinds == 2, np.nan, rng.lognormal(3, 1, count))
    table["percentile"] = rng.uniform(0, 100, count)
    return index, pictures


@pytest.fixture(scope="module")
def galaxies():
    return simulated()


@pytest.fixture(scope="module")
def built(galaxies, tmp_path_factory):
    index, pictures = galaxies
    folder = tmp_path_factory.mktemp("explorer")
    explorer.write(folder, explorer.payload(index.table, index.vectors, "simulated"), pictures)
    return folder


@pytest.fixture
def page(browser, built, request):
    """The page, opened from its file; asserts at the end that there was no console message and no network request."""
    context = browser.new_context(accept_downloads=True, **getattr(request, "param", {}))
    page, said, asked = context.new_page(), [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((built / "index.html").as_uri())
    page.wait_for_selector("#neighbours button")
    yield page
    context.close()
    assert said == []
    assert all(url.startswith(("file:", "data:", "blob:")) for url in asked)


def nearest(galaxies, row, k=10):
    """The ``k`` galaxies nearest to a row, each once, from vectors as bytes, and 1 − cos."""
    table, codes = galaxies.table, explorer.quantised(galaxies.vectors).astype(float)
    norms = np.sqrt((codes**2).sum(axis=1))
    far = 1 - codes @ codes[row] / (norms[row] * norms)
    sky = SkyCoord(np.nan_to_num(table["ra"]), np.nan_to_num(table["dec"]), unit="deg")
    known = np.isfinite(table["ra"])
    same = (sky[:, None].separation(sky) <= search.SAME * u.arcsec) & known & known[:, None]
    kept = []
    for one in np.argsort(far, kind="stable"):
        if one != row and not same[row, one] and not same[one, kept].any():
            kept.append(int(one))
    return kept[:k], far[kept[:k]]


def listed(page):
    return page.eval_on_selector_all("#neighbours button", "all => all.map((one) => Number(one.dataset.row))")


def chosen(page):
    return page.inner_text("#chosen strong")


def rows_of(download):
    return list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))


def test_the_browser_answers_as_python_does(page, galaxies):
    for row in (0, 13, 200, 260, 399):
        page.evaluate("row => choose(row)", row)
        expected, far = nearest(galaxies[0], row)
        assert listed(page) == expected
        shown = page.eval_on_selector_all(
            "#neighbours .soft:not(.soft + .soft)", "all => all.map((one) => one.textContent.split(', ')[1])"
        )
        assert shown == [f"{value:.3f}" for value in far]


def test_bytes_answer_as_the_codes_do(galaxies):
    index, _ = galaxies
    codes = explorer.quantised(index.vectors).astype(float)
    codes /= np.sqrt((codes**2).sum(1, keepdims=True))
    rows, _ = index.nearest(index.vectors[::5], 11)
    near = np.argsort(-codes[::5] @ codes.T, axis=1)[:, :11]
    assert np.mean([len(set(one) & set(other)) for one, other in zip(rows, near, strict=True)]) > 10.8


def test_other_images_of_a_galaxy_are_named_not_listed(page, galaxies):
    page.evaluate("choose(5)")
    assert 255 not in listed(page)  # rows 5 and 255 are 3″ apart
    page.get_by_role("button", name="Radio Galaxy Dataset (FIRST)").click()
    assert chosen(page) == "galaxy 255"
    page.evaluate("row => choose(row)", next(row for row in range(400) if 5 in nearest(galaxies[0], row)[0]))
    assert "also in Radio Galaxy Dataset" in page.inner_text("#neighbours [data-row='5']")


def test_a_click_on_the_map_and_on_a_neighbour_chooses(page):
    page.evaluate("choose(5)")
    x, y = page.evaluate("place(77)")
    box = page.locator("#sky").bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)
    assert page.is_visible("#tip")
    page.mouse.click(box["x"] + x, box["y"] + y)
    there = page.evaluate("[data.x[chosen] - data.x[77], data.y[chosen] - data.y[77]]")
    assert np.hypot(*there) < 60  # another dot may lie on top
    assert not page.is_visible("#card")
    second = page.locator("#neighbours button").nth(1)
    row = second.get_attribute("data-row")
    second.click()
    assert page.evaluate("chosen") == int(row)
    assert page.url.endswith("#" + page.evaluate("encodeURIComponent(data.name[chosen])"))


def test_an_address_opens_its_galaxy(browser, built):
    page = browser.new_page()
    page.goto((built / "index.html").as_uri() + "#galaxy%20123")
    assert chosen(page) == "galaxy 123"
    page.goto((built / "index.html").as_uri() + "#galaxy%20321")
    page.locator("#chosen strong", has_text="galaxy 321").wait_for()
    page.close()


def test_filters_hold_for_map_and_neighbours(page, galaxies):
    index, _ = galaxies
    page.evaluate("choose(3)")
    page.uncheck("#sample-0")
    assert all(row >= 250 for row in listed(page))
    page.uncheck("#label-1")
    kept = np.asarray(index.table["label"])[listed(page)]
    assert "FRII" not in kept
    page.uncheck("#sample-1")
    assert listed(page) == []
    assert "no other galaxy" in page.inner_text("#neighbours")


def test_colour_and_shape_tell_class_sample_and_numbers(page, galaxies):
    table = galaxies[0].table
    pairs = "JSON.stringify([...tint].map((colour, i) => [colour, shape[i]]))"
    for by in ("label", "sample"):
        page.select_option("#colour", by)
        looks = list(map(tuple, json.loads(page.evaluate(pairs))))
        known = set(zip(looks, table[by], strict=True))
        assert len(known) == len(set(looks)) == len(set(table[by]))  # one look for each value
        assert len({shape for _, shape in looks}) == len(known)
    page.select_option("#colour", "snr")
    assert page.is_visible("#bar")
    tints = np.array(page.evaluate("[...tint]"))
    assert len(set(tints[np.isnan(table["snr"])])) == 1  # unknown values have a colour of their own
    assert len(set(tints)) > 100


def test_search_by_name_position_and_keyboard(page, galaxies):
    page.fill("#search", "galaxy 13 ")
    page.press("#search", "Enter")
    assert chosen(page) == HOSTILE  # as text, not as HTML
    assert page.query_selector("#chosen img") is None
    page.fill("#search", "no such thing")
    assert "no position" in page.inner_text("#hint")
    sky = SkyCoord(galaxies[0].table["ra"][100], galaxies[0].table["dec"][100], unit="deg")
    for text in (f"{sky.ra.deg:.5f} {sky.dec.deg:+.5f}", sky.to_string("hmsdms"), sky.to_string("hmsdms", sep=" ")):
        page.evaluate("choose(0)")
        page.fill("#search", text)
        page.press("#search", "Enter")
        assert chosen(page) == "galaxy 100"
        assert "″ from there" in page.inner_text("#hint")
    page.fill("#search", "400.5 95")
    assert "no position" in page.inner_text("#hint")
    page.focus("#sky")
    before = chosen(page)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowDown")
    assert chosen(page) != before
    page.keyboard.press("+")
    assert page.evaluate("view.scale") == pytest.approx(1.5)
    page.keyboard.press("0")
    assert page.evaluate("view.scale") == 1


def test_the_list_downloads_as_csv(page, galaxies):
    page.evaluate("choose(14)")
    with page.expect_download() as download:
        page.click("#csv")
    rows = rows_of(download)
    assert [row["name"] for row in rows] == ["galaxy 14"] + [galaxies[0].table["name"][row] for row in listed(page)]
    assert rows[0]["ra"] == ""  # row 14 has no position
    assert [float(row["dissimilarity"]) for row in rows] == sorted(float(row["dissimilarity"]) for row in rows)


def test_a_lasso_selects_lists_and_downloads(page):
    page.click("#lasso")  # which may scroll the page
    box = page.locator("#sky").bounding_box()
    middle, half = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2), 80
    page.mouse.move(middle[0] - half, middle[1] - half)
    page.mouse.down()
    for x, y in ((half, -half), (half, half), (-half, half)):
        page.mouse.move(middle[0] + x, middle[1] + y)
    page.mouse.up()
    near = f"place(i).map((v, k) => Math.abs(v - [{box['width'] / 2}, {box['height'] / 2}][k]) < {half})"
    expected = page.evaluate(f"data.name.filter((_, i) => {near}.every(Boolean))")
    assert len(expected) > 20
    assert page.inner_text("#selected") == f"{len(expected)} selected"
    assert page.locator("#members button").count() == len(expected)
    with page.expect_download() as download:
        page.click("#selection-csv")
    assert [row["name"] for row in rows_of(download)] == expected
    page.click("#clear")
    assert not page.is_visible("#selection")


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 390, "height": 844}, "has_touch": True, "color_scheme": "dark"}], indirect=True
)
def test_on_a_phone_the_answer_is_where_the_tap_was(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#sky").scroll_into_view_if_needed()
    x, y = page.evaluate("place(30)")
    box = page.locator("#sky").bounding_box()
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    card = page.locator("#card").bounding_box()
    assert 0 < card["y"] - box["y"] - y < 40
    assert card["y"] + card["height"] <= 844
    assert page.locator("#card .strip button").count() == len(listed(page)) == 10
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#card .strip button").first.tap()
    assert page.evaluate("chosen") in listed(page) or not page.is_visible("#card")


@pytest.mark.parametrize("page", [{"viewport": {"width": 390, "height": 844}, "has_touch": True}], indirect=True)
def test_a_finger_on_the_map_scrolls_the_page(page):
    page.evaluate("scrollTo(0, 0)")
    box, before = page.locator("#sky").bounding_box(), page.evaluate("view")
    x, y, touch = box["x"] + 100, box["y"] + 200, page.context.new_cdp_session(page)
    for kind, shift in (("touchStart", 0), *(("touchMove", 20 * step) for step in range(1, 16))):
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y - shift}]})
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.wait_for_function("scrollY > 200")
    assert page.evaluate("view") == before


@pytest.mark.slow
def test_fifty_thousand_galaxies_move_fluently_and_are_sharp_at_rest(browser, tmp_path, monkeypatch):
    monkeypatch.setattr(explorer, "islands", lambda _: [])  # which takes most of a minute
    index, pictures = simulated(50_000, 8)
    explorer.write(tmp_path, explorer.payload(index.table, index.vectors, "simulated"), pictures[:, :1, :1])
    page = browser.new_page(viewport={"width": 1280, "height": 900}, device_scale_factor=3)
    page.goto((tmp_path / "index.html").as_uri())
    page.wait_for_selector("#neighbours button")
    gaps, coarse = page.evaluate("""() => new Promise((done) => {
        const at = [], widths = new Set();
        const step = (time) => {
            at.push(time);
            widths.add(canvas.width / canvas.clientWidth);
            view = { x: 0.5 + 0.1 * Math.sin(at.length / 9), y: 0.5, scale: 1 + at.length / 10 };
            redraw();
            if (at.length < 90) requestAnimationFrame(step);
            else done([at.slice(1).map((time, k) => time - at[k]), Math.min(...widths)]);
        };
        requestAnimationFrame(step);
    })""")
    hovering = page.evaluate("""() => {
        const started = performance.now();
        for (let i = 0; i < 20; i++) under(i, i, 14);
        return (performance.now() - started) / 20;
    }""")
    assert hovering < 1000 / 60
    page.wait_for_timeout(1000)
    assert page.evaluate("canvas.width / canvas.clientWidth") == pytest.approx(3, abs=0.01)
    page.close()
    assert coarse < 1.1
    assert np.median(gaps) < 1000 / 30


def test_dense_parts_of_the_map_are_labelled():
    rng = np.random.default_rng(0)
    places = np.concatenate([rng.normal(centre, 100, (300, 2)) for centre in ((2000, 2000), (8000, 8000))]).astype(int)
    table = Table({"x": places[:, 0], "y": places[:, 1], "label": ["FRI"] * 300 + ["FRII"] * 300})
    table["sample"] = ["mirabest"] * 600
    texts = set(dict(explorer.islands(table)).values())
    assert texts == {"FRI 100 %", "FRII 100 %"}


def test_pictures_of_other_galaxies_are_refused(galaxies, tmp_path):
    index, pictures = galaxies
    with pytest.raises(BadInput, match="a picture of each"):
        explorer.write(tmp_path, explorer.payload(index.table, index.vectors, "simulated"), pictures[1:])
    assert list(tmp_path.iterdir()) == []


def payload_of(folder):
    text = (folder / "index.html").read_text()
    return json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])


def test_large_results_are_sampled_with_all_that_is_anomalous_or_has_a_class(monkeypatch):
    monkeypatch.setattr(explorer, "MOST", 60)
    rng = np.random.default_rng(0)
    percentile, label = rng.uniform(10, 100, 1000), np.array([""] * 1000, dtype="U4")
    percentile[100:110], label[500:530] = 2, "FRI"
    rows = explorer.sampled(percentile, label)
    assert {*range(100, 110), *range(500, 530)} < set(rows.tolist())
    assert len(rows) == len(set(rows)) == 60
    np.testing.assert_array_equal(rows, explorer.sampled(percentile, label))
    assert np.ptp(np.histogram(rows, 2, (0, 1000))[0] - [10, 30]) < 20  # the others are from everywhere
    percentile[:] = np.arange(1000) / 1000  # all anomalous: the least likely half of the map, and others
    assert set(range(30)) < set(explorer.sampled(percentile, np.full(1000, "FRI")).tolist())
    np.testing.assert_array_equal(explorer.sampled(np.full(9, np.nan), np.full(9, "")), np.arange(9))


def test_results_of_ones_own_become_a_map(run, tmp_path, monkeypatch, browser):
    _, codes, _ = codefile.read_codes(None, "mirabest")
    rows = [
        {"file": f"{number}.fits", "status": "ok", "class": "FRI", "ra": 10.0 + number, "dec": -5.0, "code": code}
        | {"anomaly_percentile": 50.0 if number != 17 else 1.0, "peak_over_noise": None, "area_over_point": 2.0}
        for number, code in enumerate(codes[:40].tolist())
    ]
    refused = {"file": "noise.fits", "status": "refused", "class": None}
    path = tmp_path / "results.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (*rows, refused)))
    status, out, _ = run("explorer", path, "--out", tmp_path / "page")
    assert (status, "40 galaxies" in out) == (0, True)
    data = payload_of(tmp_path / "page")
    assert (len(data["name"]), data["ra"][3], data["labels"]) == (40, 13.0, ["FRI"])
    assert [one["key"] for one in data["numbers"]] == ["area", "snr", "percentile"]
    monkeypatch.setattr(explorer, "MOST", 20)
    status, out, _ = run("explorer", path, "--out", tmp_path / "part")
    assert (status, "a sample of 20 of 40 galaxies" in out) == (0, True)
    data = payload_of(tmp_path / "part")
    assert (len(data["name"]), "17.fits" in data["name"]) == (20, True)
    page = browser.new_page()
    page.goto((tmp_path / "part" / "index.html").as_uri())
    assert "among 20 images. They are a sample of 40" in page.inner_text("header")
    page.close()
    (tmp_path / "part" / "index.html").write_text("another page")
    status, _, err = run("explorer", path, "--out", tmp_path / "part")
    assert (status, "is another page" in err) == (1, True)
    path.write_text(json.dumps(rows[0]) + "\n")
    status, _, err = run("explorer", path, "--out", tmp_path / "none")
    assert (status, "at least" in err) == (1, True)


def test_a_survey_becomes_the_same_map(run, tmp_path, monkeypatch):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(explorer, "MOST", 30)
    _, codes, _ = codefile.read_codes(None, "mirabest")
    rows = [
        {"id": f"s{number}", "ra": 10.0 + number, "dec": -5.0, "status": "ok", "class": "FRII" if number % 2 else None}
        | {"anomaly_percentile": 1.0 if number == 33 else 50.0, "area_over_point": 2.0, "code": code}
        for number, code in enumerate(codes[:40].tolist())
    ]
    rows.insert(7, {"id": "noise", "ra": 1.0, "dec": 1.0, "status": "refused"})
    columns = survey.schema(("FRI", "FRII"), codes.shape[1])
    status, _, err = run("explorer", tmp_path, "--out", tmp_path / "none")
    assert (status, "no complete survey" in err) == (1, True)
    for part, some in enumerate((rows[:25], rows[25:])):
        path = tmp_path / "survey" / "dataset" / f"Norder={part}" / "Dir=0" / "Npix=0.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist(some, columns), path)
    pytest.importorskip("hats.io.parquet_metadata").write_parquet_metadata(tmp_path / "survey")
    (tmp_path / "survey" / "hats.properties").write_text("")
    status, out, err = run("explorer", tmp_path / "survey", "--out", tmp_path / "page")
    assert (status, "a sample of 30 of 40 galaxies" in out) == (0, True), err
    data = payload_of(tmp_path / "page")
    assert (len(data["name"]), data["all"], data["titles"]) == (30, 40, ["survey"])
    assert "noise" not in data["name"]
    assert {"s33", *(f"s{number}" for number in range(1, 40, 2))} < set(data["name"])
    for name, ra, label in zip(data["name"], data["ra"], data["label"], strict=True):
        number = int(name[1:])
        assert (ra, data["labels"][label]) == (10.0 + number, "FRII" if number % 2 else "")

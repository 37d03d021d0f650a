"""The explorer in a real browser: it gives the same neighbours as Python, and works by mouse, touch and keyboard."""

import csv
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table

from rgz import artifacts
from rgz.app import explorer
from rgz.errors import BadInput
from rgz.features import metric
from rgz.tasks import search

PAGE = Path(__file__).parents[1] / "book" / "explorer"


@pytest.fixture(scope="module")
def galaxies():
    """An index of 400 galaxies in two samples, some without a position or a class, and their pictures."""
    rng = np.random.default_rng(5)
    kinds = rng.integers(0, 3, 400)
    codes = rng.normal(size=(400, 32)) + 3 * np.eye(32)[kinds]
    ra, dec = rng.uniform(0, 360, 400), rng.uniform(-60, 60, 400)
    ra[::7] = dec[::7] = np.nan
    names = [f"galaxy {i} <&\"'>" if i == 13 else f"galaxy {i}" for i in range(400)]
    label = np.array(["FRI", "FRII", ""])[kinds]
    table = Table({"name": names, "sample": ["mirabest"] * 250 + ["rgd"] * 150, "ra": ra, "dec": dec, "label": label})
    y, x = np.mgrid[:32, :32] - 15.5
    pictures = np.stack([255 * np.exp(-((x / (2 + kind * 3)) ** 2) - (y / 3) ** 2) for kind in kinds])
    return search.build(codes, table, metric.whitened(codes)), pictures


@pytest.fixture(scope="module")
def built(galaxies, tmp_path_factory):
    index, pictures = galaxies
    folder = tmp_path_factory.mktemp("explorer")
    explorer.write(folder, PAGE, explorer.payload(index, "simulated", places(index)), pictures)
    return folder


def places(index):
    """A map of an index, from two of its dimensions."""
    flat = index.vectors[:, :2] - index.vectors[:, :2].min(axis=0)
    x, y = (9999 * flat / flat.max()).astype(int).T
    return Table({"name": index.table["name"], "x": x, "y": y})


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


def nearest(codes, row, k=10):
    """The ``k`` rows nearest to a row of bytes (N, D), and 1 − cos of the angles."""
    floats = codes.astype(float)
    norms = np.sqrt((floats**2).sum(axis=1))
    separation = 1 - floats @ floats[row] / (norms[row] * norms)
    order = np.argsort(separation, kind="stable")
    order = order[order != row][:k]
    return order, separation[order]


def listed(page):
    return page.eval_on_selector_all("#neighbours button", "all => all.map((one) => Number(one.dataset.row))")


def chosen(page):
    return page.inner_text("#chosen strong")


def test_the_browser_answers_as_python_does(page, galaxies):
    codes = explorer.quantised(galaxies[0].vectors)
    for row in (0, 13, 200, 399):
        page.evaluate("row => choose(row)", row)
        expected, far = nearest(codes, row)
        assert listed(page) == expected.tolist()
        shown = page.eval_on_selector_all(
            "#neighbours .soft", "all => all.map((one) => one.textContent.split(', ')[1])"
        )
        assert shown == [f"{value:.3f}" for value in far]


def test_bytes_answer_as_the_codes_do(galaxies):
    index, _ = galaxies
    codes = explorer.quantised(index.vectors)
    same = []
    for row in range(0, len(index), 5):
        rows, _ = index.nearest(index.vectors[row : row + 1], 11)
        same.append(len(set(rows[0]) & set(nearest(codes, row)[0])))
    assert np.mean(same) > 9.8


def test_a_click_on_the_map_and_on_a_neighbour_chooses(page, galaxies):
    page.evaluate("row => choose(row)", 5)
    x, y = page.evaluate("place(77)")
    box = page.locator("#sky").bounding_box()
    page.mouse.move(box["x"] + x, box["y"] + y)
    assert page.is_visible("#tip")
    page.mouse.click(box["x"] + x, box["y"] + y)
    there = page.evaluate("[data.x[chosen] - data.x[77], data.y[chosen] - data.y[77]]")
    assert np.hypot(*there) < 60  # another dot may lie on top
    second = page.locator("#neighbours button").nth(1)
    name = second.get_attribute("data-name")
    second.click()
    assert chosen(page) == name
    assert page.url.endswith("#" + page.evaluate("encodeURIComponent(data.name[chosen])"))


def test_filters_hold_for_map_and_neighbours(page, galaxies):
    index, _ = galaxies
    page.evaluate("row => choose(row)", 3)
    page.uncheck("#sample-0")
    assert all(row >= 250 for row in listed(page))
    page.uncheck("#label-1")
    kept = np.asarray(index.table["label"])[listed(page)]
    assert "FRII" not in kept
    page.uncheck("#sample-1")
    assert listed(page) == []
    assert "no other galaxy" in page.inner_text("#neighbours")


def test_search_by_name_and_by_keyboard(page):
    page.fill("#search", "galaxy 13 ")
    page.press("#search", "Enter")
    assert chosen(page) == "galaxy 13 <&\"'>"  # as text, not as HTML
    page.fill("#search", "no such thing")
    assert "no galaxy" in page.inner_text("#hint")
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
    page.evaluate("row => choose(row)", 14)
    with page.expect_download() as download:
        page.click("#csv")
    rows = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert [row["name"] for row in rows] == ["galaxy 14"] + [galaxies[0].table["name"][row] for row in listed(page)]
    assert rows[0]["ra"] == ""  # row 14 has no position


@pytest.mark.parametrize(
    "page", [{"viewport": {"width": 375, "height": 700}, "has_touch": True, "color_scheme": "dark"}], indirect=True
)
def test_on_a_phone_the_page_is_not_wider_than_the_screen(page):
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    x, y = page.evaluate("place(30)")
    box = page.locator("#sky").bounding_box()
    page.touchscreen.tap(box["x"] + x, box["y"] + y)
    assert len(listed(page)) == 10


def test_a_page_that_is_too_large_is_refused(galaxies, tmp_path, monkeypatch):
    index, pictures = galaxies
    monkeypatch.setattr(explorer, "LARGEST", 1000)
    with pytest.raises(BadInput, match="MB"):
        explorer.write(tmp_path, PAGE, explorer.payload(index, "simulated", places(index)), pictures)
    assert list(tmp_path.iterdir()) == []


def test_a_map_of_other_galaxies_is_refused(galaxies):
    index, _ = galaxies
    with pytest.raises(BadInput, match="rgz study map"):
        explorer.payload(index, "simulated", places(index)[1:])


def test_without_a_clone_the_explorer_says_what_it_needs(run, monkeypatch):
    monkeypatch.setattr(artifacts, "clone", lambda: None)
    status, _, err = run("explorer")
    assert status == 1
    assert "clone of the repository" in err

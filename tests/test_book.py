"""The built book in a real browser, from its files and without a network; skipped where no book has been built."""

import hashlib
import json
import shutil
from pathlib import Path
from urllib.parse import unquote, urldefrag

import pytest

import noxfile

HOUSE = Path(__file__).parents[1]
HTML, RUN = HOUSE / "_build" / "_build" / "html", HOUSE / "_build" / "source" / "notebooks"
MATHJAX = "0a6ded5abbce13331658dd239f34382abd06492c74b71b61e8caa8112ec55fa5"
PAGES = sorted(
    page.relative_to(HTML).as_posix() for part in ("book", "notebooks") for page in (HTML / part).glob("*.html")
)
WIDTHS = 1280, 390  # pixels
NARROW = """() => {
    const whole = document.documentElement, wide = whole.clientWidth, found = [];
    if (whole.scrollWidth > wide) found.push(`wider than the screen: ${whole.scrollWidth}`);
    for (const one of document.querySelectorAll("article img, article svg, article table, mjx-container")) {
        const box = one.getBoundingClientRect();
        let parent = one, scrolls = false;
        while ((parent = parent.parentElement) && !scrolls)
            scrolls = ["auto", "scroll"].includes(getComputedStyle(parent).overflowX) && parent.tagName != "HTML";
        scrolls ||= ["auto", "scroll"].includes(getComputedStyle(one).overflowX) && box.right <= wide + 1;
        if (box.right > wide + 1 && !scrolls) found.push(`cut off: ${one.outerHTML.slice(0, 80)}`);
        if (one.tagName == "IMG" && one.naturalWidth == 0) found.push(`no picture: ${one.src}`);
    }
    return found;
}"""
FORMULAS = """() => [document.querySelectorAll("mjx-container").length == document.querySelectorAll(".math").length,
    document.querySelectorAll("mjx-merror, merror").length]"""
CONTRAST = """() => {
    const grey = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).reduce((sum, part) => sum + part) / 3;
    const article = document.querySelector("article p");
    return grey(getComputedStyle(document.body).backgroundColor) - grey(getComputedStyle(article).color);
}"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PAGES, reason="no book has been built: nox -s execute"),
]


def test_formulas_are_set_by_a_known_script():
    script = (HTML / "_static" / "mathjax" / "tex-chtml.js").read_bytes()
    assert hashlib.sha256(script).hexdigest() == MATHJAX, "another MathJax than that of constraints.txt"


def test_the_prose_of_the_notebooks_has_the_numbers_of_this_run():
    def numbers(path):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        prose = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        return [found[0] for found in noxfile.NUMBER.finditer(prose)]

    names = [path.name for path in (HOUSE / "notebooks").glob("*.ipynb")]
    stale = [name for name in names if numbers(HOUSE / "notebooks" / name) != numbers(RUN / name)]
    assert stale == [], "nox -s numbers writes the numbers of the run into the notebooks"


def test_every_figure_has_words_for_those_who_do_not_see_it_and_a_numbered_caption():
    wrong = []
    for path in RUN.glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            if any("image/png" in output.get("data", {}) for output in cell.get("outputs", [])):
                about = cell["metadata"].get("mystnb", {})
                captioned = "figure" in about or "hide-cell" in cell["metadata"].get("tags", [])  # of a solution
                wrong += [] if about.get("image", {}).get("alt") and captioned else [f"{path.name}: {cell['id']}"]
    assert wrong == []


def test_every_page_reads_offline_in_light_and_dark_on_screens_and_phones(browser):
    page, said, asked, wrong = browser.new_page(), [], [], {}
    page.on("console", lambda message: message.type == "error" and said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    for name in PAGES:
        page.goto((HTML / name).as_uri())
        if page.query_selector(".math"):
            page.wait_for_function("window.MathJax?.startup?.promise?.then(() => true)")
        found = [*said, *(url for url in asked if not url.startswith(("file:", "data:", "blob:")))]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found += page.evaluate(NARROW)
        if page.evaluate(FORMULAS) != [True, 0]:
            found.append("a formula is not set")
        light = page.evaluate(CONTRAST)
        page.evaluate("document.documentElement.dataset.theme = 'dark'")
        if not light > 100 > -100 > page.evaluate(CONTRAST):
            found.append("text has too little contrast, or light and dark are alike")
        if found:
            wrong[name] = found
        said.clear(), asked.clear()
    page.close()
    assert wrong == {}


def test_no_link_is_broken(browser):
    page, links, names = browser.new_page(java_script_enabled=False), {}, {}
    for name in PAGES:
        page.goto((HTML / name).as_uri())
        hrefs = page.eval_on_selector_all("a[href]", "all => all.map((one) => one.href)")
        links |= {href: name for href in hrefs if href.startswith("file:")}
        names[(HTML / name).as_uri()] = set(page.eval_on_selector_all("[id]", "all => all.map((one) => one.id)"))
    text = (HTML / "explorer" / "index.html").read_text(encoding="utf-8")
    galaxies = set(json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])["name"])
    for href, name in links.items():
        file, anchor = urldefrag(href)
        if file.endswith("/explorer/look.html") and shutil.which("npm") is None:
            continue  # this page is built with npm alone
        assert Path(unquote(file.removeprefix("file://"))).exists(), f"{name} links to {href}"
        if anchor and file.endswith("/explorer/index.html"):
            assert unquote(anchor) in galaxies, f"{name} links to {href}"
        if anchor and file in names:
            assert unquote(anchor) in names[file], f"{name} links to {href}"

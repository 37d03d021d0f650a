"""The controls of a live notebook, used without a browser, and in JupyterLab."""

import datetime
import io
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from astropy.io import fits
from test_cutout import wcs_of

from studies import simulate

controls = pytest.importorskip("ipywidgets")


@pytest.fixture(scope="module")
def search():
    from studies import widgets

    return widgets.browse("rgd-0100")


def part(search, kind, description=""):
    """The one control of a kind, by its description."""
    todo, found = [search], []
    while todo:
        one = todo.pop(0)
        todo += getattr(one, "children", ())
        if isinstance(one, kind) and getattr(one, "description", "").startswith(description):
            found.append(one)
    return found


def shown(search):
    said, listing = part(search, controls.HTML)
    return said.value, listing.value


def test_it_begins_with_the_galaxy_and_its_neighbours(search):
    said, listing = shown(search)
    assert 'alt="rgd-0100"' in said
    assert listing.count("<tr>") == 7
    assert "(the same galaxy)" in listing
    assert listing.count('alt="') == 6


def test_turning_the_knobs_changes_the_list(search):
    (count,) = part(search, controls.IntSlider)
    (where,) = part(search, controls.Dropdown, "search in")
    (how,) = part(search, controls.Dropdown, "metric")
    count.value = 3
    assert shown(search)[1].count("<tr>") == 4
    where.value = "mirabest"
    assert "<td>rgd</td>" not in shown(search)[1]
    before = shown(search)[1]
    how.value = "unscaled, Euclidean"
    assert shown(search)[1] != before
    where.value, how.value, count.value = where.options[0], how.options[0], 6


def test_an_unknown_name_clears_the_answer_and_offers_others(search):
    (asked,) = part(search, controls.Combobox)
    asked.value = "<rgd-010>"
    said, listing = shown(search)
    assert "No galaxy is called &lt;rgd-010&gt;" in said
    assert listing == ""
    offered = part(search, controls.Button)
    assert all(button.description.startswith("rgd-") for button in offered)
    offered[0].click()
    assert f'alt="{offered[0].description}"' in shown(search)[0]
    assert part(search, controls.Button) == []
    asked.value = "rgd-0100"


def uploaded(name, content):
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return ({"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": when},)


def own_galaxy(header=True):
    """Content of a FITS file with a simulated FRII, with or without coordinates."""
    stream = io.BytesIO()
    source = simulate.source("FRII", np.random.default_rng(4), size=300, snr=80)
    wcs = wcs_of(source.shape, 1.8).to_header() if header else None
    fits.PrimaryHDU(source.astype(np.float32), wcs).writeto(stream)
    return stream.getvalue()


def test_a_galaxy_of_ones_own_can_be_uploaded(search):
    (brought,) = part(search, controls.FileUpload)
    brought.set_trait("value", uploaded("own.fits", own_galaxy()))
    said, listing = shown(search)
    assert 'alt="own.fits"' in said
    assert "from the shape of the emission alone" in said
    assert listing.count("<tr>") == 7
    brought.set_trait("value", uploaded("words.fits", b"<script>"))
    said, listing = shown(search)
    assert "words.fits" in said
    assert listing == ""
    brought.set_trait("value", ())
    assert 'alt="rgd-0100"' in shown(search)[0]


def test_place_and_pixel_width_of_an_upload_count(search):
    (brought,) = part(search, controls.FileUpload)
    (place,) = part(search, controls.Text, "its host at")
    (pixel,) = part(search, controls.Text, "pixel width")
    brought.set_trait("value", uploaded("bare.fits", own_galaxy(header=False)))
    assert "width of its pixels" in shown(search)[0]
    pixel.value = "wide"
    assert "no width of a pixel" in shown(search)[0]
    pixel.value = "1.8"
    assert "pixels of 1.80″" in shown(search)[0]
    pixel.value = ""
    brought.set_trait("value", uploaded("own.fits", own_galaxy()))
    sky = wcs_of((300, 300), 1.8).pixel_to_world(149.5, 149.5)
    place.value = sky.to_string("hmsdms", sep=" ", precision=4)
    assert "with the host galaxy at the given position" in shown(search)[0]
    place.value = "somewhere"
    assert "no position on the sky" in shown(search)[0]
    assert shown(search)[1] == ""
    place.value = ""
    brought.set_trait("value", ())


def test_a_page_without_a_kernel_shows_the_same(search):
    from studies import widgets

    assert widgets.still(search).data == "".join(shown(search))


def test_scores_rank_the_rest():
    from studies import widgets

    rng = np.random.default_rng(0)
    codes, names = rng.normal(size=(60, 8)), [f"galaxy {number}" for number in range(60)]
    box = widgets.score(rng.uniform(size=(60, 8, 8)), codes, rng.normal(size=(60, 3)), names)
    buttons = part(box, controls.Button)
    asked, found = part(box, controls.HTML)
    assert [button.description for button in buttons] == list("12345")
    for _ in range(60):
        row = next(number for number, name in enumerate(names) if f'alt="{name}"' in asked.value)
        buttons[4 if codes[row, 0] > 0 else 0].click()
        assert box.scores[names[row]] == (5 if codes[row, 0] > 0 else 1)
    assert found.value.count("<img") == widgets.SHOWN
    assert "60 scored; all are scored" in asked.value
    buttons[0].click()
    assert len(box.scores) == 60
    again = widgets.score(rng.uniform(size=(60, 8, 8)), codes, rng.normal(size=(60, 3)), names, box.scores)
    assert "60 scored; all are scored" in widgets.still(again).data


CELLS = (
    "import numpy as np\nfrom studies import widgets\nwidgets.browse('rgd-0100')",
    "rng = np.random.default_rng(0)\n"
    "box = widgets.score(rng.uniform(size=(30, 8, 8)), rng.normal(size=(30, 8)), rng.normal(size=(30, 3)),\n"
    "                    [f'galaxy {number}' for number in range(30)])\nbox",
    "from IPython.display import display\nbutton = widgets.controls.Button(description='tell')\n"
    "button.on_click(lambda _: setattr(button, 'description', f'told {len(box.scores)}'))\nbutton",
)


@pytest.fixture
def notebook(tmp_path):
    """Address of a notebook with the controls in a JupyterLab of its own."""
    pytest.importorskip("jupyterlab", reason="jupyterlab is not installed")
    nbformat = pytest.importorskip("nbformat")
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "live.ipynb")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"--no-browser --allow-root --ip=127.0.0.1 --port={port} --IdentityProvider.token="
    own = {
        name: str(tmp_path / name) for name in ("JUPYTER_CONFIG_DIR", "JUPYTER_RUNTIME_DIR", "JUPYTERLAB_SETTINGS_DIR")
    }
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options.split()],
            cwd=tmp_path,
            env=os.environ | own,
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}/doc/tree/live.ipynb?reset"
        finally:
            server.terminate()
            server.wait(30)


@pytest.mark.slow
def test_in_a_real_jupyterlab(browser, notebook):
    page = browser.new_page(viewport={"width": 1200, "height": 1600})
    for _ in range(60):
        try:
            page.goto(notebook)
            break
        except Exception:  # the server is starting
            time.sleep(1)
    page.get_by_text("| Idle").wait_for(timeout=120_000)
    page.get_by_text("Run", exact=True).first.click()
    page.get_by_text("Run All Cells", exact=True).click()
    output = page.locator(".jp-OutputArea-output")
    output.locator("img[alt='rgd-0100']").first.wait_for(timeout=180_000)
    name = output.locator("input[list]")
    name.fill("rgd-010")
    name.press("Enter")
    output.get_by_text("Did you mean one of these?").wait_for(timeout=30_000)
    assert output.locator("tbody tr").count() == 0
    output.get_by_role("button", name="rgd-0101").click()
    output.locator("img[alt='rgd-0101']").first.wait_for(timeout=30_000)
    assert output.locator("tbody tr").count() == 6
    own = {"name": "own.fits", "mimeType": "image/fits", "buffer": own_galaxy()}
    with page.expect_file_chooser() as asked:
        output.get_by_role("button", name="or your own image").click()
    asked.value.set_files(own)
    output.get_by_text("from the shape of the emission alone").wait_for(timeout=60_000)
    assert output.locator("img[alt='own.fits']").count() == 1
    for score in ("5", "1"):
        output.get_by_role("button", name=score, exact=True).click()
        time.sleep(1)
    output.get_by_text("highest expected scores").wait_for(timeout=30_000)
    output.get_by_role("button", name="tell").click()
    output.get_by_role("button", name="told 2").wait_for(timeout=30_000)
    page.close()

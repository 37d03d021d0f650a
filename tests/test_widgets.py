"""The controls of a live notebook, used without a browser."""

import datetime
import io

import numpy as np
import pytest
from astropy.io import fits
from test_cutout import wcs_of

from rgz.data import simulate

controls = pytest.importorskip("ipywidgets")


@pytest.fixture(scope="module")
def browser():
    from rgz.app import widgets

    return widgets.browse("rgd-0100")


def part(browser, kind, description=""):
    """The one control of a kind, by its description."""
    todo, found = [browser], []
    while todo:
        one = todo.pop(0)
        todo += getattr(one, "children", ())
        if isinstance(one, kind) and getattr(one, "description", "").startswith(description):
            found.append(one)
    return found


def shown(browser):
    said, listing = part(browser, controls.HTML)
    return said.value, listing.value


def test_it_begins_with_the_galaxy_and_its_neighbours(browser):
    said, listing = shown(browser)
    assert 'alt="rgd-0100"' in said
    assert listing.count("<tr>") == 7
    assert "(the same galaxy)" in listing
    assert listing.count('alt="') == 6


def test_turning_the_knobs_changes_the_list(browser):
    (count,) = part(browser, controls.IntSlider)
    (where,) = part(browser, controls.Dropdown, "search in")
    (how,) = part(browser, controls.Dropdown, "metric")
    count.value = 3
    assert shown(browser)[1].count("<tr>") == 4
    where.value = "mirabest"
    assert "<td>rgd</td>" not in shown(browser)[1]
    before = shown(browser)[1]
    how.value = "unscaled, by distance"
    assert shown(browser)[1] != before
    where.value, how.value, count.value = where.options[0], how.options[0], 6


def test_an_unknown_name_is_said(browser):
    (asked,) = part(browser, controls.Combobox)
    asked.value = "<nobody>"
    assert "No galaxy is called &lt;nobody&gt;" in shown(browser)[0]
    asked.value = "rgd-0100"


def uploaded(name, content):
    when = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return ({"name": name, "type": "", "size": len(content), "content": memoryview(content), "last_modified": when},)


def test_a_galaxy_of_ones_own_can_be_uploaded(browser):
    (brought,) = part(browser, controls.FileUpload)
    stream = io.BytesIO()
    source = simulate.source("FRII", np.random.default_rng(4), size=300, snr=80)
    fits.PrimaryHDU(source.astype(np.float32), wcs_of(source.shape, 1.8).to_header()).writeto(stream)
    brought.set_trait("value", uploaded("own.fits", stream.getvalue()))
    said, listing = shown(browser)
    assert "own.fits" in said
    assert "not excluded at 90 %" in said
    assert listing.count("<tr>") == 7
    brought.set_trait("value", uploaded("words.fits", b"<script>"))
    said, listing = shown(browser)
    assert "words.fits" in said
    assert listing == ""
    brought.set_trait("value", ())
    assert 'alt="rgd-0100"' in shown(browser)[0]


def test_scores_rank_the_rest():
    from rgz.app import widgets

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

import matplotlib.pyplot as plt
import numpy as np
import pytest

from rgz import plots
from studies import figures

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_brightness_becomes_colour():
    coloured = plots.colours(np.linspace(0, 1, 12).reshape(3, 4))
    assert coloured.shape == (3, 4, 3)
    assert coloured.dtype == np.uint8
    assert coloured[0, 0].sum() < coloured[-1, -1].sum()


def test_a_gallery_has_one_row_per_name_and_leaves_missing_images_out():
    axes = figures.gallery({"few": RNG.random((2, 8, 8)), "many": RNG.random((3, 8, 8))}, titles=["a", "b", "c"])
    assert [[len(ax.images) for ax in line] for line in axes] == [[1, 1, 0], [1, 1, 1]]
    assert [ax.get_title() for ax in axes[0]] == ["a", "b", "c"]


def test_scale_bars_have_the_length_of_their_images():
    axes = figures.gallery({"a": RNG.random((2, 8, 8))})
    figures.scale_bars(axes, np.array([60.0, 240.0]), arcsec=30)
    assert [np.ptp(ax.lines[0].get_xdata()) for ax in axes[0]] == pytest.approx([4, 1])  # of 8 pixels
    assert axes[0, 0].texts[0].get_text() == "30″"


def test_dots_draws_each_item_on_its_own_line():
    groups = {"one": {"a": [0.5, 0.1], "b": [0.6, 0.1]}, "two": {"b": [0.7, 0.1]}}
    ax = figures.dots(groups, "score")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["one", "two"]
    with pytest.raises(ValueError, match="distinct colours"):
        figures.dots({str(n): groups["one"] for n in range(8)}, "score")


@pytest.mark.parametrize(("own", "heads"), [(2, ["prepared", "reconstruction"]), (1, ["query"])])
def test_lookalikes_head_each_image(own, heads):
    axes = plots.lookalikes(["galaxy"], RNG.random((1, own, 8, 8)), RNG.random((1, 2, 8, 8)), [["FRI", "FRII"]])
    assert [ax.get_title() for ax in axes[0]] == [*heads, "FRI", "FRII"]

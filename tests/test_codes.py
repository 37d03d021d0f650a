"""A codes file gives back tables, codes and the metric, and says what is wrong with a damaged one."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

from rgz.data import datasets
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import metric
from rgz.tasks import search
from studies import encode

LATENTS = np.array([3, 130, 7, 300])


@pytest.fixture
def codes(simulated):
    """Codes of made-up values for the simulated sources."""
    return np.random.default_rng(0).normal(size=(len(simulated), 8)).astype(np.float32)


def test_codes_come_back_from_their_file(tmp_path, simulated, codes):
    path = tmp_path / "c.h5"
    groups = {"sim": (simulated.table, codes, codes[:, None], {"left_out": []})}
    encode.write_codes(path, groups, {"latents": LATENTS, "note": "x"})
    table, code, about = codefile.read_codes(path, "sim")
    np.testing.assert_allclose(code, codes, rtol=2**-11)
    np.testing.assert_array_equal(table["name"], simulated.table["name"])
    assert about["note"] == "x"
    np.testing.assert_array_equal(about["latents"], LATENTS)
    np.testing.assert_array_equal(codefile.chosen(path), LATENTS)
    with pytest.raises(BadInput, match="no codes of other: it has sim"):
        codefile.read_codes(path, "other")


def test_the_metric_of_the_search_comes_back_from_its_file(tmp_path, simulated, codes):
    path = tmp_path / "c.h5"
    space = replace(encode.invariant(codes, np.random.default_rng(1).normal(size=(40, 8))), cosine=False)
    groups = dict.fromkeys(datasets.SAMPLES, (simulated.table, codes, codes[:, None], {}))
    encode.write_codes(path, groups, {}, space)
    table, found, read = search.for_search(path)
    np.testing.assert_allclose(read.centre, space.centre, rtol=1e-6)
    np.testing.assert_allclose(read.matrix, space.matrix, rtol=2**-11)
    assert read.cosine == space.cosine
    assert len(table) == len(found) == 24 * len(datasets.SAMPLES)
    np.testing.assert_allclose(found[:24], codes, rtol=2**-11)
    index = search.SearchIndex.from_pretrained(path)
    np.testing.assert_array_equal(index.vectors, read.transform(found))


def test_a_file_without_a_metric_is_refused(tmp_path, simulated, codes):
    encode.write_codes(tmp_path / "c.h5", {"sim": (simulated.table, codes, codes[:, None], {})}, {})
    with pytest.raises(BadInput, match="rgz study codes"):
        codefile.read_space(tmp_path / "c.h5")


@pytest.mark.parametrize("damage", [lambda b: b[:3000], lambda b: b"HDF?" + b[4:], lambda b: b""])
def test_damaged_codes_are_refused(tmp_path, simulated, codes, damage):
    path = tmp_path / "c.h5"
    encode.write_codes(path, {"mirabest": (simulated.table, codes, codes[:, None], {})}, {"latents": LATENTS})
    path.write_bytes(damage(path.read_bytes()))
    for read in (lambda: codefile.read_codes(path, "mirabest"), lambda: codefile.chosen(path)):
        with pytest.raises(BadInput, match=r"c\.h5 is not a readable codes file .* rgz study codes"):
            read()


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("parts", 3),
        ("parts", 0),
        ("matrix", np.eye(8)[:5]),
        ("matrix", np.full((8, 8), np.nan)),
        ("matrix", np.ones(8)),
    ],
)
def test_a_damaged_metric_is_refused(tmp_path, what, value):
    codes = np.random.default_rng(0).normal(size=(60, 8))
    space = metric.plain(codes)
    encode.write_codes(tmp_path / "c.h5", {}, {}, space)
    with h5py.File(tmp_path / "c.h5", "r+") as file:
        if what == "parts":
            file["space"].attrs["parts"] = value
        else:
            del file["space/matrix"]
            file["space/matrix"] = value
    with pytest.raises(BadInput, match="not a readable codes file"):
        codefile.read_space(tmp_path / "c.h5")


@pytest.mark.parametrize("latents", [[0.5, 1.0], [[1, 2]], [-1, 2], "text"])
def test_latents_that_are_no_indices_are_refused(tmp_path, latents):
    encode.write_codes(tmp_path / "c.h5", {}, {"latents": latents if latents == "text" else np.array(latents)})
    with pytest.raises(BadInput, match="not a readable codes file"):
        codefile.chosen(tmp_path / "c.h5")

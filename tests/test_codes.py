"""A codes file gives back tables, codes and metrics, and says what is wrong with a damaged one."""

import numpy as np
import pytest

from rgz.data import datasets
from rgz.errors import BadInput
from rgz.features import codes as codefile
from rgz.features import metric
from rgz.tasks import search

LATENTS = np.array([3, 130, 7, 300])


@pytest.fixture
def codes(simulated):
    """Codes of made-up values for the simulated sources."""
    rng = np.random.default_rng(0)
    shapes = {"code": 4, "code_views": 8, "code_asymmetry": 3, "code_compared": 90}
    return {name: rng.normal(size=(len(simulated), count)).astype(np.float32) for name, count in shapes.items()}


def test_codes_come_back_from_their_file(tmp_path, simulated, codes):
    path = tmp_path / "c.h5"
    codefile.write_codes(path, {"sim": (simulated.table, codes, {"left_out": []})}, {"latents": LATENTS, "note": "x"})
    table, code, about = codefile.read_codes(path, "sim")
    np.testing.assert_allclose(code, codes["code"], rtol=2**-11)
    np.testing.assert_array_equal(table["name"], simulated.table["name"])
    np.testing.assert_array_equal(about["latents"], LATENTS)
    np.testing.assert_array_equal(codefile.chosen(path), LATENTS)
    np.testing.assert_allclose(codefile.read_codes(path, "sim", "code_views")[1], codes["code_views"], rtol=2**-11)
    with pytest.raises(BadInput, match="sim/code, sim/code_asymmetry, sim/code_compared, sim/code_views"):
        codefile.read_codes(path, "other")


def test_descriptors_and_metrics_come_back_from_their_file(tmp_path, simulated, codes):
    path, compared = tmp_path / "c.h5", codes["code_compared"]
    basis = metric.Metric(np.arange(7.0), np.random.default_rng(1).normal(size=(7, 2)), cosine=False)
    spaces = {codefile.BASIS: basis, codefile.SPACE: metric.plain(compared)}
    groups = dict.fromkeys(datasets.SAMPLES, (simulated.table, {"code_compared": compared}, {}))
    codefile.write_codes(path, groups, {}, spaces)
    for name, space in spaces.items():
        read = codefile.read_space(name, path)
        np.testing.assert_allclose(read.centre, space.centre, rtol=1e-6)
        np.testing.assert_allclose(read.matrix, space.matrix, rtol=1e-3, atol=1e-6)
        assert read.cosine == space.cosine
    table, found, space = search.for_search(path)
    assert len(table) == len(found) == 24 * len(datasets.SAMPLES)
    assert (np.abs(found[:24] - compared) <= compared.std(axis=0) / 32).all()
    assert space.matrix.shape == (found.shape[1],) * 2
    index = search.SearchIndex.from_pretrained(path)
    np.testing.assert_array_equal(index.vectors, space.transform(found))
    with pytest.raises(BadInput, match="rgz encode"):
        codefile.read_space(codefile.ALONE, path)


@pytest.mark.parametrize("damage", [lambda b: b[:3000], lambda b: b"HDF?" + b[4:], lambda b: b""])
def test_damaged_codes_are_refused(tmp_path, simulated, codes, damage):
    path = tmp_path / "c.h5"
    codefile.write_codes(path, {"mirabest": (simulated.table, codes, {})}, {"latents": LATENTS})
    path.write_bytes(damage(path.read_bytes()))
    for read in (lambda: codefile.read_codes(path, "mirabest"), lambda: codefile.chosen(path)):
        with pytest.raises(BadInput, match=r"c\.h5 is not a readable codes file .* rgz encode"):
            read()

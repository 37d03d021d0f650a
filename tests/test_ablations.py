"""The probe of a network, on simulated sources."""

import pytest

from rgz.data import datasets, sample
from rgz.models import checkpoint
from rgz.transforms.prepare import Recipe
from studies import ablations, results, simulate


@pytest.mark.slow
@pytest.mark.parametrize("coarse_alone", [False, True])
def test_a_probe_is_a_row_of_the_table(tiny, tmp_path, monkeypatch, coarse_alone):
    known = simulate.sources(24, seed=2)
    known.table["split"][:6] = "valid"
    sample.write(tmp_path / "train.h5", known)
    labelled = simulate.sources(40, seed=3)
    labelled.table["ra"], labelled.table["dec"] = [float(row) for row in range(40)], [5.0] * 40
    labelled.table["confident"] = [True] * 40
    monkeypatch.setattr(datasets, "load_dataset", lambda name: labelled)
    monkeypatch.setattr(ablations, "COUNT", 8)
    monkeypatch.setattr(ablations, "TRAINING", 16)
    checkpoint.save(tmp_path / "w.safetensors", tiny, Recipe(tiny.config.size), {"steps": 3})
    path = tmp_path / "train.h5"
    row = ablations.probe(tmp_path / "w.safetensors", "a note", path, dimensions=4, coarse_alone=coarse_alone)
    assert list(row) == list(results.read("ablations"))
    assert (row["samples_auc"] is None) == (row["rate_fine"] == 0) == coarse_alone
    assert 0 <= row["accuracy"] <= 1

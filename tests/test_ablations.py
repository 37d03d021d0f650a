"""Ablations change one thing; galaxies that judge are never labelled; two flows are compared on equal terms."""

import math

import numpy as np
import pytest
import torch
from astropy.table import Table

from rgz.models import flow, vdvae
from rgz.transforms import prepare
from studies import ablations, augmentation, flows


def test_unit_weights_leave_the_loss_as_it_is(tiny, pixels):
    for weights, free in (({}, 0.0), ({1: 0.0}, 0.0), ({}, 5.0)):
        torch.manual_seed(0)
        expected = tiny(pixels)
        torch.manual_seed(0)
        found = ablations.Reweighted(tiny, weights, free)(pixels)
        rate = torch.tensor([weights.get(r, tiny.config.beta) for r in tiny.levels]) * expected["rate"].mean(0)
        nats = expected["distortion"].mean() + rate.clamp(min=free).sum()
        torch.testing.assert_close(found["loss"], nats / (1024 * math.log(2)))
        if not weights and not free:
            torch.testing.assert_close(found["loss"], expected["loss"])


def test_every_ablation_but_the_repeat_changes_something():
    first, second, *others = ablations.ABLATIONS.values()
    assert first.schedule.seed != second.schedule.seed
    assert first.config == second.config
    for one in others:
        assert (one.config, one.recipe, one.schedule, one.weights, one.free, one.functions) != (
            *(first.config, first.recipe, first.schedule, first.weights, first.free, first.functions),
        )
        assert isinstance(one.config, vdvae.Config)


def test_an_unrotated_image_keeps_its_orientation(simulated):
    found = ablations.unrotated(simulated.images[0].astype(float), 32.0)
    assert found == prepare.Orientation(length=prepare.find_orientation(simulated.images[0].astype(float), 32.0).length)


def test_galaxies_that_judge_are_not_labelled():
    rng = np.random.default_rng(0)
    place = np.repeat(rng.uniform(0, 300, 300), 2)  # each source has two images
    label = np.repeat(rng.choice(["FRI", "FRII"], 300), 2)
    table = Table({"ra": place, "dec": place / 10, "label": label, "split": ["train"] * 500 + ["test"] * 100})
    drawn, judged = augmentation.draw(table, seed=0)
    assert [len(rows) for rows in drawn.values()] == list(augmentation.LABELS)
    assert set(drawn[50]) < set(drawn[100]) < set(drawn[200])
    assert not set(place[drawn[200]]) & set(place[judged])
    assert set(range(500, 600)) <= set(judged)


def test_augmented_views_differ_and_are_prepared(simulated):
    found = augmentation.turned(simulated[:3], prepare.Recipe(), seed=0)
    assert found.shape == (augmentation.TIMES, 3, 32, 32)
    assert (found.max((2, 3)) == 255).all()
    assert (found[0] != found[1]).any((1, 2)).all()


@pytest.mark.parametrize("make", [flow.Flow, flows.Zuko])
def test_both_flows_are_densities_with_dropout(make):
    torch.manual_seed(0)
    one = make(flow.Config(kept=3, layers=2, hidden=8))
    dropped = [part.p for part in one.modules() if isinstance(part, torch.nn.Dropout)]
    assert set(dropped) == {0.2}
    values = torch.randn(5, 3)
    assert one(values).shape == (5,)
    assert not torch.equal(one(values), one(values))
    one.eval()
    torch.testing.assert_close(one(values), one(values))

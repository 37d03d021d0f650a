"""Batches show each galaxy twice; training goes on where it stopped, to the bit, and says when it cannot."""

import csv
import json
import resource
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from rgz.data import loader
from rgz.errors import BadInput
from rgz.models import checkpoint, train, vdvae
from rgz.transforms import perturb, prepare

SCHEDULE = train.Schedule(steps=6, batch=8, warmup=2)


RECIPE = prepare.Recipe(32)


@pytest.fixture
def batch(simulated):
    return loader.batches(simulated, RECIPE, 8, seed=0)


def fresh():
    torch.manual_seed(0)
    return vdvae.VDVAE(vdvae.PRESETS["tiny"])


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_batches_depend_on_seed_and_step_alone(simulated, batch):
    clean, seen = batch(5)
    assert clean.shape == seen.shape == (8, 1, 32, 32)
    assert clean.amax((1, 2, 3)).tolist() == [255] * 8
    again, another = loader.batches(simulated, RECIPE, 8, seed=0), loader.batches(simulated, RECIPE, 8, seed=1)
    torch.manual_seed(7)
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(again(5), (clean, seen), strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(another(5)[0], clean)
    assert not torch.equal(again(6)[0], clean)
    assert not torch.equal(again(4)[0], clean)


@pytest.mark.parametrize(("limit", "times"), [(0.0, 4), (np.inf, 1)], ids=["resolved", "unresolved"])
def test_an_epoch_shows_every_image_equally_often(simulated, monkeypatch, limit, times):
    seen = []

    def note(prepared, fields, rms, pixel):
        seen.extend(fields.sum((1, 2)).tolist())
        return torch.zeros(2 * len(fields)), torch.zeros(2 * len(fields))

    monkeypatch.setattr(loader, "_pairs", note)
    monkeypatch.setattr(loader, "EXTENDED", limit)
    batch = loader.batches(simulated, RECIPE, 12, seed=3)  # 24 sources in four batches
    for step in range(8 * times):
        batch(step)
    assert set(Counter(seen).values()) == {2 * times}
    assert len(set(seen)) == len(simulated)


def likeness(first, second):
    """Correlation of the pixels of each image with those of another, (N,)."""
    a, b = (part.flatten(1) - part.flatten(1).mean(1, keepdim=True) for part in (first, second))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))


def test_both_images_of_a_pair_show_the_same_galaxy_on_the_same_side(simulated, monkeypatch):
    monkeypatch.setattr(loader, "OTHER", 1.0)
    batch = loader.batches(simulated[1::2], RECIPE, 24, seed=0)  # FRII, with two sides to tell apart
    clean, seen = (torch.cat(parts) for parts in zip(*map(batch, range(4)), strict=True))
    assert (clean != seen).flatten(1).any(1).float().mean() > 0.9
    alike = likeness(clean, seen)
    assert alike.median() > 0.9
    for wrong in (seen.roll(2, 0), seen.flip(-1), seen.flip(-2)):
        assert (alike > likeness(clean, wrong)).float().mean() > 0.75


def test_the_other_pairs_are_twice_the_clean_image(simulated, monkeypatch):
    monkeypatch.setattr(loader, "OTHER", 0.0)
    clean, seen = loader.batches(simulated, RECIPE, 8, seed=0)(0)
    assert torch.equal(clean, seen)


def test_a_survey_with_a_large_beam_shows_fewer_details(simulated, monkeypatch):
    def peaks(share):
        monkeypatch.setattr(loader, "SURVEY", share)
        clean, _ = loader.batches(simulated[1::2], RECIPE, 24, seed=0)(0)
        assert clean.amax((1, 2, 3)).min() == 255  # none is blank
        return ((clean > 100) & (clean == F.max_pool2d(clean, 5, 1, 2))).sum()

    assert peaks(1.0) < 0.8 * peaks(0.0)


def test_noise_has_the_rms_asked_for_and_makes_no_emission_out_of_nothing():
    torch.manual_seed(0)
    field = torch.zeros(3, 200, 200)
    rms = torch.tensor([0.0, 0.5, 2.0])
    torch.testing.assert_close(perturb.add_noise(field, rms, torch.ones(3)).std((1, 2)), rms)
    same = torch.eye(2).expand(3, 2, 2)
    seen, _ = perturb.observe(field, 1.8, same, torch.zeros(3, 2), torch.zeros(3), torch.full((3, 1, 1), torch.inf))
    assert not seen.any()


def test_resumed_training_ends_where_uninterrupted_training_does(tmp_path, batch, monkeypatch):
    whole = train.fit(fresh(), batch, SCHEDULE, tmp_path / "whole", every=3)

    def stop(step):
        if step == 4:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        train.fit(fresh(), stop, SCHEDULE, tmp_path / "broken", every=3)
    torch.manual_seed(99)
    resumed = train.fit(fresh(), batch, SCHEDULE, tmp_path / "broken", every=3)
    assert same(whole, resumed)


def test_the_log_has_validation_rate_and_distortion(tmp_path, batch, pixels):
    train.fit(fresh(), batch, SCHEDULE, tmp_path, validation=pixels, every=2)
    rows = list(csv.DictReader((tmp_path / "log.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert all(
        np.isfinite(float(row[key]))
        for row in rows
        for key in ("loss", "validation", "rate", "distortion", "gradient_norm")
    )
    for row in rows:
        assert float(row["rate_1"]) + float(row["rate_8"]) == pytest.approx(float(row["rate"]), rel=1e-4)


class Line(nn.Module):
    """A model without noise, in float32 throughout."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 5))

    def forward(self, x):
        return {"loss": ((x * self.w).sum(1) - 1).square().mean()}


def test_a_model_is_told_which_part_of_the_training_is_done(tmp_path):
    told = []

    class Told(Line):
        def anneal(self, done):
            told.append(done)
            return False

    train.fit(Told(), lambda step: (torch.ones(2, 5),), train.Schedule(steps=4, batch=2), tmp_path)
    assert told == [0, 0, 0.25, 0.25, 0.5, 0.5, 0.75, 0.75]  # the averaged model too


def test_fine_latents_are_trained_in_the_last_part_alone(tmp_path, batch):
    rates = []
    train.fit(fresh(), batch, SCHEDULE, tmp_path, every=1)
    for row in csv.DictReader((tmp_path / "log.csv").read_text().splitlines()):
        rates.append((float(row["rate_1"]) > 0, float(row["rate_8"]) > 0))
    assert rates == [(True, False)] * 3 + [(True, True)] * 3


class Spoilt(Line):
    """A model whose loss, or gradient alone, is not finite after four steps."""

    def __init__(self, spoil):
        super().__init__()
        self.spoil, self.calls = spoil, 0

    def forward(self, x):
        self.calls += 1
        return {"loss": self.spoil(super().forward(x)["loss"]) if self.calls > 4 else super().forward(x)["loss"]}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda loss: loss * torch.nan,
        lambda loss: loss * torch.inf,
        lambda loss: loss.detach() * torch.nan + loss,
        lambda loss: (loss - loss.detach()).abs().sqrt(),
    ],
    ids=["nan", "inf", "gradient finite", "loss finite"],
)
def test_no_step_takes_what_is_not_finite(tmp_path, spoil):
    schedule = train.Schedule(steps=20, batch=1, warmup=1, patience=3)
    model, snapshots = Spoilt(spoil), {}

    def batch(step):
        snapshots[step] = model.w.detach().clone()
        return (torch.ones(1, 5),)

    with pytest.raises(BadInput, match=r"4 steps in a row .* step 8 .* lower learning rate"):
        train.fit(model, batch, schedule, tmp_path, every=2)
    assert torch.equal(model.w, snapshots[4])
    state = torch.load(tmp_path / "checkpoint.pt")
    assert state["log"][-1]["skipped"] == 2
    assert torch.equal(state["model"]["w"], snapshots[4])
    assert all(v.isfinite().all() for v in (state["ema"]["w"], *state["optimizer"]["state"][0].values()))


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"nonsense", lambda b: b""])
def test_a_damaged_checkpoint_is_named(tmp_path, batch, damage):
    train.fit(fresh(), batch, SCHEDULE, tmp_path, every=3)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match="not a checkpoint"):
        train.fit(fresh(), batch, SCHEDULE, tmp_path)


@pytest.mark.parametrize("change", [{"steps": 7}, {"ema": 0.5}, {"seed": 1}])
def test_another_schedule_does_not_go_on(tmp_path, batch, change):
    train.fit(fresh(), batch, SCHEDULE, tmp_path)
    with pytest.raises(BadInput, match=f"another schedule .{next(iter(change))} was"):
        train.fit(fresh(), batch, replace(SCHEDULE, **change), tmp_path)


@pytest.mark.parametrize("room", [20, 5000], ids=["for no log", "for no checkpoint"])
def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, batch, room):
    def fill(step):
        if step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, limit))
        return batch(step)

    _, limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with pytest.raises(BadInput, match=r"cannot write .*File too large"):
            train.fit(fresh(), fill, SCHEDULE, tmp_path, every=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    assert torch.load(tmp_path / "checkpoint.pt")["log"][-1]["step"] == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv"]
    whole = train.fit(fresh(), batch, SCHEDULE, tmp_path / "whole")
    assert same(train.fit(fresh(), batch, SCHEDULE, tmp_path), whole)


def test_weights_come_back_with_config_recipe_and_provenance(tmp_path, tiny, pixels):
    checkpoint.save(tmp_path / "m.safetensors", tiny.half().float(), RECIPE, {"seed": 3})
    model, recipe, about = checkpoint.load(tmp_path / "m.safetensors")
    assert model.config == tiny.config
    assert recipe == RECIPE
    assert about == {"seed": 3}
    torch.testing.assert_close(model.encode(pixels)[0], tiny.encode(pixels)[0])


def test_damaged_or_foreign_weights_are_refused(tmp_path, tiny):
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, tiny, RECIPE, {})
    whole = path.read_bytes()
    middle = len(whole) - 500
    for damaged in (
        whole[:200],
        whole[:-10],
        whole[:middle] + bytes([whole[middle] ^ 4]) + whole[middle + 1 :],
        b"PK\x03\x04",
        b"",
        whole[:8] + b"x" + whole[9:],
    ):
        path.write_bytes(damaged)
        with pytest.raises(BadInput, match=r"m\.safetensors is"):
            checkpoint.load(path)
    save_file({"a": torch.zeros(2)}, path, metadata={"rgz": json.dumps({"config": {}})})
    with pytest.raises(BadInput, match="not a model of rgz"):
        checkpoint.load(path)

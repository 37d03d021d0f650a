"""Training goes on where it stopped, to the bit, and says when it cannot."""

import csv
import json
import resource
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rgz.data import loader
from rgz.errors import BadInput
from rgz.models import checkpoint, train, vdvae
from rgz.transforms import prepare

SCHEDULE = train.Schedule(steps=6, batch=8, warmup=2)


@pytest.fixture
def batch(simulated):
    return loader.batches(simulated, prepare.Recipe(), 8, seed=0)


def fresh():
    torch.manual_seed(0)
    return vdvae.VDVAE(vdvae.PRESETS["tiny"])


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_batches_depend_on_the_step_alone(batch):
    assert batch(5).shape == (8, 1, 32, 32)
    assert torch.equal(batch(5), batch(5))
    assert not torch.equal(batch(5), batch(6))


@pytest.mark.parametrize(("limit", "times"), [(0.0, 4), (np.inf, 1)], ids=["resolved", "unresolved"])
def test_an_epoch_shows_every_image_equally_often(simulated, monkeypatch, limit, times):
    seen = []
    monkeypatch.setattr(prepare, "smooth", lambda field, _: seen.append(float(field.sum())) or field)
    monkeypatch.setattr(loader, "EXTENDED", limit)
    batch = loader.batches(simulated, prepare.Recipe(), 8, seed=3)
    for step in range(3 * times):
        batch(step)
    assert set(Counter(seen).values()) == {times}
    assert len(set(seen)) == len(simulated)


def test_noise_is_that_of_the_image():
    rng, field = np.random.default_rng(0), np.full((110, 110), 10.0, dtype=np.float32)
    assert loader._observe(field, 0.0, rng) is field
    observed = loader._observe(field, 0.5, rng)
    assert (observed - field).std() == pytest.approx(0.5, rel=0.01)
    assert (loader._observe(np.zeros((110, 110)), 1.0, rng) == 0).all()  # no emission out of nothing


def test_resumed_training_ends_where_uninterrupted_training_does(tmp_path, batch, monkeypatch):
    whole, steps = train.fit(fresh(), batch, SCHEDULE, tmp_path / "whole", every=3)
    assert steps == 6

    def stop(step):
        if step == 4:
            raise KeyboardInterrupt
        return batch(step)

    with pytest.raises(KeyboardInterrupt):
        train.fit(fresh(), stop, SCHEDULE, tmp_path / "broken", every=3)
    torch.manual_seed(99)
    resumed, _ = train.fit(fresh(), batch, SCHEDULE, tmp_path / "broken", every=3)
    assert same(whole, resumed)


def test_no_minutes_means_no_step(tmp_path, batch):
    model, steps = train.fit(fresh(), batch, SCHEDULE, tmp_path, minutes=0)
    assert steps == 0
    assert same(model, fresh())


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


def test_tensorboard_gets_the_same_numbers(tmp_path, batch):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train.fit(fresh(), batch, SCHEDULE, tmp_path, every=2, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    for row in csv.DictReader((tmp_path / "log.csv").read_text().splitlines()):
        for name in row.keys() - {"step", "validation"}:
            shown = {event.step: event.value for event in events.Scalars(name)}
            assert shown[int(row["step"])] == pytest.approx(float(row[name]), rel=1e-4)


def test_tensorboard_that_is_not_installed_is_named(tmp_path, batch, monkeypatch):
    monkeypatch.setattr(train, "find_spec", lambda name: None)
    with pytest.raises(BadInput, match="pip install tensorboard"):
        train.fit(fresh(), batch, SCHEDULE, tmp_path, tensorboard=True)


def test_one_may_look_at_the_averaged_model_without_changing_it(tmp_path, batch):
    seen = []
    looked, _ = train.fit(
        fresh(), batch, SCHEDULE, tmp_path / "a", every=4, look=lambda m, step: seen.append((step, m.sample(2).shape))
    )
    alone, _ = train.fit(fresh(), batch, SCHEDULE, tmp_path / "b", every=4)
    assert seen == [(4, (2, 1, 32, 32)), (6, (2, 1, 32, 32))]
    assert same(looked, alone)


class Line(nn.Module):
    """A model without noise, in float32 throughout."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.linspace(-1, 1, 5))

    def forward(self, x):
        return {"loss": ((x * self.w).sum(1) - 1).square().mean()}


@pytest.mark.parametrize("accumulate", [2, 3, 6])
def test_parts_of_a_batch_add_up_to_the_whole(tmp_path, accumulate):
    points = torch.randn(6, 12, 5, generator=torch.Generator().manual_seed(0))
    whole, parts = (
        train.fit(
            Line(), points.__getitem__, train.Schedule(steps=6, batch=12, warmup=1, accumulate=n), tmp_path / str(n)
        )[0]
        for n in (1, accumulate)
    )
    assert not torch.equal(whole.w, Line().w)
    torch.testing.assert_close(parts.w, whole.w, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("accumulate", [0, 3])
def test_a_batch_that_cannot_be_shared_out_evenly_is_refused(tmp_path, batch, accumulate):
    with pytest.raises(BadInput, match=f"batch of 8 .* 1 × {accumulate} equal parts"):
        train.fit(fresh(), batch, train.Schedule(batch=8, accumulate=accumulate), tmp_path)


def test_processes_are_those_of_torchrun(monkeypatch):
    assert train.processes() == (0, 1)
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert train.processes() == (1, 2)


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
    with pytest.raises(BadInput, match=r"4 steps in a row .* step 8 .* lower learning rate"):
        train.fit(
            model,
            lambda step: torch.ones(1, 5),
            schedule,
            tmp_path,
            every=2,
            look=lambda _, step: snapshots.update({step: model.w.detach().clone()}),
        )
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


@pytest.mark.parametrize("change", [{"steps": 7}, {"accumulate": 2}, {"seed": 1}])
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
    whole, _ = train.fit(fresh(), batch, SCHEDULE, tmp_path / "whole")
    assert same(train.fit(fresh(), batch, SCHEDULE, tmp_path)[0], whole)


def test_weights_come_back_with_config_recipe_and_provenance(tmp_path, tiny, pixels):
    checkpoint.save(tmp_path / "m.safetensors", tiny.half().float(), prepare.Recipe(), {"seed": 3})
    model, recipe, about = checkpoint.load(tmp_path / "m.safetensors")
    assert model.config == tiny.config
    assert recipe == prepare.Recipe()
    assert about == {"seed": 3}
    torch.testing.assert_close(model.encode(pixels)[0], tiny.encode(pixels)[0])


def test_damaged_or_foreign_weights_are_refused(tmp_path, tiny, run):
    path = tmp_path / "m.safetensors"
    checkpoint.save(path, tiny, prepare.Recipe(), {})
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
        status, out, err = run("data", "check", path)
        assert (status, out, err.count("\n")) == (1, "", 1)
    save_file({"a": torch.zeros(2)}, path, metadata={"rgz": json.dumps({"config": {}})})
    with pytest.raises(BadInput, match="not a model of rgz"):
        checkpoint.load(path)

"""Training goes on where it stopped, to the bit, and says when it cannot."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from rgz import augment, checkpoints, images, train, vdvae
from rgz.errors import BadInput

SCHEDULE = train.Schedule(steps=6, batch=8, warmup=2)


@pytest.fixture
def batch(simulated):
    return augment.batches(simulated, images.Recipe(), 8, seed=0)


def fresh():
    torch.manual_seed(0)
    return vdvae.VDVAE(vdvae.PRESETS["tiny"])


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def test_batches_depend_on_the_step_alone(batch):
    assert batch(5).shape == (8, 1, 32, 32)
    assert torch.equal(batch(5), batch(5))
    assert not torch.equal(batch(5), batch(6))


def test_an_epoch_shows_every_image_once(simulated, monkeypatch):
    seen = []
    monkeypatch.setattr(images, "render", lambda field, *_: seen.append(field.sum()) or field[:32, :32] + 1)
    batch = augment.batches(simulated, images.Recipe(), 8, seed=3)
    for step in range(3):
        batch(step)
    assert len(set(seen)) == len(simulated)


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


class Broken(nn.Module):
    """A model whose loss is not a number."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.ones(1))

    def forward(self, x):
        return {"loss": self.w.sum() * torch.nan}


def test_skipping_that_sticks_is_an_error(tmp_path):
    model = Broken()
    with pytest.raises(BadInput, match="steps in a row"):
        train.fit(model, lambda step: torch.zeros(1), train.Schedule(steps=20, patience=3), tmp_path)
    assert model.w.item() == 1


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"nonsense", lambda b: b""])
def test_a_damaged_checkpoint_is_named(tmp_path, batch, damage):
    train.fit(fresh(), batch, SCHEDULE, tmp_path, every=3)
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(BadInput, match="not a checkpoint"):
        train.fit(fresh(), batch, SCHEDULE, tmp_path)


def test_another_schedule_does_not_go_on(tmp_path, batch):
    train.fit(fresh(), batch, SCHEDULE, tmp_path, minutes=0)
    with pytest.raises(BadInput, match="another schedule"):
        train.fit(fresh(), batch, train.Schedule(steps=7, batch=8, warmup=2), tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, batch, monkeypatch):
    train.fit(fresh(), batch, SCHEDULE, tmp_path, minutes=0)
    before = (tmp_path / "checkpoint.pt").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BadInput, match="No space left"):
        train.fit(fresh(), batch, SCHEDULE, tmp_path, every=2)
    assert (tmp_path / "checkpoint.pt").read_bytes() == before


def test_weights_come_back_with_config_recipe_and_provenance(tmp_path, tiny, pixels):
    checkpoints.save(tmp_path / "m.safetensors", tiny.half().float(), images.Recipe(), {"seed": 3})
    model, recipe, about = checkpoints.load(tmp_path / "m.safetensors")
    assert model.config == tiny.config
    assert recipe == images.Recipe()
    assert about == {"seed": 3}
    torch.testing.assert_close(model.encode(pixels)[0], tiny.encode(pixels)[0])


def test_damaged_or_foreign_weights_are_refused(tmp_path, tiny, run):
    path = tmp_path / "m.safetensors"
    checkpoints.save(path, tiny, images.Recipe(), {})
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
        checkpoints.load(path)

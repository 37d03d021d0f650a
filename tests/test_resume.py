"""A run may be killed at any moment: the weights come out the same, to the bit.

Run as a program, ``python test_resume.py FOLDER STEPS PAUSE``, this file is the training that gets killed.
"""

import csv
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rgz.app import training
from rgz.data import sample
from rgz.errors import BadInput
from rgz.models import train, vdvae
from studies import simulate

SCHEDULE = train.Schedule(steps=6, batch=8, warmup=2)


def batch(step):
    made = torch.Generator().manual_seed(step)
    clean, seen = torch.randint(0, 256, (2, 8, 1, 32, 32), dtype=torch.uint8, generator=made)
    return clean, seen


def run(folder, schedule=SCHEDULE, batch=batch, **options):
    torch.manual_seed(0)
    model = train.fit(vdvae.VDVAE(vdvae.PRESETS["tiny"]), batch, schedule, folder, every=2, **options)
    return model.state_dict()


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def logged(folder):
    return [row["step"] for row in csv.DictReader((folder / "log.csv").read_text().splitlines())]


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Weights of a run that nothing interrupts."""
    return run(tmp_path_factory.mktemp("whole"))


@pytest.mark.parametrize("write", range(7))
def test_stopped_at_any_write_the_run_goes_on_to_the_same_weights(tmp_path, monkeypatch, whole, write):
    replace, done = os.replace, []

    def stop(*names):
        if len(done) == write:
            raise KeyboardInterrupt
        done.append(replace(*names))

    with monkeypatch.context() as patched:
        patched.setattr(os, "replace", stop)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    (tmp_path / "checkpoint.pt.1.partial").touch()  # what a kill in the middle of writing leaves
    assert same(run(tmp_path), whole)
    assert logged(tmp_path) == ["2", "4", "6"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "log.csv"]


def test_a_finished_run_has_nothing_to_do(tmp_path, whole):
    run(tmp_path)
    before = (tmp_path / "checkpoint.pt").stat().st_mtime_ns
    assert same(run(tmp_path, batch=None), whole)
    assert (tmp_path / "checkpoint.pt").stat().st_mtime_ns == before


def test_steps_skipped_before_a_stop_still_count(tmp_path):
    schedule = train.Schedule(steps=6, batch=8, skip=0, patience=4)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, schedule, lambda step: batch(step) if step < 3 else 1 / 0)
    assert torch.load(tmp_path / "checkpoint.pt")["log"][-1]["in_a_row"] == 2
    with pytest.raises(BadInput, match=r"5 steps in a row.*step 5 "):
        run(tmp_path, schedule)


def test_killed_after_its_last_step_the_run_ends_with_the_same_weights(tmp_path):
    built = simulate.sources(12, seed=3)
    built.table["split"] = ["valid" if number < 2 else "train" for number in range(12)]
    sample.write(tmp_path / "train.h5", built)
    weights, found = tmp_path / "run" / "vdvae.safetensors", []
    for _ in range(2):  # the second time, all steps are in the checkpoint
        training.train(preset="tiny", steps=2, batch=4, path=tmp_path / "train.h5", out=weights.parent)
        found.append(load_file(weights))  # the file also has the time that it took
        weights.unlink()
    assert found[0].keys() == found[1].keys()
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])


@pytest.mark.slow
def test_killed_and_resumed_training_ends_with_the_same_bits(tmp_path):
    schedule = train.Schedule(steps=16, batch=8, warmup=2)
    killed = subprocess.Popen([sys.executable, __file__, tmp_path / "killed", "16", "0.05"])
    while not (tmp_path / "killed/checkpoint.pt").exists() and killed.poll() is None:
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.5))
    killed.kill()
    assert killed.wait() == -9
    assert same(run(tmp_path / "killed", schedule), run(tmp_path / "whole", schedule))
    assert logged(tmp_path / "killed") == [str(step) for step in range(2, 17, 2)]


def main(folder: str, steps: str, pause: str):
    torch.set_num_threads(1)
    run(
        Path(folder),
        train.Schedule(steps=int(steps), batch=8, warmup=2),
        lambda step: time.sleep(float(pause)) or batch(step),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

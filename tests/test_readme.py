"""The Python in README.md runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HOUSE = Path(__file__).parents[1]
BLOCKS = re.findall(r"```python\n(.*?)```", (HOUSE / "README.md").read_text(encoding="utf-8"), re.S)


def run(code, folder):
    env = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_a_galaxy_of_ones_own(fits_galaxy):
    shown = run(BLOCKS[0] + "\nassert galaxies.shape == (16, 64, 64)", fits_galaxy.parent)
    assert "not excluded at 90 %" in shown
    assert "most similar" in shown


@pytest.mark.data
@pytest.mark.slow
def test_a_classifier_on_codes(survey, tmp_path):
    survey("mirabest")
    code = BLOCKS[1].replace('load_dataset("mirabest")', 'load_dataset("mirabest")[::20]')  # all take minutes
    check = "assert 30 < len(sample) == len(scores) and codes.shape == (len(sample), 256)"
    run(f"{code}\n{check}", tmp_path)

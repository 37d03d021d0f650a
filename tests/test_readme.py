"""The Python in README.md runs as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from rgz.data import datasets, fetch

HOUSE = Path(__file__).parents[1]
GALAXY, SAMPLE = re.findall(r"```python\n(.*?)```", (HOUSE / "README.md").read_text(encoding="utf-8"), re.S)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(fits_galaxy):
    """Both blocks in one process; the second one, on every sixtieth galaxy, if its images are here."""
    code = GALAXY + "\nassert galaxies.shape == (16, 64, 64)\n"
    if fetch.locate(datasets.SAMPLES["mirabest"][0]) is not None:
        some = SAMPLE.replace('load_dataset("mirabest")', 'load_dataset("mirabest")[::60]')  # all take minutes
        assert some != SAMPLE
        code += some + "\nassert 10 < len(sample) == len(scores) and codes.shape == (len(sample), 256)"
    env = os.environ | {"PYTHONPATH": str(HOUSE)}
    done = subprocess.run([sys.executable, "-c", code], cwd=fits_galaxy.parent, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not excluded at 90 %" in done.stdout
    assert "most similar" in done.stdout

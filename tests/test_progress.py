"""Progress is shown in a log file too, and short work prints nothing."""

import subprocess
import sys

SLOW = """
import sys, time
from rgz.progress import progress
class Pace(progress):
    def __init__(self, *arguments, **options):
        super().__init__(*arguments, mininterval=0.1, delay=0, **options)
list(Pace(map(time.sleep, [0.06] * 10), "working", 10))
list(progress(range(1000), "nothing"))
"""


def test_a_log_gets_whole_lines():
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, text=True, check=True)
    lines = done.stderr.splitlines()
    assert 2 <= len(lines) <= 10
    assert all(line.startswith("working") and "\r" not in line for line in lines)

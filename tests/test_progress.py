"""Progress is shown in a log file too, and short work prints nothing."""

import subprocess
import sys

SLOW = """
import time
from rgz.progress import progress
list(progress(map(time.sleep, [0.06] * 10), "working", 10, mininterval=0.1, delay=0))
list(progress(range(1000), "nothing"))
"""


def test_a_log_gets_one_line_a_bar():
    done = subprocess.run([sys.executable, "-c", SLOW], capture_output=True, check=True)
    line, rest = done.stderr.split(b"\n")
    assert not rest
    assert 2 <= line.count(b"working") <= 10
    assert line.endswith(b"it/s]")

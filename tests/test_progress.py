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


STOPPED = """
from rgz.app import cli
from rgz.progress import progress

def stopped():
    bar = progress(total=10, delay=0)
    bar.refresh()
    raise KeyboardInterrupt

cli.app = stopped
cli.main()
"""


def test_ctrl_c_ends_a_bar_and_speaks_on_a_line_of_its_own():
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True)
    assert done.returncode == 130
    assert done.stderr.splitlines()[-1] == "rgz: stopped"

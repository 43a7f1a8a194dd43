"""Processes at work on pieces end with the one that they work for."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

SCRIPT = """
import os
import time
from escultor.process_pool import ProcessPool

def named(shared, piece):
    time.sleep(0.2)
    return os.getpid()

if __name__ == "__main__":
    with ProcessPool(2, None) as crew:
        print(*set(crew.map(named, range(8))), flush=True)
        time.sleep(60)
"""


def is_there(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_workers_end_when_their_parent_is_killed(tmp_path):
    (tmp_path / "work.py").write_text(SCRIPT)
    with subprocess.Popen([sys.executable, tmp_path / "work.py"], stdout=subprocess.PIPE, text=True) as work:
        assert work.stdout is not None
        workers = work.stdout.readline().split()
        assert len(workers) == 2
        assert all(map(is_there, workers))
        os.kill(work.pid, signal.SIGKILL)
    for _ in range(300):
        if not any(map(is_there, workers)):
            return
        time.sleep(0.1)
    raise AssertionError(f"still at work: {workers}")

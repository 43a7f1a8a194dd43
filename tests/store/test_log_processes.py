"""What the log promises when several processes write, and when one is killed."""

import os
import signal
import subprocess
import sys
from collections import Counter

from escultor.store import open_store
from escultor.types import Feedback

WRITER = """
import sys
from escultor.store import open_store
from escultor.types import Rating
url, name, count = sys.argv[1:]
with open_store(url) as store:
    for k in range(int(count)):
        id = f"{name}-{k}"
        store.log.append(Rating(id, 1.0, "answer", name, "thumb", True))
        sys.stdout.write(id + "\\n")
        sys.stdout.flush()
"""


def writer(url: str, name: str, count: int) -> subprocess.Popen:
    command = [sys.executable, "-W", "error", "-c", WRITER, url, name, str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_after_kill_9_every_acknowledged_row_is_there_and_none_twice(url):
    with writer(url, "victim", 10**9) as process:
        assert process.stdout is not None
        acknowledged = [process.stdout.readline().strip() for _ in range(40)]
        os.kill(process.pid, signal.SIGKILL)
        acknowledged += [line.strip() for line in process.stdout if line.endswith("\n")]
    with open_store(url) as store:
        present = Counter(noun.id for _, noun in store.log.read(Feedback))
        assert set(acknowledged) <= set(present)
        assert set(present.values()) == {1}
        assert len(present) - len(acknowledged) in (0, 1)  # one may be written and not yet acknowledged


def test_processes_that_open_a_new_store_and_write_at_once_lose_nothing(url):
    names, count = ("one", "two", "three"), 30
    processes = [writer(url, name, count) for name in names]
    for process in processes:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with open_store(url) as store:
        entries = list(store.log.read(Feedback))
        assert len(entries) == len({noun.id for _, noun in entries}) == count * len(names)
        for name in names:
            own = [noun.id for _, noun in store.log.read(Feedback, subject=name)]
            assert own == [f"{name}-{k}" for k in range(count)]

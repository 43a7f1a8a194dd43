"""What the log promises when several processes write, and when one is killed."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

from store_records import rating

from escultor.store import open_store
from escultor.store.appending import append, log_row
from escultor.store.database import writing
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
        present = Counter(record.id for _, record in store.log.read(Feedback))
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
        assert len(entries) == len({record.id for _, record in entries}) == count * len(names)
        for name in names:
            own = [record.id for _, record in store.log.read(Feedback, subject=name)]
            assert own == [f"{name}-{k}" for k in range(count)]


def test_a_number_taken_early_is_never_committed_late(url):
    """A follower would lose an entry if B committed number 2 while A still held number 1."""
    with open_store(url) as store, open_store(url) as other, ThreadPoolExecutor(1) as pool:
        with writing(store.log._engine) as connection:
            append(connection, [[log_row(rating("early"))]], [[]])
            late = pool.submit(other.log.append, rating("late"))
            time.sleep(0.3)
            assert not late.done()
            assert list(other.log.read(Feedback)) == []
        assert late.result(30) > [1]
        assert [record.id for _, record in other.log.read(Feedback)] == ["early", "late"]


def test_a_reader_following_two_writers_by_number_misses_nothing(url):
    with open_store(url) as store:
        writers = [writer(url, name, 60) for name in ("one", "two")]
        seen, last = [], 0
        while len(seen) < 120 and any(process.poll() is None for process in writers):
            for seq, record in store.log.read(Feedback, after=last):
                last = seq
                seen.append(record.id)
        seen += [record.id for _, record in store.log.read(Feedback, after=last)]
        for process in writers:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
        assert seen == [record.id for _, record in store.log.read(Feedback)]
        assert len(set(seen)) == 120

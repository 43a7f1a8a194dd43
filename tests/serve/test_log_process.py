"""A process that appends to the log: the same outcomes, and nothing lost or doubled when it is killed."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from started import family

from escultor.errors import IdTaken, StoreError
from escultor.serve.log_process import LogProcess
from escultor.types import Feedback, Rating


def rating(id: str, time: float = 1.0) -> Rating:
    return Rating(id, time, "answer", "person", "thumb", True)


@pytest.fixture
def process(store):
    with closing(LogProcess(store.log)) as made:
        yield made


def is_running(pid: int) -> bool:
    """A process that ended may still stand in the table, without a command."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except (FileNotFoundError, ProcessLookupError):
        return False


def child(process):
    """The number of the process that was started: these tests' own process may have others."""
    return process._process._process.pid


def test_outcomes_are_those_of_the_log(store, process):
    assert process.append_each([[rating("a"), rating("b")], [rating("c")]]) == [[1, 2], [3]]
    again, (refused,) = process.append_each([[rating("a")]]), process.append_each([[rating("a", time=2.0)]])
    assert again == [[1]]
    assert isinstance(refused, IdTaken)
    assert "holds other content under this id as entry 1" in str(refused)
    process.check_writable()
    assert [record.id for _, record in store.log.read(Feedback)] == ["a", "b", "c"]


def test_what_was_acknowledged_is_there_once_however_often_the_process_is_killed(store, process):
    numbers, done = {}, threading.Event()

    def kill():
        draw = random.Random(0)
        while not done.wait(draw.uniform(0.0, 0.4)):  # at times while it starts
            until = len(numbers) + draw.randrange(80)
            while len(numbers) < until and not done.wait(0.001):
                pass
            if (beside := process._process._process) is not None:
                beside.kill()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for n in range(300):
            with suppress(StoreError):  # killed twice in one call
                ((numbers[f"r{n}"],),) = process.append_each([[rating(f"r{n}")]])
    finally:
        done.set()
        killer.join()
    stored = {record.id: seq for seq, record in store.log.read(Feedback)}
    assert numbers.items() <= stored.items()
    assert store.log.count(Feedback) == len(stored) <= 300


def test_a_signal_to_end_is_for_the_server_alone(store, process):
    process.append_each([[rating("a")]])
    before = child(process)
    os.kill(before, signal.SIGTERM)
    assert process.append_each([[rating("b")]]) == [[2]]
    assert child(process) == before


def test_it_ends_with_a_server_that_was_killed(tmp_path):
    program = (
        "from escultor.serve.log_process import LogProcess\nfrom escultor.store import open_store\n"
        "import sys\nstore = open_store(sys.argv[1])\nprocess = LogProcess(store.log)\n"
        "process.check_writable()\nprint('ready', flush=True)\nsys.stdin.read()\n"
    )
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", program, str(tmp_path / "store")]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        (beside,) = family(server.pid)[1:]
        server.kill()
    while is_running(beside):
        time.sleep(0.01)

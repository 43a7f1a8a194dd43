"""Leases: one holder over all processes and threads, replaced when it dies, told when it has lost."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from escultor.errors import FaultError, InputError
from escultor.store import open_store
from escultor.store.leases import Lease, holder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return str(tmp_path / "store")
    return request.getfixturevalue("postgres_url")


@pytest.fixture
def store(url, tmp_path):
    with open_store(url, blobs=tmp_path / "blobs") as opened:
        yield opened


def until(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def test_of_eight_contenders_one_holds_at_a_time(store):
    inside, most, served = [], [], []

    def contend():
        while not served or len(served) < 8:
            try:
                with Lease(store, "cycle of a"):
                    inside.append(1)
                    most.append(len(inside))
                    time.sleep(0.01)
                    inside.pop()
                    served.append(threading.get_ident())
                    return
            except InputError:
                time.sleep(0.01)

    threads = [threading.Thread(target=contend) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(set(served)), max(most)) == (8, 1)
    assert holder(store, "cycle of a") is None


def test_leases_of_two_names_do_not_meet(store):
    with Lease(store, "a"), Lease(store, "b"):
        assert holder(store, "a") != holder(store, "b")


HOLD = """
import sys, time
from escultor.store import open_store
from escultor.store.leases import Lease
with open_store(sys.argv[1], blobs=sys.argv[2]) as store, Lease(store, "a"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_lease_of_a_killed_process_is_free_at_once_on_its_machine(store, url, tmp_path):
    words = [sys.executable, "-c", HOLD, url, str(tmp_path / "blobs")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout
        assert other.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="another process"), Lease(store, "a"):
            pass
        os.kill(other.pid, signal.SIGKILL)
    with Lease(store, "a"):
        pass


def test_a_holder_that_is_not_heard_of_is_replaced_and_told(store, monkeypatch):
    silent = Lease(store, "a", length_s=0.3, heartbeat_s=600.0)  # as if its machine had lost the network
    with silent:
        until(lambda: holder(store, "a") is None)
        with Lease(store, "a") as second:
            second.check()
            with pytest.raises(FaultError, match="taken over"):
                silent.check()
            silent.__exit__(None, None, None)
            assert holder(store, "a") == second.holder  # the loser takes nothing from it


def test_a_living_holder_keeps_its_lease_longer_than_its_length(store):
    with Lease(store, "a", length_s=1.0, heartbeat_s=0.05) as lease:
        time.sleep(1.5)
        lease.check()
        assert holder(store, "a") == lease.holder


def test_a_clock_that_is_set_back_does_not_lock_everyone_out(store, monkeypatch):
    from escultor.store import leases

    with monkeypatch.context() as patch:
        patch.setattr(leases, "_now", lambda connection: time.time() + 86_400.0)
        lost = Lease(store, "a")
        assert lost._take() is None
    assert holder(store, "a") is None

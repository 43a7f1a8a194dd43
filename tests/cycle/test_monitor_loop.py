"""A monitor that runs on: it waits for a store that is away, and one of several works at a time."""

import subprocess
import sys

import pytest

from escultor.config import Config
from escultor.cycle import monitor_loop
from escultor.cycle.daemon import CycleDaemon
from escultor.cycle.monitor_loop import LEASE, MonitorLoop
from escultor.cycle.monitoring import monitor_of, watch_once
from escultor.errors import InputError, StoreError
from escultor.monitor import notify
from escultor.serve.auth import create
from escultor.serve.subjects import SubjectHasher
from escultor.store import open_store, registry
from escultor.store.leases import holder
from escultor.types import Alert, Health, Scope

NOW, PAGER = 1_790_000_000.0, "http://pager/"


@pytest.fixture
def store(tmp_path):
    with open_store(str(tmp_path / "store")) as opened:
        opened.log.append(registry.deployment_for("the first", "v1", None, now=NOW - 60))
        yield opened


@pytest.fixture
def pages(monkeypatch):
    told = []
    monkeypatch.setattr(
        notify, "send_to", lambda receiver, alerts: told.extend((a.rule, a.state) for a in alerts)
    )
    return told


def config_with_pager():
    return Config.model_validate({"monitor": {"notify": [PAGER]}})


def test_a_store_that_is_away_at_the_start_is_waited_for_and_told_once(store, pages):
    lines, away = [], [StoreError("the database is away")] * 3

    def opened():
        if away:
            raise away.pop()
        return store

    loop = MonitorLoop(config_with_pager(), lines.append)
    assert loop.open(opened, 0.0) is store
    assert lines == ["waiting for the store: the database is away"]
    assert pages == [("store", "firing")]
    assert loop.look(store, NOW) is not None
    assert [a.state for _, a in store.log.read(Alert) if a.rule == "store"] == ["firing", "resolved"]
    assert pages[1:] in ([], [("store", "resolved")])  # by the time of the outage, which is that of the clock


def test_a_store_that_does_not_exist_is_refused():
    def missing():
        raise InputError("there is nothing to watch")

    with pytest.raises(InputError):
        MonitorLoop(Config()).open(missing, 0.0)


def test_of_two_monitors_one_works_and_the_other_goes_on_after_it(store, pages):
    lines = []
    first = MonitorLoop(Config(), takes_turns=True)
    second = MonitorLoop(Config(), lines.append, takes_turns=True)
    assert first.look(store, NOW) is not None
    assert [second.look(store, NOW + k) for k in range(3)] == [None] * 3
    (line,) = lines
    assert "holds monitor" in line
    first.end()
    assert second.look(store, NOW + 9) is not None
    second.end()
    assert holder(store, LEASE) is None


def test_a_monitor_that_waits_for_its_turn_pages_no_outage(store, pages, monkeypatch):
    loops = [MonitorLoop(config_with_pager(), takes_turns=True) for _ in range(2)]
    for loop in loops:
        loop.look(store, NOW)

    def fails(*_):
        raise StoreError("the disk is full")

    monkeypatch.setattr(monitor_loop, "watch_once", fails)
    monkeypatch.setattr(MonitorLoop, "_has_turn", lambda loop, _: loop is loops[0] or fails())
    for loop in loops:
        assert loop.look(store, NOW + 60) is None
    assert pages == [("store", "firing")]
    loops[0].end()


def test_nothing_to_watch_yet_is_told_once_and_waited_for(tmp_path):
    lines = []
    with open_store(str(tmp_path / "empty")) as store:
        loop = MonitorLoop(Config(), lines.append)
        assert [loop.look(store, NOW + k) for k in range(2)] == [None, None]
        (line,) = lines
        assert "there is nothing to watch" in line
        store.log.append(registry.deployment_for("the first", "v1", None, now=NOW))
        assert loop.look(store, NOW + 60) is not None


def test_the_daemon_keeps_its_monitor(store, monkeypatch):
    made = []
    monkeypatch.setattr(monitor_loop, "monitor_of", lambda *args: made.append(1) or monitor_of(*args))
    daemon = CycleDaemon(store, Config(), lambda skill: ())
    for k in range(3):
        daemon.tick(NOW + 60 * k)
    assert made == [1]
    assert store.log.count(Health) == 3


def test_users_of_a_key_that_was_made_meanwhile_are_not_taken_for_one_person(store):
    monitor = monitor_of(store, Config())
    _, key = create("application", (Scope.INFER,))
    store.log.append(key)
    watch_once(store, Config(), NOW, NOW - 60, monitor)
    assert SubjectHasher.for_store(store.root).subject(f"key:{key.id}") in monitor.unnamed


def test_watching_loads_no_library_that_models_need():
    code = "import sys, escultor.cycle.monitor_loop; print({'torch', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "set()\n", done.stderr

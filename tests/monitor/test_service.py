"""The monitor of a store: it reads what is new, keeps its counts, records changes, and tells receivers."""

import json
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import chain, islice
from threading import Event, Thread

import pytest

from escultor.config import Monitor
from escultor.errors import ConfigError, InputError, StoreError
from escultor.ids import hash_value
from escultor.monitor import notify
from escultor.monitor.outage import StoreOutage
from escultor.monitor.service import MonitorService
from escultor.types import (
    Alert,
    AlertDelivery,
    CallTally,
    Deployment,
    Estimate,
    Feedback,
    Interaction,
    Rating,
    ToolCall,
    ToolDefinitions,
)
from tests.monitor.test_window import call

HOUR, DAY = 3600.0, 86_400.0
CONFIG = Monitor()


def outage(store, begin=10 * DAY, n=200):
    store.log.append(*(call(f"c{k}", time=begin + 10.0 * k, finish="error") for k in range(n)))
    return begin + 10.0 * n


def states(report):
    return {(a.rule, a.version): a.state for a in report.alerts}


def test_an_outage_is_recorded_once_and_its_end(store):
    now = outage(store)
    service = MonitorService(store, CONFIG)
    assert states(service.check(now))["errors", "v1"] == "firing"
    assert [a.rule for a in service.check(now + 60).changes] == []
    store.log.append(*(call(f"d{k}", time=now + 10.0 * k) for k in range(720)))
    assert states(service.check(now + 2 * HOUR))["errors", "v1"] == "resolved"
    assert [a.state for _, a in store.log.read(Alert)] == ["firing", "resolved"]


def test_a_store_without_a_deployment_is_watched(store):
    now = outage(store)
    report = MonitorService(store, CONFIG).check(now)
    assert [h.version for h in report.health] == ["v1"]
    store.log.append(Deployment("d", 1.0, {"v0": 1.0}, {"champion": "v0"}, "test"))
    assert [h.version for h in MonitorService(store, CONFIG).check(now).health] == ["v0", "v1"]


def test_a_monitor_that_starts_goes_on_from_the_counts_in_the_log(store, monkeypatch):
    now = outage(store) + 2 * HOUR
    first = MonitorService(store, CONFIG)
    before = first.read(now)
    assert store.log.count(CallTally) == 1
    store.log.append(call("late", time=now))
    second, read = MonitorService(store, CONFIG), []
    plain_read = type(store.log).read

    def counted(log, kind, **options):
        for seq, record in plain_read(log, kind, **options):
            read.append(record)
            yield seq, record

    monkeypatch.setattr(type(store.log), "read", counted)
    after = second.read(now)
    assert [r.id for r in read if not isinstance(r, CallTally)] == ["late"]
    assert sum(c.calls for c in after.calls.values()) == sum(c.calls for c in before.calls.values()) + 1


def test_two_monitors_count_every_call_once(store):
    now = outage(store) + 2 * HOUR
    one, two = MonitorService(store, CONFIG), MonitorService(store, CONFIG)
    one._load_tallies(now)
    two._load_tallies(now)
    one.read(now)
    store.log.append(call("more", time=now - 1.5 * HOUR))
    for service in (two, one, two, MonitorService(store, CONFIG)):
        assert sum(c.calls for c in service.read(now).calls.values()) == 201


def test_a_thumb_counts_for_the_version_that_it_is_about(store):
    store.log.append(*(call(f"c{k}", time=10 * DAY + k) for k in range(60)))
    store.log.append(
        *(Rating(f"f{k}", 10 * DAY + 100 + k, f"c{k}", f"s{k}", "thumb", k % 2 == 0) for k in range(60))
    )
    report = MonitorService(store, CONFIG).check(10 * DAY + HOUR)
    assert states(report)["thumbs_down", "v1"] == "firing"


# --- delivery ----------------------------------------------------------------------------------


def alert(name, state="firing", time=100.0, rule="errors"):
    return Alert(name, time, rule, state, Estimate("e", 0.5, 0.4, 0.6, 10), 0.1, f"{name} text", "v1")


def test_alerts_reach_a_receiver_once_over_failures_and_restarts(store):
    sent, is_down = [], [True]

    def send(receiver, alerts):
        if is_down[0]:
            raise OSError("no route")
        sent.append([a.id for a in alerts])

    receivers = ("http://127.0.0.1:1/secret",)
    store.log.append(alert("a1"))
    assert notify.deliver(store, receivers, 200.0, send) == ["http://127.0.0.1/…: no route"]
    is_down[0] = False
    for _ in range(2):
        assert notify.deliver(store, receivers, 300.0, send) == []
    assert sent == [["a1"]]
    is_down[0] = True
    store.log.append(alert("a2", "resolved", 400.0), alert("a3", time=500.0), alert("a4", "resolved", 600.0))
    notify.deliver(store, receivers, 700.0, send)
    is_down[0] = False
    notify.deliver(store, receivers, 800.0, send)
    assert sent[1:] == [["a2", "a3", "a4"]]
    assert "secret" not in json.dumps([d.receiver for _, d in store.log.read(AlertDelivery)])


def test_two_processes_deliver_an_alert_once(store):
    store.log.append(alert("a1"))
    sent, failures = [], []

    def slow(receiver, alerts):
        sent.extend(a.id for a in alerts)
        second.start()  # finds the alert undelivered, unless it waits for the first

    def deliver_again():
        failures.extend(notify.deliver(store, ("http://h/",), 300.0, lambda _, a: sent.extend(a)))

    second = Thread(target=deliver_again)
    assert notify.deliver(store, ("http://h/",), 200.0, slow) == []
    second.join(30)
    assert (sent, failures) == (["a1"], [])


def test_a_delivery_that_another_machine_recorded_meanwhile_stands(store):
    store.log.append(alert("a1"), alert("a2"))

    def meanwhile(receiver, alerts):
        name = hash_value(receiver)
        store.log.append(AlertDelivery(f"delivery-{hash_value(('a1', name))}", 199.0, "a1", name))

    assert notify.deliver(store, ("http://h/",), 200.0, meanwhile) == []
    taken = {d.alert: d.time for _, d in store.log.read(AlertDelivery) if d.alert != notify.KNOWN}
    assert taken == {"a1": 199.0, "a2": 200.0}


def test_a_new_receiver_gets_what_fires_now(store):
    store.log.append(
        alert("old"), alert("over", "resolved", 200.0), alert("now", time=300.0, rule="no_traffic")
    )
    sent = []
    notify.deliver(store, ("http://h/",), 400.0, lambda _, alerts: sent.extend(a.id for a in alerts))
    assert sent == ["now"]


def test_a_page_that_was_over_before_a_receiver_came_back_is_told_after_quiet_weeks(store):
    sent, receivers = [], ("http://h/",)

    def refuse(receiver, alerts):
        raise OSError("HTTP 500")

    notify.deliver(store, receivers, 100.0, refuse)  # nothing to tell
    now = 30 * DAY
    store.log.append(alert("a1", time=now), alert("a2", "resolved", now + 60))
    assert notify.deliver(store, receivers, now + 90, refuse) == ["http://h/…: HTTP 500"]
    notify.deliver(store, receivers, now + DAY, lambda _, alerts: sent.extend(a.id for a in alerts))
    assert sent == ["a1", "a2"]


def test_a_receiver_that_answers_a_byte_at_a_time_holds_nobody(store, monkeypatch):
    monkeypatch.setattr(notify, "DEADLINE_S", 0.2)
    is_over = Event()

    class Drips(BaseHTTPRequestHandler):
        def do_POST(self):
            with suppress(OSError):
                while not is_over.wait(0.05):
                    self.wfile.write(b"H")

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Drips)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        store.log.append(alert("a1"))
        receivers = (f"http://127.0.0.1:{server.server_port}/",)
        (line,) = notify.deliver(store, receivers, 200.0)
        assert line.endswith("no answer in 0.2 s")
        (line,) = notify.deliver(store, receivers, 260.0)
        assert line.endswith("has not answered the last message yet")
    finally:
        is_over.set()
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_the_body_of_alertmanager(store):
    bodies = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        store.log.append(alert("a1"), alert("b1", rule="latency_p99"))
        url = f"http://127.0.0.1:{server.server_port}/hook"
        assert notify.deliver(store, (url,), 200.0) == []
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    (body,) = bodies
    assert (body["version"], body["status"]) == ("4", "firing")
    assert body["commonLabels"] == {"service": "escultor", "severity": "page", "version": "v1"}
    first = body["alerts"][0]
    assert first["labels"]["alertname"] == "errors"
    assert first["annotations"]["summary"] == "a1 text"
    assert first["startsAt"] == "1970-01-01T00:01:40Z"
    assert notify.deliver(store, (url,), 200.0) == []


def test_a_refusing_webhook_is_a_failure(store):
    store.log.append(alert("a1"))
    (line,) = notify.deliver(store, ("http://127.0.0.1:9/x",), 200.0)
    assert line.startswith("http://127.0.0.1/…: ")


def test_receivers_are_checked_before_anything_happens(monkeypatch):
    notify.check_receivers(("https://example.org/hook",))
    with pytest.raises(ConfigError, match="no URL"):
        notify.check_receivers(("somewhere",))
    monkeypatch.setitem(__import__("sys").modules, "apprise", None)
    with pytest.raises(InputError, match="apprise"):
        notify.check_receivers(("mailto://user:secret@example.org",))


# --- the store fails ---------------------------------------------------------------------------


def test_a_failing_store_is_told_at_once_and_recorded_when_it_is_back(store, monkeypatch):
    sent, is_reachable = [], [False]

    def send(receiver, alerts):
        if not is_reachable[0]:
            raise OSError("no route")
        sent.extend((a.rule, a.state) for a in alerts)

    monkeypatch.setattr(notify, "send_to", send)
    outage = StoreOutage(("http://h/secret",))
    outage.end(store, 50.0)
    assert outage.note(StoreError("disk is full"), 100.0) == ["http://h/…: no route"]
    is_reachable[0] = True
    for now in (160.0, 220.0):
        assert outage.note(StoreError("disk is full"), now) == []
    assert sent == [("store", "firing")]
    outage.end(store, 280.0)
    outage.end(store, 340.0)
    assert [(a.state, a.time) for _, a in store.log.read(Alert)] == [("firing", 100.0), ("resolved", 280.0)]
    assert notify.deliver(store, ("http://h/secret",), 300.0) == []
    assert sent == [("store", "firing"), ("store", "resolved")]


@pytest.mark.parametrize("kind", [Interaction, Feedback, ToolDefinitions])
def test_what_a_failing_store_interrupts_is_counted_at_the_next_check(store, monkeypatch, kind):
    called = ToolCall("1", "look", "{}")
    store.log.append(
        *(replace(call(f"c{k}", time=10 * DAY + k), tool_calls=(called,), tools="t") for k in range(300)),
        *(Rating(f"f{k}", 10 * DAY + 400 + k, f"c{k}", f"s{k}", "thumb", True) for k in range(300)),
    )
    service, log = MonitorService(store, CONFIG), type(store.log)
    name = "get" if kind is ToolDefinitions else "read"
    plain = getattr(log, name)

    def failing(self, asked, *args, **options):
        if asked is not kind:
            return plain(self, asked, *args, **options)
        if kind is ToolDefinitions:
            raise StoreError("away")
        return chain(islice(plain(self, asked, *args, **options), 270), fail())

    def fail():
        raise StoreError("away")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(log, name, failing)
        with pytest.raises(StoreError):
            service.read(10 * DAY + HOUR)
    window = service.read(10 * DAY + HOUR)
    assert (sum(c.calls for c in window.calls.values()), len(window.votes)) == (300, 300)


def test_answers_from_the_future_page_until_the_clocks_agree(store):
    now = 10 * DAY
    service = MonitorService(store, CONFIG)
    store.log.append(call("a", time=now + 2 * HOUR))
    assert states(service.check(now))["clock", ""] == "firing"
    assert states(service.check(now + 60))["clock", ""] == "firing"
    for minute in (2, 20, 40):  # another gateway's clock is right; the wrong one answers now and then
        store.log.append(call(f"right {minute}", time=now + 60 * minute))
        assert states(service.check(now + 60 * minute))["clock", ""] == "firing"
        store.log.append(call(f"wrong {minute}", time=now + 60 * minute + 2 * HOUR))
        service.check(now + 60 * minute + 1)
    store.log.append(call("b", time=now + 75 * 60))
    assert states(service.check(now + 75 * 60))["clock", ""] == "resolved"


def test_versions_that_change_with_every_few_votes_are_judged_together(store):
    for k in range(100):
        store.log.append(
            call(f"c{k}", time=10 * DAY + 60 * k, version=f"v{k // 5}"),
            Rating(f"f{k}", 10 * DAY + 60 * k + 9, f"c{k}", f"s{k}", "thumb", k % 3 > 0),
        )
    found = states(MonitorService(store, CONFIG).check(10 * DAY + 2 * HOUR))
    assert [key for key, state in found.items() if state == "firing"] == [("thumbs_down", "")]

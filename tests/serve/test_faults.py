"""Faults end to end, against `escultor serve` as a process of its own: `docs/serving.md` says the same."""

from __future__ import annotations

import json
import os
import resource
import signal
import socket
import sqlite3
import textwrap
import time

import httpx2
import pytest
from kill_rounds import found, killed
from mock_upstream import MockUpstream, answers, choice, disconnects, hangs, says, serves, streams
from started import gateway

from escultor.store import open_store
from escultor.types import Feedback, Interaction

CHAT = "/v1/chat/completions"
BODY = {"model": "escultor", "messages": [{"role": "user", "content": "Where is the cat?"}]}
SLOW_CLIENTS = 10_000


@pytest.fixture(scope="module")
def served(mock, tmp_path_factory):
    """One gateway for the faults of its upstream, and its store."""
    store = tmp_path_factory.mktemp("faults") / "store"
    patience = {"upstream.idle_timeout_s": 0.5, "upstream.deadline_s": 1.0, "upstream.retries": 1}
    with gateway(store, mock.url, **patience) as process:
        yield process.url, store


def rows(store):
    with open_store(str(store)) as opened:
        return [row for _, row in opened.log.read(Interaction)]


def events(response):
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"], "[DONE]" in lines


def until(true, within_s=10.0):
    """Wait for what another process does in its own time."""
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.02)


# --- killed -----------------------------------------------------------------------------------


def test_what_was_acknowledged_survives_kill_9_and_nothing_is_there_twice(tmp_path):
    with MockUpstream(serves(pause_s=0.001, calls_tools=True)) as upstream:
        told = killed(3, tmp_path / "store", upstream.url)
    after = found(tmp_path / "store", told)
    assert not after.broken, after
    assert len(told.answers) >= 3
    assert '{"query": "where the cat sleeps"}' in told.answers.values()
    assert len(told.events) >= 3
    assert len(told.answers) <= after.rows <= told.asked
    assert after.events == len(told.events)


def test_a_stream_cut_off_by_kill_9_has_a_row_that_says_interrupted(tmp_path):
    store = tmp_path / "store"
    with MockUpstream(streams(choice("The "), hang=True)) as upstream:
        with gateway(store, upstream.url) as process:
            said = {**BODY, "stream": True, "seed": 7, "temperature": 1.0}
            with httpx2.stream("POST", process.url + CHAT, json=said, timeout=120) as answer:
                lines = (line for line in answer.iter_lines() if line.startswith("data: "))
                pieces = (json.loads(line[6:]) for line in lines)
                id, text = "", ""
                while text != "The ":
                    piece = next(pieces)
                    id, text = piece["id"], text + piece["choices"][0]["delta"].get("content", "")
                process.kill()
        assert rows(store) == []
        with gateway(store, upstream.url):
            until(lambda: rows(store), within_s=30.0)
            (row,) = rows(store)
        with gateway(store, upstream.url):  # once more changes nothing
            assert rows(store) == [row]
    assert (row.id, row.finish_reason, row.answer) == (id, "interrupted", "")
    assert (row.messages[0].content, row.sampling.seed) == ("Where is the cat?", 7)


# --- the upstream -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "status"),
    [
        (hangs, 502),
        (disconnects, 502),
        (says(b"what?\r\n\r\n"), 502),
        (answers(b"<html>", {"Content-Type": "text/html"}), 502),
        (answers(b"", None, 500), 500),
        (answers(b'{"error": {"message": "slow down"}}', {"Retry-After": "3600"}, 429), 429),
        (answers(b'{"error": {"message": "prompt is too long"}}', None, 400), 400),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_fault_of_the_upstream_is_an_error_in_openais_shape_and_no_answer(
    mock, served, plan, status, stream
):
    url, _ = served
    mock.now(plan)
    answer = httpx2.post(url + CHAT, json={**BODY, "stream": stream}, timeout=120)
    assert answer.status_code == status, answer.text
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    if status == 429:
        assert answer.headers["retry-after"] == "3600"


@pytest.mark.parametrize(
    "plan",
    [
        streams(choice("The "), cut=True),
        streams(choice("The "), hang=True),
        streams(choice("The "), "garbage"),
        streams(choice("The "), {"error": {"message": "out of memory"}}),
    ],
    ids=["dies", "hangs", "garbage", "gives up"],
)
def test_an_answer_that_breaks_off_is_delivered_as_far_as_it_went_marked_and_kept(mock, served, plan):
    url, store = served
    mock.now(plan)
    answer = httpx2.post(url + CHAT, json={**BODY, "stream": True}, timeout=120)
    chunks, done = events(answer)
    assert not done
    assert "".join(c["choices"][0]["delta"].get("content") or "" for c in chunks[:-1]) == "The "
    assert chunks[-1]["error"]["message"]
    id = chunks[0]["id"]
    until(lambda: id in {row.id for row in rows(store)})
    (row,) = (row for row in rows(store) if row.id == id)
    assert (row.answer, row.finish_reason) == ("The ", "error")


def test_a_client_that_disconnects_ends_the_upstreams_work_and_its_row_is_kept(mock, served):
    url, store = served
    mock.now(streams(choice("The "), *[choice("cat ")] * 1000, pause_s=0.02))
    with httpx2.stream("POST", url + CHAT, json={**BODY, "stream": True}, timeout=120) as answer:
        lines = (line for line in answer.iter_lines() if '"content":"cat ' in line.replace(": ", ":"))
        id = json.loads(next(lines).removeprefix("data: "))["id"]
    assert mock.hung_up.wait(10)
    until(lambda: id in {row.id for row in rows(store)})
    (row,) = (row for row in rows(store) if row.id == id)
    assert row.answer.startswith("The cat ")
    assert row.finish_reason == "cancelled"


# --- the store --------------------------------------------------------------------------------


def test_a_full_disk_refuses_answers_and_loses_none_that_was_given(mock, tmp_path):
    """The limit is on the size of a file, which fails a write as a full disk does, for this process alone."""
    mock.now(serves())
    store, given = tmp_path / "store", []
    long = {**BODY, "messages": [{"role": "user", "content": "cat " * 5000}]}
    with gateway(store, mock.url, limits="ulimit -f 1000") as process, httpx2.Client(timeout=120) as client:
        for _ in range(200):
            answer = client.post(process.url + CHAT, json=long)
            if answer.status_code != 200:
                break
            given.append(answer.json()["id"])
        assert answer.status_code == 503, answer.text
        assert given
        assert answer.json()["error"]["code"] == "store_failed"
        assert client.get(process.url + "/health").json()["status"] == "degraded"
    with gateway(store, mock.url) as process:
        answer = httpx2.post(process.url + CHAT, json=BODY, timeout=120)
        assert answer.status_code == 200
    kept = [row.id for row in rows(store)]
    assert set(given) < set(kept)
    assert len(set(kept)) == len(kept)


def test_a_store_that_another_writer_holds_refuses_answers_until_it_is_free(mock, tmp_path):
    mock.now(serves())
    store = tmp_path / "store"
    with gateway(store, mock.url, store_timeout_s=0.5) as process, httpx2.Client(timeout=120) as client:
        assert client.post(process.url + CHAT, json=BODY).status_code == 200
        other = sqlite3.connect(store / "log.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        answer = client.post(process.url + CHAT, json=BODY)
        assert answer.status_code == 503, answer.text
        assert time.monotonic() - began < 10
        assert client.get(process.url + "/v1/models").status_code == 200  # the rest goes on
        other.execute("ROLLBACK")
        other.close()
        until(lambda: client.post(process.url + CHAT, json=BODY).status_code == 200)
    kept = [row.id for row in rows(store)]
    assert len(set(kept)) == len(kept)


# --- the clock --------------------------------------------------------------------------------

SHIFTED = """
import time
from pathlib import Path

_now, _now_ns, _shift = time.time, time.time_ns, Path(__file__).with_name("shift")
time.time = lambda: _now() + float(_shift.read_text())
time.time_ns = lambda: _now_ns() + int(float(_shift.read_text()) * 1e9)
"""


def test_a_clock_that_jumps_back_an_hour_harms_neither_ids_nor_order_nor_figures(mock, tmp_path):
    """The process is `escultor serve`; the clock that Python reads in it is shifted from outside."""
    mock.now(serves())
    store, hook = tmp_path / "store", tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(textwrap.dedent(SHIFTED))
    (hook / "shift").write_text("0")
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
    given = []
    with gateway(store, mock.url, env={"PYTHONPATH": path}) as process, httpx2.Client(timeout=120) as client:
        for shift in ("0", "-3600", "0"):
            (hook / "shift").write_text(shift)
            for _ in range(3):
                answer = client.post(process.url + CHAT, json=BODY)
                assert answer.status_code == 200, answer.text
                given.append(answer.json()["id"])
                event = {"kind": "boolean", "target": given[-1], "value": True}
                assert client.post(process.url + "/v1/feedback", json=event).status_code == 202
    kept = rows(store)
    assert [row.id for row in kept] == given  # in the order in which they were given
    assert len(set(given)) == len(given)
    assert all(row.latency_ms >= 0 for row in kept)
    assert min(row.time for row in kept) < kept[0].time - 3000  # the clock did jump
    with open_store(str(store)) as opened:
        assert len(list(opened.log.read(Feedback))) == len(given)


# --- many at once -----------------------------------------------------------------------------


@pytest.fixture
def many_files():
    """As many open files as this user may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield hard - 500
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("begun", "most", "held"),
    [
        (HEAD + b"X-Slow: ", SLOW_CLIENTS, 1000),
        (HEAD + b"Content-Length: 100\r\n\r\n{", 500, 100),
    ],
    ids=["10,000 slow headers", "slow bodies"],
)
def test_slow_clients_that_hold_all_connections_do_not_block_others(
    mock, tmp_path, many_files, begun, most, held
):
    most = min(most, many_files)
    mock.now(serves())
    slow: list[socket.socket] = []
    limits = f"ulimit -n {most + 400}"
    with gateway(tmp_path / "store", mock.url, limits=limits, max_connections=held) as process:
        host, port = process.url.removeprefix("http://").rsplit(":", 1)
        try:
            for n in range(most):
                slow.append(socket.create_connection((host, int(port)), timeout=120))
                slow[-1].sendall(begun)
                if n % (most // 10) == 0:  # a new connection, as anyone's would be
                    assert httpx2.post(process.url + CHAT, json=BODY, timeout=120).status_code == 200
            with httpx2.Client(timeout=120) as client:
                for _ in range(20):
                    assert client.post(process.url + CHAT, json=BODY).status_code == 200
        finally:
            for each in slow:
                each.close()


def test_two_gateways_on_one_postgresql_keep_every_answer_and_event_once(mock, postgres_url, tmp_path):
    mock.now(serves())
    given, judged = [], []
    with (
        gateway(postgres_url, mock.url, cwd=tmp_path) as one,
        gateway(postgres_url, mock.url, cwd=tmp_path) as two,
        httpx2.Client(timeout=120) as client,
    ):
        for n in range(20):
            first, second = (one, two) if n % 2 else (two, one)
            answer = client.post(first.url + CHAT, json=BODY)
            assert answer.status_code == 200, answer.text
            given.append(answer.json()["id"])
            event = {"kind": "boolean", "id": f"fb-{n}", "target": given[-1], "value": True}
            for where in (first, second):  # told twice, to both
                assert client.post(where.url + "/v1/feedback", json=event).status_code == 202
            judged.append(event["id"])
    with open_store(postgres_url, blobs=tmp_path / "blobs") as opened:
        assert sorted(row.id for _, row in opened.log.read(Interaction)) == sorted(given)
        assert sorted(event.id for _, event in opened.log.read(Feedback)) == sorted(judged)


def test_a_database_that_stands_still_or_drops_its_sessions_loses_nothing(mock, postgres_url, tmp_path):
    psycopg = pytest.importorskip("psycopg")
    mock.now(serves())
    given, before = [], "select pid from pg_stat_activity where backend_type = 'client backend'"
    with psycopg.connect(postgres_url, autocommit=True) as admin, httpx2.Client(timeout=120) as client:
        known = {pid for (pid,) in admin.execute(before)}

        def sessions():
            return {pid for (pid,) in admin.execute(before)} - known

        def ask():
            answer = client.post(process.url + CHAT, json=BODY)
            assert answer.status_code in (200, 503), answer.text
            given.extend([answer.json()["id"]] if answer.status_code == 200 else [])
            return answer.status_code

        with gateway(postgres_url, mock.url, cwd=tmp_path, store_timeout_s=1) as process:
            assert ask() == 200
            stopped = sessions()
            assert stopped
            try:
                for pid in stopped:
                    os.kill(pid, signal.SIGSTOP)
                assert ask() == 503
                assert client.get(process.url + "/v1/models").status_code == 200  # the rest goes on
            finally:
                for pid in stopped:
                    os.kill(pid, signal.SIGCONT)
            until(lambda: ask() == 200, 60)
            for pid in sessions():
                admin.execute("select pg_terminate_backend(%s)", (pid,))
            until(lambda: ask() == 200, 60)
            until(lambda: client.get(process.url + "/health").json()["status"] == "ok", 60)
    with open_store(postgres_url, blobs=tmp_path / "blobs") as opened:
        kept = [row.id for _, row in opened.log.read(Interaction)]
    assert set(given) <= set(kept)
    assert len(set(kept)) == len(kept)

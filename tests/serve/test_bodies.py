"""Bodies are read after the caller is known, within one budget; what is refused is refused briefly."""

import asyncio
import json
import re
import socket
import threading
from contextlib import ExitStack, suppress
from functools import partial
from operator import itemgetter
from types import SimpleNamespace

import httpx2
import pytest
from gateway_side import Fake, serving
from hypothesis import given
from hypothesis import strategies as st

from escultor.config import FeedbackIntake, Serve
from escultor.errors import FaultError, InputError, Overloaded
from escultor.serve.auth import create
from escultor.serve.gateway import bodies
from escultor.serve.gateway.bodies import SMALL, BodyBudget, HeldBody, ReceivedBody
from escultor.serve.intake.intake import EventReader
from escultor.serve.intake.parse import FeedbackAuthor
from escultor.serve.side_process import SIDE, SideProcess
from escultor.serve.wire.body_json import read_body
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import parse_chat
from escultor.types import Scope

BODY = {"model": "escultor", "messages": [{"role": "user", "content": "Olá?"}]}
CHAT = "/v1/chat/completions"
KB = 1000


@pytest.fixture
def connect():
    """Opens connections that say so much and no more; closed in the end."""
    with ExitStack() as opened:

        def connected(side, said: bytes) -> socket.socket:
            made = socket.create_connection(("127.0.0.1", int(side.url.rsplit(":", 1)[1])), timeout=60)
            opened.enter_context(made).sendall(said)
            return made

        yield connected


def head(path=CHAT, length=8_000_000, host="localhost", **more) -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"host: {host}", "content-type: application/json"]
    lines += [f"content-length: {length}"] if length is not None else []
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in more.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def status(connection: socket.socket) -> int:
    return int(connection.recv(20)[9:12])


# --- before the caller is known ---------------------------------------------------------------


def test_whoever_shows_no_key_is_answered_before_the_body(tmp_path, connect):
    with serving(tmp_path) as side:
        key, made = create("a test", [Scope.INFER])
        side.log.append(made)
        side.until(lambda: made.id in side.gateway.keys.keys)
        assert status(connect(side, head() + b"{")) == 401
        assert status(connect(side, head("/nowhere") + b"{")) == 404
        assert status(connect(side, head("/v1/interactions", authorization=f"Bearer {key}") + b"{")) == 403
        with connect(side, head(authorization=f"Bearer {key}") + b"{"):
            side.until(lambda: side.gateway.bodies.free < side.gateway.bodies.max_bytes)  # its place is kept
        side.until(lambda: side.gateway.bodies.free == side.gateway.bodies.max_bytes)


def test_without_keys_another_host_is_refused_before_the_body(tmp_path, connect):
    with serving(tmp_path) as side:
        assert status(connect(side, head(host="evil.example") + b"{")) == 403
        assert status(connect(side, head("/nowhere", host="evil.example") + b"{")) == 403
        assert status(connect(side, head("/nowhere") + b"{")) == 404


def test_a_request_that_ends_in_two_ways_is_answered_once(tmp_path, connect):
    with serving(tmp_path) as side:
        both = head(length=5, transfer_encoding="chunked") + b"0\r\n\r\n" + head("/health", length=0)
        connection, said = connect(side, both), b""
        while more := connection.recv(4096):
            said += more
        assert said.count(b"HTTP/1.1") == 1
        assert said.startswith(b"HTTP/1.1 400")


# --- the budget -------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 300 * KB), max_size=12), st.integers(100 * KB, 500 * KB))
def test_no_more_is_held_than_the_budget_and_all_of_it_comes_back(sizes, most):
    async def run():
        budget = BodyBudget(most)

        async def hold(size):
            body = await budget.acquire(size)
            try:
                assert budget.free >= 0
                await asyncio.sleep(0)
                with suppress(Overloaded):
                    budget.resize(body, size // 2)
            finally:
                budget.release(body)

        tasks = [asyncio.create_task(hold(size)) for size in sizes]
        for task in tasks[::4]:
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert budget.free == most

    asyncio.run(run())


def test_the_smallest_that_waits_is_next():
    async def run():
        budget, order = BodyBudget(300 * KB), []
        first = await budget.acquire(300 * KB)

        async def hold(size):
            body = await budget.acquire(size)
            order.append(size)
            budget.release(body)

        tasks = [asyncio.create_task(hold(size * KB)) for size in (290, 100, 200)]
        await asyncio.sleep(0)
        budget.release(first)
        await asyncio.gather(*tasks)
        assert order == [100 * KB, 200 * KB, 290 * KB]
        assert await budget.acquire(SMALL)

    asyncio.run(run())


def test_bodies_that_come_slowly_make_place_for_one_that_waits(tmp_path, monkeypatch, connect):
    monkeypatch.setattr(bodies, "SLOW_AFTER_S", 0.2)
    with serving(tmp_path, body_budget_mb=1, body_timeout_s=4) as side:
        slow = [connect(side, head(length=900 * KB) + b'"' + b"a" * (100 * KB)) for _ in range(5)]
        large = {**BODY, "messages": [{"role": "user", "content": "a" * 500 * KB}]}
        assert httpx2.post(side.url + CHAT, json=large, timeout=60).status_code == 200
        assert httpx2.post(side.url + CHAT, json=BODY, timeout=60).status_code == 200
        assert {status(each) for each in slow} == {408}
        side.until(lambda: side.gateway.bodies.free == 1_000_000)


# --- limits by count, and brief refusals --------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"x" * 7_000_000: 1},
        {chr(97 + i) * 1_400_000: 1 for i in range(5)},
        {**BODY, "messages": [{"role": "user", "content": "a"}] * 100_000},
        {**BODY, "model": "m" * 7_000_000},
        {**BODY, "user": "u" * 7_000_000},
        {**BODY, "metadata": {"escultor_skill": "s" * 7_000_000}},
        {**BODY, "messages": [{"role": "user", "content": "a", **{f"k{i}": 1 for i in range(60_000)}}]},
        {**BODY, "messages": [{"role": "r" * 7_000_000, "content": "a"}]},
        {**BODY, "response_format": {"type": "t" * 7_000_000}},
        {"model": "escultor", "prompt": ["a", 1] * 100_000},
    ],
    ids=range(10),
)
def test_what_is_too_much_is_refused_in_few_words(side, body):
    for path in (CHAT, "/v1/completions", "/v1/messages", "/v1/responses", "/v1/feedback"):
        answer = httpx2.post(side.url + path, json=body, timeout=60)
        assert 400 <= answer.status_code < 500
        assert len(answer.content) < 10_000
        assert all(len(value) < 5_000 for value in answer.headers.values())


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    with serving(tmp_path_factory.mktemp("bodies")) as running:
        yield running


def test_a_feedback_event_is_refused_in_few_words(side):
    many = [
        {"id": "a", "value": 1, "x" * 1_000_000: 1},
        {"id": "b" * 1_000_000, "value": True},
        {"kind": "k" * 10**6},
    ]
    answer = httpx2.post(side.url + "/v1/feedback", json=many, timeout=60)
    assert answer.json()["refused"] == 3
    assert len(answer.content) < 10_000


def test_a_panic_of_a_library_is_an_error_like_any_other(tmp_path):
    class Panic(BaseException):
        """As pyo3's PanicException, which is no Exception."""

    with serving(tmp_path, Fake(fail=Panic("index out of bounds"))) as side:
        answer = httpx2.post(side.url + CHAT, json=BODY)
        assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
        assert httpx2.get(side.url + "/health").status_code == 200


def test_a_displaced_connection_is_told_so(tmp_path, connect):
    with serving(tmp_path, max_connections=10, header_timeout_s=60) as side:
        waiting = [connect(side, b"POST / HTTP/1.1\r\n") for _ in range(30)]
        displaced = waiting[:20]
        assert [status(each) for each in displaced] == [503] * 20
        assert httpx2.post(side.url + CHAT, json=BODY, timeout=60).status_code == 200


def test_the_rest_of_a_refused_body_is_discarded_and_the_connection_goes_on(tmp_path, connect):
    with serving(tmp_path, max_body_mb=0.1) as side:
        connection = connect(side, head("/nowhere", length=3_000_000))
        assert status(connection) == 404
        connection.sendall(b"a" * 3_000_000 + head(length=len(data := json.dumps(BODY).encode())) + data)
        said = b""
        while b'"usage"' not in said:
            more = connection.recv(4096)
            assert more
            said += more


def test_large_bodies_are_computed_on_one_at_a_time_and_small_ones_meanwhile():
    """Two threads that compute would each make the event loop wait for the interpreter."""
    gateway = SimpleNamespace(bodies=BodyBudget(1), settings=Serve())
    under_way, most = [], []

    def of(size):
        app = SimpleNamespace(state=SimpleNamespace(gateway=gateway))
        return SimpleNamespace(scope={bodies.BODY: ReceivedBody(b"a" * size, HeldBody(0))}, app=app)

    async def run():
        go_on = threading.Event()

        def work():
            under_way.append(1)
            most.append(len(under_way))
            assert go_on.wait(30)
            under_way.pop()

        large = [asyncio.create_task(bodies.compute(of(SMALL + 1), work)) for _ in range(5)]
        while not under_way:
            await asyncio.sleep(0.001)
        assert await bodies.compute(of(SMALL), lambda: "small") == "small"
        go_on.set()
        await asyncio.gather(*large)

    asyncio.run(run())
    assert most == [1] * 5


# --- the process that reads large ones ----------------------------------------------------------


@pytest.fixture
def process():
    made = SideProcess()
    yield lambda reader, data: asyncio.run(made.call(partial(read_body, data, 64, reader), 60))
    made.close()


def test_what_a_reader_returns_and_raises_comes_back(process):
    assert process(len, b'[1, "a"]') == (3, 2)
    with pytest.raises(ApiError, match="not JSON"):
        process(len, b"[")
    with pytest.raises(ApiError) as told:
        process(partial(parse_chat, settings=Serve()), b'{"model": "a", "messages": [], "b": 1}')
    error = told.value
    assert (error.status, error.code, error.param) == (400, "invalid_value", "messages")
    events = EventReader(FeedbackAuthor("s", str), FeedbackIntake(batch=1), 0.0, True)
    with pytest.raises(InputError, match="too many events in one request; got: 2; allowed: 1"):
        process(events.read, b"[1, 2]")
    with pytest.raises(FaultError, match="IndexError"):
        process(itemgetter(1), b"[1]")


def test_the_event_loop_goes_on_while_a_body_is_read_and_a_reading_without_end_is_ended():
    made, turns = SideProcess(), []

    async def run():
        # As a library that is written in C, it does not give the interpreter back.
        endless = partial(re.fullmatch, r"(a|a)*b", "a" * 60)
        reading = asyncio.create_task(made.call(endless, 1.0))
        while not reading.done():
            await asyncio.sleep(0.001)
            turns.append(1)
        with pytest.raises(TimeoutError):
            await reading
        assert await made.call(partial(len, "a"), 60.0) == 1

    asyncio.run(run())
    made.close()
    assert len(turns) > 100


def test_a_process_that_was_killed_is_started_again(side):
    large = {**BODY, "messages": [{"role": "user", "content": "a" * SMALL}]}
    assert httpx2.post(side.url + CHAT, json=large, timeout=60).status_code == 200
    SIDE._process.kill()
    SIDE._process.wait()
    assert httpx2.post(side.url + CHAT, json=large, timeout=60).status_code == 200

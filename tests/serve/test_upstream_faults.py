"""What happens when an upstream fails, hangs or sends a malformed reply: `docs/serving.md` says the same."""

import asyncio
import json
import socket
import time
from dataclasses import replace

import pytest
from mock_upstream import (
    JSON_TYPE,
    PIECES,
    SSE_TYPE,
    MockUpstream,
    answers,
    choice,
    completion,
    disconnects,
    hangs,
    says,
    serves,
    streams,
)
from upstream_requests import CHAT, QUICK, TEXT, all_events, engine, events, text_of

from escultor.config import Upstream
from escultor.errors import EngineFault, InputError, Overloaded, UpstreamFault, UpstreamStatus
from escultor.serve.engines.upstream import engine as upstream_engine
from escultor.serve.engines.upstream import replies
from escultor.serve.engines.upstream.engine import UpstreamEngine
from escultor.types import Message, Role

WHOLE = replace(CHAT, streamed=False)
EITHER = pytest.mark.parametrize("ask", [CHAT, WHOLE], ids=["streamed", "whole"])
BUSY = answers(b'{"error": {"message": "slow down"}}', {"Retry-After": "0"}, 429)


async def until_fault(upstream: UpstreamEngine, ask=CHAT):
    """What came before the fault, and the fault."""
    found = []
    try:
        async for event in upstream.stream(ask):
            found.append(event)
    except (EngineFault, InputError) as fault:
        return found, fault
    pytest.fail(f"no fault, but {found}")


def faulty(*plans, ask=CHAT, key=None, **changes):
    """What came before the fault, the fault, and how often the upstream was asked."""

    async def run(mock):
        upstream = engine(mock, key, **changes)
        try:
            return await asyncio.wait_for(until_fault(upstream, ask), 20)
        finally:
            await upstream.close()

    with MockUpstream(*plans) as mock:
        found, fault = asyncio.run(run(mock))
        return found, fault, len(mock.asked)


# --- more than an answer can be ---------------------------------------------------------------


def called(n: int) -> dict:
    return {"index": n, "id": f"call_{n}", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def test_a_large_reply_is_read_beside_the_server_and_one_that_holds_too_much_is_refused(monkeypatch):
    """Going through it would hold up every other caller."""
    text = "a" * replies.LARGE
    with MockUpstream(answers(completion(text))) as mock:
        assert text_of(all_events(mock, WHOLE, deadline_s=60)) == text
    much = answers(completion(extra=[0] * replies.MAX_VALUES))
    _, fault, _ = faulty(much, ask=WHOLE, retries=0, deadline_s=60)
    assert isinstance(fault, UpstreamFault)
    assert "holds too much; got: 300" in str(fault)
    monkeypatch.setattr(replies, "MAX_CALLS", 5)
    calls = [called(n) for n in range(11)]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    whole = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    pieces = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
    for plan, ask in ((answers(json.dumps(whole).encode()), WHOLE), (streams(*pieces), CHAT)):
        _, fault, _ = faulty(plan, ask=ask, retries=0)
        assert "calls too many tools; got: more than 5" in str(fault)


# --- before the first byte --------------------------------------------------------------------


@EITHER
@pytest.mark.parametrize(
    "refusal",
    [answers(b"", None, 502), answers(b"<html>", None, 503), answers(b"", None, 504), disconnects],
    ids=["502", "503", "504", "disconnect"],
)
def test_a_safe_refusal_is_asked_again_and_the_caller_notices_nothing(ask, refusal):
    with MockUpstream(refusal, refusal, serves()) as mock:
        assert text_of(all_events(mock, ask)) == "".join(PIECES)
        assert len(mock.asked) == 3


@pytest.mark.parametrize(
    ("plan", "kind", "times"),
    [
        (BUSY, UpstreamStatus, 1),  # the client knows how long it can wait
        (answers(b"{}", {"Retry-After": "3600"}, 503), UpstreamStatus, 1),  # beyond the deadline
        (answers(b"{}", {"Retry-After": "Fri, 31 Dec 2199 23:59:59 GMT"}, 503), UpstreamStatus, 1),
        (answers(b"{}", None, 429), UpstreamStatus, 1),  # a quota, not a moment
        (answers(b"", None, 503), UpstreamStatus, 3),
        (answers(b"", None, 500), UpstreamStatus, 1),
        (disconnects, UpstreamFault, 3),
        (answers(b'{"detail": "too long"}', None, 400), UpstreamStatus, 1),
        (answers(b'{"message": "too long"}', None, 422), UpstreamStatus, 1),
        (answers(b'{"error": "too long"}', None, 413), UpstreamStatus, 1),
        (answers(b"who are you", None, 401), UpstreamFault, 1),
        (answers(b"no such model", None, 404), UpstreamStatus, 1),
        (answers(b"", {"Location": "http://127.0.0.1:1/secret"}, 302), UpstreamFault, 1),
        (answers(b"", {"Location": "/v1/chat/completions"}, 307), UpstreamFault, 1),
    ],
)
def test_a_refusal_is_put_into_words_after_as_many_attempts_as_are_safe(plan, kind, times):
    found, fault, asked_times = faulty(plan)
    assert found == []
    assert type(fault) is kind
    assert asked_times == times
    if isinstance(fault, UpstreamStatus) and fault.status in (400, 413, 422):
        assert "too long" in str(fault)


def test_nobody_there_is_a_fault_after_all_attempts():
    with MockUpstream(serves()) as mock:
        pass  # its port is free again

    async def run():
        began = time.perf_counter()
        upstream = engine(mock, retries=2)
        _, fault = await until_fault(upstream)
        await upstream.close()
        return fault, time.perf_counter() - began

    fault, seconds = asyncio.run(run())
    assert type(fault) is UpstreamFault
    assert seconds >= 0.01 + 0.02  # it waited, and longer the second time


def test_a_key_that_the_upstream_repeats_is_not_handed_on():
    _, fault, _ = faulty(answers(b"your key sk-secret is unknown", None, 401), key="sk-secret")
    assert "unknown" in str(fault)
    assert "sk-secret" not in str(fault)
    assert "key_env" in str(fault)


@EITHER
def test_an_upstream_that_hangs_before_its_answer_is_given_up(ask):
    found, fault, times = faulty(hangs, ask=ask, deadline_s=0.4)
    assert (found, type(fault), times) == ([], UpstreamFault, 1)


@EITHER
def test_an_upstream_that_takes_no_more_of_a_request_is_given_up_long_before_the_deadline(ask):
    large = replace(ask, prompt=(Message(Role.USER, "x" * 20_000_000),))

    async def run(listening):
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/v1"
        settings = {**QUICK, "url": url, "model": "m", "deadline_s": 600}
        upstream = UpstreamEngine(Upstream.model_validate(settings))
        try:
            return await asyncio.wait_for(until_fault(upstream, large), 60)
        finally:
            await upstream.close()
            listening.close()  # resets the connection,
            await asyncio.sleep(0.01)  # of which the loop hears in its next turn

    # Connections are made, and nobody reads.
    found, fault = asyncio.run(run(socket.create_server(("127.0.0.1", 0))))
    assert (found, type(fault)) == ([], UpstreamFault)
    assert "fell silent" in str(fault)


def test_no_free_connection_is_overload():
    async def run(mock):
        upstream = engine(mock, max_connections=1, connect_timeout_s=0.1, idle_timeout_s=5.0)
        held = asyncio.ensure_future(events(upstream, CHAT))
        while not mock.asked:
            await asyncio.sleep(0.01)
        _, fault = await until_fault(upstream)
        held.cancel()
        await asyncio.gather(held, return_exceptions=True)
        await upstream.close()
        return fault

    with MockUpstream(hangs) as mock:
        assert type(asyncio.run(run(mock))) is Overloaded


# --- in the middle of an answer ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("plan", "says_so"),
    [
        (streams(choice("The "), cut=True), "broke off"),
        (streams(choice("The "), done=False), "broke off"),
        (streams(choice("The ")), "broke off"),  # [DONE], but no word of an end
        (streams(choice("The "), "not json"), "not JSON"),
        (streams(choice("The "), '{"choices": [{"delta": {"content": NaN}}]}'), "not JSON"),
        (streams(choice("The "), "[" * 100_000), "not JSON"),
        (streams(choice("The "), {"choices": "none"}), "choices"),
        (streams(choice("The "), choice("", "error")), "did not complete"),
        (streams(choice("The "), {"choices": [{"index": 1, "delta": {"content": "a"}}]}), "one answer"),
        (streams(choice("The "), {"error": {"message": "out of memory"}}), "out of memory"),
    ],
)
def test_an_answer_that_goes_wrong_in_the_middle_ends_in_a_fault_and_is_never_begun_again(plan, says_so):
    found, fault, times = faulty(plan, deadline_s=60.0, idle_timeout_s=60.0)
    assert text_of(found).startswith("The ")
    assert type(fault) is UpstreamFault
    assert says_so in str(fault)
    assert times == 1


@pytest.mark.parametrize(("idle_s", "deadline_s", "says_so"), [(60, 120, "silent"), (120, 60, "too long")])
def test_an_answer_that_waits_in_the_middle_ends_in_a_fault(idle_s, deadline_s, says_so):
    async def run(mock):
        upstream = engine(mock, idle_timeout_s=idle_s, deadline_s=deadline_s)
        loop, ahead, found = asyncio.get_running_loop(), 0.0, []
        own_time = loop.time
        loop.time = lambda: own_time() + ahead

        async def hurry():  # the clock waits in place of the test
            nonlocal ahead
            while True:
                ahead += 1.0
                await asyncio.sleep(0)

        async def listen():
            async for event in upstream.stream(CHAT):
                found.append(event)
                if len(found) == 1:
                    background.append(asyncio.create_task(hurry()))

        background = []
        try:
            with pytest.raises(UpstreamFault, match=says_so):
                await listen()
        finally:
            for task in background:
                task.cancel()
            await upstream.close()
        return found

    with MockUpstream(streams(choice("The "), hang=True)) as mock:
        assert text_of(asyncio.run(run(mock))) == "The "
        assert len(mock.asked) == 1


@pytest.mark.parametrize("ending", [{"cut": True}, {"hang": True}, {"done": False}])
def test_an_answer_that_is_all_here_is_whole_however_its_stream_ends(ending):
    payloads = (*(choice(piece) for piece in PIECES), choice("", "stop"))
    with MockUpstream(streams(*payloads, **ending)) as mock:
        if "hang" in ending:
            with pytest.raises(UpstreamFault, match="silent"):
                all_events(mock)
        else:
            assert text_of(all_events(mock)) == "".join(PIECES)


@pytest.mark.parametrize(
    "plan",
    [
        says(b"what?\r\n\r\n"),
        says(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n"),
        answers(b"<html>hello</html>", {"Content-Type": "text/html"}),
        answers(completion(), {"Content-Encoding": "gzip"}),
        answers(b""),
        answers(b"[]"),
        answers(b'{"choices": []}'),
        answers(b"\xff\xfe"),
        answers(b'{"choices": [{"message": {"content": "a"}, "finish_reason": null}]}'),
        answers(completion()[:20], {"Content-Length": "2000"}),
        says(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"),
    ],
)
def test_a_malformed_reply_is_a_fault(plan):
    found, fault, _ = faulty(plan, ask=WHOLE, deadline_s=0.4)
    assert (found, type(fault)) == ([], UpstreamFault)


def test_a_stream_that_comes_in_one_piece_is_an_answer_and_the_reverse():
    with MockUpstream(answers()) as mock:
        assert text_of(all_events(mock, CHAT)) == "".join(PIECES)
    with MockUpstream(streams()) as mock:
        assert text_of(all_events(mock, WHOLE)) == "".join(PIECES)
    found, fault, times = faulty(answers(b"hello", {"Content-Type": "text/plain"}))
    assert (found, type(fault), times) == ([], UpstreamFault, 1)
    assert "text/event-stream" in str(fault)


def test_endless_lines_and_endless_answers_are_given_up_with_bounded_memory(monkeypatch):
    monkeypatch.setattr(upstream_engine, "BODY_LIMIT", 300_000)
    monkeypatch.setattr(replies, "EVENT_LIMIT", 100_000)

    async def one_line(asked):
        await asked.head(200, SSE_TYPE)
        await asked.chunk(b"data: ")
        while True:
            await asked.chunk(b"a" * 10_000)

    async def many_lines(asked):
        await asked.head(200, SSE_TYPE)
        while True:
            await asked.event(choice("a"))

    async def one_body(asked):
        await asked.head(200, JSON_TYPE | {"Content-Length": str(1 << 40)})
        while True:
            await asked.raw(b"a" * 10_000)

    for plan, ask in ((one_line, CHAT), (many_lines, CHAT), (one_body, WHOLE)):
        _, fault, _ = faulty(plan, ask=ask)
        assert type(fault) is UpstreamFault
        assert "no end" in str(fault)


# --- a caller that leaves ---------------------------------------------------------------------


@EITHER
def test_a_caller_that_hangs_up_closes_the_upstreams_connection(ask):
    async def run(mock):
        upstream = engine(mock, idle_timeout_s=10.0)
        task = asyncio.ensure_future(events(upstream, ask))
        while not mock.asked:
            await asyncio.sleep(0.01)
        assert not mock.hung_up.is_set()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await asyncio.to_thread(mock.hung_up.wait, 60)
        await upstream.close()

    with MockUpstream(streams(choice("The "), hang=True) if ask.streamed else hangs) as mock:
        asyncio.run(run(mock))


def test_an_iterator_that_is_closed_halfway_closes_the_upstreams_connection():
    async def run(mock):
        upstream = engine(mock)
        stream = upstream.stream(CHAT)
        async for _ in stream:
            break
        await stream.aclose()
        assert await asyncio.to_thread(mock.hung_up.wait, 60)
        await upstream.close()

    with MockUpstream(streams(choice("The "), hang=True)) as mock:
        asyncio.run(run(mock))


def test_a_closed_engine_ends_what_is_under_way_and_takes_nothing_in():
    async def run(mock):
        upstream = engine(mock, idle_timeout_s=10.0)
        task = asyncio.ensure_future(until_fault(upstream, TEXT))
        while not mock.asked:
            await asyncio.sleep(0.01)
        await upstream.close()
        _, under_way = await asyncio.wait_for(task, 60)
        _, later = await until_fault(upstream)
        return under_way, later

    with MockUpstream(hangs) as mock:
        assert [type(fault) for fault in asyncio.run(run(mock))] == [EngineFault, EngineFault]
        assert len(mock.asked) == 1

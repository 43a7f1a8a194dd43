"""Streams: the opening before the first piece, the row before the last, and what a client leaves behind."""

import asyncio
import json
import socket
import time
from contextlib import suppress

import httpx2
import pytest
from gateway_side import Fake, serving

from escultor.errors import EngineFault

BODY = {"model": "escultor", "messages": [{"role": "user", "content": "go"}], "stream": True}
PATH = "/v1/chat/completions"
HEAD = b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


def held(side):
    """An engine whose pieces wait for `side.release`."""
    side.engine.gate = asyncio.Semaphore(0)
    return side.engine


def events(answer):
    for line in answer.iter_lines():
        if line.startswith("data: "):
            data = line.removeprefix("data: ")
            yield data if data == "[DONE]" else json.loads(data)


def test_the_opening_is_there_before_the_first_piece_and_the_row_before_the_last(tmp_path):
    with serving(tmp_path) as side, httpx2.Client(timeout=120) as client:
        held(side)
        side.release(2)
        with client.stream("POST", side.url + PATH, json=BODY) as answer:
            pieces = events(answer)
            text = ""
            while text != "Olá ":
                text += next(pieces)["choices"][0]["delta"].get("content", "")
                assert [o.interaction.finish_reason for o in side.pending()] == ["interrupted"]
            assert side.rows() == []
            side.release()
            for piece in pieces:
                if piece == "[DONE]" or piece["choices"][0]["finish_reason"]:
                    (row,) = side.rows()
                    assert row.finish_reason == "stop"
            assert row.ttft_ms is not None
            assert row.id == side.pending()[0].interaction.id


def test_a_client_that_disconnects_halfway_leaves_a_row_and_stops_the_engine(tmp_path):
    with serving(tmp_path) as side, httpx2.Client(timeout=120) as client:
        engine = held(side)
        side.release(3)
        with client.stream("POST", side.url + PATH, json=BODY) as answer:
            pieces = events(answer)
            text = ""
            while text != "Olá wor":
                text += next(pieces)["choices"][0]["delta"].get("content", "")
        side.until(lambda: side.rows())
        (row,) = side.rows()
        assert (row.answer, row.finish_reason, row.usage.estimated) == ("Olá wor", "cancelled", True)
        side.until(lambda: engine.cancelled == 1)


def test_a_client_that_does_not_wait_for_a_whole_answer_leaves_it_too(tmp_path):
    with serving(tmp_path) as side:
        engine = held(side)
        side.release(2)
        with suppress(httpx2.TimeoutException):
            httpx2.post(side.url + PATH, json=BODY | {"stream": False, "n": 2}, timeout=0.3)
        side.until(lambda: len(side.rows()) == 2)
        assert {row.finish_reason for row in side.rows()} == {"cancelled"}
        assert engine.cancelled == 2


def test_an_engine_that_fails_midway_ends_the_stream_with_the_error(tmp_path):
    with serving(tmp_path, Fake(fail=EngineFault("it broke"), at=2)) as side:
        pieces = list(events(httpx2.post(side.url + PATH, json=BODY)))
        assert pieces[-1]["error"]["code"] == "engine_failed"
        assert "[DONE]" not in pieces
        side.until(lambda: side.rows())
        assert [(row.answer, row.finish_reason) for row in side.rows()] == [("Olá ", "error")]


@pytest.mark.parametrize("upstream", [None, {"url": "http://127.0.0.1:1/v1", "model": "m"}])
def test_an_aborted_answer_costs_its_time_on_this_machine_and_nothing_on_an_upstream(tmp_path, upstream):
    with serving(tmp_path, Fake(fail=EngineFault("it broke"), at=2), upstream=upstream) as side:
        httpx2.post(side.url + PATH, json=BODY)
        side.until(lambda: side.rows())
        assert [row.cost_usd > 0 for row in side.rows()] == [upstream is None]


def test_several_choices_come_side_by_side_and_usage_comes_last(tmp_path):
    with serving(tmp_path) as side:
        body = BODY | {"n": 3, "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 1}
        *pieces, usage, done = events(httpx2.post(side.url + PATH, json=body))
        assert done == "[DONE]"
        assert usage["choices"] == []
        assert usage["usage"] == {"prompt_tokens": 7, "completion_tokens": 15, "total_tokens": 22}
        texts = {0: "", 1: "", 2: ""}
        for piece in pieces:
            (choice,) = piece["choices"]
            texts[choice["index"]] += choice["delta"].get("content", "")
        assert set(texts.values()) == {"Olá world é"}
        assert len(side.rows()) == len(side.pending()) == 3


def test_completions_stream_with_offsets(tmp_path):
    with serving(tmp_path) as side:
        body = {"model": "v1", "prompt": "a", "stream": True, "logprobs": 0}
        pieces = [e for e in events(httpx2.post(side.url + "/v1/completions", json=body)) if e != "[DONE]"]
        choices = [piece["choices"][0] for piece in pieces]
        text = "".join(choice["text"] for choice in choices)
        offsets = [choice["logprobs"]["text_offset"][0] for choice in choices if choice["logprobs"]]
        assert text == "Olá world é"
        assert offsets == [0, 3, 4, 7, 9]


def test_an_answer_that_takes_too_long_is_ended(tmp_path):
    with serving(tmp_path, answer_timeout_s=0.3) as side:
        held(side)
        side.release(1)
        answer = httpx2.post(side.url + PATH, json=BODY | {"stream": False})
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "timeout")
        side.release(1)
        pieces = list(events(httpx2.post(side.url + PATH, json=BODY)))
        assert pieces[-1]["error"]["code"] == "timeout"
        side.until(lambda: len(side.rows()) == 2)
        assert [row.finish_reason for row in side.rows()] == ["error", "error"]


def test_answers_in_flight_finish_when_the_server_stops(tmp_path):
    with serving(tmp_path) as side, httpx2.Client(timeout=120) as client:
        held(side)
        side.release(1)
        with client.stream("POST", side.url + PATH, json=BODY) as answer:
            pieces = events(answer)
            next(pieces)
            side.stop()
            time.sleep(0.2)
            side.release()
            assert list(pieces)[-1] == "[DONE]"
        (row,) = side.rows()
        assert row.finish_reason == "stop"


def test_a_client_that_does_not_read_is_dropped_and_its_row_is_kept(tmp_path):
    word = "word " * 20_000
    engine = Fake(words=(word,) * 1000)  # 100 MB: more than lies between two sockets
    with serving(tmp_path, engine, send_timeout_s=0.3) as side:
        with socket.create_connection(("127.0.0.1", int(side.url.rsplit(":", 1)[1]))) as deaf:
            body = json.dumps(BODY | {"max_tokens": 1000}).encode()
            deaf.sendall(HEAD % (PATH.encode(), len(body)) + body)
            side.until(lambda: side.rows())
        (row,) = side.rows()
        assert row.finish_reason == "cancelled"
        assert 0 < len(row.answer) < 1000 * len(word)
        assert (engine.cancelled, engine.under_way) == (1, 0)

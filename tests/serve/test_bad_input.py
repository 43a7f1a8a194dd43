"""Odd requests and odd replies about tools and pictures: each has its stated behaviour, and its row."""

import json

import pytest
from forwarding_side import ASK, CALL, chunk, events, forwarding, message, post, row_of
from mock_upstream import USAGE, serves, streams

from escultor.types import ToolCall, ToolDefinitions


@pytest.fixture(scope="module")
def side(mock, tmp_path_factory):
    with forwarding(tmp_path_factory.mktemp("bad"), mock, max_body_mb=2) as made:
        yield made


def called(*calls):
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


RESULT = {"role": "tool", "tool_call_id": "call_1", "content": "42"}
ODD_MESSAGES = {
    "a call without an id": [ASK, called({"type": "function", "function": CALL["function"]}), RESULT],
    "a result without a call": [ASK, RESULT],
    "a result without an id": [ASK, called(CALL), {"role": "tool", "content": "42"}],
    "arguments that are no JSON": [
        ASK,
        called({**CALL, "function": {"name": "f", "arguments": '{"a": '}}),
        RESULT,
    ],
    "one id twice": [ASK, called(CALL, CALL), RESULT, RESULT],
    "a picture by its address": [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/a"}}]}
    ],
}


@pytest.mark.parametrize("name", ODD_MESSAGES)
def test_odd_messages_go_on_as_they_came_and_are_logged(side, mock, name):
    mock.now(serves())
    answer = post(side, {"messages": ODD_MESSAGES[name]})
    assert answer.status_code == 200
    assert mock.asked[0].body["messages"] == ODD_MESSAGES[name]
    row = row_of(side, answer)
    assert [m.role.value for m in row.messages] == [m["role"] for m in ODD_MESSAGES[name]]


def test_five_thousand_tools_go_on_and_are_kept_once(side, mock):
    tools = [
        {"type": "function", "function": {"name": f"f{k}", "description": "d" * 99}} for k in range(5000)
    ]
    mock.now(serves())
    before = side.log.count(ToolDefinitions)
    rows = [row_of(side, post(side, {"tools": tools})) for _ in range(2)]
    assert mock.asked[0].body["tools"] == tools
    assert side.log.count(ToolDefinitions) == before + 1
    assert rows[0].tools == rows[1].tools
    kept = side.log.get(ToolDefinitions, rows[0].tools)
    assert kept is not None
    assert json.loads(kept.text) == tools


def piece(index, id=None, name=None, arguments=None):
    function = {k: v for k, v in (("name", name), ("arguments", arguments)) if v is not None}
    call = {"index": index, "function": function} | ({"id": id, "type": "function"} if id else {})
    return chunk(tool_calls=[call])


LONG = json.dumps({"text": "olá " * 50}, ensure_ascii=False)
STREAMS = {
    "interleaved calls": (
        [
            piece(0, "a", "f", ""),
            piece(1, "b", "g", ""),
            *(
                each
                for pair in zip('{"x":1}', '{"y":2}', strict=True)
                for each in (piece(0, arguments=pair[0]), piece(1, arguments=pair[1]))
            ),
            chunk("tool_calls"),
        ],
        [ToolCall("a", "f", '{"x":1}'), ToolCall("b", "g", '{"y":2}')],
        "tool_calls",
    ),
    "a character at a time": (
        [piece(0, "a", "f"), *(piece(0, arguments=c) for c in LONG), chunk("tool_calls")],
        [ToolCall("a", "f", LONG)],
        "tool_calls",
    ),
    "a repeated id in every piece": (
        [*(piece(0, "a", None, c) for c in '{"x":1}'), chunk("tool_calls")],
        [ToolCall("a", "", '{"x":1}')],
        "tool_calls",
    ),
    "two calls of one id": (
        [piece(0, "a", "f", "{}"), piece(1, "a", "f", "{}"), chunk("tool_calls")],
        [ToolCall("a", "f", "{}"), ToolCall("a", "f", "{}")],
        "tool_calls",
    ),
    "no id at all": (
        [piece(0, None, "f", "{}"), chunk("tool_calls")],
        [ToolCall("", "f", "{}")],
        "tool_calls",
    ),
    "cut by max_tokens": (
        [piece(0, "a", "f", '{"x": "unfin'), chunk("length")],
        [ToolCall("a", "f", '{"x": "unfin')],
        "length",
    ),
}


@pytest.mark.parametrize("name", STREAMS)
def test_odd_calls_are_passed_on_piece_by_piece_and_logged_whole(side, mock, name):
    pieces, calls, finish = STREAMS[name]
    mock.now(streams(*pieces, {"choices": [], "usage": USAGE}))
    answer = post(side, {"stream": True})
    row = row_of(side, answer)
    assert (list(row.tool_calls), row.finish_reason) == (calls, finish)
    seen: dict[int, str] = {}
    for event in events(answer):
        for choice in event["choices"]:
            for call in choice["delta"].get("tool_calls", ()):
                seen[call["index"]] = seen.get(call["index"], "") + call["function"].get("arguments", "")
    assert list(seen.values()) == [call.arguments for call in calls]


def test_a_whole_answer_whose_call_was_cut_is_what_came(side, mock):
    cut = {**CALL, "function": {"name": "f", "arguments": '{"a": "'}}
    mock.now(message("length", content=None, tool_calls=[cut]))
    answer = post(side, {})
    assert answer.json()["choices"][0]["finish_reason"] == "length"
    assert row_of(side, answer).tool_calls == (ToolCall("call_1", "f", '{"a": "'),)


def test_a_picture_of_forty_megabytes_is_refused_by_its_length(side, mock):
    mock.now(serves())
    huge = [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 3_000_000}}]
    answer = post(side, {"messages": [{"role": "user", "content": huge}]})
    assert (answer.status_code, mock.asked) == (413, [])

"""Requests in every dialect of the gateway, mutations of them, and an upstream that answers all."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from mock_upstream import PIECES, USAGE, Asked, answers, choice, completion, serves, streams

PARAMETERS = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
FUNCTION = {"name": "get_weather", "description": "The weather of a city.", "parameters": PARAMETERS}
TOOLS = [{"type": "function", "function": FUNCTION}]
PICTURE = "data:image/png;base64,iVBORw0KGgo="
USER = {"role": "user", "content": "What is the weather in Paris?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'}}
CALLED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "sunny"}
SCHEMA = {"name": "person", "strict": True, "schema": PARAMETERS}
_LIMIT = {"model": "escultor", "max_tokens": 4}
_CHAT = [
    {"messages": [USER], "stream": True, "stream_options": {"include_usage": True}},
    {"messages": [USER], "n": 2, "temperature": 0.5, "top_p": 0.9, "seed": 3, "stop": ["."], "user": "ann"},
    {"messages": [USER], "tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True},
    {
        "messages": [USER, {"role": "assistant", "content": None, "tool_calls": [CALL]}, RESULT],
        "tools": TOOLS,
    },
    {"messages": [USER], "functions": [FUNCTION], "function_call": {"name": "get_weather"}},
    {"messages": [USER], "response_format": {"type": "json_schema", "json_schema": SCHEMA}},
    {"messages": [USER], "logprobs": True, "top_logprobs": 2, "logit_bias": {"5": -100}},
    {
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": PICTURE, "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": PICTURE}},
                ],
            },
        ],
        "metadata": {"escultor_skill": "chat", "a": "b"},
        "reasoning_effort": "low",
        "frequency_penalty": 0.1,
    },
]
_BLOCKS = [
    {"type": "thinking", "thinking": "hmm", "signature": "s"},
    {"type": "text", "text": "Let me see."},
    {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city": "Paris"}},
]
_ANTHROPIC = [
    {"messages": [USER], "system": [{"type": "text", "text": "Be brief."}], "stream": True},
    {
        "messages": [
            USER,
            {"role": "assistant", "content": _BLOCKS},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "sunny"}]},
        ],
        "tools": [{"name": "get_weather", "description": "d", "input_schema": PARAMETERS}],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": True},
        "thinking": {"type": "enabled", "budget_tokens": 1024},
        "metadata": {"user_id": "ann"},
    },
    {
        "messages": [
            {
                "role": "user",
                "content": [
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
                    },
                    {"type": "document", "source": {"type": "text", "data": "a"}, "title": "t"},
                ],
            }
        ],
        "output_config": {"format": {"type": "json_schema", "schema": PARAMETERS}, "effort": "low"},
        "stop_sequences": ["."],
    },
]
_RESPONSES = [
    {"input": "Where is the cat?", "instructions": "Be brief.", "stream": True},
    {
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hmm"}]},
            {"type": "function_call", "call_id": "1", "name": "get_weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "1", "output": "sunny"},
            {"type": "custom_tool_call", "call_id": "2", "name": "patch", "input": "+a"},
            {"type": "custom_tool_call_output", "call_id": "2", "output": "done"},
        ],
        "tools": [
            {"type": "function", **FUNCTION, "strict": True},
            {"type": "namespace", "name": "n", "tools": [{"type": "function", **FUNCTION}]},
            {"type": "custom", "name": "patch", "format": {"type": "text"}},
            {"type": "web_search"},
        ],
        "tool_choice": {
            "type": "allowed_tools",
            "mode": "auto",
            "tools": [{"type": "custom", "name": "patch"}],
        },
        "reasoning": {"effort": "low", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
        "store": False,
    },
    {
        "input": [{"role": "user", "content": [{"type": "input_image", "image_url": PICTURE}]}],
        "text": {"format": {"type": "json_schema", **SCHEMA}},
        "previous_response_id": "resp-none",
    },
]
_EVENT = {"target": "chatcmpl-1", "source": {"kind": "end_user", "id": "ann"}}
_BETTER = {"role": "assistant", "content": "Better."}
_EVENTS: list[dict[str, Any]] = [
    {**_EVENT, "kind": "boolean", "name": "thumb", "value": True, "comment": "Good."},
    {**_EVENT, "kind": "float", "name": "helpful", "value": 0.7},
    {**_EVENT, "kind": "demonstration", "output": _BETTER},
    {
        "kind": "comparison",
        "comparison": {"candidates": ["a", "b"], "winner": "a", "shown_order": ["b", "a"]},
    },
    {**_EVENT, "kind": "comment", "text": "Too long."},
    {**_EVENT, "kind": "implicit", "name": "copy"},
    {**_EVENT, "kind": "revoke", "name": "thumb"},
    {"id": "chatcmpl-1", "value": True},
]
for _at, _each in enumerate(_EVENTS[:-1]):
    _each["id"] = f"e{_at}"  # one id names one event
_ROW = {"id": "r1", "time": 1e9, "messages": [USER], "answer": "a", "version": "v", "user": "ann"}
BODIES: dict[str, list[Any]] = {
    "/v1/chat/completions": [{**_LIMIT, **each} for each in _CHAT],
    "/v1/completions": [
        {**_LIMIT, "prompt": "The cat", "stream": True},
        {**_LIMIT, "prompt": ["The cat", "A dog"], "n": 2, "logprobs": 2, "best_of": 2, "suffix": "."},
        {**_LIMIT, "prompt": [5, 6, 7], "echo": True, "logprobs": 1, "max_tokens": 0},
    ],
    "/v1/embeddings": [
        {"model": "escultor", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 8},
        {"model": "escultor", "input": [[1, 2], [3]], "user": "ann"},
    ],
    "/v1/messages": [{**_LIMIT, **each} for each in _ANTHROPIC],
    "/v1/messages/count_tokens": [{**_LIMIT, **each} for each in _ANTHROPIC],
    "/v1/responses": [{"model": "escultor", "max_output_tokens": 4, **each} for each in _RESPONSES],
    "/v1/feedback": _EVENTS,
    "/v1/interactions": [[_ROW], _ROW],
}
READ = (
    "/v1/models",
    "/v1/models/escultor",
    "/v1/models/%00",
    "/health",
    "/metrics",
    "/openapi.json",
    "/v1/feedback",
    "/v1/feedback?target=chatcmpl-1&limit=2",
    "/v1/feedback?limit=-1&after=%ff",
    "/static/thumbs.js",
    "/v1/chat/completions",
    "/nowhere",
)
HEADERS = ("subject", "skill", "parent", "relation", "consent", "retain-days", "message", "task")
_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**63, -(2**70), 1e308, 0.1, "", " ", "\u0000", "\ud800", "é" * 99),
    *("a" * 5000, [], {}, [[]], [None], [{}], {"": None}, {"type": None}, "<|end|><tool_call>{", "{{7*7}}"),
    *("none", "auto", "required", "assistant", "tool", "text", "json_schema", "function", "custom"),
)


def requests(draw: random.Random) -> Iterator[tuple[str, str, bytes, dict[str, str]]]:
    """Method, path, body and headers, without end: some as clients send them, most with faults."""
    values = [value for bodies in BODIES.values() for body in bodies for _, _, value in _places(body)]
    while True:
        headers = {"content-type": "application/json"}
        for name in draw.sample(HEADERS, draw.choice((0, 0, 0, 1, 2))):
            headers[f"x-escultor-{name}"] = draw.choice(("ann", "", "{{USER_ID}}", "none", "%1b", "7", "<b>"))
        if draw.random() < 0.1:
            yield draw.choice(("GET", "GET", "HEAD", "OPTIONS", "DELETE")), draw.choice(READ), b"", headers
            continue
        path = draw.choice(tuple(BODIES))
        body = copy.deepcopy(draw.choice(BODIES[path]))
        if path == "/v1/feedback" and draw.random() < 0.2:
            body = [body, copy.deepcopy(draw.choice(_EVENTS))]
        for each in body if isinstance(body, list) else [body]:
            if "id" in each and draw.random() < 0.8:  # another record, and not the same again
                each["id"] += str(draw.randrange(1 << 40))
        for _ in range(draw.choice((0, 1, 1, 2, 3, 5))):
            body = mutated(draw, body, values)
        data = json.dumps(body).encode()
        if draw.random() < 0.05:
            cut = draw.randrange(len(data))
            data = data[:cut] + draw.choice((b"", b"\xff", b"}", b'"')) + data[cut + 1 :]
        yield "POST", path, data, headers


def mutated(draw: random.Random, body: Any, values: list[Any]) -> Any:
    """The value with one place of it removed, repeated, wrapped, or replaced by an odd one or one of
    `values`."""
    places = list(_places(body))
    if not places:
        return draw.choice(_ODD)
    holder, key, value = draw.choice(places)
    way = draw.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, list):
        holder += copy.deepcopy([value] * draw.choice((1, 2, 50)))
    elif way == 1:
        holder[draw.choice(("type", "name", "content", "id", "x" * 300))] = copy.deepcopy(value)
    elif way == 2:
        holder[key] = draw.choice(([value], {"type": value}, {"text": value}, json.dumps(value)))
    elif way == 3:
        holder[key] = copy.deepcopy(draw.choice(values))
    else:
        holder[key] = copy.deepcopy(draw.choice(_ODD))
    return body


def _places(value: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Every holder, key and value in it."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in list(items):
        yield value, key, each
        yield from _places(each)


def whole(path: str) -> dict[str, Any]:
    """A right reply to a request that asks for no stream."""
    if path.endswith("/embeddings"):
        return {"object": "list", "data": [{"index": 0, "embedding": [0.5, -1.0]}], "usage": USAGE}
    reply: dict[str, Any] = json.loads(completion())
    if not path.endswith("/chat/completions"):
        reply["choices"] = [{"index": 0, "text": "".join(PIECES), "finish_reason": "stop"}]
    return reply


def stream(path: str) -> Sequence[dict[str, Any]]:
    """The events of a right reply."""
    if path.endswith("/chat/completions"):
        call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        called = {"choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}]}
        return [
            *(choice(piece) for piece in PIECES),
            called,
            choice("", "stop"),
            {"choices": [], "usage": USAGE},
        ]
    pieces = zip(PIECES, (None, None, "stop"), strict=True)
    return [{"choices": [{"index": 0, "text": text, "finish_reason": end}]} for text, end in pieces]


async def rightly(asked: Asked) -> None:
    """The plan of an upstream that answers as it was asked."""
    if asked.path.endswith("/chat/completions"):
        await serves(calls_tools=True)(asked)
    elif asked.body.get("stream"):
        await streams(*stream(asked.path))(asked)
    else:
        await answers(json.dumps(whole(asked.path)).encode())(asked)

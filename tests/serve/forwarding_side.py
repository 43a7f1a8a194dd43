"""A gateway in front of an upstream for tests, what is asked of it, and pieces of an upstream's replies."""

import json
from contextlib import contextmanager

import httpx2
from gateway_side import running
from mock_upstream import USAGE, answers

from escultor.config import Serve
from escultor.serve.engine_loading import EngineSource, engine_loader
from escultor.serve.gateway.gateway import Gateway
from escultor.store import open_store
from escultor.types import Interaction

PATH = "/v1/chat/completions"
ASK = {"role": "user", "content": "Where is the cat?"}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}


@contextmanager
def forwarding(root, mock, **settings):
    upstream = {"url": mock.url, "model": "m", "retries": 2, **settings.pop("upstream", {})}
    serve = Serve.model_validate({"follow_s": 0.05, "upstream": upstream, **settings})
    with open_store(str(root / "store")) as store:
        load, default, fixed = engine_loader(store, EngineSource(None), serve)
        with running(Gateway(store, serve, load, default, fixed=fixed)) as side:
            yield side


def post(side, body, headers=None):
    body = {"model": "escultor", "messages": [ASK], **body}
    return httpx2.post(side.url + PATH, json=body, headers=headers, timeout=120)


def row_of(side, answer) -> Interaction:
    id = (
        answer.json()["id"]
        if answer.headers["content-type"] == "application/json"
        else first_event(answer)["id"]
    )
    row = side.log.get(Interaction, id)
    assert row is not None
    return row


def events(answer):
    lines = [line[6:] for line in answer.text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def first_event(answer):
    return events(answer)[0]


def chunk(finish=None, **delta):
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def message(finish="stop", **fields):
    said = {"choices": [{"index": 0, "message": {"role": "assistant", **fields}, "finish_reason": finish}]}
    return answers(json.dumps({**said, "usage": USAGE}).encode())


def piece(arguments, index=0, **more):
    return chunk(tool_calls=[{"index": index, "function": {"arguments": arguments}, **more}])


def begins(name, id, index=0, arguments=""):
    function = {"name": name, "arguments": arguments}
    return chunk(tool_calls=[{"index": index, "id": id, "type": "function", "function": function}])

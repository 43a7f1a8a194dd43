"""A word that a person put anywhere a client may put text is in the store's folder, and after the erasure of
the person it is not: one request for each route, with the word in all of its fields."""

import base64
import json

import httpx2
import pytest
from gateway_side import serving

from escultor.config import Config
from escultor.datasets.erasure import erase_everywhere
from escultor.feedback.conversion import convert, record
from escultor.feedback.selection import SelectionQuery
from escultor.types import Interaction

WORD = "zqxsecretzqx"
PICTURE = f"data:image/png;base64,{base64.b64encode(WORD.encode() * 9).decode()}"
TOOL = {"name": WORD, "description": WORD, "parameters": {"type": "object", "title": WORD}}
CALL = {"id": WORD, "type": "function", "function": {"name": WORD, "arguments": json.dumps({"a": WORD})}}
HEADERS = {f"x-escultor-{name}": f"{WORD}-{name}" for name in ("message", "task", "skill")}
CHAT = {
    "model": "escultor",
    "messages": [
        {"role": "system", "content": f"system {WORD}"},
        {
            "role": "user",
            "name": WORD,
            "content": [
                {"type": "text", "text": f"say {WORD}"},
                {"type": "image_url", "image_url": {"url": PICTURE}},
            ],
        },
        {"role": "assistant", "content": None, "reasoning_content": f"thought {WORD}", "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": WORD, "content": f"result {WORD}"},
    ],
    "tools": [{"type": "function", "function": TOOL}],
    "metadata": {WORD: WORD, "escultor_message": WORD},
    "stop": [WORD],
    "user": WORD,
    WORD: {WORD: WORD},
}
SPOKEN = {"role": "user", "content": f"say {WORD}"}
TURNS = {
    "model": "escultor",
    "messages": [SPOKEN],
    "max_tokens": 9,
    "system": WORD,
    "metadata": {"user_id": WORD},
}
BODIES = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"model": "escultor", "prompt": f"say {WORD}", "stop": WORD, "user": WORD, WORD: WORD},
    "/v1/messages": TURNS
    | {"stop_sequences": [WORD], "tools": [{"name": WORD, "input_schema": {"title": WORD}}]},
    "/v1/responses": {
        "model": "escultor",
        "input": [SPOKEN],
        "instructions": WORD,
        "user": WORD,
        "metadata": {WORD: WORD},
    },
}
FEEDBACK = [
    {"kind": "boolean", "value": True, "comment": f"because {WORD}", "name": WORD},
    {"kind": "float", "value": 0.5, "name": f"{WORD}.score"},
    {"kind": "comment", "text": f"a remark {WORD}"},
    {"kind": "demonstration", "output": {"content": f"better {WORD}"}},
    {"kind": "implicit", "name": "copy"},
    {"kind": "revoke", "name": WORD},
]


def holds(root):
    """The files below a folder in whose content or name the word, or the picture of it, occurs."""
    marks = [WORD.encode(), PICTURE[-60:].encode()]
    paths = [path for path in root.rglob("*") if path.is_file()]
    return [
        str(p.relative_to(root)) for p in paths if any(m in p.read_bytes() + str(p).encode() for m in marks)
    ]


@pytest.mark.parametrize("upstream", [False, True], ids=["own weights", "upstream"])
def test_no_door_keeps_a_word_after_the_erasure(tmp_path, upstream):
    settings = {"upstream": {"url": "http://127.0.0.1:9/v1", "model": "m"}} if upstream else {}
    root = tmp_path / "store"
    with serving(tmp_path, **settings) as side:
        for path, body in BODIES.items():
            simple = {
                key: body[key] for key in ("model", "messages", "prompt", "input", "user") if key in body
            }
            simple |= {"max_tokens": 9} if path == "/v1/messages" else {}
            simple |= {"messages": [SPOKEN]} if "messages" in simple else {}
            for each in (body, {**body, "stream": True}) if upstream else (simple,):
                answer = httpx2.post(
                    side.url + path, json=each, headers=HEADERS | {"x-escultor-subject": WORD}
                )
                assert answer.status_code == 200, (path, answer.text)
        answers = [row.id for row in side.rows()]
        events = [
            {**event, "id": f"{WORD}-{n}", "target": answers[n % len(answers)], "source": {"id": WORD}}
            for n, event in enumerate(FEEDBACK)
        ]
        call = {
            "id": f"{WORD}/call",
            "time": 1e9,
            "messages": [SPOKEN],
            "answer": WORD,
            "version": WORD,
            "user": WORD,
        }
        for path, body in (("/v1/feedback", events), ("/v1/interactions", [call])):
            reply = httpx2.post(side.url + path, json=body).json()
            assert reply["refused"] == 0, reply
        store = side.gateway.store
        record(store, convert(store, Config().feedback, SelectionQuery(now=2e9)), "made")
        assert holds(root)
        erase_everywhere(store, side.gateway.subjects.subject(WORD), by="ann")
        assert store.log.count(Interaction) == 0
        assert holds(root) == []

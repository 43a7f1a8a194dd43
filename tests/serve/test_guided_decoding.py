"""A schema that cannot be followed: an error for its client, no change to other answers, its row is kept."""

import asyncio
import json
from dataclasses import replace

import httpx2
import pytest
from gateway_side import serving
from tiny import llama

from escultor.config import Serve
from escultor.errors import SchemaFault
from escultor.serve.engines import guided
from escultor.serve.engines.generation_state import Detokenizer
from escultor.serve.engines.guided import SchemaGuide
from escultor.serve.engines.transformers_engine import TransformersEngine
from escultor.serve.protocol import Delta, End, GenerationRequest
from escultor.types import Message, Role, Sampling

LOADED = llama()
WAYS = 1000  # to go on in one place: it compiles, and is too much for the parser once it gets there
WIDE = {
    "type": "object",
    "properties": {
        "x": {
            "anyOf": [
                {"type": "array", "items": {"type": "array", "items": {"const": n}}, "minItems": 1}
                for n in range(WAYS)
            ]
        }
    },
    "required": ["x"],
    "additionalProperties": False,
}
BODY = {
    "model": "escultor",
    "messages": [{"role": "user", "content": "The cat"}],
    "response_format": {"type": "json_schema", "json_schema": {"name": "wide", "schema": WIDE}},
}
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    engine = TransformersEngine(LOADED, "v1", Serve())
    with serving(tmp_path_factory.mktemp("guided"), engine) as side:  # type: ignore[arg-type]
        yield side


def test_a_whole_answer_is_refused_with_what_to_mend_and_its_row_is_kept(side):
    before = len(side.rows())
    answer = httpx2.post(side.url + PATH, json=BODY, timeout=60)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["param"]) == ("invalid_request_error", "response_format")
    assert error["code"] == "schema_not_followed"
    assert all(word in error["message"] for word in ("got: after", "items", "allowed:", "remedy:"))
    assert "\n" not in error["message"]
    side.until(lambda: len(side.rows()) > before)
    assert side.rows()[-1].finish_reason == "error"


def test_a_stream_ends_with_an_error_event_and_its_row_holds_what_was_delivered(side):
    before = len(side.rows())
    answer = httpx2.post(side.url + PATH, json=BODY | {"stream": True}, timeout=60)
    assert answer.status_code == 200
    said = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert "[DONE]" not in said
    *pieces, last = [json.loads(line) for line in said]
    assert last["error"]["code"] == "schema_not_followed"
    text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
    assert text.startswith("{")
    side.until(lambda: len(side.rows()) > before)
    row = side.rows()[-1]
    assert (row.finish_reason, row.answer) == ("error", text)


def ask(n, **more):
    return GenerationRequest(
        (Message(Role.USER, f"The cat {n} runs"),), Sampling(1.0, 0.9, 60, seed=n), **more
    )


async def collected(engine, asked):
    events = [event async for event in engine.stream(asked)]
    assert isinstance(events[-1], End)
    return "".join(event.text for event in events if isinstance(event, Delta))


def decoded(*asked):
    async def inner():
        engine = TransformersEngine(LOADED, "v1", Serve())
        try:
            return await asyncio.gather(*(collected(engine, one) for one in asked), return_exceptions=True)
        finally:
            await engine.close()

    return asyncio.run(inner())


def test_neighbours_in_the_batch_are_answered_as_if_alone():
    free, other = ask(1), ask(2, schema={"enum": ["red cat", "blue dog"]})
    fault, *there = decoded(ask(3, schema=WIDE), free, other)
    assert isinstance(fault, SchemaFault)
    assert there == [decoded(free)[0], decoded(other)[0]]
    assert json.loads(there[1]) in ("red cat", "blue dog")


@pytest.mark.parametrize("how", ["raises", "allows nothing"])
def test_a_guide_that_fails_in_its_mask_ends_its_own_answer_alone(monkeypatch, how):
    class Broken:
        def __init__(self, matcher):
            self.matcher, self.steps = matcher, 0

        def unsafe_compute_mask_ptr(self, *where):
            self.steps += 1
            if self.steps < 3:
                self.matcher.unsafe_compute_mask_ptr(*where)
            elif how == "raises":
                raise ValueError("a mask of another size")
            else:
                import ctypes

                ctypes.memset(where[0], 0, where[1])

        def __getattr__(self, name):
            return getattr(self.matcher, name)

    made = SchemaGuide.__init__
    monkeypatch.setattr(
        SchemaGuide, "__init__", lambda self, matcher, vocab_size: made(self, Broken(matcher), vocab_size)
    )
    free = ask(1)
    fault, there = decoded(ask(3, schema={}), free)
    assert isinstance(fault, SchemaFault)
    assert ("another size" if how == "raises" else "nothing may follow") in str(fault)
    assert there == decoded(replace(free))[0]


def test_schemas_stay_compiled_while_they_are_few_and_small_and_the_last_one_always(monkeypatch):
    guides = Detokenizer(LOADED).guides
    made = []
    compiled = guides._compile
    monkeypatch.setattr(guides, "_compile", lambda text: made.append(text) or compiled(text))
    monkeypatch.setattr(guided, "CACHE_CHARACTERS", 500)
    few = [{"enum": ["cat" * 10, n]} for n in range(5)]
    for schema in (*few, *few):
        guides.guide(schema)
    assert len(made) == len(few)
    for n in range(30):
        guides.guide({"enum": ["dog" * 10, n]})
    assert sum(map(len, guides._compiled)) <= 500
    large = {"enum": ["bird" * 200]}
    guides.guide(large)
    assert len(guides._compiled) == 1
    count = len(made)
    guides.guide(large)
    assert len(made) == count
    monkeypatch.setattr(guided, "CACHE_CHARACTERS", 1 << 20)
    for n in range(guided.CACHE_SIZE + 5):
        guides.guide({"const": n})
    assert len(guides._compiled) == guided.CACHE_SIZE


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"enum": [], "type": "string"}])
def test_a_schema_that_no_text_fulfils_is_the_callers_to_mend(side, schema):
    body = BODY | {
        "response_format": {"type": "json_schema", "json_schema": {"name": "no", "schema": schema}}
    }
    answer = httpx2.post(side.url + PATH, json=body, timeout=60)
    assert answer.status_code in (400, 422), answer.text
    assert "schema" in answer.json()["error"]["message"]

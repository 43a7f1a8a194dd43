"""Calls of tools by our own models: recognised in their text, streamed as OpenAI's deltas."""

import asyncio
import itertools
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import llama

from escultor.config import Serve
from escultor.errors import DataError, InputError
from escultor.model.decoding import DecodedToken
from escultor.serve.engines.generation_state import Detokenizer
from escultor.serve.engines.transformers_engine import TransformersEngine
from escultor.serve.protocol import Delta, End, GenerationRequest
from escultor.serve.tool_calls import call_schema, with_tool_calls
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import parse_chat
from escultor.text import tool_calls
from escultor.text.tool_calls import ToolCallParser, calls_in
from escultor.types import Message, Role, Sampling, ToolCall, Usage

CALL = '{"name": "f", "arguments": {"a": 1}}'
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
A1 = '{"a": 1}'
TEXTS = [
    ("Hello there.", "Hello there.", []),
    (f"<tool_call>\n{CALL}\n</tool_call>", "", [A1]),
    (f"<tool_call>{CALL}</tool_call>\n<tool_call>{CALL}</tool_call>", "", [A1, A1]),
    (f"Let me see.\n<tool_call>{CALL}</tool_call>", "Let me see.\n", [A1]),
    (f"[TOOL_CALLS][{CALL}, {CALL}]", "", [A1, A1]),
    (f"[{CALL}]", "", [A1]),
    ('{"name": "f", "parameters": {"a": 1}}', "", [A1]),
    ('<|python_tag|>{"name": "f", "parameters": {"a": 1}}', "", [A1]),
    ('{"name": "f", "arguments": "{\\"a\\": 1}"}', "", [A1]),
    # what is no call is content: another tool, broken JSON, a call that was cut, JSON as an answer
    ('<tool_call>{"name": "g", "arguments": {}}</tool_call>', "all", []),
    ('[TOOL_CALLS]f[ARGS]{"x": 1}[TOOL_CALLS]f[ARGS]{"x": 2}', "", ['{"x": 1}', '{"x": 2}']),
    (
        "<tool_call>\n<function=f>\n<parameter=x>\n1\n</parameter>\n</function>\n</tool_call>",
        "",
        ['{"x": 1}'],
    ),
    ("<tool_call>f\n<arg_key>x</arg_key>\n<arg_value>a b</arg_value>\n</tool_call>", "", ['{"x": "a b"}']),
    ("<tool_call>f</tool_call>", "", ["{}"]),
    (
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>"
        '{"x": 1}<|tool_call_end|><|tool_calls_section_end|>',
        "",
        ['{"x": 1}'],
    ),
    (
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
        '{"x": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>',
        "",
        ['{"x": 1}'],
    ),
    ('<|tool_call_start|>[f(x="a", y=[1])]<|tool_call_end|>', "", ['{"x": "a", "y": [1]}']),
    ('<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"x": 1}', "", ['{"x": 1}']),
    ("<tool_call>{oops}</tool_call> then", "all", []),
    ("[TOOL_CALLS]f[ARGS]{oops}", "all", []),
    ("[f(x={1, 2})]", "all", []),
    (f"[f(x={'-' * 5000}1)]", "all", []),
    ("<tool_call>g\n<arg_key>x</arg_key><arg_value>1</arg_value></tool_call>", "all", []),
    ("a note to=functions.f alone", "all", []),
    (f"<tool_call>{CALL[:-1]}", "all", []),
    ('{"answer": 42}', "all", []),
    ("[1, 2]", "all", []),
    ("a < b and <tool", "all", []),
    (f"the text {CALL} in a sentence", "all", []),
]


def parsed(pieces):
    parser, content, calls = ToolCallParser(["f"]), "", []
    for piece in [*pieces, None]:
        more, found = parser.finish() if piece is None else parser.feed(piece)
        content += more
        calls += found
    assert [call["index"] for call in calls] == list(range(len(calls)))
    return content, [call["function"]["arguments"] for call in calls]


@pytest.mark.parametrize(("text", "content", "calls"), TEXTS)
def test_each_familys_calls_are_recognised_however_the_text_is_cut(text, content, calls):
    @given(st.lists(st.integers(0, len(text))))
    def law(cuts):
        edges = [0, *sorted(cuts), len(text)]
        pieces = [text[a:b] for a, b in itertools.pairwise(edges)]
        assert parsed(pieces) == (text if content == "all" else content, calls)

    law()
    assert parsed(list(text)) == (text if content == "all" else content, calls)


def test_values_without_quotes_have_the_type_that_the_definition_gives():
    written = "".join(f"<parameter={key}>\n12\n</parameter>\n" for key in ("text", "number", "other"))
    fields = {"text": {"type": "string"}, "number": {"type": "integer"}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"properties": fields}}}]
    (call,) = calls_in(f"<tool_call>\n<function=f>\n{written}</function>\n</tool_call>", json.dumps(tools))
    assert json.loads(call[1]) == {"text": "12", "number": 12, "other": 12}


def test_plain_text_is_not_held_back():
    parser = ToolCallParser(["f"])
    assert [parser.feed(piece)[0] for piece in ("Hello ", "world, a<", "b")] == ["Hello ", "world, a", "<b"]


def test_a_call_ends_the_answer_with_openais_finish_reason():
    async def events():
        for piece in ("<tool_", f"call>{CALL}</tool_call>"):
            yield Delta(piece)
        yield End("stop", Usage(1, 2), 0.0)

    async def run():
        request = GenerationRequest((), Sampling(), tools=json.dumps(TOOLS))
        return [event async for event in with_tool_calls(events(), request)]

    call, end = asyncio.run(run())
    assert call.text == ""
    assert call.fields["tool_calls"][0]["function"] == {"name": "f", "arguments": A1}
    assert end.finish_reason == "tool_calls"


def body(**more):
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **more}


def test_tools_and_their_turns_are_parsed():
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "42"},
    ]
    request = parse_chat(body(messages=messages, tools=TOOLS, tool_choice="auto"), Serve())
    (generation,) = request.generations
    assert json.loads(generation.tools) == TOOLS
    assert generation.schema is None
    assert generation.prompt[1].tool_calls == (ToolCall("1", "f", "{}"),)
    assert (generation.prompt[2].role, generation.prompt[2].tool_call_id) == (Role.TOOL, "1")
    assert parse_chat(body(tools=TOOLS, tool_choice="none"), Serve()).generations[0].tools == ""


def test_a_tool_that_has_to_be_called_is_a_schema():
    for choice in ("required", {"type": "function", "function": {"name": "f"}}):
        (generation,) = parse_chat(body(tools=TOOLS, tool_choice=choice), Serve()).generations
        assert generation.schema == call_schema(TOOLS, "f")
    with pytest.raises(InputError, match="names no tool"):
        parse_chat(body(tools=TOOLS, tool_choice={"type": "function", "function": {"name": "g"}}), Serve())


def test_without_parallel_calls_an_answer_ends_with_its_first(monkeypatch):
    loaded = llama()
    monkeypatch.setattr(type(loaded.chat), "shows_tools", True)
    parsed_body = parse_chat(body(tools=TOOLS, parallel_tool_calls=False, stop="END"), Serve())
    (generation,) = parsed_body.generations
    assert set(generation.stop) == {"</tool_call>", "END"}
    assert parse_chat(body(tools=TOOLS, parallel_tool_calls=True), Serve()).generations[0].stop == ()
    assert parse_chat(body(parallel_tool_calls=False), Serve()).generations[0].stop == ()
    state = Detokenizer(loaded).prepare(generation)
    ids = loaded.tokenizer(f"<tool_call>{CALL}</tool_call><tool_call>{CALL}", add_special_tokens=False)

    async def events():
        for id in ids["input_ids"]:
            for event in state.add(DecodedToken(id, 0.0)):
                yield event
            if state.is_finished:
                return

    async def run():
        return [event async for event in with_tool_calls(events(), generation)]

    found = asyncio.run(run())
    assert [len(e.fields["tool_calls"]) for e in found if isinstance(e, Delta) and e.fields] == [1]
    assert found[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "wrong",
    [
        {"tools": [{"type": "function", "function": {}}]},
        {"tools": TOOLS * 1025},
        {"tools": TOOLS, "tool_choice": "maybe"},
        {"messages": [{"role": "assistant", "content": None}]},
        {"messages": [{"role": "user", "content": "a", "tool_calls": [{"id": "1", "function": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
    ],
)
def test_what_cannot_be_followed_is_refused(wrong):
    with pytest.raises(ApiError) as refused:
        parse_chat(body(**wrong), Serve())
    assert refused.value.status == 400


def test_a_template_that_does_not_show_tools_refuses_them():
    request = GenerationRequest((Message(Role.USER, "hi"),), Sampling(), tools=json.dumps(TOOLS))
    with pytest.raises(DataError, match="does not show tools"):
        Detokenizer(llama()).prompt_ids(request)


def test_a_required_call_is_made_by_any_model(monkeypatch):
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"enum": [{}]}}}]
    loaded = llama()
    monkeypatch.setattr(type(loaded.chat), "shows_tools", True)
    request = GenerationRequest(
        (Message(Role.USER, "hi"),),
        Sampling(max_new_tokens=120),
        schema=call_schema(tools, None),
        tools=json.dumps(tools),
    )

    async def run():
        engine = TransformersEngine(loaded, "v1", Serve())
        try:
            return [event async for event in engine.stream(request)]
        finally:
            await engine.close()

    *_, call, end = asyncio.run(run())
    assert call.fields["tool_calls"][0]["function"] == {"name": "f", "arguments": "{}"}
    assert end.finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "piece",
    ["<tool_call>", "{", " ", "</tool_call>", "<tool_call></tool_call>", "[TOOL_CALLS]", "<tool_c", "x"],
)
def test_what_a_hostile_model_writes_is_read_in_linear_time(piece, monkeypatch):
    # Counted by the characters that the parser's pattern looks at, not by a clock.
    looked, pattern = [], tool_calls._MARK
    counting = SimpleNamespace(finditer=lambda text: looked.append(len(text)) or pattern.finditer(text))
    monkeypatch.setattr(tool_calls, "_MARK", counting)
    parser = ToolCallParser(["f"])
    shown = [parser.feed(piece)[0] for _ in range(32_000)]
    shown.append(parser.finish()[0])
    assert "".join(shown) == piece * 32_000
    assert sum(looked) < 32_000 * (len(piece) + 12)

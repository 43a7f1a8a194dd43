"""Anthropic's Messages API in front of an upstream that speaks only chat completions, by its own client."""

import json

import httpx2
import pytest
from forwarding_side import CALL, begins, chunk, message, piece
from mock_upstream import USAGE, answers, choice, completion, serves, streams

from escultor.serve.wire.anthropic import chat_body
from escultor.serve.wire.errors import ApiError
from escultor.types import Feedback, Interaction, Rating

anthropic = pytest.importorskip("anthropic")

ASK = {"role": "user", "content": "Where is the cat?"}
SEARCH = {"type": "web_search_20250305", "name": "web_search"}
TOOL = {"name": "f", "description": "d", "input_schema": {"type": "object", "properties": {}}}


@pytest.fixture(scope="module")
def client(side):
    with anthropic.Anthropic(base_url=side.url, api_key="none", max_retries=0) as made:
        yield made


def ask(client, **more):
    return client.messages.create(**{"model": "escultor", "max_tokens": 64, "messages": [ASK], **more})


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_what_only_some_servers_send_is_not_lost(client, mock, streamed):
    def told(said, pieces):
        mock.now(streams(*pieces, chunk("stop")) if streamed else said)
        if not streamed:
            return ask(client)
        with client.messages.stream(model="escultor", max_tokens=64, messages=[ASK]) as stream:
            return stream.get_final_message()

    function = {"name": "f", "arguments": {"a": 1}}  # an object in place of its text
    called = [{"id": "1", "type": "function", "function": function}]
    answer = told(message(content=None, tool_calls=called), [begins("f", "1", 0, {"a": 1})])
    assert (answer.stop_reason, answer.content[0].input) == ("tool_use", {"a": 1})
    answer = told(message(content=None, refusal="No."), [chunk(refusal="N"), chunk(refusal="o.")])
    assert (answer.stop_reason, answer.content[0].text) == ("refusal", "No.")


def test_cached_tokens_are_counted_apart(client, mock):
    mock.now(answers(completion(usage={**USAGE, "prompt_tokens_details": {"cached_tokens": 3}})))
    usage = ask(client).usage
    assert usage.input_tokens + usage.cache_read_input_tokens == USAGE["prompt_tokens"]


def test_an_answer_and_its_row(client, side, mock):
    mock.now(serves())
    answer = ask(client, system="Be brief.", stop_sequences=["END"], metadata={"user_id": "maria"})
    assert answer.content[0].text == "The cat sleeps."
    assert (answer.stop_reason, answer.usage.input_tokens) == ("end_turn", USAGE["prompt_tokens"])
    system = {"role": "system", "content": "Be brief."}
    sent = {"model": "m", "max_tokens": 64, "messages": [system, ASK], "stop": ["END"], "user": "maria"}
    assert mock.asked[0].body == sent
    row = side.log.get(Interaction, answer.id)
    assert (row.answer, len(row.messages)) == ("The cat sleeps.", 2)
    thumb = {"kind": "boolean", "target": answer.id, "value": True}
    assert httpx2.post(side.url + "/v1/feedback", json=thumb, timeout=120).status_code == 202
    assert isinstance(next(iter(side.log.read(Feedback)))[1], Rating)


def test_a_stream(client, mock):
    mock.now(streams(chunk(reasoning_content="hmm"), choice("The "), choice("cat", "stop")))
    with client.messages.stream(model="escultor", max_tokens=64, messages=[ASK]) as stream:
        assert "".join(stream.text_stream) == "The cat"
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking == "hmm"
    assert final.stop_reason == "end_turn"


def test_tools_both_ways(client, mock):
    mock.now(message("tool_calls", content=None, tool_calls=[CALL]))
    turns = [
        ASK,
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hmm", "signature": "s"},
                {"type": "text", "text": "Let me see."},
                {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "42"}]},
    ]
    answer = ask(client, messages=turns, tools=[TOOL], tool_choice={"type": "any"})
    (block,) = answer.content
    assert (block.type, block.name, block.input) == ("tool_use", "f", {"a": 1})
    assert answer.stop_reason == "tool_use"
    body = mock.asked[0].body
    assert body["tools"][0]["function"]["parameters"] == TOOL["input_schema"]
    assert body["tool_choice"] == "required"
    _, assistant, result = body["messages"]
    assert assistant["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": 1}'}
    assert (assistant["content"], assistant["reasoning_content"]) == ("Let me see.", "hmm")
    assert result == {"role": "tool", "tool_call_id": "t1", "content": "42"}


PARALLEL = [
    begins("f", "1"),
    begins("g", "2", 1),
    piece('{"a":', 0),
    piece('{"b":2}', 1),
    piece("1}", 0),
    chunk("tool_calls"),
]


def test_streamed_calls_become_blocks_one_after_the_other(client, mock):
    mock.now(streams(choice("So: "), *PARALLEL))
    with client.messages.stream(model="escultor", max_tokens=64, messages=[ASK], tools=[TOOL]) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["text", "tool_use", "tool_use"]
    assert [block.input for block in final.content[1:]] == [{"a": 1}, {"b": 2}]
    assert final.stop_reason == "tool_use"


def test_pictures_go_on_as_openais(client, mock):
    mock.now(serves())
    source = {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}
    parts = [{"type": "text", "text": "what?"}, {"type": "image", "source": source}]
    ask(client, messages=[{"role": "user", "content": parts}])
    sent = mock.asked[0].body["messages"][0]["content"]
    assert sent[1] == {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


def test_errors_have_anthropics_form(client, side, mock):
    said = json.dumps({"error": {"message": "slow down"}}).encode()
    mock.now(answers(said, {"Retry-After": "7"}, 429))
    with pytest.raises(anthropic.RateLimitError) as caught:
        ask(client)
    assert caught.value.response.headers["retry-after"] == "7"
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        ask(client, max_tokens=0)
    body = httpx2.post(side.url + "/v1/messages", json={}, timeout=120).json()
    assert body["type"] == "error"


def test_parameters_without_effect_are_reported(client, mock):
    mock.now(serves())
    thinking = {"type": "enabled", "budget_tokens": 1024}
    raw = client.messages.with_raw_response.create(
        model="escultor", max_tokens=2048, messages=[ASK], thinking=thinking
    )
    assert raw.headers["x-escultor-ignored"] == "thinking"


def test_tokens_are_counted(client):
    count = client.messages.count_tokens(model="escultor", messages=[ASK], system="Be brief.", tools=[TOOL])
    assert count.input_tokens > 10


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": [{"role": "robot", "content": "a"}]},
        {"messages": [{"role": "user", "content": [{"type": "server_tool_use"}]}]},
        {"messages": [{"role": "user", "content": ["a"]}]},
        {"tools": [SEARCH]},
        {"tools": [TOOL], "tool_choice": {"type": "maybe"}},
        {"tools": [TOOL, SEARCH], "tool_choice": {"type": "tool", "name": "web_search"}},
        {"output_config": {"format": {"type": "xml"}}},
        {"output_config": 5},
    ],
)
def test_what_cannot_be_asked_is_refused(wrong):
    with pytest.raises(ApiError):
        chat_body({"model": "m", "max_tokens": 1, "messages": [ASK], **wrong})


def test_a_stream_says_what_the_whole_answer_says(client, mock):
    first = chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": "{"}}])  # without an id
    pieces = [choice("a"), first, begins("g", "2", 1, "{}"), piece("}"), chunk(reasoning_content="hmm")]
    mock.now(streams(*pieces, choice("b"), chunk("tool_calls")))
    with client.messages.stream(model="escultor", max_tokens=64, messages=[ASK]) as stream:
        streamed = stream.get_final_message()
    called = [(block.name, block.input) for block in streamed.content if block.type == "tool_use"]
    assert called == [("f", {}), ("g", {})]
    assert "".join(block.text for block in streamed.content if block.type == "text") == "ab"
    assert "".join(block.thinking for block in streamed.content if block.type == "thinking") == "hmm"


def test_a_form_of_the_answer_goes_on_and_other_tools_than_the_clients_are_named(client, mock):
    mock.now(message(content='{"a": 1}'))
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": False}
    config = {"format": {"type": "json_schema", "schema": schema}, "effort": "high"}
    raw = client.messages.with_raw_response.create(
        model="escultor",
        max_tokens=64,
        messages=[ASK],
        extra_body={"output_config": config, "tools": [SEARCH, {**TOOL, "strict": True}]},
    )
    assert raw.headers["x-escultor-ignored"] == "output_config.effort, tools.0 (web_search_20250305)"
    body = mock.asked[0].body
    form = {"name": "output", "schema": schema, "strict": True}
    assert body["response_format"] == {"type": "json_schema", "json_schema": form}
    (tool,) = body["tools"]
    assert (tool["function"]["name"], tool["function"]["strict"]) == ("f", True)


def test_what_a_search_among_tools_found_is_text():
    found = [{"type": "tool_reference", "tool_name": "WebFetch"}]
    result = {"type": "tool_result", "tool_use_id": "t", "content": found}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    turns = [ASK, {"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    chat, _ = chat_body({"model": "m", "max_tokens": 1, "messages": turns, "tools": [TOOL]})
    assert chat["messages"][-1] == {"role": "tool", "tool_call_id": "t", "content": "WebFetch"}

"""OpenAI's Responses API before an upstream that speaks only chat completions, by the official client."""

import openai
import pytest
from forwarding_side import CALL, begins, chunk, message, piece
from mock_upstream import USAGE, choice, serves, streams

from escultor.config import Serve
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.forwarded import parse_forwarded_chat
from escultor.serve.wire.responses_api import chat_body
from escultor.types import Interaction, Relation

TOOL = {"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": True}


@pytest.fixture(scope="module")
def client(side):
    with openai.OpenAI(base_url=f"{side.url}/v1", api_key="none", max_retries=0) as made:
        yield made


def ask(client, **more):
    return client.responses.create(**{"model": "escultor", "input": "Where is the cat?", **more})


def test_an_answer_that_is_continued_from_the_log(client, side, mock):
    mock.now(serves())
    first = ask(client, instructions="Be brief.", max_output_tokens=64)
    assert (first.output_text, first.status) == ("The cat sleeps.", "completed")
    assert first.usage.input_tokens == USAGE["prompt_tokens"]
    user = {"role": "user", "content": "Where is the cat?"}
    system = {"role": "system", "content": "Be brief."}
    assert mock.asked[0].body == {"model": "m", "messages": [system, user], "max_completion_tokens": 64}
    second = ask(client, input="And now?", previous_response_id=first.id)
    assert mock.asked[1].body["messages"] == [
        user,
        {"role": "assistant", "content": "The cat sleeps."},
        {"role": "user", "content": "And now?"},
    ]
    row = side.log.get(Interaction, second.id)
    assert (row.lineage.parent, row.lineage.relation) == (first.id, Relation.CONTINUE)
    with pytest.raises(openai.NotFoundError):
        ask(client, previous_response_id="resp-none")


def test_a_stream(client, mock):
    mock.now(streams(chunk(reasoning_content="hmm"), choice("The "), choice("cat", "stop")))
    with client.responses.stream(model="escultor", input="Where?") as stream:
        kinds = [each.type for each in stream]
        final = stream.get_final_response()
    assert kinds[0] == "response.created"
    assert kinds[-1] == "response.completed"
    assert final.output_text == "The cat"
    assert [item.type for item in final.output] == ["reasoning", "message"]


def test_a_stream_that_breaks_off_says_so_in_both_of_openais_events(client, mock):
    mock.now(streams(choice("The "), {"error": {"message": "boom"}}))
    *_, error, failed = stream = list(ask(client, stream=True))
    assert [each.sequence_number for each in stream] == list(range(len(stream)))
    assert (error.type, error.code, error.param) == ("error", "upstream_failed", None)
    assert (failed.type, failed.response.status) == ("response.failed", "failed")
    assert error.message == failed.response.error.message
    assert "boom" in error.message


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_a_refusal_is_one(client, mock, streamed):
    said = [chunk(refusal="I can"), chunk(refusal="not."), chunk("stop")]
    mock.now(streams(*said) if streamed else message(content=None, refusal="I cannot."))
    answer = ask(client, stream=streamed)
    if streamed:
        events = list(answer)
        assert [e.delta for e in events if e.type == "response.refusal.delta"] == ["I can", "not."]
        answer = events[-1].response
    ((part,),) = (item.content for item in answer.output)
    assert (part.type, part.refusal) == ("refusal", "I cannot.")


def test_tools_both_ways(client, mock):
    mock.now(message("tool_calls", content=None, tool_calls=[CALL]))
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "hi"}]},
        {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hmm"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "42"},
        {"type": "function_call_output", "call_id": "2", "output": "43"},
    ]
    answer = ask(client, input=items, tools=[TOOL], tool_choice={"type": "function", "name": "f"})
    (call,) = answer.output
    assert (call.type, call.call_id, call.name, call.arguments) == ("function_call", "call_1", "f", '{"a":1}')
    body = mock.asked[0].body
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert body["tools"][0]["function"]["strict"] is True
    _, called, *results = body["messages"]
    assert [each["id"] for each in called["tool_calls"]] == ["1", "2"]
    assert [each["content"] for each in results] == ["42", "43"]


def test_streamed_calls_are_items(client, mock):
    pieces = [begins("f", "1"), begins("g", "2", 1), piece('{"a":', 0), piece("{}", 1), piece("1}", 0)]
    mock.now(streams(*pieces, chunk("tool_calls")))
    with client.responses.stream(model="escultor", input="hi", tools=[TOOL]) as stream:
        deltas = [each for each in stream if each.type == "response.function_call_arguments.delta"]
        final = stream.get_final_response()
    assert [item.arguments for item in final.output] == ['{"a":1}', "{}"]
    assert [each.output_index for each in deltas] == [0, 1, 0]


def test_structured_output(client, mock):
    mock.now(message(content='{"a": 1}'))
    schema = {"type": "json_schema", "name": "thing", "schema": {"type": "object"}}
    ask(client, text={"format": schema}, reasoning={"effort": "low"})
    body = mock.asked[0].body
    assert body["response_format"]["json_schema"] == {"name": "thing", "schema": {"type": "object"}}
    assert body["reasoning_effort"] == "low"


def test_an_answer_at_its_limit_is_incomplete(client, mock):
    mock.now(message("length", content="The"))
    answer = ask(client)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": []},
        {"input": [{"type": "item_reference", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_audio"}]}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": [TOOL, TOOL]},
        {"tools": [TOOL], "tool_choice": {"type": "web_search"}},
        {"tools": [{"type": "namespace", "name": "n", "tools": [{"type": "web_search"}]}]},
        {"tools": [{"type": "namespace", "tools": 5}]},
        {"tools": [{"type": 5}]},
    ],
)
def test_what_cannot_be_asked_is_refused(wrong):
    with pytest.raises(ApiError):
        chat_body({"model": "m", "input": "hi", **wrong})


def test_parameters_without_effect_are_named():
    _, ignored = chat_body({"model": "m", "input": "hi", "background": True, "truncation": "disabled"})
    assert ignored == ("background",)


def test_a_stream_keeps_the_order_in_which_items_came(client, mock):
    pieces = [begins("f", "1", 0, "{}"), choice("text"), chunk(reasoning_content="hmm")]
    mock.now(streams(*pieces, chunk("tool_calls")))
    with client.responses.stream(model="escultor", input="hi", tools=[TOOL]) as stream:
        events = list(stream)
        final = stream.get_final_response()
    added = [each.item.type for each in events if each.type == "response.output_item.added"]
    done = [each.item.type for each in events if each.type == "response.output_item.done"]
    assert added == done == [item.type for item in final.output] == ["function_call", "message", "reasoning"]


def test_the_old_form_of_a_call_is_an_item(client, mock):
    mock.now(streams(chunk(function_call={"name": "f", "arguments": "{}"}), chunk("function_call")))
    with client.responses.stream(model="escultor", input="hi") as stream:
        (item,) = stream.get_final_response().output
    assert (item.type, item.name, item.arguments) == ("function_call", "f", "{}")


@pytest.mark.parametrize(
    "more",
    [{"tools": 5}, {"metadata": 5}, {"input": [{"type": "reasoning", "summary": 5}]}],
)
def test_what_is_no_list_and_no_object_is_refused(more):
    with pytest.raises(ApiError) as refused:
        parse_forwarded_chat(chat_body({"model": "m", "input": "hi", **more}, parent="p")[0], Serve())
    assert refused.value.status == 400


AGENTS_TOOLS = [
    TOOL,
    {"type": "namespace", "name": "agents", "description": "d", "tools": [{**TOOL, "name": "spawn"}]},
    {"type": "custom", "name": "patch", "description": "Edits.", "format": {"type": "text"}},
    {"type": "web_search"},
]


def test_tools_in_namespaces_and_of_free_text_are_functions_of_the_chat(client, mock):
    spawn = {"id": "1", "type": "function", "function": {"name": "agents__spawn", "arguments": "{}"}}
    patch = {"id": "2", "type": "function", "function": {"name": "patch", "arguments": '{"input":"+a"}'}}
    mock.now(message("tool_calls", content=None, tool_calls=[spawn, patch]))
    raw = client.responses.with_raw_response.create(model="escultor", input="hi", tools=AGENTS_TOOLS)
    assert raw.headers["x-escultor-ignored"] == "tools.3 (web_search)"
    called, patched = raw.parse().output
    assert (called.type, called.name, called.namespace) == ("function_call", "spawn", "agents")
    assert (patched.type, patched.name, patched.input) == ("custom_tool_call", "patch", "+a")
    offered = [each["function"]["name"] for each in mock.asked[0].body["tools"]]
    assert offered == ["f", "agents__spawn", "patch"]
    results = [
        {"type": "function_call_output", "call_id": "1", "output": "x"},
        {"type": "custom_tool_call_output", "call_id": "2", "output": "y"},
    ]
    again = [item.model_dump(exclude_none=True) for item in (called, patched)]
    ask(client, input=[{"role": "user", "content": "hi"}, *again, *results], tools=AGENTS_TOOLS)
    _, turn, *said = mock.asked[1].body["messages"]
    assert [each["function"]["name"] for each in turn["tool_calls"]] == ["agents__spawn", "patch"]
    assert turn["tool_calls"][1]["function"]["arguments"] == '{"input": "+a"}'
    assert [each["tool_call_id"] for each in said] == ["1", "2"]


def test_a_call_of_free_text_is_streamed_as_one(client, mock):
    mock.now(streams(begins("patch", "1"), piece('{"input":'), piece('"+a"}'), chunk("tool_calls")))
    with client.responses.stream(model="escultor", input="hi", tools=AGENTS_TOOLS) as stream:
        kinds = [each.type for each in stream]
        (item,) = stream.get_final_response().output
    assert (item.type, item.input) == ("custom_tool_call", "+a")
    assert kinds.count("response.custom_tool_call_input.done") == 1
    assert "response.function_call_arguments.delta" not in kinds


def test_the_tools_that_are_allowed_are_those_that_are_offered():
    choice = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "custom", "name": "patch"}]}
    chat, _ = chat_body({"model": "m", "input": "hi", "tools": AGENTS_TOOLS, "tool_choice": choice})
    assert [each["function"]["name"] for each in chat["tools"]] == ["patch"]
    assert chat["tool_choice"] == "required"
    named = {"type": "function", "name": "spawn", "namespace": "agents"}
    chat, _ = chat_body({"model": "m", "input": "hi", "tools": AGENTS_TOOLS, "tool_choice": named})
    assert chat["tool_choice"]["function"]["name"] == "agents__spawn"


def test_what_a_model_writes_for_free_text_without_json_is_the_text(client, mock):
    patch = {"id": "2", "type": "function", "function": {"name": "patch", "arguments": "*** Begin"}}
    mock.now(message("tool_calls", content=None, tool_calls=[patch]))
    (item,) = ask(client, tools=AGENTS_TOOLS).output
    assert item.input == "*** Begin"

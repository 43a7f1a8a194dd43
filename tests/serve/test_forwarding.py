"""In front of an upstream the gateway sends on what the client gave, and gives back what came."""

import json

import httpx2
import openai
import pytest
from forwarding_side import (
    ASK,
    CALL,
    PATH,
    TOOLS,
    begins,
    chunk,
    events,
    forwarding,
    message,
    piece,
    post,
    row_of,
)
from mock_upstream import USAGE, answers, choice, completion, disconnects, serves, streams

from escultor.serve import auth
from escultor.serve.gateway import routes
from escultor.serve.gateway.request_metadata import TASK_PREFIXES
from escultor.types import Consent, Feedback, Rating, Role, Scope, ToolCall, ToolDefinitions

GIVEN = {
    "frequency_penalty": 0.5,
    "logit_bias": {"5": -100},
    "num_ctx": 8192,
    "chat_template_kwargs": {"enable_thinking": False},
    "tools": TOOLS,
    "tool_choice": "auto",
    "temperature": 2.5,
    "metadata": {"a": 1, "escultor_skill": "support"},
}


def test_an_upstream_gets_what_the_client_gave_and_nothing_else(side, mock):
    mock.now(serves())
    answer = post(side, GIVEN)
    assert answer.status_code == 200
    (asked,) = mock.asked
    assert asked.body == {"messages": [ASK], **GIVEN, "metadata": {"a": 1}, "model": "m"}
    row = row_of(side, answer)
    assert row.skill == "support"
    expected = {name: value for name, value in GIVEN.items() if name not in ("tools", "metadata")}
    assert json.loads(row.parameters) == {**expected, "metadata": {"a": 1}}
    tools = side.log.get(ToolDefinitions, row.tools)
    assert tools is not None
    assert json.loads(tools.text) == TOOLS
    post(side, {"stream": True})
    assert mock.asked[-1].body == {
        "messages": [ASK],
        "model": "m",
        "stream": True,
        "stream_options": {"include_usage": True},  # the log counts tokens
    }


CONVERSATION = [
    {"role": "developer", "content": "Be brief."},
    {
        "role": "user",
        "content": [{"type": "text", "text": "hi "}, {"type": "image_url", "image_url": {"url": "x"}}],
    },
    {"role": "assistant", "content": None, "tool_calls": [CALL], "reasoning_content": "hmm"},
    {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    {"role": "assistant", "content": "42.", "annotations": [], "cache_control": {"type": "ephemeral"}},
    {"role": "user", "name": "maria", "content": "again"},
]


def test_messages_go_through_verbatim_and_are_read_for_the_log(side, mock):
    mock.now(serves())
    row = row_of(side, post(side, {"messages": CONVERSATION}))
    assert mock.asked[0].body["messages"] == CONVERSATION
    developer, user, called, result, _, again = row.messages
    assert developer.role is Role.DEVELOPER
    assert (user.content, json.loads(user.parts)) == ("hi ", CONVERSATION[1]["content"])
    assert (called.tool_calls, called.reasoning) == ((ToolCall("call_1", "f", '{"a":1}'),), "hmm")
    assert (result.role, result.tool_call_id, result.content) == (Role.TOOL, "call_1", "42")
    assert again.name == "maria"


def test_calls_of_tools_come_back_and_are_logged(side, mock):
    mock.now(message("tool_calls", content=None, tool_calls=[CALL]))
    answer = post(side, {"tools": TOOLS})
    (found,) = answer.json()["choices"]
    assert (found["finish_reason"], found["message"]["content"]) == ("tool_calls", None)
    assert found["message"]["tool_calls"] == [CALL]
    row = row_of(side, answer)
    assert (row.finish_reason, row.answer, row.tool_calls) == (
        "tool_calls",
        "",
        (ToolCall("call_1", "f", '{"a":1}'),),
    )


@pytest.mark.parametrize(("given", "text"), [({"a": 1}, '{"a": 1}'), (None, "")])
def test_arguments_that_are_no_text_become_one(side, mock, given, text):
    call = {**CALL, "function": {"name": "f", "arguments": given}}
    mock.now(message(content=None, tool_calls=[call]), streams(begins("f", "1", 0, given), chunk("stop")))
    whole, streamed = (post(side, {"tools": TOOLS, "stream": stream}) for stream in (False, True))
    (delta,) = (c["delta"] for e in events(streamed) for c in e["choices"] if "tool_calls" in c["delta"])
    for said in (whole.json()["choices"][0]["message"], delta):
        assert said["tool_calls"][0]["function"] == {"name": "f", "arguments": text}


STREAMED_CALLS = [
    ([begins("f", "1"), *(piece(c) for c in '{"a":1}')], [("1", "f", '{"a":1}')]),
    (
        [begins("f", "1"), begins("g", "2", 1), piece("{", 1), piece("{", 0), piece("}", 0), piece("}", 1)],
        [("1", "f", "{}"), ("2", "g", "{}")],
    ),
    (  # every call has the index 0
        [begins("f", "1", 0, "{}"), begins("g", "2", 0, "{}")],
        [("1", "f", "{}"), ("2", "g", "{}")],
    ),
    ([begins("f", "1"), begins("f", "1", 0, "{}")], [("1", "f", "{}")]),  # an id that is repeated
    ([begins("f", None, 0, "{}")], [("", "f", "{}")]),
    (  # no ids, and every call has the index 0
        [begins("f", None, 0, "{}"), begins("f", "", 0, "{}")],
        [("", "f", "{}"), ("", "f", "{}")],
    ),
    (  # no index; a name that is empty in later pieces
        [begins("f", "1", None, '{"a":'), begins("", None, None, "1}"), begins("g", "2", None, "{}")],
        [("1", "f", '{"a":1}'), ("2", "g", "{}")],
    ),
    ([begins("f", "1", 0, '{"a": ')], [("1", "f", '{"a": ')]),  # cut by max_tokens
]


@pytest.mark.parametrize(("pieces", "calls"), STREAMED_CALLS)
def test_streamed_calls_are_passed_on_and_put_together(side, mock, pieces, calls):
    mock.now(streams(*pieces, chunk("tool_calls")))
    answer = post(side, {"stream": True, "tools": TOOLS})
    deltas = [e["choices"][0]["delta"] for e in events(answer) if e["choices"]]
    sent = [each["choices"][0]["delta"]["tool_calls"][0] for each in pieces]
    passed = [call for delta in deltas for call in delta.get("tool_calls", ())]
    assert [each | {"index": 0} for each in passed] == [each | {"index": 0} for each in sent]
    put_together = [""] * len(calls)
    for each in passed:
        put_together[each["index"]] += each["function"]["arguments"]
    assert put_together == [arguments for _, _, arguments in calls]
    row = row_of(side, answer)
    assert [(call.id, call.name, call.arguments) for call in row.tool_calls] == calls
    assert row.finish_reason == "tool_calls"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
def test_reasoning_is_passed_on_and_kept_apart_from_the_answer(side, mock, name):
    thoughts = [chunk(**{name: "The "}), chunk(**{name: "capital"})]
    mock.now(streams(*thoughts, choice("Paris."), choice("", "stop")))
    answer = post(side, {"stream": True})
    deltas = [e["choices"][0]["delta"] for e in events(answer) if e["choices"]]
    assert "".join(delta.get(name, "") for delta in deltas) == "The capital"
    row = row_of(side, answer)
    assert (row.answer, row.reasoning) == ("Paris.", "The capital")
    mock.now(message(content="Paris.", **{name: "The capital"}))
    whole = post(side, {})
    assert whole.json()["choices"][0]["message"][name] == "The capital"
    assert row_of(side, whole).reasoning == "The capital"


FINISHES = [
    ("eos_token", "stop"),
    ("STOP", "stop"),
    ("end_turn", "stop"),
    ("MAX_TOKENS", "length"),
    ("content_filter", "content_filter"),
    ("SAFETY", "content_filter"),
    ("tool_use", "tool_calls"),
    ("whatever", "stop"),
]


@pytest.mark.parametrize(("said", "reason"), FINISHES)
def test_the_finish_reasons_of_every_server_arrive_as_openais(side, mock, said, reason):
    mock.now(answers(completion("hi", finish=said)))
    answer = post(side, {})
    assert answer.json()["choices"][0]["finish_reason"] == reason
    assert row_of(side, answer).finish_reason == reason


QUIRKS = {
    "an empty event": ["", choice("Hello", "stop")],
    "an event without choices": [{"type": "ping"}, choice("Hello", "stop")],
    "choices of null": [choice("Hello", "stop"), {"choices": None, "usage": USAGE}],
    "a delta of null": [{"choices": [{"index": 0, "delta": None}]}, choice("Hello", "stop")],
    "an empty finish reason": [choice("Hello", ""), choice("", "stop")],
    "a finish that comes twice": [choice("Hello"), choice("", "stop"), choice("", "stop")],
    "text with the finish": [choice("Hel"), choice("lo", "stop")],
    "text behind the finish": [choice("Hel"), choice("", "stop"), choice("lo")],
    "content in parts": [chunk(content=[{"type": "text", "text": "Hello"}]), choice("", "stop")],
    "an empty list of calls": [chunk(content="Hello", tool_calls=[]), choice("", "stop")],
    "filter results": [{"choices": [], "prompt_filter_results": []}, choice("Hello", "stop")],
    "counts that go on": [choice("Hello"), {"usage": {**USAGE, "completion_tokens": 1}}, choice("", "stop")],
}


@pytest.mark.parametrize("quirk", QUIRKS.values(), ids=QUIRKS)
def test_harmless_quirks_harm_nobody(side, mock, quirk):
    mock.now(streams(*quirk))
    answer = post(side, {"stream": True})
    deltas = [e["choices"][0]["delta"] for e in events(answer) if e["choices"]]
    assert "".join(delta.get("content") or "" for delta in deltas) == "Hello"
    assert answer.text.endswith("data: [DONE]\n\n")
    row = row_of(side, answer)
    assert (row.answer, row.finish_reason) == ("Hello", "stop")


def test_usage_details_come_back_and_are_kept(side, mock):
    usage = {**USAGE, "completion_tokens_details": {"reasoning_tokens": 2}}
    mock.now(answers(completion("hi", usage)))
    answer = post(side, {})
    assert answer.json()["usage"] == usage
    row = row_of(side, answer)
    assert json.loads(row.usage_details) == usage
    assert row.usage.prompt_tokens == USAGE["prompt_tokens"]


REFUSALS = [
    (429, {"Retry-After": "45"}, 1),
    (429, {"retry-after-ms": "1500"}, 1),
    (400, {}, 1),
    (404, {}, 1),
    (503, {}, 3),
    (500, {}, 1),
]
# What the upstream does, and how often one call of a client may ask it.
FAULTS = [(disconnects, 3), (answers(b'{"choices": 3}'), 1), (answers(b'{"choices": []}'), 1)]


@pytest.mark.parametrize(("plan", "times"), FAULTS, ids=["disconnects", "malformed", "nothing"])
def test_a_client_does_not_repeat_what_was_repeated_here_or_does_not_help(side, mock, plan, times):
    mock.now(plan)
    client = openai.OpenAI(base_url=f"{side.url}/v1", api_key="none", max_retries=2)
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(model="escultor", messages=[ASK])
    assert len(mock.asked) == times


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("pieces", "answer", "reasoning"),
    [
        (("<thi", "nk>\nlet me", " see\n</think>", "\n\nParis."), "Paris.", "let me see"),
        (("<think>", "\n\n</think>\n\n", "Paris."), "Paris.", ""),
        (("<think>let me", " see"), "", "let me see"),  # cut
        (("Write <think>", " and </think>."), "Write <think> and </think>.", ""),
    ],
    ids=["both", "none", "cut", "about the tags"],
)
def test_reasoning_within_the_text_of_an_upstream_is_delivered_as_it_came_and_logged_apart(
    side, mock, pieces, answer, reasoning, streamed
):
    said = [chunk(content=each) for each in pieces]
    mock.now(streams(*said, chunk("stop")) if streamed else answers(completion("".join(pieces))))
    got = post(side, {"stream": streamed})
    if streamed:
        delivered = "".join(c["delta"].get("content") or "" for e in events(got) for c in e["choices"])
    else:
        delivered = got.json()["choices"][0]["message"]["content"]
    assert delivered == "".join(pieces)
    row = row_of(side, got)
    assert (row.answer, row.reasoning) == (answer, reasoning)


@pytest.mark.parametrize(("status", "headers", "times"), REFUSALS)
def test_statuses_stay_what_they_are_and_a_call_is_repeated_only_where_that_helps(
    side, mock, status, headers, times
):
    said = {"error": {"message": "too long", "code": "context_length_exceeded"}}
    mock.now(answers(json.dumps(said).encode(), headers, status))
    client = openai.OpenAI(base_url=f"{side.url}/v1", api_key="none", max_retries=0 if status == 429 else 2)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="escultor", messages=[ASK])
    assert caught.value.status_code == status
    assert caught.value.code == "context_length_exceeded"
    for name, value in headers.items():
        assert caught.value.response.headers[name] == value
    assert len(mock.asked) == times


def test_a_key_of_ours_that_the_upstream_refuses_is_not_taken_for_the_clients(side, mock):
    mock.now(answers(b"{}", None, 401))
    assert post(side, {}).status_code == 502


def test_several_answers_are_asked_for_one_by_one_with_their_own_seeds(side, mock):
    mock.now(serves())
    assert len(post(side, {"n": 2, "seed": 5}).json()["choices"]) == 2
    assert sorted(asked.body["seed"] for asked in mock.asked) == [5, 6]
    assert all("n" not in asked.body for asked in mock.asked)


INVALID = [
    ({"messages": []}, "messages"),
    ({"messages": ["hi"]}, "messages"),
    ({"messages": [{"content": "hi"}]}, "messages"),
    ({"messages": None}, "messages"),
    ({"model": 3}, "model"),
    ({"n": 0}, "n"),
    ({"n": 1000}, "n"),
    ({"stream": "yes"}, "stream"),
]


@pytest.mark.parametrize(("body", "param"), INVALID)
def test_what_the_gateway_itself_reads_is_checked(side, mock, body, param):
    mock.now(serves())
    answer = post(side, body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert not mock.asked


def test_what_an_application_asks_for_itself_is_not_trained_on(side, mock):
    mock.now(serves())
    told = row_of(side, post(side, {}, {"x-escultor-task": "title_generation"}))
    assert (told.task, told.consent) == ("title_generation", Consent.NONE)
    for prefix in TASK_PREFIXES:
        prompt = [{"role": "user", "content": f"{prefix} and so on"}]
        assert row_of(side, post(side, {"messages": prompt})).consent == Consent.NONE
    plain = row_of(side, post(side, {}, {"x-escultor-task": "", "x-escultor-skill": ""}))
    assert (plain.task, plain.consent, plain.skill) == ("", Consent.TRAIN, "chat")


def test_feedback_finds_its_answer_by_the_applications_own_id(side, mock):
    mock.now(serves())
    answer = post(side, {}, {"x-escultor-message": "4f6c-1"})
    row = row_of(side, answer)
    post(side, {}, {"x-escultor-message": "4f6c-1", "x-escultor-task": "title"})  # of the same answer
    assert row.message == "4f6c-1"
    thumb = {"kind": "boolean", "target": "4f6c-1", "value": True}
    told = httpx2.post(side.url + "/v1/feedback", json=thumb, timeout=120)
    assert told.status_code == 202, told.text
    ((_, event),) = side.log.read(Feedback, target=row.id)
    assert isinstance(event, Rating)
    page = httpx2.get(f"{side.url}/v1/feedback?target=4f6c-1", timeout=120)
    assert page.json()["live_count"] == 1


HALVES = [
    chunk(reasoning_content="a\ud83d"),
    chunk(tool_calls=[{"function": {"name": "f", "arguments": "\udc00"}}]),
]
ODD = [  # what a server may send: none of it is a fault of ours
    [chunk(tool_calls=[{"index": 0, "function": 5}, "x", {"custom": [1]}])],
    [chunk(tool_calls="x", function_call={"name": 1}, thinking={"a": 1})],
    [{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": [1]}}],
    [{"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1, "x": "\ud800"}}],
    HALVES,
]
DIALECTS = {PATH: "messages", "/v1/messages": "messages", "/v1/responses": "input"}


@pytest.mark.parametrize("path", DIALECTS)
@pytest.mark.parametrize("pieces", ODD)
def test_odd_pieces_of_a_stream_harm_nobody(side, mock, path, pieces):
    for is_streamed in (True, False):
        mock.now(streams(choice("hi"), *pieces, choice("", "stop")))
        body = {"model": "escultor", "max_tokens": 5, DIALECTS[path]: [ASK], "stream": is_streamed}
        answer = httpx2.post(side.url + path, json=body, timeout=120)
        assert (answer.status_code, "hi" in answer.text, "unforeseen" in answer.text) == (200, True, False)
        assert "error" not in {event.get("type") for event in events(answer)}


@pytest.mark.parametrize("number", ["1e999", "-1e400", "1" + 250 * "0" + "e99"])
def test_numbers_that_are_none_go_neither_on_nor_back(side, mock, number):
    mock.now(serves())
    body = f'{{"model": "escultor", "messages": [{json.dumps(ASK)}], "num_ctx": {number}}}'
    headers = {"Content-Type": "application/json"}
    refused = httpx2.post(side.url + PATH, content=body, headers=headers, timeout=120)
    assert (refused.status_code, mock.asked) == (400, [])
    reply = f'{{"choices": [{{"message": {{"content": "a", "x": {number}}}, "finish_reason": "stop"}}]}}'
    mock.now(answers(reply.encode()))
    assert post(side, {}).status_code == 502


def test_feedback_by_an_applications_id_stays_within_its_key(mock, tmp_path):
    mock.now(serves())
    with forwarding(tmp_path, mock) as side:
        keys = []
        for name in ("one", "two"):
            key, made = auth.create(name, [Scope.INFER, Scope.FEEDBACK])
            keys.append({"X-API-Key": key})
            side.log.append(made)
        side.until(lambda: len(side.gateway.keys.keys) == 2)
        rows = [row_of(side, post(side, {}, {**key, "x-escultor-message": "1"})) for key in keys]
        thumb = {"kind": "boolean", "target": "1", "value": True}
        assert httpx2.post(side.url + "/v1/feedback", json=thumb, headers=keys[0], timeout=120).is_success
        counts = [len(list(side.log.read(Feedback, target=row.id))) for row in rows]
        assert counts == [1, 0]


def test_a_template_that_nobody_filled_in_is_no_header(side, mock):
    mock.now(serves())
    answer = post(side, {}, {"x-escultor-message": "{{MESSAGE_ID}}", "x-escultor-subject": "{{USER_ID}}"})
    assert answer.headers["x-escultor-ignored"] == "x-escultor-message, x-escultor-subject"
    assert row_of(side, answer).message == ""


def test_a_quiet_stream_is_kept_alive(side, mock, monkeypatch):
    monkeypatch.setattr(routes, "KEEP_ALIVE_S", 0.02)
    mock.now(streams(choice("The "), choice("cat", "stop"), pause_s=0.2))
    answer = post(side, {"stream": True})
    assert ": keep-alive\n\n" in answer.text
    assert row_of(side, answer).answer == "The cat"


def test_strict_refuses_what_is_not_implemented(mock, tmp_path):
    mock.now(serves())
    with forwarding(tmp_path, mock, strict=True) as side:
        answer = post(side, {"num_ctx": 8192})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "num_ctx")
        assert post(side, {}).status_code == 200
        assert mock.asked[0].body["max_tokens"] == 256
        result = {"role": "tool", "tool_call_id": "1", "content": "42"}
        called = {"role": "assistant", "content": "", "tool_calls": [CALL]}
        talk = [{"role": "user", "content": "hi"}, called, result]
        tools = [{"type": "function", "function": {"name": "f"}}]
        assert post(side, {"messages": talk, "tools": tools, "reasoning_effort": "low"}).status_code == 200
        sent = mock.asked[-1].body
        assert (sent["messages"], sent["tools"], sent["reasoning_effort"]) == (talk, tools, "low")


def test_what_a_server_adds_to_its_reply_is_passed_on_and_kept(side, mock):
    added = {"citations": ["http://a"], "search_results": [{"title": "A"}], "provider": "P"}
    said = {"role": "assistant", "content": "hi", "annotations": [{"type": "url_citation"}], "refusal": "no"}
    whole = {"id": "x", "model": "theirs", **added, "usage": USAGE}
    whole["choices"] = [{"index": 0, "message": said, "finish_reason": "stop"}]
    mock.now(answers(json.dumps(whole).encode()))
    answer = post(side, {})
    assert added.items() <= answer.json().items()
    assert (answer.json()["model"], answer.json()["id"] != "x") == ("m", True)
    expected = {**added, "message": {"annotations": [{"type": "url_citation"}], "refusal": "no"}}
    assert json.loads(row_of(side, answer).extras) == expected
    mock.now(streams({**chunk(content="hi"), "citations": ["http://a"]}, {**chunk("stop"), "provider": "P"}))
    streamed = post(side, {"stream": True})
    assert {"citations": ["http://a"], "provider": "P"}.items() <= events(streamed)[-1].items()
    assert json.loads(row_of(side, streamed).extras) == {"citations": ["http://a"], "provider": "P"}

"""The requests an upstream gets, and the events its replies become."""

import asyncio
import json
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mock_upstream import PIECES, USAGE, MockUpstream, answers, choice, completion, serves, streams
from upstream_requests import CHAT, TEXT, all_events, end_of, engine, events, scored_of, text_of

from escultor.config import Upstream
from escultor.errors import ConfigError, InputError, UpstreamFault
from escultor.serve.engines.upstream.engine import open_upstream
from escultor.serve.engines.upstream.replies import SseParser
from escultor.types import Message, Role, Usage

WHOLE = replace(CHAT, streamed=False)


@pytest.mark.parametrize("ask", [CHAT, WHOLE], ids=["streamed", "in one piece"])
def test_an_answer_comes_with_its_end_and_the_usage_that_the_upstream_counted(ask):
    with MockUpstream(serves()) as mock:
        found = all_events(mock, ask)
    assert text_of(found) == "".join(PIECES)
    assert end_of(found).finish_reason == "stop"
    assert end_of(found).usage == Usage(USAGE["prompt_tokens"], USAGE["completion_tokens"])
    assert end_of(found).compute_s == 0


def test_every_parameter_of_a_request_reaches_the_upstream():
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    with MockUpstream(serves(), serves(), streams({"choices": []}, choice("{}", "stop"))) as mock:
        all_events(mock, replace(WHOLE, stop=("\n", "END")))
        all_events(mock, CHAT)
        all_events(mock, replace(CHAT, schema={}))
        all_events(mock, replace(CHAT, schema=schema))
        bodies = [request.body for request in mock.asked]
        assert {request.path for request in mock.asked} == {"/v1/chat/completions"}
    sampling = {"temperature": 0.5, "top_p": 0.9, "max_tokens": 16, "seed": 7, "model": "tiny"}
    assert all(sampling.items() <= body.items() for body in bodies)
    assert bodies[0]["messages"] == [{"role": "user", "content": "Where is the cat?"}]
    assert bodies[0]["stop"] == ["\n", "END"]
    assert "stream" not in bodies[0]
    assert bodies[1]["stream"] is True
    assert bodies[1]["stream_options"] == {"include_usage": True}
    assert "response_format" not in bodies[1]
    assert bodies[2]["response_format"] == {"type": "json_object"}
    assert bodies[3]["response_format"]["json_schema"]["schema"] == schema


def test_a_large_request_reaches_the_upstream_whole():
    told = "é" * (3 << 19)  # 3 MiB
    with MockUpstream(serves()) as mock:
        all_events(mock, replace(WHOLE, prompt=(Message(Role.USER, told),)))
        assert mock.asked[0].body["messages"][0]["content"] == told


def test_usage_is_estimated_and_marked_where_the_upstream_gives_none():
    for usage in (None, {}, {"prompt_tokens": -1, "completion_tokens": 2}, "many"):
        with MockUpstream(answers(completion("four", usage))) as mock:
            found = end_of(all_events(mock, WHOLE)).usage
        assert found == Usage(5, 1, estimated=True)  # 17 and 4 bytes
    with MockUpstream(streams(choice("four", "stop"))) as mock:
        assert end_of(all_events(mock)).usage.estimated


def test_logprobs_of_a_chat_come_with_their_bytes_and_alternatives():
    top = [{"token": "cat", "logprob": -0.5, "bytes": None}, {"token": "�", "logprob": -1.5, "bytes": [240]}]
    said = {"content": [{"token": "cat", "logprob": -0.5, "bytes": [99, 97, 116], "top_logprobs": top}]}
    with MockUpstream(streams(choice("cat", "stop", logprobs=said))) as mock:
        delta, _ = all_events(mock, replace(CHAT, top_logprobs=2))
        assert mock.asked[0].body["logprobs"] is True
        assert mock.asked[0].body["top_logprobs"] == 2
    (token,) = delta.logprobs
    assert (token.text, token.bytes, token.logprob) == ("cat", b"cat", -0.5)
    assert token.top == (("cat", b"cat", -0.5), ("�", b"\xf0", -1.5))


@pytest.mark.parametrize("usage", [{"prompt_tokens": 2, "completion_tokens": 1}, None])
@pytest.mark.parametrize("prompt", ["The cat ", (11, 12)])
def test_a_scored_prompt_comes_first_and_apart_from_its_answer(prompt, usage):
    logprobs = {
        "tokens": ["The ", "cat ", "sings"],
        "token_logprobs": [None, -1.0, -2.0],
        "top_logprobs": [None, {"dog ": -3.0, "cat ": -1.0}, {"sings": -2.0}],
        "text_offset": [0, 4, 8],
    }
    said = {"text": "The cat sings", "logprobs": logprobs, "finish_reason": "length"}
    body = json.dumps({"choices": [said], "usage": usage}).encode()
    with MockUpstream(answers(body)) as mock:
        found = all_events(mock, replace(TEXT, prompt=prompt, echo=True, top_logprobs=2))
        sent = mock.asked[0]
    assert sent.path == "/v1/completions"
    assert sent.body["prompt"] == (prompt if isinstance(prompt, str) else list(prompt))
    assert (sent.body["echo"], sent.body["logprobs"]) == (True, 2)
    scored = scored_of(found)
    assert scored.text == "The cat "
    assert [token.logprob for token in scored.logprobs] == [None, -1.0]
    assert scored.logprobs[1].top == (("cat ", b"cat ", -1.0), ("dog ", b"dog ", -3.0))
    assert text_of(found) == "sings"


def test_what_an_upstream_cannot_do_is_refused_before_anything_is_said():
    text = json.dumps({"choices": [{"text": "sings", "finish_reason": "stop"}]}).encode()
    with MockUpstream(answers(text)) as mock, pytest.raises(InputError, match="echo"):
        all_events(mock, replace(TEXT, echo=True, top_logprobs=0))
    with MockUpstream(serves()) as mock:
        with pytest.raises(InputError, match="gives none"):
            all_events(mock, replace(CHAT, top_logprobs=0))
        with pytest.raises(InputError, match="cannot be scored"):
            all_events(mock, replace(CHAT, echo=True))
        with pytest.raises(InputError, match="empty"):
            all_events(mock, replace(CHAT, prompt=()))


def test_an_answer_that_was_to_be_json_and_is_none_is_a_fault():
    with MockUpstream(
        answers(completion("Sure! {}")), answers(completion('{"a": 1', finish="length"))
    ) as mock:
        with pytest.raises(UpstreamFault, match="response_format"):
            all_events(mock, replace(WHOLE, schema={}))
        assert end_of(all_events(mock, replace(WHOLE, schema={}))).finish_reason == "length"


def test_halves_of_a_character_that_come_apart_are_joined():
    pieces = (
        '{"choices":[{"delta":{"content":"a\\ud83d"}}]}',
        '{"choices":[{"delta":{"content":"\\ude00b"}}]}',
    )
    lone = '{"choices":[{"delta":{"content":"\\ud83d"},"finish_reason":"stop"}]}'
    with MockUpstream(streams(*pieces, choice("", "stop")), streams(pieces[0], lone)) as mock:
        deltas = [event.text for event in all_events(mock)[:-1]]
        assert deltas == ["a", "😀b"]
        assert all(event.text.isprintable() for event in all_events(mock)[:-1])


def test_connections_are_used_again_and_no_more_than_allowed_are_open():
    async def run(mock):
        upstream = engine(mock, max_connections=3)
        for _ in range(2):
            await asyncio.gather(*(events(upstream, ask) for ask in (CHAT, WHOLE) * 6))
        await upstream.close()

    with MockUpstream(serves()) as mock:
        asyncio.run(run(mock))
        assert len(mock.asked) == 24
        assert mock.connections <= 3


def test_the_key_is_read_from_the_environment_and_a_missing_one_is_refused():
    settings = Upstream(url="http://127.0.0.1:1/v1", model="m", key_env="UPSTREAM_KEY")
    for environ in ({}, {"UPSTREAM_KEY": " "}, {"UPSTREAM_KEY": "a\nb"}):
        with pytest.raises(ConfigError, match="UPSTREAM_KEY"):
            open_upstream(settings, environ)
    with MockUpstream(serves()) as mock:

        async def run():
            upstream = open_upstream(settings.model_copy(update={"url": mock.url}), {"UPSTREAM_KEY": "sk-1"})
            await events(upstream, CHAT)
            await upstream.close()

        asyncio.run(run())
        assert mock.asked[0].headers["authorization"] == "Bearer sk-1"


@pytest.mark.parametrize(
    "url", ["http://u:secret@host/v1", "http://host/v1?key=secret", "http://host/#secret"]
)
def test_a_url_that_holds_more_than_an_address_is_refused_without_repeating_it(url):
    with pytest.raises(ConfigError) as refused:
        open_upstream(Upstream(url=url, model="m"), {})
    assert "secret" not in str(refused.value)


LINES = st.lists(st.text(st.characters(exclude_characters="\r\n", codec="utf-8"), max_size=20), min_size=1)


@given(
    events=st.lists(LINES, max_size=5),
    cuts=st.lists(st.integers(0, 300)),
    ending=st.sampled_from(["\n", "\r\n"]),
)
def test_events_are_the_same_however_their_bytes_were_cut(events, cuts, ending):
    lines = "".join("".join(f"data: {line}{ending}" for line in event) + ending for event in events)
    data = (f": a comment{ending}{ending}event: x{ending}" + lines).encode()
    bounds = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    sse = SseParser()
    found = [event for a, b in pairwise(bounds) for event in sse.feed(data[a:b])]
    assert found == ["\n".join(event).encode() for event in events]

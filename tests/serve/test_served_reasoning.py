"""Reasoning on weights of one's own: apart from the answer in every dialect and in the row, and switched."""

import sys
from pathlib import Path

import httpx2
import pytest
from gateway_side import serving
from tiny import shape

from escultor.config import Serve
from escultor.model.decoding import DecodedToken
from escultor.model.load import init_llama
from escultor.model.loaded import Loaded
from escultor.serve.engines.generation_state import Detokenizer, QueueingEngine
from escultor.serve.protocol import Delta, End, GenerationRequest
from escultor.serve.wire.anthropic import chat_body
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import parse_chat
from escultor.types import Interaction, Message, Role, Sampling

sys.path.append(str(Path(__file__).parents[1] / "text"))
from chat_families import FAMILIES, qwen
from chat_templates import QWEN35_ANSWER, chatml

ASKED = (Message(Role.USER, "Hi"),)
GENERATION = "{{ '<think>\n\n</think>\n\n' if enable_thinking is false else '<think>\n' }}"
THOUGHT, SAID = "Let me think.", "Hello there."
MESSAGES = [{"role": "user", "content": "Hi"}]


def loaded_of(tokenizer):
    return Loaded(init_llama(shape(vocabulary=len(tokenizer)), tokenizer, len(tokenizer)), tokenizer)


class Scripted(QueueingEngine):
    """Says, by its model's template, an answer after its reasoning, or the answer alone where asked to."""

    version, problem = "v1", None

    def __init__(self, loaded):
        super().__init__(Detokenizer(loaded), 60)
        self.asks = []

    def check_capacity(self):
        pass

    def stream(self, request):
        self.asks.append(request)
        return self.generate(request, None)

    def submit(self, job):
        chat, row, asked = self.detokenizer.chat, job.state.row, job.state.request
        is_off = asked.reasoning == "none"
        reply = Message(Role.ASSISTANT, SAID, reasoning="" if is_off else THOUGHT)
        ids = chat.text(SAID) + chat.turn_end if is_off else chat.example(ASKED, reply).response
        for id in ids:
            row.count, row.finish = row.count + 1, "stop" if id in row.stops else None
            for event in job.state.add(DecodedToken(id)):
                job.events.put_nowait(event)

    async def close(self):
        pass


@pytest.fixture(scope="module")
def side(tmp_path_factory):
    tokenizer = qwen()
    tokenizer.chat_template = chatml(QWEN35_ANSWER, GENERATION)
    with serving(tmp_path_factory.mktemp("reasoning"), Scripted(loaded_of(tokenizer))) as running:
        yield running


def post(side, path, **body):
    answer = httpx2.post(side.url + path, json={"model": "escultor", **body}, timeout=120)
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
@pytest.mark.parametrize("streamed", [True, False])
def test_every_familys_reasoning_is_told_from_its_answer(family, streamed):
    detokenizer = Detokenizer(loaded_of(family.make()))
    for thought in ("", "Okay.") if family.thought else ("",):
        request = GenerationRequest(ASKED, Sampling(max_new_tokens=200), streamed=streamed)
        state = detokenizer.prepare(request)
        reply = Message(Role.ASSISTANT, "Fine.", reasoning=thought)
        events = []
        for id in detokenizer.chat.example(ASKED, reply).response:
            state.row.finish = "stop" if id in state.row.stops else None
            events += state.add(DecodedToken(id))
            if events and isinstance(events[-1], End):
                break
        deltas = [event for event in events if isinstance(event, Delta)]
        assert "".join(delta.text for delta in deltas).rstrip() == "Fine."
        assert "".join(delta.fields.get("reasoning_content", "") for delta in deltas) == thought
        assert events[-1].token_ids


def test_chat_completions_and_the_row(side):
    message = post(side, "/v1/chat/completions", messages=MESSAGES).json()
    choice = message["choices"][0]
    assert (choice["message"]["reasoning_content"], choice["message"]["content"]) == (THOUGHT, SAID)
    row = side.log.get(Interaction, message["id"])
    assert (row.reasoning, row.answer, row.finish_reason) == (THOUGHT, SAID, "stop")
    streamed = post(side, "/v1/chat/completions", messages=MESSAGES, stream=True).text
    assert '"reasoning_content":' in streamed
    assert "think>" not in streamed
    assert side.rows()[-1].reasoning == THOUGHT


def test_responses_and_messages(side):
    output = post(side, "/v1/responses", input="Hi").json()["output"]
    assert [item["type"] for item in output] == ["reasoning", "message"]
    assert output[0]["summary"][0]["text"] == THOUGHT
    assert "reasoning_summary_text.delta" in post(side, "/v1/responses", input="Hi", stream=True).text
    blocks = post(side, "/v1/messages", messages=MESSAGES, max_tokens=99).json()["content"]
    assert [(block["type"], block.get("thinking"), block.get("text")) for block in blocks] == [
        ("thinking", THOUGHT, None),
        ("text", None, SAID),
    ]
    streamed = post(side, "/v1/messages", messages=MESSAGES, max_tokens=99, stream=True).text
    assert "thinking_delta" in streamed


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES, "reasoning_effort": "none"}),
        ("/v1/chat/completions", {"messages": MESSAGES, "chat_template_kwargs": {"enable_thinking": False}}),
        ("/v1/responses", {"input": "Hi", "reasoning": {"effort": "none"}}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 99, "thinking": {"type": "disabled"}}),
    ],
)
def test_reasoning_is_switched_off_in_every_dialect(side, path, body):
    answer = post(side, path, **body)
    assert "thinking" not in answer.headers.get("x-escultor-ignored", "")
    row = side.rows()[-1]
    assert (row.answer, row.reasoning, row.token_ids) == (SAID, "", "")
    assert side.engine.asks[-1].reasoning == "none"


def test_a_budget_of_thinking_is_named_as_without_effect(side):
    thinking = {"type": "enabled", "budget_tokens": 1024}
    answer = post(side, "/v1/messages", messages=MESSAGES, max_tokens=2048, thinking=thinking)
    assert answer.headers["x-escultor-ignored"] == "thinking.budget_tokens"
    assert side.engine.asks[-1].reasoning == "auto"


def test_what_a_schema_constrains_is_asked_for_without_reasoning(side):
    detokenizer = side.engine.detokenizer
    request = GenerationRequest(ASKED, Sampling(), schema={"type": "object"}, reasoning="high")
    ids, _ = detokenizer.prompt_ids(request)
    assert detokenizer.chat.tokenizer.decode(ids).endswith("</think>\n\n")


def test_switches_are_checked():
    def reasoning(**more):
        return parse_chat({"model": "m", "messages": MESSAGES, **more}, Serve()).generations[0].reasoning

    assert [reasoning(reasoning_effort=effort) for effort in ("none", "high", None)] == ["none", "high", ""]
    assert reasoning(chat_template_kwargs={"thinking": True}) == "on"
    wrong = (
        {"reasoning_effort": "much"},
        {"chat_template_kwargs": {"tools": []}},
        {"chat_template_kwargs": {"thinking": True, "enable_thinking": False}},
        {"reasoning_effort": "low", "chat_template_kwargs": {"thinking": True}},
    )
    for each in wrong:
        with pytest.raises(ApiError):
            reasoning(**each)
    body = {"model": "m", "max_tokens": 1, "messages": MESSAGES, "thinking": {"type": "maybe"}}
    with pytest.raises(ApiError, match="thinking"):
        chat_body(body, is_forwarded=False)

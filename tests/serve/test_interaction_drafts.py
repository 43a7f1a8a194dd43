"""The row of an answer holds what was requested, the engine that was picked and what it produced."""

import time
from dataclasses import fields, replace

import pytest

from escultor.ids import hash_value
from escultor.serve.in_flight import InFlightCompletion, draft_interaction, machine_cost_usd, prompt_messages
from escultor.serve.protocol import Delta, End, GenerationRequest, ScoredPrompt
from escultor.types import Consent, Interaction, Lineage, Message, Relation, Role, Sampling, Usage

MESSAGES = (Message(Role.USER, "Which bird sings?"),)
SAMPLING = Sampling(0.7, 0.9, 32, 11)
REQUESTED = {
    "id": "chatcmpl-1",
    "subject": "s1",
    "version": "v7",
    "sampling": SAMPLING,
    "skill": "chat",
    "arm": "candidate",
    "propensity": 0.25,
    "lineage": Lineage("parent", Relation.REGENERATE),
    "consent": Consent.EVAL_ONLY,
    "retain_until": 9e9,
    "tenant": "key-1",
    "tools": "hash",
    "parameters": '{"user": "u"}',
    "message": "m1",
    "task": "title",
}
OUTCOME = {"time", "answer", "finish_reason", "usage", "latency_ms", "ttft_ms", "cost_usd"}
OUTCOME |= {"reasoning", "tool_calls", "usage_details", "token_ids", "extras"}


def completion(prompt=MESSAGES, **more):
    request = GenerationRequest(prompt, SAMPLING, **more)
    return InFlightCompletion(request, draft_interaction(prompt_messages(prompt), **REQUESTED))


def test_every_field_of_a_row_is_requested_computed_from_the_prompt_or_set_by_the_outcome():
    draft = completion().draft
    assert all(getattr(draft, name) == value for name, value in REQUESTED.items())
    assert (draft.messages, draft.prompt_hash) == (MESSAGES, hash_value(MESSAGES))
    assert {f.name for f in fields(Interaction)} == REQUESTED.keys() | OUTCOME | {"messages", "prompt_hash"}


def test_the_outcome_changes_no_field_of_the_request():
    under_way = completion()
    under_way.apply(Delta("the red one"))
    under_way.apply(End("stop", Usage(5, 3), 0.5))
    row = under_way.interaction("error", 100.0, {"v7": (1.0, 2.0)}, 0.1)
    assert (row.time, row.answer, row.finish_reason, row.usage) == (100.0, "the red one", "stop", Usage(5, 3))
    assert row.cost_usd == pytest.approx(0.011)
    assert 0 < row.ttft_ms <= row.latency_ms
    assert replace(row, **{name: getattr(under_way.draft, name) for name in OUTCOME}) == under_way.draft


def test_a_draft_is_interrupted_until_it_is_completed_and_an_aborted_answer_says_why():
    draft = draft_interaction(MESSAGES, id="a", subject="s1", version="v", sampling=SAMPLING)
    assert (draft.answer, draft.finish_reason, draft.arm, draft.propensity) == (
        "",
        "interrupted",
        "champion",
        1,
    )
    under_way = completion()
    under_way.apply(Delta("the "))
    time.sleep(0.001)
    row = under_way.interaction("cancelled", 100.0, {}, 3600.0)
    assert (row.answer, row.finish_reason, row.usage.estimated) == ("the ", "cancelled", True)
    assert row.cost_usd == pytest.approx(row.latency_ms / 1000)


def test_token_ids_are_kept_as_text_where_the_engine_decoded_them():
    under_way = completion((7, 9), echo=True)
    assert under_way.draft.messages[0].content == "token ids: 7 9"
    under_way.apply(ScoredPrompt("a b", ()))
    row = under_way.interaction("error", 1.0, {}, 0.0)
    assert row.messages == (Message(Role.USER, "a b"),)
    assert row.prompt_hash == hash_value(row.messages)


def test_an_hour_costs_its_price():
    assert machine_cost_usd(3600, 0.25) == 0.25
    assert machine_cost_usd(0, 0.25) == 0

"""Skills drawn from the log: metrics that fit what people said, items by clusters, held out from then on."""

import json
from dataclasses import replace

import pytest

from escultor.config import Evaluation
from escultor.cycle.skill_proposal import infer_schema, propose_from_examples, propose_skill, suite_lines
from escultor.datasets.held_out import load_guard
from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.serve.in_flight import draft_interaction
from escultor.skills.declaration import parse_skill
from escultor.skills.suite_files import skill_examples, skill_suite
from escultor.skills.suites import register
from escultor.types import Consent, Correction, Example, Message, Origin, Role, Sampling

SYSTEM = Message(Role.SYSTEM, "Sort it.")
QUESTIONS = [" ".join(hash_value([n, k])[:7] for k in range(6)) for n in range(60)]


def log(store, corrections, answers=None, skill="chat", **fields):
    for n, (question, correction) in enumerate(zip(QUESTIONS, corrections, strict=False)):
        id = f"chatcmpl-{skill}-{n}"
        asked = (SYSTEM, Message(Role.USER, question))
        row = draft_interaction(asked, id=id, subject="s", version="v", sampling=Sampling(), skill=skill)
        answer = answers[n] if answers else "other"
        store.log.append(replace(row, time=1.0 + n, answer=answer, finish_reason="stop", **fields))
        if correction is not None:
            store.log.append(Correction(f"f-{id}", 100.0 + n, id, "s", text=correction))


def made_suite(proposal, folder):
    (folder / proposal.declaration["suite"]).write_text(suite_lines(proposal.rows))
    return skill_suite(parse_skill(proposal.declaration, folder, "here"), Evaluation())


def test_labels_become_a_classification_and_its_items_are_held_out(store, tmp_path):
    log(store, [("billing", "technical")[n % 2] for n in range(len(QUESTIONS))])
    proposal = propose_skill(store, "support", items=30)
    assert proposal.declaration["primary"] == ["exact_match"]
    assert proposal.declaration["metrics"][1] == {"name": "is_label", "matches": "billing|technical"}
    assert proposal.declaration["instruction"] == SYSTEM.content
    assert proposal == propose_skill(store, "support", items=30)
    assert any("a verdict needs about" in note for note in proposal.notes)
    suite = made_suite(proposal, tmp_path)
    assert 1 < suite.record.items <= 30
    assert suite.items[0].prompt[0] == SYSTEM  # token for token what was served
    register(store, suite)
    item = Example("x", suite.items[0].prompt, "billing", Origin(("x",), "r"))
    assert load_guard(store).reasons([item]) != [None]


def test_prompts_that_share_a_template_are_drawn_once_each(store):
    asked = [
        f"Please summarise the yearly report of our department number {n} for the board" for n in range(20)
    ]
    for n, text in enumerate(asked):
        row = draft_interaction(
            (Message(Role.USER, text),), id=f"c-{n}", subject="s", version="v", sampling=Sampling()
        )
        store.log.append(replace(row, answer="x", finish_reason="stop"))
    assert len(propose_skill(store, "report", items=3).rows) <= 3
    drawn = propose_skill(store, "report", items=10).rows
    assert len({row["input"] for row in drawn}) == len(drawn)


def test_json_answers_become_a_schema_and_its_fields(store, tmp_path):
    texts = [
        json.dumps({"queue": ("a", "b")[n % 2], "score": n, "note": f"n{n}"}) for n in range(len(QUESTIONS))
    ]
    log(store, texts)
    proposal = propose_skill(store, "sorted", items=20)
    schema = proposal.declaration["output"]["json"]
    assert schema["properties"] == {
        "queue": {"enum": ["a", "b"]},
        "score": {"type": "integer"},
        "note": {"type": "string"},
    }
    assert proposal.declaration["primary"] == ["field_accuracy"]
    assert "queue_right" in made_suite(proposal, tmp_path).record.metrics


def test_without_corrections_preference_is_proposed(store, tmp_path):
    log(store, [None] * 20)
    proposal = propose_skill(store, "talk", items=20)
    assert proposal.declaration["primary"] == ["people_preference"]
    assert any("no reward model: 0 pairs" in note for note in proposal.notes)
    assert any("escultor rate" in note for note in proposal.notes)
    assert made_suite(proposal, tmp_path).record.items > 1


def test_only_what_may_be_used_is_drawn_and_own_calls_go_first(store):
    log(store, ["x"] * 30, consent=Consent.NONE)
    with pytest.raises(InputError, match="no prompt that may be used"):
        propose_skill(store, "own", items=5)
    log(store, ["x"] * 12, skill="own")
    assert any(note.startswith("12 different prompts") for note in propose_skill(store, "own", items=5).notes)


def test_own_examples_become_items_examples_and_metrics(tmp_path):
    rows = [
        Example(f"e{n}", (Message(Role.USER, question),), ("billing", "sales")[n % 2], Origin(("x",), "r"))
        for n, question in enumerate([*QUESTIONS, QUESTIONS[0]])
    ]
    made = propose_from_examples(rows, "support")
    assert (len(made.rows), len(made.examples)) == (30, 30)
    asked = [row["input"] for row in (*made.rows, *made.examples)]
    assert sorted(asked) == sorted(QUESTIONS)
    assert any("1 rows ask what another asks" in note for note in made.notes)
    assert made.declaration["metrics"] == ["exact_match", {"name": "is_label", "matches": "billing|sales"}]
    assert made.declaration["decoding"]["max_new_tokens"] < 20
    (tmp_path / "support.examples.jsonl").write_text(suite_lines(made.examples))
    assert made_suite(made, tmp_path).record.items == 30
    assert len(skill_examples(parse_skill(made.declaration, tmp_path, "here"))) == 30
    assert made == propose_from_examples(rows, "support", 30)
    for few, items in ((rows[:1], None), (rows[:5], 5), ([], None)):
        with pytest.raises(InputError, match="too few different prompts"):
            propose_from_examples(few, "support", items)


def test_a_schema_says_what_objects_share():
    schema = infer_schema([{"a": 1, "b": None}, {"a": 1.5}])
    assert schema["properties"] == {"a": {"type": "number"}, "b": {"type": "null"}}
    assert schema["required"] == ["a"]

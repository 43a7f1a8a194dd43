"""The verdict's file and page: the same from the same inputs, closed to hostile texts, plain to read."""

import json
from dataclasses import replace

import pytest

from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate.gate import decision, effects
from escultor.evaluate.gate.decision_record import (
    EMPTY_ANSWER,
    DecisionInputs,
    document,
    inputs_of,
    parts_of,
    record_decision,
)
from escultor.evaluate.report.decision_markdown import markdown
from escultor.evaluate.report.decision_page import page_of
from escultor.evaluate.report.page import render_verdict
from escultor.types import GateContext, Scale, Scores

N = 80
NAMES = tuple(f"i{k:02d}" for k in range(N))
HOSTILE = "</pre><script>alert(1)</script> | `x` \x00 ![a](http://example.org)"


def scores(name, quality, **summary):
    values = {"quality": tuple(quality(k) for k in range(N)), "valid": (1.0,) * N}
    scales = {"quality": Scale(), "valid": Scale(kind="binary")}
    slices = {"domain": tuple("ab"[k % 2] for k in range(N))}
    return Scores(f"s-{name}", name, "suite", NAMES, NAMES, values, summary, scales, slices)


def inputs(gain=0.1, share=1.0, policy=None, **summary):
    old = scores(
        "old", lambda k: 0.4 + (k % 9) / 50, parameters=100.0, tokens_per_s=10.0, cost_usd_per_request=1.0
    )
    new = scores(
        "new", lambda k: max(0.0, share * (0.4 + (k % 9) / 50) + gain - (0.5 if k == 7 else 0)), **summary
    )
    texts = tuple(f"{HOSTILE} {k}" for k in range(N))
    rules = policy or Gate(guards={"valid": 0.1}, vetoes={}, card={"largest_label": 0.6})
    context = GateContext(1, {"largest_label": 0.3})
    return DecisionInputs(
        old, new, rules, 0, context, ("old", HOSTILE), texts, (texts, texts), ((1.0, 2.0, 9.0), (1.0, 3.0))
    )


def file(d):
    return document(record_decision(d))


def page(d):
    return page_of(record_decision(d))


def test_the_same_inputs_give_the_same_bytes_also_when_read_back_from_their_parts():
    d = inputs(parameters=50)
    assert file(d) == file(replace(d))
    assert file(inputs_of(parts_of(d))) == file(d)
    assert file(replace(d, seed=1)) != file(d)


def test_the_order_of_guards_survives_the_file():
    rules = Gate(guards={"valid": 0.1, "quality": 0.5}, primary=("other",))
    d = inputs(policy=rules)
    sides = [
        replace(s, metrics={**s.metrics, "other": s.metrics["quality"]}) for s in (d.champion, d.candidate)
    ]
    d = replace(d, champion=sides[0], candidate=sides[1])
    assert list(inputs_of(parts_of(d)).policy.guards) == ["valid", "quality"]


def test_pages_hold_everything_and_load_nothing():
    shown = page(inputs(parameters=50.0, tokens_per_s=80.0, cost_usd_per_request=0.01))
    made = render_verdict(shown)
    assert "<script" not in made
    assert "default-src 'none'" in made
    assert "\x00" not in made
    for words in (
        "Promote",
        "What decides",
        "Vetoes",
        "By slice",
        "Where it got worse",
        "Speed and cost",
        "i07",
    ):
        assert words in made
        assert words in markdown(shown)
    assert made == render_verdict(shown)


def test_markdown_texts_cannot_leave_their_cell_or_fence():
    text = markdown(page(inputs()))
    assert "](http" not in text.replace("\\]", "").split("```")[0]
    longest = max(len(line) for line in text.splitlines() if set(line) == {"`"})
    assert longest >= 3


def test_the_worst_regression_comes_first_and_gains_are_none():
    found = record_decision(inputs()).regressions
    assert [r.item for r in found] == ["i07"]
    assert found[0].candidate < found[0].champion


def test_a_larger_candidate_is_no_student():
    assert record_decision(inputs(parameters=200.0)).trade_off is None
    assert record_decision(inputs()).trade_off is None


@pytest.mark.parametrize(
    ("share", "speed", "cost", "outcomes", "words"),
    [
        (0.9, 80.0, 0.01, ("met", "met", "met"), "Use the student: "),
        (0.5, 80.0, 0.01, ("missed", "met", "met"), "Keep the teacher"),
        (0.9, 80.0, 0.5, ("met", "met", "missed"), "misses the target for cost"),
        (0.9, 11.0, 0.5, ("met", "missed", "missed"), "misses the targets"),
        (0.81, 80.0, 0.01, ("open", "met", "met"), "Do not replace the teacher yet"),
    ],
)
def test_a_student_is_held_against_the_acceptance_targets(share, speed, cost, outcomes, words):
    found = record_decision(
        inputs(gain=0.0, share=share, parameters=10.0, tokens_per_s=speed, cost_usd_per_request=cost)
    ).trade_off
    assert found is not None
    assert tuple(h.outcome for h in found.checks) == outcomes
    assert words in found.recommendation


def test_an_empty_answer_stands_beside_the_other_in_words_and_answers_not_kept_are_not_shown():
    silent = record_decision(replace(inputs(), answers=(("said",) * N, ("",) * N)))
    assert {r.shown for r in silent.regressions} == {("said", EMPTY_ANSWER)}
    for text in (render_verdict(page_of(silent)), markdown(page_of(silent))):
        assert text.count(EMPTY_ANSWER) == len(silent.regressions) > 0
    without_answers = record_decision(replace(inputs(), answers=((), ())))
    assert {r.shown for r in without_answers.regressions} == {()}


def test_answers_that_do_not_fit_and_parts_that_are_none_are_refused():
    with pytest.raises(DataError, match="do not match"):
        record_decision(replace(inputs(), prompts=("one",)))
    with pytest.raises(DataError, match="cannot be read"):
        inputs_of({"champion": b"{}"})


def test_a_policy_with_the_keys_of_an_older_version_is_read():
    parts = parts_of(inputs())
    old = json.loads(parts["policy"])
    old |= {"level": old.pop("alpha"), "most_looks": old.pop("max_analyses")}
    old |= {"looks": "spend", "hopes": old.pop("acceptance_targets")}
    del old["alpha_spending"]
    assert inputs_of({**parts, "policy": json.dumps(old).encode()}) == inputs_of(parts)


def test_the_statistics_of_a_verdict_are_computed_once_and_its_id_is_that_of_its_file(monkeypatch):
    calls = []
    monkeypatch.setattr(decision, "measure", lambda *a: calls.append(a) or effects.measure(*a))
    record = record_decision(inputs(parameters=50.0))
    content = json.loads(document(record))
    render_verdict(page_of(record))
    assert len(calls) == 1
    assert content["because"]["id"] == record.id == record.verdict.because.id

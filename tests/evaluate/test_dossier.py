"""The verdict's file and page: the same from the same inputs, closed to hostile texts, plain to read."""

from dataclasses import replace

import pytest

from escultor.config import Gate
from escultor.errors import DataError
from escultor.evaluate.gate.decision_record import (
    EMPTY,
    DecisionRecord,
    document,
    of_parts,
    parts,
    regressions,
    trade_off_of,
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


def dossier(gain=0.1, share=1.0, policy=None, **summary):
    old = scores(
        "old", lambda k: 0.4 + (k % 9) / 50, parameters=100.0, tokens_per_s=10.0, cost_usd_per_request=1.0
    )
    new = scores("new", lambda k: share * (0.4 + (k % 9) / 50) + gain - (0.5 if k == 7 else 0), **summary)
    texts = tuple(f"{HOSTILE} {k}" for k in range(N))
    rules = policy or Gate(guards={"valid": 0.1}, vetoes={}, card={"largest_label": 0.6})
    around = GateContext(1, {"largest_label": 0.3})
    return DecisionRecord(
        old, new, rules, 0, around, ("old", HOSTILE), texts, (texts, texts), ((1.0, 2.0, 9.0), (1.0, 3.0))
    )


def test_the_same_inputs_give_the_same_bytes_and_parts_read_back_give_the_same_dossier():
    d = dossier(parameters=50)
    assert document(d) == document(replace(d))
    assert document(of_parts(parts(d))) == document(d)
    assert document(replace(d, seed=1)) != document(d)


def test_the_order_of_guards_survives_the_file():
    rules = Gate(guards={"valid": 0.1, "quality": 0.5}, primary=("other",))
    d = dossier(policy=rules)
    sides = [
        replace(s, metrics={**s.metrics, "other": s.metrics["quality"]}) for s in (d.champion, d.candidate)
    ]
    d = replace(d, champion=sides[0], candidate=sides[1])
    assert list(of_parts(parts(d)).policy.guards) == ["valid", "quality"]


def test_pages_hold_everything_and_load_nothing():
    page = page_of(dossier(parameters=50.0, tokens_per_s=80.0, cost_usd_per_request=0.01))
    made = render_verdict(page)
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
        assert words in markdown(page)
    assert made == render_verdict(page)


def test_markdown_texts_cannot_leave_their_cell_or_fence():
    text = markdown(page_of(dossier()))
    assert "](http" not in text.replace("\\]", "").split("```")[0]
    longest = max(len(line) for line in text.splitlines() if set(line) == {"`"})
    assert longest >= 3


def test_the_worst_regression_comes_first_and_gains_are_none():
    found = regressions(dossier())
    assert [r.item for r in found] == ["i07"]
    assert found[0].candidate < found[0].champion


def test_a_larger_candidate_is_no_student():
    assert trade_off_of(dossier(parameters=200.0)) is None
    assert trade_off_of(dossier()) is None


@pytest.mark.parametrize(
    ("share", "speed", "cost", "outcomes", "words"),
    [
        (0.9, 80.0, 0.01, ("met", "met", "met"), "Use the student: "),
        (0.5, 80.0, 0.01, ("missed", "met", "met"), "Keep the teacher"),
        (0.9, 80.0, 0.5, ("met", "met", "missed"), "falls short of the hope for cost"),
        (0.9, 11.0, 0.5, ("met", "missed", "missed"), "gains less than was hoped"),
        (0.81, 80.0, 0.01, ("open", "met", "met"), "Do not replace the teacher yet"),
    ],
)
def test_a_student_is_held_against_its_hopes(share, speed, cost, outcomes, words):
    found = trade_off_of(
        dossier(gain=0.0, share=share, parameters=10.0, tokens_per_s=speed, cost_usd_per_request=cost)
    )
    assert found is not None
    assert tuple(h.outcome for h in found.hopes) == outcomes
    assert words in found.recommendation


def test_an_empty_answer_stands_beside_the_other_in_words_and_answers_not_kept_are_not_shown():
    silent = replace(dossier(), answers=(("said",) * N, ("",) * N))
    assert {r.shown for r in regressions(silent)} == {("said", EMPTY)}
    for page in (render_verdict(page_of(silent)), markdown(page_of(silent))):
        assert page.count(EMPTY) == len(regressions(silent)) > 0
    assert {r.shown for r in regressions(replace(dossier(), answers=((), ())))} == {()}


def test_answers_that_do_not_fit_and_parts_that_are_none_are_refused():
    with pytest.raises(DataError, match="do not fit"):
        document(replace(dossier(), prompts=("one",)))
    with pytest.raises(DataError, match="cannot be read"):
        of_parts({"champion": b"{}"})

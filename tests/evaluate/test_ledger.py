"""The trial ledger: looks are counted by suite and lineage, and what they may cost adds up to the level."""

from dataclasses import replace

import pytest

from escultor.config import Gate
from escultor.evaluate.gate import alpha_spending
from escultor.evaluate.gate.decision import decide
from escultor.types import Comparison, GateContext, Hold, Promote, Scores

N = 60


def scores(checkpoint, suite="suite", quality=0.5):
    names = tuple(f"i{k}" for k in range(N))
    values = tuple(quality + (k % 7) / 100 for k in range(N))
    return Scores(f"s-{checkpoint}", checkpoint, suite, names, names, {"quality": values})


def look(champion, candidate, suite="suite", policy="p"):
    made = Comparison("", champion, candidate, "", "", suite, policy, (), "", N)
    return Hold(replace(made, id=f"{champion}{candidate}{suite}{policy}"), None)


def number(verdicts, champion="base", candidate="new", policy="p", parents=None, same=()):
    return alpha_spending.look_number(
        verdicts, scores(champion), scores(candidate), policy, parents or {}, same
    )


def test_looks_at_one_suite_are_counted_and_the_same_question_is_one_look():
    assert number([]) == 1
    assert number([look("base", "a"), look("base", "b")]) == 3
    assert number([look("base", "a"), look("base", "new"), look("base", "b")]) == 2
    assert number([look("base", "new", policy="other")]) == 2


def test_other_suites_and_other_lineages_spend_nothing():
    assert number([look("base", "a", suite="other"), look("x", "y")]) == 1
    assert number([look("x", "y")], parents={"new": ("x",)}) == 2
    assert number([look("old", "base"), look("older", "old")]) == 3


def test_a_suite_that_holds_the_same_items_is_the_same_to_the_ledger_and_asked_anew_is_a_further_look():
    held = [look("base", "new", suite="renamed"), look("base", "a", suite="grown")]
    assert number(held) == 1
    assert number(held, same=("renamed", "grown")) == 3
    assert number([*held, look("base", "new")], same=("renamed", "grown")) == 3


def test_swapped_sides_are_a_further_look():
    assert number([look("new", "base")]) == 2


def test_levels_of_all_looks_sum_to_the_policys():
    policy = Gate(level=0.05)
    assert alpha_spending.level_of(1, policy) == 0.025
    assert sum(alpha_spending.level_of(k, policy) for k in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)
    assert alpha_spending.level_of(7, Gate(level=0.05, looks="free")) == 0.05


def test_a_later_look_asks_for_more_and_a_used_up_suite_says_so():
    policy = Gate(guards={}, most_looks=9)
    sides = (
        scores("base"),
        replace(
            scores("new"),
            metrics={"quality": tuple(0.5 + (k % 7) / 100 + (0.1 if k < 8 else 0.0) for k in range(N))},
        ),
    )
    first, late, gone = (decide(*sides, policy, 0, GateContext(look=k)) for k in (1, 9, 10))
    assert isinstance(first, Promote)
    assert isinstance(late, Hold)
    assert "look 9 at this suite" in late.because.reason
    assert isinstance(gone, Hold)
    assert "used up" in gone.because.reason

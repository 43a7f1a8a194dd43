"""Alpha spending: analyses are counted by suite and lineage, and their alphas sum to the policy's."""

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


def verdict(champion, candidate, suite="suite", policy="p"):
    made = Comparison("", champion, candidate, "", "", suite, policy, (), "", N)
    return Hold(replace(made, id=f"{champion}{candidate}{suite}{policy}"), None)


def number(verdicts, champion="base", candidate="new", policy="p", parents=None, same=()):
    return alpha_spending.analysis_number(
        verdicts, scores(champion), scores(candidate), policy, parents or {}, same
    )


def test_analyses_of_one_suite_are_counted_and_the_same_comparison_is_one_analysis():
    assert number([]) == 1
    assert number([verdict("base", "a"), verdict("base", "b")]) == 3
    assert number([verdict("base", "a"), verdict("base", "new"), verdict("base", "b")]) == 2
    assert number([verdict("base", "new", policy="other")]) == 2


def test_other_suites_and_other_lineages_spend_nothing():
    assert number([verdict("base", "a", suite="other"), verdict("x", "y")]) == 1
    assert number([verdict("x", "y")], parents={"new": ("x",)}) == 2
    assert number([verdict("old", "base"), verdict("older", "old")]) == 3


def test_a_suite_with_the_same_items_counts_as_the_same_and_comparing_on_it_is_a_further_analysis():
    held = [verdict("base", "new", suite="renamed"), verdict("base", "a", suite="grown")]
    assert number(held) == 1
    assert number(held, same=("renamed", "grown")) == 3
    assert number([*held, verdict("base", "new")], same=("renamed", "grown")) == 3


def test_swapped_sides_are_a_further_analysis():
    assert number([verdict("new", "base")]) == 2


def test_the_alphas_of_all_analyses_sum_to_the_policys():
    policy = Gate(alpha=0.05)
    assert alpha_spending.alpha_at(1, policy) == 0.025
    assert sum(alpha_spending.alpha_at(k, policy) for k in range(1, 100_000)) == pytest.approx(0.05, rel=1e-4)
    assert alpha_spending.alpha_at(7, Gate(alpha=0.05, alpha_spending="full")) == 0.05


def test_a_later_analysis_needs_more_evidence_and_a_used_up_suite_says_so():
    policy = Gate(guards={}, max_analyses=9)
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
    assert "analysis 9 of this suite" in late.because.reason
    assert isinstance(gone, Hold)
    assert "used up" in gone.because.reason

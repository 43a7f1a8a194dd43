"""Alpha spending: analyses are counted by suite and lineage, and their alphas sum to the policy's."""

from dataclasses import replace

import pytest

from escultor.config import Gate
from escultor.evaluate.gate import alpha_spending
from escultor.evaluate.gate.alpha_spending import alpha_at
from escultor.evaluate.gate.decision import decide
from escultor.types import Comparison, GateContext, Hold, Promote, Scores

N = 60


def scores(checkpoint, suite="suite", quality=0.5):
    names = tuple(f"i{k}" for k in range(N))
    values = tuple(quality + (k % 7) / 100 for k in range(N))
    return Scores(f"s-{checkpoint}", checkpoint, suite, names, names, {"quality": values})


def verdict(champion, candidate, suite="suite", policy="p", again=0.0):
    """`again`: what a further draw of the candidate's answers changed."""
    sides = scores(champion, suite), scores(candidate, suite, 0.5 + again)
    sets = tuple(map(alpha_spending.answer_set, sides))
    made = Comparison("", champion, candidate, "", "", suite, policy, (), "", N, answer_sets=sets)
    return Hold(replace(made, id=f"{champion}{candidate}{suite}{policy}{again}"), None)


def analysis(verdicts, champion="base", candidate="new", policy="p", same=(), again=0.0):
    sides = scores(champion), scores(candidate, quality=0.5 + again)
    return alpha_spending.analysis_of(verdicts, *sides, policy, same)


def number(*given, **named):
    return analysis(*given, **named).number


def test_analyses_of_one_suite_are_counted_and_the_same_numbers_are_one_analysis():
    assert number([]) == 1
    earlier = [verdict("base", "a", again=0.1), verdict("base", "b", again=0.2)]
    assert number(earlier) == 3
    assert number([earlier[0], verdict("base", "new"), earlier[1]]) == 2
    assert number([verdict("base", "new", policy="other")]) == 2


def test_new_answers_of_the_same_models_are_a_further_analysis():
    drawn = [verdict("base", "new", again=k / 100) for k in range(1, 9)]
    assert number(drawn) == 9
    assert number([*drawn, verdict("base", "new")]) == 9


def test_another_name_is_neither_a_new_analysis_nor_a_first_one():
    assert number([verdict("base", "a", again=0.1), verdict("old name", "older name")]) == 2
    assert number([verdict("x", "y", again=0.1)], "renamed", "too", again=0.2) == 2


def test_other_suites_spend_nothing():
    assert number([verdict("base", "a", suite="other")]) == 1


def test_a_suite_with_the_same_items_counts_as_the_same_and_comparing_on_it_is_a_further_analysis():
    held = [verdict("base", "new", suite="renamed"), verdict("base", "a", suite="grown")]
    assert number(held) == 1
    assert number(held, same=("renamed", "grown")) == 3
    assert number([*held, verdict("base", "new")], same=("renamed", "grown")) == 3


def test_promotions_directly_before_are_counted_under_the_same_policy_only():
    held = verdict("base", "a", again=0.1)
    won = Promote(verdict("base", "b", again=0.2).because)
    other = Promote(verdict("base", "c", policy="q", again=0.3).because)
    assert analysis([]) == (1, 0)
    assert analysis([held, won]) == (3, 1)
    assert analysis([won, held]) == (3, 0)
    assert analysis([won, other]) == (3, 0)
    # A comparison that is made again has what stood before it then.
    assert analysis([won, verdict("base", "new"), Promote(verdict("base", "d", again=0.4).because)]) == (2, 1)


def test_swapped_sides_are_a_further_analysis():
    swapped = verdict("base", "new").because
    swapped = replace(swapped, answer_sets=(swapped.answer_sets[1], "other"))
    assert number([Hold(swapped, None)]) == 2


def test_verdicts_of_old_stores_are_counted_by_the_ids_of_their_scores():
    old = replace(verdict("base", "new").because, answer_sets=(), champion_scores="s-base")
    assert number([Hold(replace(old, candidate_scores="s-new"), None)]) == 1
    assert number([Hold(replace(old, candidate_scores="s-other"), None)]) == 2


def test_a_first_analysis_that_nothing_would_remember_is_one_by_assumption():
    sides = scores("base"), scores("new", quality=0.9)
    told = decide(*sides, Gate(guards={}), 0).because.reason
    assert "By assumption" in told
    for context in (GateContext(is_remembered=True), GateContext(look=2)):
        assert "By assumption" not in decide(*sides, Gate(guards={}), 0, context).because.reason


def test_the_alphas_of_all_analyses_sum_to_the_policys():
    for most in (1, 2, 20, 1000):
        policy = Gate(alpha=0.05, max_analyses=most)
        assert sum(alpha_at(k, policy) for k in range(1, most + 1)) == pytest.approx(0.05)
    assert alpha_at(1, Gate(max_analyses=1)) == pytest.approx(0.05)
    assert alpha_at(7, Gate(alpha=0.05, alpha_spending="full")) == 0.05


def test_a_promotion_passes_its_share_on_and_the_shares_between_two_failures_are_disjoint():
    policy = Gate(alpha=0.05)
    shares = [alpha_at(k, policy) for k in range(1, 21)]
    assert alpha_at(4, policy, promotions=3) == pytest.approx(sum(shares[:4]))
    # Whatever is promoted in between, analyses that fail have at most alpha together.
    for failed in ((1, 4, 20), (2, 3, 9), (20,)):
        spent = [alpha_at(k, policy, k - before - 1) for before, k in zip((0, *failed), failed, strict=False)]
        assert sum(spent) <= 0.05 + 1e-12


def test_a_later_analysis_needs_more_evidence_and_a_used_up_suite_says_so():
    policy = Gate(guards={}, max_analyses=9)
    sides = (
        scores("base"),
        replace(
            scores("new"),
            metrics={"quality": tuple(0.5 + (k % 7) / 100 + (0.44 if k < 10 else 0.0) for k in range(N))},
        ),
    )
    first, late, gone = (decide(*sides, policy, 0, GateContext(look=k)) for k in (1, 9, 10))
    assert isinstance(first, Promote)
    assert isinstance(late, Hold)
    assert "analysis 9 of this suite" in late.because.reason
    assert isinstance(gone, Hold)
    assert "used up" in gone.because.reason

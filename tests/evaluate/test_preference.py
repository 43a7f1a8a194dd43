"""Blind comparisons: balanced, hidden, resumable; inattentive raters are found; the figures are right."""

import math
from collections import Counter
from dataclasses import replace

import evalica
import numpy as np
import pytest
from tiny_suites import tiny_suite

from escultor.errors import DataError
from escultor.evaluate.predictions import Predictions
from escultor.evaluate.raters.preference import (
    Vote,
    agreement,
    preference,
    session_votes,
    strength,
    swapped,
)
from escultor.evaluate.raters.session import RecordedChoices, make_choice, next_task, passed, session_of
from escultor.evaluate.scoring import make_result
from escultor.ids import hash_value
from escultor.rng import unit
from escultor.skills.suites import make_suite
from escultor.types import Message, Role

ITEMS = 30
RATERS = tuple(f"r{n}" for n in range(5))


def sides(count=ITEMS, alike=0):
    tiny = tiny_suite(count, metrics=("f1",))
    # Every item asks something of its own: equal questions would share a cluster.
    asked = [
        replace(i, prompt=(Message(Role.USER, hash_value([i.id])),), cluster=f"pair {n // 2}")
        for n, i in enumerate(tiny.items)
    ]
    suite = make_suite("tiny", "chat", asked, ("f1",), tiny.record.decoding)
    zeros = {"f1": (0.0,) * count}
    made = []
    for name in ("model-a", "model-b"):
        texts = tuple((f"{'same' if n < alike else name} {n}",) for n in range(count))
        result = make_result(suite, name, zeros, {}, Predictions(texts))
        made.append((result.scores, result.predictions))
    return suite, made


def new_session(count=ITEMS, alike=0, n_raters=5):
    suite, (one, other) = sides(count, alike)
    return session_of(suite, one, other, n_raters, 0)


def by_words(task, word):
    """Whoever likes the answers in which a word stands, and attends to checks."""
    wanted = "Please choose" if task.check else word
    return 1 if wanted in task.texts[0] else 2


def run(store, session, rater, pick, most=1000):
    """A rater rates until nothing is left, or `most` tasks are done."""
    choices = RecordedChoices(store.log, session)
    for _ in range(most):
        choices.refresh()
        if (task := next_task(session, rater, choices)) is None:
            break
        store.log.append(make_choice(session, rater, task, pick(task)))
    choices.refresh()
    return choices


def mostly(word, share, rater):
    def pick(task):
        if task.check:
            return by_words(task, word)
        good = unit(0, rater, task.item.id) < share
        return by_words(task, word) if good else 3 - by_words(task, word)

    return pick


def test_every_item_gets_its_raters_and_no_more(store):
    session = new_session(n_raters=2)
    for rater in RATERS:
        choices = run(store, session, rater, lambda task: by_words(task, "model-b"))
    assert set(Counter(item for _, item in choices.votes).values()) == {2}
    assert len(choices.votes) == 2 * ITEMS
    assert next_task(session, "late", choices, frozenset(RATERS[:1])) is not None  # whose votes do not count


def test_assignment_stays_balanced_however_many_rate_and_leave(store):
    session = new_session()
    for rater in RATERS:
        choices = run(store, session, rater, lambda task: None, most=13)
    counts = Counter(item for _, item in choices.votes)
    assert max(counts.values()) - min(counts[i.id] for i in session.suite.items) <= 1


def test_two_raters_by_turns_and_a_rater_who_comes_back_lose_nothing(store):
    session = new_session(12)
    for _ in range(30):
        for rater in ("one", "two"):
            run(store, session, rater, lambda task: by_words(task, "model-a"), most=1)
    choices = RecordedChoices(store.log, session)
    choices.refresh()
    assert {choices.counts(rater)[0] for rater in ("one", "two")} == {12}
    assert len({(v.rater, v.item) for v in session_votes(session, choices)}) == 24


def test_sides_are_a_fair_coin_and_ids_tell_nothing(store):
    session = new_session(ITEMS)
    first = Counter()
    for rater in RATERS:
        choices = run(store, session, rater, lambda task: 1)
        first.update(v.b_first for v in session_votes(session, choices) if v.rater == rater)
    assert 0.35 < first[True] / first.total() < 0.65  # of 150 fair coins: missed once in 5,000
    shown = {id for choice in choices.votes.values() for id in choice.shown_order}
    assert all("model" not in id and id != "a" for id in shown)


def test_equal_answers_are_a_tie_that_nobody_is_asked_about(store):
    session = new_session(10, alike=4)
    choices = run(store, session, "r", lambda task: by_words(task, "model-b"))
    assert len(choices.votes) == 6
    assert preference(session, choices).items_alike == 4


def test_whoever_names_the_models_the_other_way_round_meets_the_same_session():
    suite, (one, other) = sides()
    assert session_of(suite, one, other, 5, 0).id == session_of(suite, other, one, 5, 0).id


def test_what_cannot_be_compared_is_refused():
    suite, (one, other) = sides()
    with pytest.raises(DataError, match="with itself"):
        session_of(suite, one, one, 5, 0)
    with pytest.raises(DataError, match="different suites"):
        session_of(tiny_suite(4), one, other, 5, 0)
    silent = Predictions((("",),) * ITEMS)
    with pytest.raises(DataError, match="no model answered anything"):
        session_of(suite, (one[0], silent), (other[0], silent), 5, 0)


# --- whose choices count ----------------------------------------------------------------------


def test_raters_who_do_not_look_are_found_and_left_out(store):
    session = new_session(40, n_raters=9)
    run(store, session, "careful", lambda task: by_words(task, "model-b"))
    run(store, session, "left", lambda task: 1)
    run(store, session, "inattentive", lambda task: 2 if by_words(task, "model-b") == 1 and task.check else 1)
    choices = run(store, session, "ties", lambda task: None if not task.check else by_words(task, "model-a"))
    found = preference(session, choices)
    records = {record.name: record for record in found.raters}
    assert records["careful"].left_out is None
    assert records["careful"].checks == 4
    assert records["ties"].left_out is None
    for name in ("left", "inattentive"):
        assert records[name].left_out is not None
    assert "side shown first" in str(records["left"].left_out) or "attention" in str(records["left"].left_out)
    assert found.win_rate is not None
    assert (found.win_rate.value, found.win_rate.n, found.win_rate.ties) == (1.0, 80, 40)


def test_a_check_is_passed_by_choosing_what_it_asks_for_alone(store):
    session = new_session()
    run(store, session, "r", lambda task: None)
    choices = RecordedChoices(store.log, session)
    choices.refresh()
    assert choices.checks
    assert not any(passed(choice) for choice in choices.checks.values())


# --- figures ----------------------------------------------------------------------------------


def votes(count, share, raters=RATERS, lean=0.0, seed=0):
    """Votes of raters who prefer b with a probability, and lean to the first side."""
    rng = np.random.default_rng(seed)
    made = []
    for n in range(count):
        for rater in raters:
            first = bool(rng.integers(2))
            logit = math.log(share / (1 - share)) + (lean if first else -lean)
            value = 1.0 if rng.random() < 1 / (1 + math.exp(-logit)) else -1.0
            made.append(Vote(rater, f"i{n}", f"i{n}", value, first))
    return made


def test_without_raters_effects_strength_is_evalicas():
    ours = votes(400, 0.65, raters=("r",))
    winners = [evalica.Winner.X if v.value > 0 else evalica.Winner.Y for v in ours]
    scores = evalica.bradley_terry(["b"] * 400, ["a"] * 400, winners).scores
    theirs = math.log(scores["b"] / scores["a"])
    assert strength(ours).value == pytest.approx(theirs, abs=0.25)  # the prior of one rater's own leaning
    many = [Vote(f"r{n}", v.item, v.cluster, v.value, v.b_first) for n, v in enumerate(ours)]
    assert strength(many).value == pytest.approx(theirs, abs=0.15)


def test_strength_is_told_apart_from_a_taste_for_the_first_side():
    found = strength(votes(300, 0.6, lean=0.8))
    assert found.low < math.log(0.6 / 0.4) < found.high
    assert found.first_side == pytest.approx(0.8, abs=0.15)


def test_intervals_of_strength_cover_the_truth_as_often_as_they_say():
    truth = math.log(0.6 / 0.4)
    inside = [
        found.low <= truth <= found.high
        for found in (strength(votes(60, 0.6, raters=RATERS[:3], seed=s)) for s in range(200))
    ]
    assert 0.89 <= sum(inside) / 200 <= 0.99  # 95 %: outside with odds below 1 in 1,000


def test_unanimity_is_finite_and_ties_are_half_a_win():
    assert math.isfinite(strength([Vote("r", str(n), str(n), 1.0, n % 2 == 0) for n in range(20)]).high)
    ties = strength([Vote("r", str(n), str(n), 0.0, n % 2 == 0) for n in range(20)])
    assert ties.value == pytest.approx(0.0, abs=1e-9)


def test_alpha_is_that_of_the_classic_table():
    # Krippendorff's 4 coders and 12 units with missing values: interval alpha 0.849.
    table = [
        "1 2 3 3 2 1 4 1 2 . . .",
        "1 2 3 3 2 2 4 1 2 5 . 3",
        ". 3 3 3 2 3 4 2 2 5 1 .",
        "1 2 3 3 2 4 4 1 2 5 1 .",
    ]
    made = [
        Vote(f"r{r}", f"i{i}", f"i{i}", float(cell), True)
        for r, line in enumerate(table)
        for i, cell in enumerate(line.split())
        if cell != "."
    ]
    assert agreement(made) == pytest.approx(0.849, abs=5e-4)


def test_alpha_is_not_told_where_it_is_not_defined():
    assert agreement([Vote("r", "i", "i", 1.0, True)]) is None
    assert agreement([Vote(r, "i", "i", 1.0, True) for r in "ab"]) is None


def test_the_report_says_how_many_more_items_would_settle_it(store):
    session = new_session(40)
    for rater in RATERS[:2]:
        choices = run(store, session, rater, mostly("model-b", 0.6, rater))
    found = preference(session, choices)
    assert found.win_rate is not None
    assert found.win_rate.low < 0.5 < found.win_rate.high
    assert found.items_needed is not None
    assert 10 < found.items_needed < 5000
    other = swapped(found)
    assert other.win_rate is not None
    assert other.win_rate.low == pytest.approx(1 - found.win_rate.high)
    assert swapped(other) == found or other.win_rate.value == pytest.approx(1 - found.win_rate.value)


def test_a_clear_preference_is_settled_and_an_empty_session_says_nothing(store):
    session = new_session(40)
    empty = RecordedChoices(store.log, session)
    empty.refresh()
    assert preference(session, empty).win_rate is None
    for rater in RATERS[:2]:
        choices = run(store, session, rater, mostly("model-b", 0.9, rater))
    found = preference(session, choices)
    assert found.items_needed == 0
    assert found.strength is not None
    assert found.strength.low > 0

"""A trial folded answer by answer and vote by vote is the trial counted at once, whatever comes when."""

from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.cycle.trial_fold import CANDIDATE, THUMBS_DOWN, TrialFold
from escultor.stats.sequential import SubjectTally
from escultor.store.feedback import THUMB, live
from escultor.types import Rating, Revocation

IDS, PEOPLE = [f"a{n}" for n in range(6)], ["ana", "ben"]
ANSWERS = st.tuples(st.sampled_from(IDS), st.integers(0, 1), st.integers(0, 1), st.sampled_from(PEOPLE),
                    st.integers(0, 9), st.booleans(), st.integers(0, 3))  # fmt: skip
VOTES = st.tuples(st.integers(0, 99), st.integers(0, 5), st.sampled_from(IDS), st.sampled_from(PEOPLE),
                  st.sampled_from([True, False, None]))  # fmt: skip


def event(id, time, target, who, value):
    if value is None:
        return Revocation(f"e{id}", float(time), target, who, name=THUMB)
    return Rating(f"e{id}", float(time), target, who, name=THUMB, value=value)


def tally(observations):
    """Counted at once, from every subject's observations."""
    rows = [(len(values), sum(values), values[0]) for values in observations.values() if values]
    sums = [(1, n, t, n * n, n * t, t * t, first) for n, t, first in rows]
    return SubjectTally(*map(sum, zip(*sums, strict=True))) if sums else SubjectTally()


def expected(answers, events, shadow):
    places, guards, thumbs = (
        {},
        defaultdict(lambda: defaultdict(list)),
        defaultdict(lambda: defaultdict(list)),
    )
    for id, stage, arm, who, _, is_error, cost in answers:
        if id not in places:
            places[id] = stage, arm, who
            guards["error", stage, arm][who].append(float(is_error))
            guards["cost_usd", stage, arm][who].append(cost / 4)
    for key, last in live(events).items():
        place = places.get(key.target)
        if isinstance(last, Rating) and place and not (place[1] == CANDIDATE and place[0] in shadow):
            thumbs[place[:2]][place[2]].append(float(not last.value))
    return guards, thumbs, places


@settings(max_examples=200, deadline=None)
@given(st.lists(st.one_of(ANSWERS, VOTES), max_size=30), st.sampled_from([frozenset(), frozenset({0})]))
def test_an_incremental_fold_is_that_of_the_whole(history, shadow):
    fold = TrialFold(0.0, 2.0, shadow)
    answers = [row for row in history if len(row) == 7]
    events = [event(*row) for row in history if len(row) == 5]
    for row in history:
        if len(row) == 5:
            fold.add_feedback(event(*row))
            continue
        id, stage, arm, who, time, is_error, cost = row
        guards = {"error": float(is_error), "slow": 0.0, "cost_usd": cost / 4}
        fold.add_answer(id, stage, arm, who, time=float(time), guards=guards)
    guards, thumbs, places = expected(answers, events, shadow)
    for stage in (0, 1):
        for arm in (0, 1):
            for name in ("error", "cost_usd"):
                assert fold.tallies(name, stage)[arm] == tally(guards[name, stage, arm])
            counted = fold.tallies(THUMBS_DOWN, stage)[arm]
            # Which vote of a person is their first is the order of arrival: the sums must be equal.
            assert counted[:6] == tally(thumbs[stage, arm])[:6]
            people = {who for at, side, who in places.values() if (at, side) == (stage, arm)}
            assert fold.subjects(stage)[arm] == len(people)
        assert fold.answers(stage) == sum(p[:2] == (stage, CANDIDATE) for p in places.values())


def test_windows_count_the_candidates_answers_by_time():
    fold = TrialFold(100.0, 10.0)
    for n, (arm, time, failed) in enumerate(
        [(1, 101, 1), (1, 119, 0), (1, 112, 1), (0, 113, 1), (1, 131, 1)]
    ):
        guards = {"error": float(failed), "slow": 0.0}
        fold.add_answer(f"a{n}", 0, arm, "ana", time=float(time), guards=guards)
    assert [(w.since, w.answers, w.failed) for w in fold.windows(131.0, 2)] == [(110.0, 2, 1), (120.0, 0, 0)]
    assert [w.answers for w in fold.windows(131.0, 9)] == [1, 2, 0]


def test_a_vote_that_came_before_its_answer_was_read_counts():
    fold = TrialFold(0.0, 10.0)
    fold.add_feedback(event(1, 3, "a1", "ana", False))
    fold.add_answer("a1", 0, CANDIDATE, "ana", time=2.0, guards={"error": 0.0, "slow": 0.0})
    assert fold.tallies(THUMBS_DOWN, 0)[CANDIDATE].total == 1.0
    fold.add_feedback(event(2, 4, "a1", "ana", None))
    assert fold.tallies(THUMBS_DOWN, 0)[CANDIDATE] == SubjectTally()
    fold.add_feedback(event(3, 3, "a1", "ana", False))  # older than the withdrawal
    assert fold.tallies(THUMBS_DOWN, 0)[CANDIDATE].n == pytest.approx(0.0)

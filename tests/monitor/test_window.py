"""The window: folds merge in any order; health reads them off with intervals."""

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor import stats
from escultor.errors import DataError
from escultor.ids import hash_value
from escultor.monitor.buckets import as_record, from_record, latency_step, upper_ms
from escultor.monitor.metrics import (
    AnswerRef,
    MetricsWindow,
    fold,
    fold_calls,
    fold_thumbs,
    health,
    merge_calls,
    merge_thumbs,
    votes_on,
)
from escultor.types import (
    Correction,
    Interaction,
    Message,
    Rating,
    Revocation,
    Role,
    Sampling,
    SourceKind,
    Usage,
)

LAWS = settings(max_examples=80, deadline=None)


def call(name, time=10.0, latency=100.0, cost=0.01, version="v1", finish="stop"):
    return Interaction(
        id=name,
        time=time,
        skill="chat",
        subject="s",
        version=version,
        arm="champion",
        propensity=1.0,
        messages=(Message(Role.USER, "q"),),
        answer="a",
        finish_reason=finish,
        sampling=Sampling(),
        usage=Usage(3, 5),
        latency_ms=latency,
        ttft_ms=None,
        cost_usd=cost,
        prompt_hash="h",
    )


def thumb(name, target, up, time=11.0, subject="s", source=SourceKind.SIMULATED):
    return Rating(name, time, target, subject, "thumb", up, source=source)


def figures(window, version="v1", since=0.0, until=100.0):
    return {e.name: e for e in health(version, window, since, until).estimates}


TARGETS, SUBJECTS = st.sampled_from("abcd"), st.sampled_from("xy")
TIMES = st.integers(0, 5).map(float)
CALLS = st.builds(call, TARGETS, TIMES, st.floats(0, 1e4), st.floats(0, 1), st.sampled_from(["v1", "v2"]))
IDS = st.integers(0, 9).map(str)
FEEDBACK = st.one_of(
    st.builds(thumb, IDS, TARGETS, st.booleans(), TIMES, SUBJECTS),
    st.builds(Revocation, IDS, TIMES, TARGETS, SUBJECTS, st.sampled_from(["thumb", "score"])),
    st.builds(Rating, IDS, TIMES, TARGETS, SUBJECTS, st.sampled_from(["thumb", "score"]), st.floats(0, 1)),
    st.builds(Correction, IDS, TIMES, TARGETS, SUBJECTS, st.just("better")),
).map(lambda event: replace(event, id=hash_value(event)))  # an id names one content, as in the log
EVENTS = st.tuples(st.lists(CALLS, max_size=8), st.lists(FEEDBACK, max_size=8))


@LAWS
@given(EVENTS, EVENTS)
def test_fold_of_both_is_merge_of_the_folds(a, b):
    assert fold_calls(a[0] + b[0]) == merge_calls(fold_calls(a[0]), fold_calls(b[0]))
    assert fold_thumbs(a[1] + b[1]) == merge_thumbs(fold_thumbs(a[1]), fold_thumbs(b[1]))


@LAWS
@given(EVENTS, EVENTS, EVENTS)
def test_merging_is_associative_commutative_and_has_a_unit(a, b, c):
    for fold_part, merge, part in ((fold_calls, merge_calls, 0), (fold_thumbs, merge_thumbs, 1)):
        x, y, z = (fold_part(events[part]) for events in (a, b, c))
        assert merge(merge(x, y), z) == merge(x, merge(y, z))
        assert merge(x, y) == merge(y, x)
        assert merge(x, {}) == x
    assert merge_thumbs(x, x) == x


@LAWS
@given(st.lists(CALLS, max_size=8))
def test_counts_are_read_back_from_the_log_as_they_were(calls):
    for counts in fold_calls(calls).values():
        assert from_record(as_record(counts)) == counts


@given(st.floats(0, 1e8))
def test_a_latency_is_counted_in_a_step_of_one_percent(ms):
    top = upper_ms(latency_step(ms))
    assert top >= ms * (1 - 1e-9)
    assert top <= max(ms, 1e-3) * 1.0101


@LAWS
@given(EVENTS, st.randoms(use_true_random=False))
def test_order_of_events_changes_neither_window_nor_health(events, random):
    calls, feedback = list(events[0]), list(events[1])
    random.shuffle(calls)
    random.shuffle(feedback)
    answers = {name: AnswerRef("v1", 0.0) for name in "abcd"}
    one = MetricsWindow(fold_calls(events[0]), votes_on(fold_thumbs(events[1]), answers))
    two = MetricsWindow(fold_calls(calls), votes_on(fold_thumbs(feedback), answers))
    assert one == two
    assert health("v1", one, 0, 9) == health("v1", two, 0, 9)


def test_the_latest_thumb_of_a_subject_counts():
    window = fold([call("a")], [thumb("2", "a", False, 12), thumb("1", "a", True, 11)])
    down = figures(window)["thumbs_down_share"]
    assert (down.value, down.n) == (1.0, 1)


def test_a_withdrawn_thumb_counts_no_more_until_given_again():
    withdrawn = [thumb("1", "a", False, 11), Revocation("2", 12.0, "a", "s", "thumb")]
    assert figures(fold([call("a")], withdrawn))["thumbs_down_share"].n == 0
    again = [*withdrawn, thumb("3", "a", True, 13)]
    assert figures(fold([call("a")], again))["thumbs_down_share"].n == 1
    other = [thumb("1", "a", False, 11), Revocation("2", 12.0, "a", "someone else", "thumb")]
    assert figures(fold([call("a")], other))["thumbs_down_share"].n == 1


def test_shares_carry_wilson_intervals():
    ends = ["error"] * 3 + ["interrupted"] * 2 + ["cancelled"] + ["stop"] * 94
    calls = [call(f"c{k}", finish=end) for k, end in enumerate(ends)]
    thumbs = [thumb(f"f{k}", f"c{k}", k >= 8) for k in range(40)]
    found = figures(fold(calls, thumbs))
    for name, count, n in (
        ("thumbs_down_share", 8, 40),
        ("rated_share", 40, 100),
        ("error_share", 5, 100),
    ):
        e = found[name]
        assert (e.value, e.n) == (count / n, n)
        assert (e.low, e.high) == stats.wilson(count, n)


def test_two_subjects_rate_one_answer_twice_but_it_is_one_rated_answer():
    window = fold([call("a"), call("b")], [thumb("1", "a", True), thumb("2", "a", False, subject="t")])
    found = figures(window)
    assert (found["rated_share"].value, found["thumbs_down_share"].n) == (0.5, 2)


def test_latency_is_by_order_statistics_and_failures_are_no_part_of_it():
    calls = [call(f"c{k:03d}", latency=float(k)) for k in range(1, 401)]
    found = figures(fold([*calls, call("x", latency=1e6, finish="error")]))
    p99 = found["latency_p99_ms"]
    assert p99.n == 400
    assert p99.value == pytest.approx(396.0, rel=0.01)
    assert p99.low < 396.0 < p99.high <= 404.0
    few = figures(fold(calls[:100]))["latency_p99_ms"]
    assert few.value == pytest.approx(99.0, rel=0.01)
    assert few.high == math.inf


def test_cost_is_totalled_and_reckoned_by_the_day():
    found = figures(fold([call(f"c{k}", cost=0.01) for k in range(100)]), until=43_200.0)
    assert found["cost_usd"].value == pytest.approx(1.0)
    daily = found["cost_usd_per_day"]
    assert daily.value == pytest.approx(2.0)
    # 100 calls at random: their number, and so their cost, has a relative error of one tenth.
    assert daily.high - daily.value == pytest.approx(2.0 * 0.196, rel=1e-3)
    assert daily.low == pytest.approx(2.0 * (1 - 0.196), rel=1e-3)


def test_a_day_costs_at_least_what_a_part_of_it_has_cost():
    assert figures(fold([call("a", cost=7.0)]), until=86_400.0)["cost_usd_per_day"].low == 7.0


def test_only_the_version_and_the_time_asked_for_count():
    calls = [call("a"), call("b", version="v2"), call("c", time=300.0), call("d", time=0.0)]
    window = fold(calls, [thumb("1", "b", False), thumb("2", "unknown", False)])
    found = figures(window)
    assert found["calls"].value == 2
    assert found["thumbs_down_share"].n == 0
    assert figures(window, "v2")["thumbs_down_share"].n == 1
    assert (found["prompt_tokens"].value, found["completion_tokens"].value) == (6, 10)


def test_an_empty_window_says_that_it_knows_nothing():
    found = figures(fold([]))
    assert all(e.n == 0 for e in found.values())
    assert (found["thumbs_down_share"].low, found["thumbs_down_share"].high) == (0.0, 1.0)
    assert found["latency_p99_ms"].high == math.inf
    assert found["cost_usd_per_day"].high == math.inf


def test_a_window_without_length_is_refused():
    with pytest.raises(DataError, match="since < until"):
        health("v1", fold([]), 5.0, 5.0)


def test_thumbs_come_late_and_still_belong_to_their_call():
    window = fold([call("a")], [thumb("1", "a", False, time=5000.0)])
    assert figures(window)["thumbs_down_share"].n == 1


def test_a_score_named_thumb_is_no_thumb():
    rating = replace(thumb("1", "a", True), value=0.3)
    assert figures(fold([call("a")], [rating]))["thumbs_down_share"].n == 0

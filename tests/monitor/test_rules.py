"""Rules: people are the unit of votes, budgets of bad calls have two windows, silence is noticed."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escultor.config import Monitor
from escultor.monitor.metrics import AnswerRef, MetricsWindow, ThumbVote, fold_calls
from escultor.monitor.rules import (
    PAGE_FROM_START,
    Past,
    read_budget,
    read_daily_cost,
    read_thumbs,
    read_traffic,
)
from escultor.stats.exceedance import exceedance
from tests.monitor.test_window import call

CONFIG = Monitor()
HOUR, DAY = 3600.0, 86_400.0
NOTHING = Past()


def vote(k, is_down, subject=None, time=None, version="v1"):
    at = 60.0 * k if time is None else time
    return ThumbVote(at, f"a{k}", subject or f"s{k}", is_down, AnswerRef(version, at))


def thumbs(votes, now=2 * DAY, past=NOTHING, unnamed=frozenset(), config=CONFIG):
    return read_thumbs("v1", sorted(votes), past, config, now, unnamed=unnamed)


def window(*calls):
    return MetricsWindow(fold_calls(calls))


# --- votes -------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.floats(0, 1), max_size=6), st.lists(st.floats(0, 1), min_size=6, max_size=6), st.floats(0, 1)
)
def test_evidence_is_a_fair_game_at_the_limit(values, weights, limit):
    """What one more event of probability `limit` is expected to do to the evidence: nothing."""
    n = len(values)
    up, down = (exceedance([*values, x], [*weights[:n], weights[0]], limit) for x in (1.0, 0.0))
    edge = min(max(limit, 1e-4), 1 - 1e-4)
    for side in ("log_above", "log_below"):
        before = math.exp(getattr(exceedance(values, weights[:n], limit), side)([0])[0])
        after = edge * math.exp(getattr(up, side)([0])[0]) + (1 - edge) * math.exp(
            getattr(down, side)([0])[0]
        )
        assert after == pytest.approx(before, rel=1e-9)


def test_evidence_is_the_likelihood_ratio_of_a_binomial():
    values = [1.0] * 9 + [0.0] * 21
    log = exceedance(values, np.ones(30), 0.1).log_above([0])[0]
    ratio = sum(prior * (q / 0.1) ** 9 * ((1 - q) / 0.9) ** 21 for q, prior in ((0.16, 0.9), (0.3, 0.1)))
    assert log == pytest.approx(math.log(ratio))


def test_a_share_far_above_the_limit_pages_and_one_below_does_not():
    assert thumbs([vote(k, k % 3 == 0) for k in range(60)]).pages
    calm = thumbs([vote(k, k % 20 == 0) for k in range(600)])
    assert not calm.pages
    assert not calm.warns


def test_one_person_cannot_page():
    """40 thumbs down of one person among 400 who are content."""
    votes = [vote(k, k % 25 == 0) for k in range(400)] + [vote(500 + k, True, "angry") for k in range(40)]
    assert not thumbs(votes).pages
    assert not thumbs([vote(k, True, "angry") for k in range(40)]).pages
    assert thumbs([vote(k, True, f"p{k % 20}") for k in range(40)]).pages


def test_users_that_an_application_does_not_name_count_each():
    votes = [vote(k, k % 3 == 0, "application") for k in range(90)]
    assert not thumbs(votes).pages
    assert thumbs(votes, unnamed=frozenset({"application"})).pages


def test_few_votes_page_nobody():
    assert not thumbs([vote(k, True) for k in range(29)]).pages
    assert thumbs([vote(k, True) for k in range(30)]).pages


def test_votes_before_the_last_ok_are_no_new_evidence():
    votes = [vote(k, True) for k in range(100)]
    assert not thumbs(votes, past=Past(ok_since=60.0 * 100)).pages


def test_a_version_that_was_good_for_weeks_and_turns_bad_pages():
    good = [vote(k, k % 20 == 0) for k in range(2000)]
    bad = [vote(k, k % 3 == 0) for k in range(2000, 2120)]
    assert not thumbs(good, now=60.0 * 2000).pages
    assert thumbs(good + bad, now=60.0 * 2121).pages


def test_a_warning_does_not_put_off_the_page():
    votes = [vote(k, k % 5 == 0) for k in range(60)]
    assert thumbs(votes).pages
    assert thumbs(votes, past=Past(changes=1, warns=True)).pages
    assert not thumbs(votes, past=Past(changes=1)).pages


def test_a_warning_that_stands_for_over_a_week_makes_no_page_easier():
    good = [vote(k, k % 20 == 0) for k in range(2000)]
    unlucky = [vote(k, k < 2011) for k in range(2000, 2025)]
    later = {"now": 60.0 * 2026}
    assert not thumbs(good + unlucky, **later).pages
    assert not thumbs(good + unlucky, past=Past(changes=0, warns=True), **later).pages


def test_only_the_votes_of_the_version_count():
    assert not thumbs([vote(k, True, version="v2") for k in range(100)]).pages


@pytest.mark.parametrize("limit", [0.0, 1.0])
def test_extreme_limits_are_possible(limit):
    reading = thumbs([vote(k, k < 40) for k in range(80)], config=Monitor(thumbs_down_limit=limit))
    assert reading.pages == (limit == 0.0)
    assert PAGE_FROM_START > 0


# --- budgets -----------------------------------------------------------------------------------


def traffic(until, seconds, failing=0.0, latency=100.0, every=20.0):
    times = np.arange(until - seconds, until, every)
    bad = np.floor(np.arange(len(times)) * failing) != np.floor((np.arange(len(times)) + 1) * failing)
    ends = ["error" if is_bad else "stop" for is_bad in bad]
    return [
        call(f"c{t}", time=float(t), latency=latency, finish=end) for t, end in zip(times, ends, strict=True)
    ]


def errors(calls, now, past=NOTHING, rule="errors"):
    return read_budget(rule, "v1", window(*calls), past, CONFIG, now=now)


def test_an_outage_pages_and_its_end_is_clear():
    now = 30 * HOUR
    outage = traffic(now - HOUR, 20 * HOUR) + traffic(now, HOUR, failing=0.61)
    found = errors(outage, now)
    assert found.pages
    assert not found.is_clear
    after = errors(outage + traffic(now + 3 * HOUR, 3 * HOUR), now + 3 * HOUR)
    assert (after.pages, after.is_clear) == (False, True)


def test_an_outage_that_is_over_pages_no_more():
    now = 30 * HOUR
    calls = traffic(now - 1800, HOUR, failing=0.5) + traffic(now, 1800)
    assert not errors(calls, now).pages


def test_single_failures_page_nobody_and_a_budget_that_is_just_used_warns():
    now = 100 * HOUR
    assert not errors([call("x", time=now - 10, finish="error")], now).pages
    steady = errors(traffic(now, 80 * HOUR, failing=0.02), now)
    assert (steady.pages, steady.warns) == (False, True)
    fine = errors(traffic(now, 80 * HOUR, failing=0.002), now)
    assert (fine.pages, fine.warns, fine.is_clear) == (False, False, True)


def test_slow_answers_page_by_their_share():
    now = 30 * HOUR
    calls = traffic(now, 10 * HOUR) + [
        call(f"s{k}", time=now - HOUR + 30.0 * k, latency=9000.0) for k in range(120)
    ]
    assert errors(calls, now, rule="latency_p99").pages
    assert not errors(traffic(now, 10 * HOUR), now, rule="latency_p99").pages


def test_a_rule_that_went_back_and_forth_is_clear_only_after_six_good_hours():
    now = 30 * HOUR
    calls = traffic(now - 2 * HOUR, HOUR, failing=0.6) + traffic(now, 2 * HOUR)
    assert errors(calls, now, Past(changes=1)).is_clear
    assert not errors(calls, now, Past(changes=2)).is_clear


# --- cost and traffic --------------------------------------------------------------------------


def test_money_is_counted_by_the_utc_day():
    calls = [call(f"c{k}", time=DAY - 600 + 10.0 * k, cost=0.2) for k in range(59)]
    assert read_daily_cost(window(*calls), CONFIG, DAY - 5).pages
    next_day = read_daily_cost(window(*calls), CONFIG, DAY + 3600)
    assert not next_day.pages
    assert next_day.warns
    assert read_daily_cost(window(*calls), CONFIG, 2 * DAY + 3600).is_clear


def test_silence_pages_where_calls_were_to_be_expected():
    week = traffic(7 * DAY, 7 * DAY, every=120.0)
    assert read_traffic(window(*week), 7 * DAY + HOUR).pages
    assert not read_traffic(window(*week), 7 * DAY + 1200).pages
    again = [*week, call("back", time=7 * DAY + HOUR)]
    assert read_traffic(window(*again), 7 * DAY + HOUR + 60).is_clear


def test_calls_that_are_dated_ahead_are_no_silence():
    week = traffic(7 * DAY, 7 * DAY, every=120.0)
    assert not read_traffic(window(*week), 7 * DAY + HOUR, ahead_s=3 * HOUR).pages


def test_a_quiet_night_is_no_silence():
    days = [
        each for d in range(6) for each in traffic(d * DAY + 18 * HOUR, 10 * HOUR, every=60.0)
    ]  # from 8 to 18 h
    assert not read_traffic(window(*days), 6 * DAY + 7 * HOUR).pages
    assert read_traffic(window(*days), 6 * DAY + 10 * HOUR).pages


def working_days(*weeks, until):
    """Calls of each minute from 8 to 18 h, Mondays to Fridays of these weeks."""
    days = [7 * week + day for week in weeks for day in range(5)]
    made = [each for d in days for each in traffic(d * DAY + 18 * HOUR, 10 * HOUR, every=60.0)]
    return window(*(each for each in made if each.time < until))


def test_a_weekend_that_is_always_quiet_is_no_silence_and_a_monday_is():
    monday = 14 * DAY
    seen = working_days(0, 1, 2, until=monday)
    assert not any(read_traffic(seen, monday - hours * HOUR).pages for hours in range(1, 56))
    assert read_traffic(seen, monday + 9 * HOUR).pages
    tuesday = working_days(0, 1, 2, until=monday + DAY + 10 * HOUR)
    assert read_traffic(tuesday, monday + DAY + 11 * HOUR).pages


def test_an_outage_or_a_holiday_a_week_ago_hides_no_silence():
    holiday, today = 21 * DAY, 28 * DAY  # Mondays
    calls = working_days(0, 1, 2, 3, 4, until=today + 10 * HOUR).calls
    seen = MetricsWindow({k: c for k, c in calls.items() if not holiday <= k[1] * 300 < holiday + DAY})
    assert read_traffic(seen, today + 11 * HOUR).pages


def test_a_new_service_has_no_silence():
    assert not read_traffic(window(*traffic(HOUR, HOUR)), 8 * HOUR).pages
    assert not read_traffic(window(), 8 * HOUR).pages

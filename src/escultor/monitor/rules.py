"""Alert rules: what the log shows of each limit at one moment, before any state is decided.

A page rests on a bound that holds however often it is looked at, a warning on the figure itself:

thumbs_down   evidence (`stats.exceedance`) that more than the limit of the people's votes are down
quality       likewise of the answers that judges and programs call bad, against 1 - the floor
errors        the error budget is used up many times too fast, in a long window and in a short one
latency_p99   likewise for the calls that are slower than the limit, of which one in a hundred may be
ttft_p99      likewise for the time to the first token, where it has a limit
daily_cost    what this UTC day has cost is above the budget, or will be at its pace
no_traffic    no call for so long that many were to be expected
clock         answers are dated ahead of this clock

People are the unit of the votes: the k-th vote of one person on a version weighs 1/k, and no page rests on
one person: the evidence must suffice without the votes of the person who added most to it.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from escultor import stats
from escultor.config import Monitor
from escultor.monitor.buckets import BUCKET_S, CallCounts, slower_than
from escultor.monitor.metrics import ALPHA, DAY_S, MetricsWindow, ThumbVote, Z, counts_between
from escultor.stats.exceedance import exceedance
from escultor.types import Estimate

LOOKBACK_S = 28 * DAY_S
HOUR_S = 3600.0
MIN_TO_WARN = 50  # observations; an estimate from fewer gives no warning
# Evidence that pages: from a version's first vote on, and from the beginning of any later hour, of which
# there are many. `bench/alerts.py` has the probabilities that follow.
PAGE_FROM_START, PAGE_FROM_HOUR = math.log(4), math.log(200)
WARN, CLEAR = math.log(2), math.log(6)
MORE = 2.0  # log evidence that each change of state within a week asks more
# A budget burnt at these multiples, in both windows, pages (Site Reliability Workbook, ch. 5, table 5-8).
BURN_PAGES = ((HOUR_S, 300.0, 14.4), (6 * HOUR_S, 1800.0, 6.0))
BURN_WARNS = (3 * DAY_S, 6 * HOUR_S)
SLOW_BUDGET = 0.01  # of the calls may be slower than the limit of the 99th percentile
MIN_EXPECTED = 20.0  # calls that a silence must have swallowed
MAX_AHEAD_S = BUCKET_S  # of a gateway's clock; windows and budgets rest on the times of rows
AGREED_S = 1800.0  # without an answer that is dated ahead, until the clocks count as right
MIN_HISTORY_S = DAY_S  # of traffic before a silence means anything


@dataclass(frozen=True, slots=True)
class Reading:
    """What a rule sees at one moment: its figure, and whether it shows enough to page, to warn, or to say
    that all is well again. Where it shows none of these the state stays as it is."""

    rule: str
    version: str  # empty where the rule is about the whole service
    estimate: Estimate
    limit: float
    pages: bool
    warns: bool
    is_clear: bool
    message: str


class Past(NamedTuple):
    """What the states of a rule were: when it was last ok, when the state changed last, how often within the
    last week, and whether it warns."""

    ok_since: float = -math.inf
    changed: float = -math.inf
    changes: int = 0
    warns: bool = False


def read_thumbs(
    version: str,
    votes: Sequence[ThumbVote],
    past: Past,
    config: Monitor,
    now: float,
    *,
    unnamed: frozenset[str] = frozenset(),
) -> Reading:
    """The rule `thumbs_down` of one version. Votes of the subjects `unnamed`, which stand for applications
    that do not say who their users are, count each as a person's first."""
    limit = config.thumbs_down_limit
    return read_votes("thumbs_down", version, votes, past, config, limit=limit, now=now, unnamed=unnamed)


def read_votes(
    rule: str,
    version: str,
    votes: Sequence[ThumbVote],
    past: Past,
    config: Monitor,
    *,
    limit: float,
    now: float,
    unnamed: frozenset[str] = frozenset(),
) -> Reading:
    """A rule about the share of votes that are down (`thumbs_down`, `quality`) of one version."""
    own = [v for v in votes if v.answer.version == version and now - LOOKBACK_S <= v.time <= now]
    weights = _weights(own, unnamed)
    down = [float(v.is_down) for v in own]
    begin = sum(v.time <= past.ok_since for v in own)
    others = _without_loudest(own[begin:], weights[begin:], unnamed, limit)
    of_others = exceedance(down[begin:], others, limit)
    hours = {int(v.time // HOUR_S): i for i, v in reversed(list(enumerate(own[begin:])))}
    start, _ = of_others.log_above([0])
    later, shown_from = of_others.log_above([0, *hours.values()])
    evidence = exceedance(down, weights, limit)
    since_change, _ = evidence.log_below([sum(v.time <= past.changed for v in own)])
    more = MORE * past.changes
    # From a warning to a page is one way, not back and forth. A warning may be older than what is counted.
    to_page = MORE * max(past.changes - past.warns, 0)
    enough = len(own) - begin >= config.min_rated
    first_level = PAGE_FROM_START if begin == 0 else PAGE_FROM_HOUR
    pages = enough and (start >= first_level + to_page or later >= PAGE_FROM_HOUR + to_page)
    first = begin + shown_from if pages else bisect_left(own, now - 7 * DAY_S, key=lambda v: v.time)
    what = "thumbs down" if rule == "thumbs_down" else "bad answers"
    estimate = _weighted(f"{what.replace(' ', '_')}_share", own[first:], weights[first:])
    when = f" since {_utc(own[first].time)}" if pages else " of 7 days"
    return Reading(
        rule,
        version,
        estimate,
        limit,
        pages=pages,
        # A rule that went back and forth within a week says no more than what pages.
        warns=past.changes < 2
        and len(own) - begin >= MIN_TO_WARN
        and estimate.value > limit
        and later >= WARN + more,
        is_clear=since_change >= CLEAR + max(more - MORE, 0.0),
        message=f"{what} {estimate.value:.1%} of {estimate.n} votes{when}, weighted by person "
        f"[{estimate.low:.1%}, {estimate.high:.1%}], limit {limit:.1%}",
    )


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _weights(votes: Iterable[ThumbVote], unnamed: frozenset[str]) -> list[float]:
    given: Counter[str] = Counter()
    weights = []
    for vote in votes:
        given[vote.subject] += 1
        weights.append(1.0 if vote.subject in unnamed else 1.0 / given[vote.subject])
    return weights


def _without_loudest(
    votes: Sequence[ThumbVote], weights: Sequence[float], unnamed: frozenset[str], limit: float
) -> list[float]:
    """The weights with those of the person who adds most to the evidence set to 0."""
    added: defaultdict[str, float] = defaultdict(float)
    for vote, weight in zip(votes, weights, strict=True):
        if vote.subject not in unnamed:
            added[vote.subject] += weight * (vote.is_down - limit)
    loudest = max(added, key=lambda subject: (added[subject], subject), default=None)
    return [0.0 if v.subject == loudest else w for v, w in zip(votes, weights, strict=True)]


def _weighted(name: str, votes: Sequence[ThumbVote], weights: Sequence[float]) -> Estimate:
    """The weighted share of votes that are down, with the Wilson interval of their effective number."""
    total = math.fsum(weights)
    if not total:
        return Estimate(name, 0.0, 0.0, 1.0, 0)
    share = math.fsum(w for v, w in zip(votes, weights, strict=True) if v.is_down) / total
    effective = max(1, math.floor(total * total / math.fsum(w * w for w in weights)))
    low, high = stats.wilson(min(share * effective, effective), effective, ALPHA)
    return Estimate(name, share, low, high, len(votes))


def read_budget(
    rule: str, version: str, window: MetricsWindow, past: Past, config: Monitor, *, now: float
) -> Reading:
    """The rules `errors`, `latency_p99` and `ttft_p99` (where that has a limit) of one version: how fast its
    budget of bad calls is used."""
    ms = config.latency_p99_ms if rule == "latency_p99" else config.ttft_p99_ms or math.inf
    budget, limit = (config.error_budget, config.error_budget) if rule == "errors" else (SLOW_BUDGET, ms)

    def bad(seconds: float) -> tuple[int, int]:
        # The five minutes in progress are read too: an outage is told within them.
        counts = counts_between(window, version, now - max(seconds, 2 * BUCKET_S), now)
        return _bad(rule, counts, ms)

    def burns(seconds: float, factor: float) -> bool:
        events, n = bad(seconds)
        return n > 0 and events / n >= factor * budget

    def shows(seconds: float, factor: float) -> bool:
        events, n = bad(seconds)
        return events > 1 and stats.wilson(events, n, ALPHA)[0] >= min(factor * budget, 0.5)

    events, n = bad(HOUR_S)
    low, high = stats.wilson(events, n, ALPHA)
    # A rule that went back and forth this week is clear only after six good hours.
    last, calls = (events, n) if past.changes < 2 else bad(6 * HOUR_S)
    what = "failed calls" if rule == "errors" else f"{_TIMES[rule]} {limit:.0f} ms"
    return Reading(
        rule,
        version,
        Estimate("error_share" if rule == "errors" else "slow_share", events / n if n else 0.0, low, high, n),
        limit,
        pages=any(
            shows(long, factor) and burns(short, min(factor, 0.5 / budget))
            for long, short, factor in BURN_PAGES
        ),
        warns=past.changes < 2
        and bad(BURN_WARNS[0])[1] >= MIN_TO_WARN
        and all(burns(seconds, 1.0) for seconds in BURN_WARNS),
        is_clear=calls >= 10 and last / calls < 0.8 * budget,
        message=f"{events} {what} of {n} of the last hour [{low:.1%}, {high:.1%}], budget {budget:.1%}",
    )


_TIMES = {"latency_p99": "calls slower than", "ttft_p99": "first tokens later than"}


def _bad(rule: str, counts: CallCounts, limit_ms: float) -> tuple[int, int]:
    """How many calls are bad by a rule, and of how many."""
    if rule == "errors":
        return counts.failed, counts.calls
    if rule == "latency_p99":
        return slower_than(counts.latencies, limit_ms), counts.calls
    return slower_than(counts.first_tokens, limit_ms), counts.first_tokens.total()


def read_daily_cost(window: MetricsWindow, config: Monitor, now: float) -> Reading:
    """The rule `daily_cost`: money spent on this UTC day, by all versions."""
    midnight = now // DAY_S * DAY_S
    today = counts_between(window, None, midnight, now)
    last_day = counts_between(window, None, now - DAY_S, now)
    limit, spent = config.daily_cost_usd, today.cost_usd
    half = Z * math.sqrt(last_day.cost_squared)
    pace = Estimate(
        "cost_usd_per_day",
        last_day.cost_usd,
        max(0.0, last_day.cost_usd - half),
        last_day.cost_usd + half,
        last_day.calls,
    )
    return Reading(
        "daily_cost",
        "",
        pace,
        limit,
        pages=spent > limit,
        warns=last_day.calls >= MIN_TO_WARN and pace.value > limit,
        is_clear=spent <= limit and pace.value <= 0.9 * limit,
        message=f"{spent:.2f} USD spent on this UTC day, {pace.value:.2f} in the last 24 hours, "
        f"budget {limit:.2f} a day",
    )


def read_traffic(window: MetricsWindow, now: float, ahead_s: float = 0.0) -> Reading:
    """The rule `no_traffic`: how many calls were to be expected since the last one: as many as the same times
    of the seven days before had in the mean, and no more than they usually had on this day of the week. Calls
    that come dated ahead (`read_clock`) are no silence."""
    starts = [number * BUCKET_S for (_, number) in window.calls if number * BUCKET_S <= now]
    last, first = max(starts, default=now), min(starts, default=now)
    expected = 0.0
    if now - first >= MIN_HISTORY_S and now - last > BUCKET_S:

        def calls(days: Iterable[int]) -> list[int]:
            known = [day * DAY_S for day in days if last - day * DAY_S >= first]
            return [counts_between(window, None, last - ago, now - ago).calls for ago in known]

        before, same_day = calls(range(1, 8)), sorted(calls(range(7, 29, 7)))
        expected = sum(before) / len(before) if before else 0.0
        expected = min([expected, *same_day[(len(same_day) - 1) // 2 :][:1]])
    minutes = (now - last) / 60
    return Reading(
        "no_traffic",
        "",
        Estimate("expected_calls", expected, expected, expected, len(starts)),
        MIN_EXPECTED,
        pages=expected >= MIN_EXPECTED and ahead_s <= MAX_AHEAD_S,
        warns=False,
        is_clear=now - last <= 2 * BUCKET_S,
        message=f"no call for {minutes:.0f} minutes, in which {expected:.0f} were to be expected",
    )


def read_clock(ahead_s: float, agreed_s: float = math.inf) -> Reading:
    """The rule `clock`: how far the time of the latest row is ahead of this process' clock, and for how long
    none was: of several gateways one may be wrong, and answer now and then."""
    return Reading(
        "clock",
        "",
        Estimate("ahead_s", ahead_s, ahead_s, ahead_s, 1),
        MAX_AHEAD_S,
        pages=ahead_s > MAX_AHEAD_S,
        warns=False,
        is_clear=ahead_s <= MAX_AHEAD_S and agreed_s >= AGREED_S,
        message=f"answers are dated {ahead_s:.0f} s ahead of the monitor's clock: one of the two is wrong",
    )

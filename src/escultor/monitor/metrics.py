"""Metrics of a time window: a mergeable fold of the log, and the health computed from it.

A `MetricsWindow` is keyed by id, so folding is order-free and idempotent: reading a part of the log twice
changes nothing, and the windows of parts merge into the window of the whole. It takes about 300 bytes a call.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple, TypeVar

from escultor import stats
from escultor.errors import DataError
from escultor.store.feedback import THUMB, latest, precedence
from escultor.types import FAILED, Estimate, Feedback, Health, Interaction, Rating

DAY_S = 86_400.0
ALPHA = 0.025  # one-sided: 95 % intervals
Z = NormalDist().inv_cdf(1 - ALPHA)

K = TypeVar("K")
V = TypeVar("V", bound=tuple[Any, ...])


class MetricsCall(NamedTuple):
    """What one interaction adds to the metrics."""

    time: float
    version: str
    failed: bool
    latency_ms: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float


class Thumb(NamedTuple):
    """The latest vote of one subject on one answer; thumbs compare by precedence first."""

    precedence: tuple[float, bool, str]
    vote: int  # +1 up, -1 down, 0 withdrawn


@dataclass(frozen=True, slots=True)
class MetricsWindow:
    """Calls by interaction id, thumbs by (target, subject). Law: fold(a + b) = merge(fold(a), fold(b))."""

    calls: Mapping[str, MetricsCall]
    thumbs: Mapping[tuple[str, str], Thumb]


def fold(interactions: Iterable[Interaction], feedback: Iterable[Feedback] = ()) -> MetricsWindow:
    """Fold events, in any order, into a window.

    Thumbs are boolean Ratings named `thumb`; per target and subject the latest counts, and a Revocation
    of that name withdraws the earlier ones. Other feedback does not count.
    """
    calls: dict[str, MetricsCall] = {}
    for i in interactions:
        usage, failed = i.usage, i.finish_reason in FAILED
        tokens = (usage.prompt_tokens, usage.completion_tokens)
        _keep_latest(calls, i.id, MetricsCall(i.time, i.version, failed, i.latency_ms, *tokens, i.cost_usd))
    thumbs: dict[tuple[str, str], Thumb] = {}
    for (target, subject, name), f in latest(feedback).items():
        if name == THUMB:
            vote = (1 if f.value else -1) if isinstance(f, Rating) and isinstance(f.value, bool) else 0
            thumbs[target, subject] = Thumb(precedence(f), vote)
    return MetricsWindow(calls, thumbs)


def merge(a: MetricsWindow, b: MetricsWindow) -> MetricsWindow:
    """The window of two logs together."""
    calls, thumbs = dict(a.calls), dict(a.thumbs)
    for key, call in b.calls.items():
        _keep_latest(calls, key, call)
    for pair, thumb in b.thumbs.items():
        _keep_latest(thumbs, pair, thumb)
    return MetricsWindow(calls, thumbs)


def _keep_latest(kept: dict[K, V], key: K, value: V) -> None:
    kept[key] = max(kept.get(key, value), value)


def health(version: str, window: MetricsWindow, since: float, until: float) -> Health:
    """Estimates for the calls a version answered in [since, until), in seconds since the epoch.

    Shares have Wilson intervals, latencies bounds by order statistics (an upper bound of inf: too few calls),
    the daily cost the interval of a compound Poisson sum. Totals are counted, so their bounds are the totals.
    A thumb belongs to the call that it rates, whenever it was given; one on a call outside the window does
    not count. Estimates with `n` 0 carry no information, and their bounds say so. Raises DataError when
    the window has no length.
    """
    if not since < until:
        raise DataError("a window has no length", f"since {since}, until {until}", "since < until")
    calls = {k: c for k, c in window.calls.items() if c.version == version and since <= c.time < until}
    votes = [(target, t.vote) for (target, _), t in window.thumbs.items() if t.vote and target in calls]
    n, failed = len(calls), sum(c.failed for c in calls.values())
    # The time of a failed call says nothing about answers: failures have their own share, not a latency.
    latencies_ms = [c.latency_ms for c in calls.values() if not c.failed]
    estimates = (
        _total("calls", n, n),
        _share("error_share", failed, n),
        _share("rated_share", len({target for target, _ in votes}), n),
        _share("thumbs_down_share", sum(vote < 0 for _, vote in votes), len(votes)),
        _latency("latency_p50_ms", latencies_ms, 0.5),
        _latency("latency_p99_ms", latencies_ms, 0.99),
        _total("prompt_tokens", sum(c.prompt_tokens for c in calls.values()), n),
        _total("completion_tokens", sum(c.completion_tokens for c in calls.values()), n),
        _total("cost_usd", math.fsum(c.cost_usd for c in calls.values()), n),
        _daily_cost([c.cost_usd for c in calls.values()], until - since),
    )
    return Health(version, since, until, estimates)


def _total(name: str, value: float, n: int) -> Estimate:
    return Estimate(name, float(value), float(value), float(value), n)


def _share(name: str, count: int, n: int) -> Estimate:
    low, high = stats.wilson(count, n, ALPHA)
    return Estimate(name, count / n if n else 0.0, low, high, n)


def _latency(name: str, latencies_ms: list[float], q: float) -> Estimate:
    if not latencies_ms:
        return Estimate(name, 0.0, 0.0, math.inf, 0)
    at_q = stats.quantile(latencies_ms, q, ALPHA)
    low = 0.0 if at_q.low is None else at_q.low
    return Estimate(name, at_q.value, low, math.inf if at_q.high is None else at_q.high, at_q.n)


def _daily_cost(costs: list[float], seconds: float) -> Estimate:
    """The cost of a day at this rate, in dollars. For calls at random times (Poisson) the variance of the sum
    of their costs is the sum of their squares."""
    spent, days = math.fsum(costs), seconds / DAY_S
    half = Z * math.sqrt(math.fsum(c * c for c in costs))
    # A whole day costs at least what a part of it has cost already.
    low = max(spent if days <= 1 else 0.0, (spent - half) / days)
    return Estimate(
        "cost_usd_per_day", spent / days, low, (spent + half) / days if costs else math.inf, len(costs)
    )

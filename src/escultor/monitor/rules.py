"""Alert rules over health: fire when a limit is shown to be exceeded, warn when it only appears to be.

At 100 ratings a raw share exceeds the limit in 18 % of all evaluations although the true share is below it;
its lower bound does so in 1 %. So a rule fires on the bound and warns on the estimate.
"""

from __future__ import annotations

from typing import Literal

from escultor import stats
from escultor.config import Monitor
from escultor.ids import hash_value
from escultor.monitor.metrics import DAY_S
from escultor.types import Alert, Estimate, Health

AlertState = Literal["ok", "warn", "firing"]

MIN_TO_WARN = 50  # observations; an estimate from fewer gives no warning
FIRING_ALPHA = 0.05  # one-sided error of the bound on a share


def alerts(health: Health, config: Monitor, now: float) -> list[Alert]:
    """One alert per rule whose figure the health contains, in the state `ok`, `warn` or `firing`.

    thumbs_down   fires when the one-sided 95 % Wilson lower bound of the share is above the limit
    latency_p99   fires when the lower bound of its interval (milliseconds) is above the limit
    daily_cost    fires likewise (US dollars a day), or when a window of at most a day has spent the limit

    Firing needs `config.min_rated` observations (spent money needs none), a warning 50. The id of an alert
    is the hash of its content.
    """
    estimates = {e.name: e for e in health.estimates}
    down, p99, daily, spent = (
        estimates.get(name)
        for name in ("thumbs_down_share", "latency_p99_ms", "cost_usd_per_day", "cost_usd")
    )
    results = []
    if down:
        limit = config.thumbs_down_limit
        state = _state(down, limit, config.min_rated, is_share_above(down.value, down.n, limit))
        results.append(_alert("thumbs_down", state, down, limit, health=health, now=now))
    if p99:
        limit = config.latency_p99_ms
        state = _state(p99, limit, config.min_rated, p99.low > limit)
        results.append(_alert("latency_p99", state, p99, limit, health=health, now=now))
    if daily:
        limit = config.daily_cost_usd
        state = _state(daily, limit, config.min_rated, daily.low > limit)
        if spent and spent.value > limit and health.until - health.since <= DAY_S:
            state = "firing"
        results.append(_alert("daily_cost", state, daily, limit, health=health, now=now))
    return results


def is_share_above(share: float, n: int, limit: float) -> bool:
    """Whether the one-sided 95 % Wilson lower bound of a share of n is above the limit."""
    return stats.wilson(round(share * n), n, FIRING_ALPHA)[0] > limit


def _state(estimate: Estimate, limit: float, min_n: int, is_shown: bool) -> AlertState:
    if is_shown and estimate.n >= min_n:
        return "firing"
    return "warn" if estimate.value > limit and estimate.n >= MIN_TO_WARN else "ok"


def _alert(rule: str, state: AlertState, e: Estimate, limit: float, *, health: Health, now: float) -> Alert:
    message = f"version {health.version}: {_MESSAGES[rule](e, limit)}; {_STATES[state]}"
    identity = hash_value((rule, state, health.version, health.since, health.until, now, message))
    return Alert(
        id=f"alert-{identity}", time=now, rule=rule, state=state, estimate=e, limit=limit, message=message
    )


def _thumbs_down(e: Estimate, limit: float) -> str:
    if e.n == 0:
        return f"no ratings in the window, so nothing is known of thumbs down (limit {limit:.1%})"
    return f"thumbs down {e.value:.1%} of {e.n} ratings [{e.low:.1%}, {e.high:.1%}], limit {limit:.1%}"


def _latency(e: Estimate, limit: float) -> str:
    if e.n == 0:
        return f"no answers in the window, so nothing is known of latency (limit {limit:.0f} ms)"
    high = "unknown" if e.high == float("inf") else f"{e.high:.0f}"
    return f"p99 latency {e.value:.0f} ms of {e.n} answers [{e.low:.0f}, {high}], limit {limit:.0f} ms"


def _daily_cost(e: Estimate, limit: float) -> str:
    if e.n == 0:
        return f"no calls in the window, so nothing is known of the cost (limit {limit:.2f} USD a day)"
    interval = f"[{e.low:.2f}, {e.high:.2f}]"
    return f"cost {e.value:.2f} USD a day over {e.n} calls {interval}, limit {limit:.2f} USD a day"


_MESSAGES = {"thumbs_down": _thumbs_down, "latency_p99": _latency, "daily_cost": _daily_cost}
_STATES: dict[AlertState, str] = {
    "firing": "shown to be above the limit",
    "warn": "above the limit, but within chance variation",
    "ok": "no cause for alarm",
}

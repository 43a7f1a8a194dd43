"""Rules over health: page when a limit is shown to be passed, warn when it merely looks so.

A raw share pages at 18 % of all looks at 100 ratings while the truth is below the limit; its lower bound
at 1 %. So a rule fires on the bound and warns on the figure.
"""

from __future__ import annotations

from typing import Literal

from escultor import stats
from escultor.config import Monitor
from escultor.ids import hash_value
from escultor.monitor.metrics import DAY_S
from escultor.types import Alert, Estimate, Health

AlertState = Literal["ok", "warn", "firing"]

WARN_FROM = 50  # fewer observations: a raw figure is not worth a word
PAGE_LEVEL = 0.05  # one-sided error of the bound on a share


def alerts(health: Health, config: Monitor, now: float) -> list[Alert]:
    """One alert per rule whose figure the health holds, in the state `ok`, `warn` or `firing`.

    thumbs_down   fires when the one-sided 95 % Wilson lower bound of the share is above the limit
    latency_p99   fires when the lower bound of its interval (milliseconds) is above the limit
    daily_cost    fires likewise (US dollars a day), or when a window of a day at most has spent the limit

    Firing needs `config.min_rated` observations (spent money needs none), warning 50. The id of an alert
    is the hash of what it says.
    """
    found = {e.name: e for e in health.estimates}
    made = []
    if e := found.get("thumbs_down_share"):
        limit = config.thumbs_down_limit
        state = _state(e, limit, config.min_rated, is_share_above(e.value, e.n, limit))
        made.append(_alert("thumbs_down", state, e, limit, health, now))
    if e := found.get("latency_p99_ms"):
        state = _state(e, config.latency_p99_ms, config.min_rated, e.low > config.latency_p99_ms)
        made.append(_alert("latency_p99", state, e, config.latency_p99_ms, health, now))
    if e := found.get("cost_usd_per_day"):
        limit = config.daily_cost_usd
        state = _state(e, limit, config.min_rated, e.low > limit)
        spent = found.get("cost_usd")
        if spent and spent.value > limit and health.until - health.since <= DAY_S:
            state = "firing"
        made.append(_alert("daily_cost", state, e, limit, health, now))
    return made


def is_share_above(share: float, n: int, limit: float) -> bool:
    """Whether the one-sided 95 % Wilson lower bound of a share of n is above the limit."""
    return stats.wilson(round(share * n), n, PAGE_LEVEL)[0] > limit


def _state(estimate: Estimate, limit: float, least: int, shown: bool) -> AlertState:
    if shown and estimate.n >= least:
        return "firing"
    return "warn" if estimate.value > limit and estimate.n >= WARN_FROM else "ok"


def _alert(rule: str, state: AlertState, e: Estimate, limit: float, health: Health, now: float) -> Alert:
    message = f"version {health.version}: {_MESSAGES[rule](e, limit)}; {_VERDICTS[state]}"
    identity = hash_value((rule, state, health.version, health.since, health.until, now, message))
    return Alert(f"alert-{identity}", now, rule, state, e, limit, message)


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
_VERDICTS: dict[AlertState, str] = {
    "firing": "shown to be above the limit",
    "warn": "above the limit, but not shown to be so beyond chance",
    "ok": "no cause for alarm",
}

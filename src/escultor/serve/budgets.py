"""What a key may still spend: its budgets, and what the log says that it has spent. Days and months are UTC.

A call is admitted while no budget of its key is used up. Its cost is added with its row, before its answer is
delivered, in the database that all gateways share: a key spends at most what its calls in flight cost more
than its budget.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from escultor.serve.wire.errors import ApiError
from escultor.store.kinds import DAY_S, Spending
from escultor.types import KeyLimits

HEADER = "x-escultor-remaining-"
BUDGETS = ("tokens_per_day", "tokens_per_month", "usd_per_day", "usd_per_month")  # fields of `KeyLimits`


def has_budget(limits: KeyLimits) -> bool:
    """Whether a key has any budget."""
    return any(getattr(limits, name) is not None for name in BUDGETS)


def first_day(now: float) -> int:
    """The first day of the month, in days since the epoch."""
    return int(datetime.fromtimestamp(now, UTC).replace(day=1).timestamp() // DAY_S)


def remaining(limits: KeyLimits, spent: Iterable[Spending], now: float) -> dict[str, float]:
    """What is left of each budget that a key has, never below 0; `spent` is that of the month."""
    spent, today = list(spent), int(now // DAY_S)
    left: dict[str, float] = {}
    for name in BUDGETS:
        if (limit := getattr(limits, name)) is not None:
            unit, _, period = name.split("_")
            used = sum(getattr(each, unit) for each in spent if period == "month" or each.day == today)
            left[name] = max(0, limit - used)
    return left


def refuse_spent(limits: KeyLimits, left: dict[str, float], now: float) -> None:
    """Raise ApiError where a budget is used up: 402 for money, 429 for tokens, with all that is left and the
    seconds until the period ends."""
    name = next((name for name in reversed(BUDGETS) if name in left and left[name] <= 0), None)
    if name is None:
        return
    unit, _, period = name.split("_")
    ends = _end_of(period, now)
    lines = ", ".join(f"{_shown(each, value)} {each.replace('_', ' ')}" for each, value in left.items())
    limit = _shown(name, getattr(limits, name))
    message = f"this key has used up its {limit} {name.replace('_', ' ')}, until {ends:%Y-%m-%dT%H:%MZ}"
    headers = budget_headers(left) | {
        "Retry-After": str(max(1, int(ends.timestamp() - now) + 1)),
        "x-should-retry": "false",  # official clients would wait and ask in vain
    }
    status, kind = (402, "insufficient_quota") if unit == "usd" else (429, "rate_limit_error")
    raise ApiError(status, f"{message}; left: {lines}", "budget_exceeded", kind=kind, headers=headers)


def budget_headers(left: dict[str, float]) -> dict[str, str]:
    """The budgets that are left, as headers of a response."""
    return {HEADER + name.replace("_", "-"): _shown(name, value) for name, value in left.items()}


def _end_of(period: str, now: float) -> datetime:
    today = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return today + timedelta(days=1)
    return (today.replace(day=1) + timedelta(days=32)).replace(day=1)


def _shown(name: str, value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".") if name.startswith("usd") else str(int(value))

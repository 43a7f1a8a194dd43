"""A student beside its teacher: quality kept, speed gained, cost cut, against the hopes of the policy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from escultor import stats
from escultor.config import Gate
from escultor.evaluate.gate.effects import SHOWN, scale_of
from escultor.rng import derive_seed
from escultor.types import Scores

CheckOutcome = Literal["met", "missed", "open", "unknown"]


@dataclass(frozen=True, slots=True)
class AcceptanceCheck:
    """One hope: a ratio of student over teacher, with a 95 % interval where it is estimated from items."""

    name: str
    wanted: str
    value: float | None
    low: float | None
    high: float | None
    outcome: CheckOutcome


@dataclass(frozen=True, slots=True)
class TradeOff:
    hopes: tuple[AcceptanceCheck, ...]
    recommendation: str


def trade_off(teacher: Scores, student: Scores, policy: Gate, seed: int) -> TradeOff:
    """Each hope with what was measured, and what to do, in plain words."""
    quality = _quality(teacher, student, policy, seed)
    speed = _ratio(teacher, student, "tokens_per_s")
    cost = _ratio(teacher, student, "cost_usd_per_request", "cost_usd_per_1k_tokens")
    hopes = (
        quality,
        _hope(
            "speed, tokens/s",
            f"at least {policy.hopes.speed:g} times",
            speed,
            speed is not None and speed >= policy.hopes.speed,
        ),
        _hope(
            "cost", f"at most {policy.hopes.cost:.0%}", cost, cost is not None and cost <= policy.hopes.cost
        ),
    )
    return TradeOff(hopes, _recommend(*hopes))


def _quality(teacher: Scores, student: Scores, policy: Gate, seed: int) -> AcceptanceCheck:
    """The share of the teacher's mean that the student keeps: a ratio of cluster sums, resampled together."""
    metric, least = policy.primary[0], policy.hopes.quality_kept
    wanted = f"at least {least:.0%} of {metric}"
    if scale_of(teacher, metric).better != "higher":
        return AcceptanceCheck("quality kept", wanted, None, None, None, "unknown")
    groups = stats.grouped(teacher.clusters)
    old, _ = stats.cluster_sums(teacher.metrics[metric], groups)
    new, _ = stats.cluster_sums(student.metrics[metric], groups)
    if not old.sum() > 0 or len(old) < 2 or bool(np.any(old < 0)):
        return AcceptanceCheck("quality kept", wanted, None, None, None, "unknown")
    most = float(np.max(new / np.where(old > 0, old, np.inf), initial=0.0))
    own = derive_seed(seed, "trade-off", metric)
    found = stats.bootstrap_ratio(new, old, SHOWN, own, floor=0.0, ceiling=max(most, 1.0), n=len(groups))
    outcome = "met" if found.low >= least else "missed" if found.high < least else "open"
    return AcceptanceCheck("quality kept", wanted, found.value, found.low, found.high, outcome)


def _ratio(teacher: Scores, student: Scores, *names: str) -> float | None:
    """Student over teacher, of the first of these figures that both have."""
    for name in names:
        old, new = teacher.summary.get(name), student.summary.get(name)
        if old and new is not None:
            return new / old
    return None


def _hope(name: str, wanted: str, value: float | None, met: bool) -> AcceptanceCheck:
    outcome = "unknown" if value is None else "met" if met else "missed"
    return AcceptanceCheck(name, wanted, value, None, None, outcome)


def _recommend(quality: AcceptanceCheck, speed: AcceptanceCheck, cost: AcceptanceCheck) -> str:
    gains = [h for h in (speed, cost) if h.outcome == "met"]
    short = [h.name for h in (speed, cost) if h.outcome == "missed"]
    unknown = [h.name for h in (quality, speed, cost) if h.outcome == "unknown"]
    tail = f" Not measured: {', '.join(unknown)}." if unknown else ""
    if quality.outcome == "missed":
        return f"Keep the teacher: the student is shown to lose too much quality.{tail}"
    if quality.outcome == "open":
        return (
            "Do not replace the teacher yet: whether the student keeps enough quality is open. Evaluate it "
            f"on more items, or use it where a wrong answer is cheap.{tail}"
        )
    if quality.outcome == "unknown":
        return f"No recommendation: what the student keeps of the quality is not known.{tail}"
    if not short and gains:
        return f"Use the student: it keeps enough quality and gains what was hoped for.{tail}"
    if gains:
        return (
            f"Use the student where {' and '.join(h.name for h in gains)} count: it keeps enough quality, "
            f"but falls short of the hope for {' and '.join(short)}.{tail}"
        )
    return f"The student keeps enough quality, but gains less than was hoped for: a smaller one may.{tail}"

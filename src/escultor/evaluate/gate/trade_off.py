"""A student against its teacher: quality kept, speed gained and cost saved, with the policy's targets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from escultor import stats
from escultor.config import Gate
from escultor.evaluate.gate.effects import INTERVAL_ALPHA
from escultor.evaluate.gate.requirements import scale_of
from escultor.rng import derive_seed
from escultor.types import Scores

CheckOutcome = Literal["met", "missed", "open", "unknown"]


@dataclass(frozen=True, slots=True)
class AcceptanceCheck:
    """One target: a ratio of student to teacher, with a 95 % interval where it is estimated from items."""

    name: str
    wanted: str
    value: float | None
    low: float | None
    high: float | None
    outcome: CheckOutcome


@dataclass(frozen=True, slots=True)
class TradeOff:
    checks: tuple[AcceptanceCheck, ...]
    recommendation: str


def trade_off(teacher: Scores, student: Scores, policy: Gate, seed: int) -> TradeOff:
    """Each acceptance target with the measured ratio, and a recommendation in words."""
    targets = policy.acceptance_targets
    quality = _quality(teacher, student, policy, seed)
    speed = _ratio(teacher, student, "tokens_per_s")
    cost = _ratio(teacher, student, "cost_usd_per_request", "cost_usd_per_1k_tokens")
    is_fast = speed is not None and speed >= targets.speed
    is_cheap = cost is not None and cost <= targets.cost
    checks = (
        quality,
        _check("speed, tokens/s", f"at least {targets.speed:g} times", speed, is_fast),
        _check("cost", f"at most {targets.cost:.0%}", cost, is_cheap),
    )
    return TradeOff(checks, _recommend(*checks))


def _quality(teacher: Scores, student: Scores, policy: Gate, seed: int) -> AcceptanceCheck:
    """The share of the teacher's mean that the student keeps: a ratio of cluster sums, resampled together."""
    metric, least = policy.primary[0], policy.acceptance_targets.quality_kept
    unknown = AcceptanceCheck(
        "quality kept",
        f"at least {least:.0%} of {metric}",
        value=None,
        low=None,
        high=None,
        outcome="unknown",
    )
    if scale_of(teacher.scales, metric).better != "higher":
        return unknown
    groups = stats.grouped(teacher.clusters)
    old, _ = stats.cluster_sums(teacher.metrics[metric], groups)
    new, _ = stats.cluster_sums(student.metrics[metric], groups)
    if not old.sum() > 0 or len(old) < 2 or bool(np.any(old < 0)):
        return unknown
    most = float(np.max(new / np.where(old > 0, old, np.inf), initial=0.0))
    ratio = stats.bootstrap_ratio(
        new,
        old,
        INTERVAL_ALPHA,
        derive_seed(seed, "trade-off", metric),
        floor=0.0,
        ceiling=max(most, 1.0),
        n=len(groups),
    )
    outcome = "met" if ratio.low >= least else "missed" if ratio.high < least else "open"
    return replace(unknown, value=ratio.value, low=ratio.low, high=ratio.high, outcome=outcome)


def _ratio(teacher: Scores, student: Scores, *names: str) -> float | None:
    """Student over teacher, of the first of these figures that both have."""
    for name in names:
        old, new = teacher.summary.get(name), student.summary.get(name)
        if old and new is not None:
            return new / old
    return None


def _check(name: str, wanted: str, value: float | None, is_met: bool) -> AcceptanceCheck:
    outcome = "unknown" if value is None else "met" if is_met else "missed"
    return AcceptanceCheck(name, wanted, value, None, None, outcome=outcome)


def _recommend(quality: AcceptanceCheck, speed: AcceptanceCheck, cost: AcceptanceCheck) -> str:
    gains = [check.name for check in (speed, cost) if check.outcome == "met"]
    missed = [check.name for check in (speed, cost) if check.outcome == "missed"]
    unknown = [check.name for check in (quality, speed, cost) if check.outcome == "unknown"]
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
    if not missed and gains:
        return f"Use the student: it keeps enough quality and meets the targets.{tail}"
    if gains:
        return (
            f"Use the student where {' and '.join(gains)} count: it keeps enough quality, "
            f"but misses the target for {' and '.join(missed)}.{tail}"
        )
    return f"The student keeps enough quality, but misses the targets: a smaller one may meet them.{tail}"

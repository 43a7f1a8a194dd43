"""From alerts to a plan: training starts only for causes that training can fix, and not too often."""

from __future__ import annotations

from collections.abc import Sequence

from escultor.config import Monitor
from escultor.ids import hash_value
from escultor.types import Alert, Plan

# Slow or costly answers come from machines and traffic: they need a person, not a training run.
TRAINABLE = frozenset({"thumbs_down"})
STAGES = ("collect", "convert", "train", "validate", "gate", "deploy")


def plan(
    alerts: Sequence[Alert], last_plan: Plan | None, new_rows: int, config: Monitor, now: float
) -> Plan | None:
    """A plan for one cycle run where a trainable alert fires, there are new training rows, and the last plan
    is at least `config.cooldown_s` seconds old; else None.

    `new_rows` counts usable training rows since the last plan. Of several firing alerts the one furthest
    above its limit is the reason.
    """
    firing = [a for a in alerts if a.state == "firing" and a.rule in TRAINABLE]
    if not firing or new_rows < 1:
        return None
    if last_plan is not None and now - last_plan.time < config.cooldown_s:
        return None
    worst = max(firing, key=lambda a: (a.estimate.value - a.limit, a.id))
    rows = "1 new usable row" if new_rows == 1 else f"{new_rows} new usable rows"
    reason = f"{worst.message}; {rows} to learn from"
    return Plan(f"plan-{hash_value((worst.id, now, STAGES, reason))}", now, STAGES, worst.id, reason)

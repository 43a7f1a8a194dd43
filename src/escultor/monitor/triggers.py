"""From alerts to a diagnosis and a plan: training starts only for causes that training can fix, where there
is something new to learn from, and not too often."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from escultor.config import Monitor
from escultor.ids import hash_value
from escultor.types import Alert, Plan

STAGES = ("collect", "convert", "train", "validate", "gate", "deploy")
INFRASTRUCTURE = frozenset({"errors", "latency_p99", "ttft_p99", "daily_cost", "no_traffic", "clock"})
OF_ANSWERS = frozenset({"thumbs_down", "quality"})  # what training may mend
Remedy = Literal["none", "rollback", "person", "train"]


class Diagnosis(NamedTuple):
    """What the firing alerts ask for, of which alert, and why."""

    remedy: Remedy
    alert: Alert | None
    reason: str


def diagnose(
    alerts: Sequence[Alert], new_rows: int, champion: str = "", candidate: str | None = None
) -> Diagnosis:
    """The remedy for alerts that fire.

    A fault of a candidate on trial is rolled back. Slow, failing, costly or absent answers come from machines
    and traffic: they need a person, and while they last nothing is trained on what people say of them. The
    champion's quality is trained on where there are new rows to learn from; else a person looks. `new_rows`
    counts usable training rows of every kind since the last plan.
    """
    firing = [a for a in alerts if a.state == "firing"]
    if not firing:
        return Diagnosis("none", None, "no alert is firing")

    def worst(some: Sequence[Alert]) -> Alert:
        return max(some, key=lambda a: (a.estimate.value - a.limit, a.id))

    if of_candidate := [a for a in firing if candidate is not None and a.version == candidate]:
        return Diagnosis("rollback", worst(of_candidate), worst(of_candidate).message)
    if infrastructure := [a for a in firing if a.rule in INFRASTRUCTURE]:
        return Diagnosis("person", worst(infrastructure), worst(infrastructure).message)
    cause = worst(firing)
    if champion and cause.version != champion:
        which = "this version is" if cause.version else "versions with few votes are"
        return Diagnosis("person", cause, f"{cause.message}; {which} not the champion")
    if new_rows < 1:
        return Diagnosis("person", cause, f"{cause.message}; nothing new to learn from")
    rows = "1 new usable row" if new_rows == 1 else f"{new_rows} new usable rows"
    return Diagnosis("train", cause, f"{cause.message}; {rows} to learn from")


def plan(diagnosis: Diagnosis, last_plan: Plan | None, config: Monitor, now: float) -> Plan | None:
    """A plan for one cycle run where the diagnosis says so and the last plan is at least `config.cooldown_s`
    seconds old; else None."""
    if diagnosis.remedy != "train" or diagnosis.alert is None:
        return None
    if last_plan is not None and now - last_plan.time < config.cooldown_s:
        return None
    id = f"plan-{hash_value((diagnosis.alert.id, now, STAGES, diagnosis.reason))}"
    return Plan(id, now, STAGES, diagnosis.alert.id, diagnosis.reason)

"""What begins a cycle by itself (a schedule, enough new feedback, an alert's plan), and what speaks against
it. A refusal is recorded once for each cause and reason; a cause holds until it is taken up."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import NamedTuple

from escultor.config import Config
from escultor.cycle.monitoring import Watch, new_rows
from escultor.errors import InputError
from escultor.ids import hash_value, new_id
from escultor.monitor.triggers import INFRASTRUCTURE
from escultor.store import Store
from escultor.store.cycles import RecordedCycle, compute_seconds, open_cycle, recorded_cycles
from escultor.types import CycleEvent, CycleSchedule, Plan

DAY_S, HOUR_S = 86_400.0, 3600.0
PERIODS = {"daily": "0 3 * * *", "weekly": "0 3 * * 1", "monthly": "0 3 1 * *"}
OFF = "off"
MAX_CRON = 200  # characters


class Trigger(NamedTuple):
    """A cause to begin a cycle of a skill: what it is known by, and why."""

    skill: str
    key: str
    reason: str

    @property
    def cycle(self) -> str:
        """The id of the cycle that it begins: two processes that see one cause begin one cycle."""
        return f"cycle-{hash_value(list(self[:2]))}"


# --- schedules --------------------------------------------------------------------------------


def set_schedule(store: Store, skill: str, when: str, now: float) -> CycleSchedule:
    """Record when cycles of a skill begin by themselves: daily, weekly or monthly (at 3:00), five fields of
    cron, or off. Raises InputError for anything else."""
    from croniter import CroniterError, croniter

    cron = "" if when == OFF else PERIODS.get(when, when)
    schedule = CycleSchedule(new_id("schedule"), now, skill, cron)
    allowed = f"{', '.join(PERIODS)}, five fields of cron such as '0 3 * * 1' (UTC), or {OFF}"
    # `R` would be another time at every look.
    is_readable = len(cron.split()) == 5 and len(cron) <= MAX_CRON and not re.search(r"(?i)\br\b", cron)
    if when != OFF and not (is_readable and croniter.is_valid(cron)):
        raise InputError("the schedule cannot be read", when, allowed)
    if cron:
        try:
            next_time(schedule, now)
        except CroniterError as error:
            raise InputError("the schedule has no time", when, allowed) from error
    store.log.append(schedule)
    return schedule


def schedule_of(store: Store, skill: str) -> CycleSchedule | None:
    """The schedule of a skill that holds now; None where there is none."""
    recorded = [schedule for _, schedule in store.log.read(CycleSchedule, target=skill)]
    return recorded[-1] if recorded and recorded[-1].when else None


def next_time(schedule: CycleSchedule, now: float) -> float:
    """When the next cycle is due after `now`, in seconds since the epoch."""
    from croniter import croniter

    return croniter(schedule.when, datetime.fromtimestamp(now, UTC)).get_next(float)


def last_time(schedule: CycleSchedule, now: float) -> float:
    """When the last cycle was due, at `now` or before."""
    from croniter import croniter

    return croniter(schedule.when, datetime.fromtimestamp(now + 1, UTC)).get_prev(float)


# --- causes -----------------------------------------------------------------------------------


def due(store: Store, config: Config, skill: str, watch: Watch | None, now: float) -> Iterator[Trigger]:
    """The causes to begin a cycle of a skill that none was begun for yet."""
    past = recorded_cycles(store, skill)
    begun = {cycle.id for cycle in past if cycle.begun is not None}
    since = _last_begun(past)
    found = [*_scheduled(store, skill, now), *_planned(store, skill, since, now)]
    if watch is None or watch.plan is None:
        found += _new_feedback(store, config, skill, since, now)
    yield from (trigger for trigger in found if trigger.cycle not in begun)


def _scheduled(store: Store, skill: str, now: float) -> Iterator[Trigger]:
    schedule = schedule_of(store, skill)
    if schedule is not None and (when := last_time(schedule, now)) > schedule.time:
        shown = datetime.fromtimestamp(when, UTC).isoformat(" ", "minutes")
        yield Trigger(skill, f"schedule {when:.0f}", f"scheduled for {shown}")


def _planned(store: Store, skill: str, since: float, now: float) -> Iterator[Trigger]:
    """The monitor's last plan, for a day."""
    plan = store.log.last(Plan)
    if plan is not None and plan.skill == skill and max(since, now - DAY_S) < plan.time:
        yield Trigger(skill, f"plan {plan.id}", plan.reason)


def _new_feedback(store: Store, config: Config, skill: str, since: float, now: float) -> Iterator[Trigger]:
    """Enough rows with feedback newer than the last cycle."""
    least = config.cycle.new_rows
    if least is not None:
        rows = new_rows(store, config, since, now).get(skill or None, 0)
        if rows >= least:
            yield Trigger(skill, f"feedback after {since:.0f}", f"at least {least:,} new rows of feedback")


def _last_begun(past: list[RecordedCycle]) -> float:
    return max((cycle.begun.time for cycle in past if cycle.begun is not None), default=0.0)


# --- what speaks against it -------------------------------------------------------------------


def refusal(store: Store, config: Config, skill: str, watch: Watch | None, now: float) -> str | None:
    """Why no cycle of a skill may begin by itself now; None where one may."""
    limits = config.cycle
    if (other := open_cycle(store, skill)) is not None:
        return f"the cycle {other.id} is open ({other.state})"
    for alert in watch.alerts if watch is not None else ():
        if alert.state == "firing" and alert.rule in INFRASTRUCTURE:
            return f"the alert {alert.rule} fires: nothing is trained on answers of a service in trouble"
    past = recorded_cycles(store)
    last = _last_begun([cycle for cycle in past if cycle.skill == skill])
    if last and now - last < limits.cooldown_s:
        until = datetime.fromtimestamp(last + limits.cooldown_s, UTC).isoformat(" ", "minutes")
        return f"the last cycle was begun less than cycle.cooldown_s ago, until {until}"
    own = [cycle for cycle in past if cycle.begun is not None and not cycle.begun.by]
    today = [cycle for cycle in own if cycle.begun and cycle.begun.time > now - DAY_S]
    if len(today) >= limits.per_day:
        return f"cycle.per_day is used up: {limits.per_day} began in 24 hours"
    return _budget_used_up(store, config, now)


def _budget_used_up(store: Store, config: Config, now: float) -> str | None:
    limits = config.cycle
    budgets = {
        "cycle.compute_hours": (limits.compute_hours, 1.0, "hours"),
        "cycle.usd": (limits.usd, limits.hourly_price_usd, "USD"),
    }
    if all(limit is None for limit, _, _ in budgets.values()):
        return None
    hours = compute_seconds(store, now - 30 * DAY_S) / HOUR_S
    for name, (limit, per_hour, unit) in budgets.items():
        if limit is not None and hours * per_hour >= limit:
            return f"{name} is used up: {hours * per_hour:.4g} of {limit:g} {unit} in 30 days"
    return None


def record_refusal(store: Store, trigger: Trigger, reason: str) -> bool:
    """Record why a cause was refused; False where that is known already."""
    id = f"{trigger.cycle}-{hash_value(reason)[:8]}"
    if store.log.get(CycleEvent, id) is not None:
        return False
    text, skill = f"{trigger.reason}: {reason}", trigger.skill
    store.log.append(CycleEvent(id, time.time(), trigger.cycle, skill, "refused", reason=text))
    return True

"""Cycles as the log has them: the fold of their events."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from escultor.errors import IdTaken, InputError
from escultor.store import Store, registry
from escultor.types import CycleEvent, CycleState, Deployment, Step

OPEN = frozenset({"running", "waiting", "approved", "trial"})  # states that something follows on
GOES_ON = frozenset({"running", "approved"})  # without a person and without people's answers
# The step that says up to which log entry a model has learnt: what is consumed where it is promoted.
CONSUMED = "feedback consumed"


@dataclass(frozen=True, slots=True)
class RecordedCycle:
    """A cycle of a skill (empty: of all feedback): its events in order, the last of which is its state."""

    events: tuple[CycleEvent, ...]

    @property
    def id(self) -> str:
        return self.events[-1].cycle

    @property
    def skill(self) -> str:
        return self.events[-1].skill

    @property
    def last(self) -> CycleEvent:
        return self.events[-1]

    @property
    def state(self) -> CycleState:
        return self.last.state

    @property
    def is_open(self) -> bool:
        return self.state in OPEN

    @property
    def begun(self) -> CycleEvent | None:
        """The event that began it; None where it was refused."""
        return next((event for event in self.events if event.state == "running"), None)

    @property
    def candidate(self) -> str:
        return next((event.candidate for event in self.events if event.candidate), "")

    @property
    def verdict(self) -> str:
        return next((event.verdict for event in self.events if event.verdict), "")

    @property
    def approved_by(self) -> str:
        """Who approved it, or why nobody had to."""
        event = next((event for event in self.events if event.state == "approved"), None)
        return "" if event is None else event.by or event.reason


def recorded_cycles(store: Store, skill: str | None = None) -> list[RecordedCycle]:
    """All cycles, of one skill where it is given, in the order in which they were begun or refused."""
    events: dict[str, list[CycleEvent]] = defaultdict(list)
    for _, event in store.log.read(CycleEvent):
        if skill in (None, event.skill):
            events[event.cycle].append(event)
    return [RecordedCycle(tuple(each)) for each in events.values()]


def recorded_cycle(store: Store, id: str) -> RecordedCycle:
    """The cycle of this id."""
    return RecordedCycle(tuple(event for _, event in store.log.read(CycleEvent, target=id)))


def open_cycle(store: Store, skill: str) -> RecordedCycle | None:
    """The cycle of a skill that something follows on; None where there is none."""
    return next((cycle for cycle in recorded_cycles(store, skill) if cycle.is_open), None)


def require_open_cycle(store: Store, skill: str, *states: CycleState) -> RecordedCycle:
    """The open cycle of a skill. Raises InputError where there is none, or it is in none of these states."""
    cycle = open_cycle(store, skill)
    if cycle is None:
        raise InputError("no cycle is open", f"skill `{skill}`" * bool(skill), remedy="escultor cycle run")
    if states and cycle.state not in states:
        what = f"the cycle {cycle.id} is not {' or '.join(states)}"
        raise InputError(what, f"{cycle.state}: {cycle.last.reason}", remedy="escultor cycle status")
    return cycle


def change(cycle: RecordedCycle, state: CycleState, reason: str, by: str = "", **more: Any) -> CycleEvent:
    """The event by which a cycle comes into a state now. Its id is the number of the change: of two processes
    that go on from one state, the log takes the event of the first."""
    number = sum(event.state != "refused" for event in cycle.events)
    id, now = f"{cycle.id}-{number}", time.time()
    return CycleEvent(id, now, cycle.id, cycle.skill, state, reason=reason, by=by, **more)


def record_event(store: Store, event: CycleEvent, *records: object) -> bool:
    """Record an event and what comes with it in one transaction; False, and nothing of it, where the cycle
    has changed since."""
    if store.log.get(CycleEvent, event.id) is not None:
        return False
    try:
        store.log.append(event, *records)
    except IdTaken:
        if store.log.get(CycleEvent, event.id) is None:
            raise
        return False
    return True


def compute_seconds(store: Store, since: float) -> float:
    """Seconds that the steps since then took."""
    return sum(step.seconds for _, step in store.log.read(Step, since=since))


def consumed(store: Store, skill: str | None = None) -> int:
    """The last log entry whose feedback (on a skill, or all) a promoted model has learnt from.

    A cycle run that was held or rejected consumes nothing, until a person or a canary promotes its model. A
    rollback gives nothing back, since what was learnt then did not hold: `since` takes it up again.
    """
    promoted = {deployment.aliases.get(registry.CHAMPION) for _, deployment in store.log.read(Deployment)}
    steps = [step.result for _, step in store.log.read(Step, target=CONSUMED)]
    learnt = [step for step in steps if step.get("checkpoint") in {None, *promoted}]
    own = [step for step in learnt if step.get("skill") in (None, skill)]
    return max((int(str(step["until"])) for step in own), default=0)

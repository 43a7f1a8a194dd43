"""A cycle from its beginning to its end: begun, trained and judged, approved, tried, promoted or rolled back.

Every change of state is an event in the log, in one transaction with the deployment that belongs to it, and
under an id that the log takes once: a cycle can be killed anywhere, and goes on anywhere, without deploying
twice. What is computed in between are steps (`cycle.workflow`), found again by their keys.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from escultor.config import Config
from escultor.cycle.approval import approver, has_approvers
from escultor.cycle.approval_requests import ask_approvers
from escultor.cycle.canary_service import CanaryService, first_stage, trial_stages
from escultor.cycle.checkpoints import require_champion
from escultor.cycle.evaluation_service import suite_of_run, suite_of_skill
from escultor.cycle.evolution import evolve, material_since
from escultor.cycle.live_metrics import live_metrics
from escultor.cycle.steps import CycleRun
from escultor.cycle.workflow import Progress, Workflow
from escultor.errors import EngineFault, FaultError, IdTaken, InputError, LostProcess, StoreError
from escultor.skills.catalog import load_skills
from escultor.skills.suites import EvaluationSuite, register, registered_suite
from escultor.store import Store, registry
from escultor.store.cycles import (
    RecordedCycle,
    change,
    open_cycle,
    record_event,
    recorded_cycle,
)
from escultor.store.leases import Lease
from escultor.types import CycleEvent, Deployment, Promote

NAME = "evolution"  # of the models that cycles make
# What may be over at the next try; any other error that is no wrong input is given two tries.
TRANSIENT = (StoreError, OSError, MemoryError, EngineFault, LostProcess)
MAX_REASON = 500  # characters of an error that are recorded


def lease_of(store: Store, skill: str) -> Lease:
    """The lease without which nothing of a cycle of the skill is done."""
    return Lease(store, f"cycle of {skill or 'all feedback'}")


def begin(
    store: Store,
    config: Config,
    cycle: str,
    skill: str,
    reason: str,
    *,
    by: str = "",
    since: float | None = None,
    suite: EvaluationSuite | None = None,
) -> RecordedCycle:
    """Record that a cycle begins: of which champion, measured on what. Raises InputError where one of the
    skill is open, or there is no champion or no suite."""
    if (other := open_cycle(store, skill)) is not None and other.id != cycle:
        raise InputError(
            "a cycle of this skill is open",
            f"{other.id}, {other.state}: {other.last.reason}",
            remedy="escultor cycle approve, reject or cancel",
        )
    champion = require_champion(store)
    suite = suite or suite_of_run(store, champion, config, skill or None)
    register(store, suite)
    event = CycleEvent(
        f"{cycle}-0",
        time.time(),
        cycle,
        skill,
        "running",
        reason=reason,
        by=by,
        champion=champion,
        suite=suite.id,
        since=since,
    )
    record_event(store, event)
    return recorded_cycle(store, cycle)


@dataclass(slots=True)
class CycleRunner:
    """Takes cycles as far as they can go now. `check` raises where this process may not (a lost lease)."""

    store: Store
    config: Config
    progress: Progress = field(default_factory=Progress)
    check: Callable[[], None] = lambda: None
    canary: CanaryService | None = None

    def go_on(self, cycle: RecordedCycle) -> RecordedCycle:
        """Take a cycle on until it ends, or waits for a person or for people's answers. Raises InputError
        for what ends it as failed, as the same fault twice in a row does; after any other error it can be
        gone on with."""
        moves = {"running": self._compute, "approved": self._deploy, "trial": self._follow_trial}
        while (move := moves.get(cycle.state)) is not None:
            found = move(cycle)
            if not found:
                return cycle
            self.check()
            if record_event(self.store, *found):
                self.progress.note(f"{found[0].state}: {found[0].reason}")
            cycle = recorded_cycle(self.store, cycle.id)
        if cycle.state == "waiting":
            for line in ask_approvers(self.store, self.config, cycle, time.time()):
                self.progress.note(line)
        return cycle

    def _compute(self, cycle: RecordedCycle) -> tuple[CycleEvent, ...]:
        """Collect, convert, train, evaluate and judge."""
        begun, skills = _begun(cycle), load_skills(self.config.skills)
        try:
            suite = registered_suite(self.store, begun.suite, skills) or suite_of_run(
                self.store, begun.champion, self.config, cycle.skill or None
            )
            workflow = Workflow(self.store, self.progress, check=lambda: self._check_open(cycle))
            run = CycleRun(workflow, self.config, suite, cycle.skill or None)
            material = material_since(run, begun.since, cycle.id)
            result = evolve(run, NAME, material, begun.champion, deploy=False)
        except InputError as error:
            record_event(self.store, change(cycle, "failed", str(error)))
            raise
        except TRANSIENT:
            raise
        except Exception as error:
            self._note_fault(cycle, f"{type(error).__name__}: {error}"[:MAX_REASON])
            raise
        because = result.verdict.because
        made = {"candidate": result.checkpoint, "verdict": because.id}
        if not isinstance(result.verdict, Promote):
            return (change(cycle, "not_promoted", because.reason, **made),)
        if begun.by and not has_approvers(self.store):
            why = f"begun by {begun.by}, in a store that names nobody who may approve"
            return (change(cycle, "approved", why, **made),)
        obstacle = self._why_a_person(cycle.skill)
        if obstacle is None:
            return (change(cycle, "approved", "approved by cycle.auto_approve", **made),)
        return (change(cycle, "waiting", obstacle, **made),)

    def _note_fault(self, cycle: RecordedCycle, fault: str) -> None:
        """Record what stopped the work. The same twice in a row would stop it again: the cycle fails."""
        self.check()
        again = f"to be tried again after {fault}"
        if cycle.last.reason == again:
            record_event(self.store, change(cycle, "failed", f"twice: {fault}"))
        else:
            record_event(self.store, change(cycle, "running", again))

    def _check_open(self, cycle: RecordedCycle) -> None:
        self.check()
        if not recorded_cycle(self.store, cycle.id).is_open:
            raise FaultError("the cycle was ended by another process", cycle.id)

    def _why_a_person(self, skill: str) -> str | None:
        """Why a candidate needs a person's approval; None where it does not."""
        if not {skill, "*"} & set(self.config.cycle.auto_approve):
            return "a person has to approve it: escultor cycle approve"
        skills = load_skills(self.config.skills).values()
        lacking = [each.name for each in skills if suite_of_skill(each, self.store, self.config) is None]
        if not lacking:
            return None
        return f"a person has to approve it: no suite guards {', '.join(lacking)}"

    def _deploy(self, cycle: RecordedCycle) -> tuple[CycleEvent | Deployment, ...]:
        """Begin the trial of an approved candidate, or deploy it."""
        begun, candidate = _begun(cycle), cycle.candidate
        current = registry.current(registry.read_deployments(self.store.log))
        named = {} if current is None else current.aliases
        if (champion := named.get(registry.CHAMPION)) != begun.champion:
            if champion == candidate:
                return (change(cycle, "promoted", "deployed by another command"),)
            why = f"it was compared with {begun.champion}, and the champion is {champion} now"
            return (change(cycle, "superseded", why),)
        if (tried := named.get(registry.CANDIDATE)) not in (None, candidate):
            self.progress.note(f"waiting for the end of another trial: {tried}")
            return ()
        because = f"{cycle.verdict} (approved by {cycle.approved_by})"
        # A person's own cycle ends without a trial, unless approvers or the configuration ask for one.
        is_asked = not begun.by or has_approvers(self.store) or "canary" in self.config.cycle.model_fields_set
        if not (self.config.cycle.canary and is_asked):
            direct = cycle.verdict if begun.by and not has_approvers(self.store) else because
            deployment = registry.deployment_for(direct, candidate, current)
            return (change(cycle, "promoted", "deployed without a trial"), deployment)
        stage = first_stage(self.store, self.config.canary, candidate, f"canary: begun by {because}")
        share = stage.shares.get(candidate, 0.0)
        return (change(cycle, "trial", f"first share {share:.0%}" if share else "in shadow"), stage)

    def _follow_trial(self, cycle: RecordedCycle) -> tuple[CycleEvent, ...]:
        """Analyse the trial, and record its end."""
        if self._is_tried(cycle):
            self.canary = self.canary or CanaryService(
                self.store, self.config.canary, live_metrics(self.config.skills)
            )
            move = self.canary.analyse()
            self.progress.note(f"canary: {move.kind}: {move.reason}")
            if self._is_tried(cycle):
                return ()
        end = self._end_of_trial(cycle)
        is_champion = end.aliases.get(registry.CHAMPION) == cycle.candidate
        return (change(cycle, "promoted" if is_champion else "rolled_back", end.because),)

    def _is_tried(self, cycle: RecordedCycle) -> bool:
        stages = trial_stages(registry.read_deployments(self.store.log))
        return bool(stages) and stages[-1].aliases[registry.CANDIDATE] == cycle.candidate

    def _end_of_trial(self, cycle: RecordedCycle) -> Deployment:
        """The first deployment after the trial's stages."""
        history = registry.read_deployments(self.store.log)
        tried = [d.aliases.get(registry.CANDIDATE) == cycle.candidate for d in history]
        return history[max(index for index, is_stage in enumerate(tried) if is_stage) + 1]


def decide(
    store: Store, cycle: RecordedCycle, state: Literal["approved", "rejected"], reason: str, key: str | None
) -> RecordedCycle:
    """Let a waiting cycle go on or end, by a person whose key may approve, whom the log then names. Raises
    InputError for any other key, and where the cycle has changed meanwhile."""
    return _changed(store, change(cycle, state, reason, approver(store, key)))


def cancel(store: Store, cycle: RecordedCycle, reason: str, by: str) -> RecordedCycle:
    """End an open cycle; its trial ends with it, in the same transaction. Raises InputError where the cycle
    has changed meanwhile."""
    stages = trial_stages(registry.read_deployments(store.log))
    records = []
    if cycle.state == "trial" and stages and stages[-1].aliases[registry.CANDIDATE] == cycle.candidate:
        champion = stages[-1].aliases[registry.CHAMPION]
        records = [registry.deployment_for(f"canary: cancelled by {by}: {reason}", champion, stages[-1])]
    try:
        return _changed(store, change(cycle, "cancelled", reason, by), *records)
    except IdTaken:  # its trial has gone on meanwhile
        return cancel(store, cycle, reason, by)


def _changed(store: Store, event: CycleEvent, *records: object) -> RecordedCycle:
    recorded = record_event(store, event, *records)
    cycle = recorded_cycle(store, event.cycle)
    if not recorded:
        got = f"{cycle.state}: {cycle.last.reason}"
        raise InputError("the cycle has changed meanwhile", got, remedy="escultor cycle status")
    return cycle


def _begun(cycle: RecordedCycle) -> CycleEvent:
    if cycle.begun is None:
        raise FaultError("the cycle was never begun", cycle.id)
    return cycle.begun

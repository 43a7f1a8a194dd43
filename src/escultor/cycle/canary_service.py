"""A canary trial read from the log, and the deployments that follow from it."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.config import Canary
from escultor.cycle.live_metrics import LiveMetric
from escultor.errors import IdTaken, InputError
from escultor.evaluate.gate.canary import (
    CanaryMove,
    CanaryStage,
    CanaryTrial,
    ErrorWindow,
    deployment_of,
    next_move,
)
from escultor.stats.sequential import SubjectTally
from escultor.store import Store, registry
from escultor.store.feedback import THUMB, live
from escultor.types import FAILED, Deployment, Feedback, Interaction, Rating

CHAMPION, CANDIDATE = 0, 1


class _Answer(NamedTuple):
    """One answer of the trial."""

    stage: int
    arm: int
    subject: str
    time: float
    guards: dict[str, float]  # what it adds to each guard; thumbs_down comes from feedback


@dataclass(slots=True)
class CanaryService:
    """Follows one store: each analysis reads what is new, decides, and appends the resulting deployment.
    `live` are metrics of skills that guard beside those of the policy, each on the answers of its skill."""

    store: Store
    policy: Canary
    live: Mapping[str, LiveMetric] = field(default_factory=dict)
    _answers: dict[str, _Answer] = field(default_factory=dict)  # by interaction id
    _feedback: list[Feedback] = field(default_factory=list)
    _cursors: list[int] = field(default_factory=lambda: [0, 0])  # of interactions and feedback in the log
    _stages: tuple[str, ...] = ()

    def analyse(self, now: float | None = None) -> CanaryMove:
        """Decide once. Raises InputError where no trial is in progress."""
        when = time.time() if now is None else now
        stages = trial_stages(registry.read_deployments(self.store.log))
        if not stages:
            raise InputError(
                "no canary trial is in progress", remedy="start one: escultor canary start CANDIDATE"
            )
        trial = self._trial(stages, when)
        margins = {name: each.margin for name, each in self.live.items() if each.margin is not None}
        limits = {name: each.limit for name, each in self.live.items() if each.limit is not None}
        policy = self.policy.model_copy(update={"guards": {**self.policy.guards, **margins}})
        move = next_move(trial, policy, when, limits)
        deployment = deployment_of(move, trial, stages[-1], when)
        if deployment is not None:
            try:
                self.store.log.append(deployment)
            except IdTaken:
                reason = "another process decided at the same time"
                return CanaryMove("hold", trial.current.share, reason, move.guards)
        return move

    def _trial(self, stages: Sequence[Deployment], now: float) -> CanaryTrial:
        """The fold of everything since the trial began; what was read once is not read again."""
        ids = tuple(d.id for d in stages)
        if ids[:1] != self._stages[:1]:
            self._answers, self._feedback, self._cursors = {}, [], [0, 0]
        self._stages, since = ids, stages[0].time
        aliases = stages[-1].aliases
        arms = {aliases[registry.CHAMPION]: CHAMPION, aliases[registry.CANDIDATE]: CANDIDATE}
        begins = [d.time for d in stages]
        for seq, i in self.store.log.read(Interaction, after=self._cursors[0], since=since):
            self._cursors[0] = seq
            if i.version in arms and not i.task and i.finish_reason != "cancelled":
                stage, guards = max(bisect_right(begins, i.time) - 1, 0), self._guards(i)
                self._answers[i.id] = _Answer(stage, arms[i.version], i.subject, i.time, guards)
        for seq, event in self.store.log.read(Feedback, after=self._cursors[1], since=since):
            self._cursors[1] = seq
            self._feedback.append(event)
        return CanaryTrial(
            champion=aliases[registry.CHAMPION],
            candidate=aliases[registry.CANDIDATE],
            stages=tuple(self._stage(index, d) for index, d in enumerate(stages)),
            windows=self._windows(since, now),
        )

    def _stage(self, index: int, deployment: Deployment) -> CanaryStage:
        values: dict[str, tuple[dict[str, list[float]], dict[str, list[float]]]] = {
            name: (defaultdict(list), defaultdict(list)) for name in (*self.policy.guards, *self.live)
        }
        subjects: tuple[set[str], set[str]] = (set(), set())
        share = deployment.shares.get(deployment.aliases[registry.CANDIDATE], 0.0)
        candidate_answers = 0
        for answer in self._answers.values():
            if answer.stage != index:
                continue
            subjects[answer.arm].add(answer.subject)
            candidate_answers += answer.arm == CANDIDATE
            for name in values.keys() & answer.guards.keys():
                values[name][answer.arm][answer.subject].append(answer.guards[name])
        if "thumbs_down" in values:
            for key, event in live(self._feedback).items():
                answer = self._answers.get(key.target)
                if answer is None or answer.stage != index or (not share and answer.arm == CANDIDATE):
                    continue  # whatever is said of an answer in shadow, nobody saw it
                if key.name == THUMB and isinstance(event, Rating):
                    values["thumbs_down"][answer.arm][answer.subject].append(float(not event.value))
        return CanaryStage(
            share=share,
            since=deployment.time,
            tallies={n: (tally(old.values()), tally(new.values())) for n, (old, new) in values.items()},
            answers=candidate_answers,
            subjects=(len(subjects[CHAMPION]), len(subjects[CANDIDATE])),
        )

    def _guards(self, i: Interaction) -> dict[str, float]:
        """What an answer adds to each guard that it has something to say of."""
        has_failed = i.finish_reason in FAILED
        guards = {
            "error": float(has_failed),
            "slow": float(not has_failed and i.latency_ms > self.policy.sla_ms),
            "cost_usd": i.cost_usd,
        }
        if i.messages and not has_failed:  # where the text was kept
            guards |= {n: each.failure(i) for n, each in self.live.items() if each.skill.name == i.skill}
        return guards

    def _windows(self, since: float, now: float) -> tuple[ErrorWindow, ...]:
        """The last whole windows of the candidate's answers, as many as a breach needs."""
        length, last = self.policy.window_s, int((now - since) // self.policy.window_s)
        windows = []
        for index in range(max(0, last - self.policy.breach_windows), last):
            begin = since + index * length
            inside = [
                answer.guards
                for answer in self._answers.values()
                if answer.arm == CANDIDATE and begin <= answer.time < begin + length
            ]
            failed, slow = (int(sum(guards[name] for guards in inside)) for name in ("error", "slow"))
            windows.append(ErrorWindow(begin, len(inside), failed, slow))
        return tuple(windows)


def trial_stages(history: Sequence[Deployment]) -> list[Deployment]:
    """The deployments of the trial in progress, in order; empty where there is none."""

    def sides(deployment: Deployment) -> tuple[str | None, str | None]:
        return deployment.aliases.get(registry.CHAMPION), deployment.aliases.get(registry.CANDIDATE)

    stages: list[Deployment] = []
    for deployment in reversed(history):
        if sides(deployment)[1] is None or (stages and sides(deployment) != sides(stages[0])):
            break
        stages.insert(0, deployment)
    return stages


def first_stage(
    store: Store, policy: Canary, checkpoint: str, because: str, now: float | None = None
) -> Deployment:
    """The deployment that begins the trial of a checkpoint: in shadow, or with the first share. Raises
    InputError without a champion, while another candidate is tried, and for a first share of all subjects."""
    share = 0.0 if policy.shadow_requests else policy.shares[0]
    if share == 1.0:
        raise InputError("a trial must not start with all subjects", policy.shares, "a first share below 1")
    current = registry.current(registry.read_deployments(store.log))
    return registry.trial(because, checkpoint, share, current, now=now)


def tally(subjects: Iterable[Sequence[float]]) -> SubjectTally:
    """Sums over subjects, each given by its observations in order."""
    rows = [(len(values), sum(values), values[0]) for values in subjects if values]
    return SubjectTally(
        subjects=len(rows),
        n=float(sum(n for n, _, _ in rows)),
        total=sum(total for _, total, _ in rows),
        nn=float(sum(n * n for n, _, _ in rows)),
        nt=sum(n * total for n, total, _ in rows),
        tt=sum(total * total for _, total, _ in rows),
        first=sum(first for _, _, first in rows),
    )


def end_trial(store: Store, because: str) -> bool:
    """Roll the candidate of the trial in progress back, whatever else is decided about it at the same time.
    False where there is no trial."""
    while stages := trial_stages(registry.read_deployments(store.log)):
        champion = stages[-1].aliases[registry.CHAMPION]
        try:
            store.log.append(registry.deployment_for(because, champion, stages[-1]))
        except IdTaken:
            continue
        return True
    return False

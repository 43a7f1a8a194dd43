"""A canary trial read from the log, and the deployments that follow from it."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from escultor.config import Canary
from escultor.cycle.live_metrics import LiveMetric
from escultor.cycle.trial_fold import CANDIDATE, CHAMPION, TrialFold
from escultor.errors import IdTaken, InputError
from escultor.evaluate.gate.canary import (
    CanaryMove,
    CanaryStage,
    CanaryTrial,
    deployment_of,
    next_move,
)
from escultor.store import Store, registry
from escultor.types import FAILED, Deployment, Feedback, Interaction


@dataclass(slots=True)
class CanaryService:
    """Follows one store: each analysis reads what is new, decides, and appends the resulting deployment.
    `live` are metrics of skills that guard beside those of the policy, each on the answers of its skill."""

    store: Store
    policy: Canary
    live: Mapping[str, LiveMetric] = field(default_factory=dict)
    _fold: TrialFold | None = None
    _trial_id: str = ""  # of its first stage
    _cursors: list[int] = field(default_factory=lambda: [0, 0])  # of interactions and feedback in the log

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
        since, aliases = stages[0].time, stages[-1].aliases
        if self._fold is None or self._trial_id != stages[0].id:
            self._fold, self._cursors = TrialFold(since, self.policy.window_s), [0, 0]
            self._trial_id = stages[0].id
        arms = {aliases[registry.CHAMPION]: CHAMPION, aliases[registry.CANDIDATE]: CANDIDATE}
        begins, shares = [d.time for d in stages], [_share(d) for d in stages]
        fold = self._fold
        fold.shadow = frozenset(index for index, share in enumerate(shares) if not share)
        for seq, i in self.store.log.read(Interaction, after=self._cursors[0], since=since):
            if i.version in arms and not i.task and i.finish_reason != "cancelled":
                stage, guards = max(bisect_right(begins, i.time) - 1, 0), self._guards(i)
                fold.add_answer(i.id, stage, arms[i.version], i.subject, time=i.time, guards=guards)
            self._cursors[0] = seq
        for seq, event in self.store.log.read(Feedback, after=self._cursors[1], since=since):
            fold.add_feedback(event)
            self._cursors[1] = seq
        names = (*self.policy.guards, *self.live)
        return CanaryTrial(
            champion=aliases[registry.CHAMPION],
            candidate=aliases[registry.CANDIDATE],
            stages=tuple(
                CanaryStage(
                    share=share,
                    since=begin,
                    tallies={name: fold.tallies(name, index) for name in names},
                    answers=fold.answers(index),
                    subjects=fold.subjects(index),
                )
                for index, (begin, share) in enumerate(zip(begins, shares, strict=True))
            ),
            windows=fold.windows(now, self.policy.breach_windows),
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


def _share(stage: Deployment) -> float:
    """The candidate's share of the subjects in a stage; 0 in shadow."""
    return stage.shares.get(stage.aliases[registry.CANDIDATE], 0.0)


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

"""A trial of a candidate, read off the log, and the deployments that follow from it."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from escultor.config import Canary
from escultor.errors import InputError
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


@dataclass(slots=True)
class CanaryService:
    """Follows one store: every look reads what is new, decides, and appends the deployment that follows."""

    store: Store
    policy: Canary
    _seen: dict[str, tuple[int, int, str, dict[str, float]]] = field(default_factory=dict)
    _words: list[Feedback] = field(default_factory=list)
    _at: list[int] = field(default_factory=lambda: [0, 0])
    _steps: tuple[str, ...] = ()

    def look(self, now: float | None = None) -> CanaryMove:
        """Decide once. Raises InputError where no candidate is being tried."""
        when = time.time() if now is None else now
        steps = trial_steps(registry.read_deployments(self.store.log))
        if not steps:
            raise InputError(
                "no candidate is being tried", remedy="begin one: escultor canary start CANDIDATE"
            )
        trial = self._trial(steps, when)
        move = next_move(trial, self.policy, when)
        made = deployment_of(move, trial, steps[-1], when)
        if made is not None:
            self.store.log.append(made)
        return move

    def _trial(self, steps: Sequence[Deployment], now: float) -> CanaryTrial:
        """The fold of all that was seen since the trial began; what was read once is not read again."""
        names = tuple(d.id for d in steps)
        if names[:1] != self._steps[:1]:
            self._seen, self._words, self._at = {}, [], [0, 0]
        self._steps, since = names, steps[0].time
        aliases = steps[-1].aliases
        arms = {aliases[registry.CHAMPION]: CHAMPION, aliases[registry.CANDIDATE]: CANDIDATE}
        begins = [d.time for d in steps]
        for seq, i in self.store.log.read(Interaction, after=self._at[0], since=since):
            self._at[0] = seq
            if i.version in arms and i.finish_reason != "cancelled":
                at = bisect_right(begins, i.time) - 1
                self._seen[i.id] = (max(at, 0), arms[i.version], i.subject, _observed(i, self.policy.sla_ms))
        for seq, word in self.store.log.read(Feedback, after=self._at[1], since=since):
            self._at[1] = seq
            self._words.append(word)
        return CanaryTrial(
            aliases[registry.CHAMPION],
            aliases[registry.CANDIDATE],
            tuple(self._step(at, d) for at, d in enumerate(steps)),
            self._windows(since, now),
        )

    def _step(self, at: int, deployment: Deployment) -> CanaryStage:
        by: dict[str, tuple[dict[str, list[float]], dict[str, list[float]]]] = {
            name: (defaultdict(list), defaultdict(list)) for name in self.policy.guards
        }
        subjects: tuple[set[str], set[str]] = (set(), set())
        answers = 0
        for step, arm, subject, seen in self._seen.values():
            if step != at:
                continue
            subjects[arm].add(subject)
            answers += arm == CANDIDATE
            for name in by.keys() & seen.keys():
                by[name][arm][subject].append(seen[name])
        if "thumbs_down" in by:
            for key, word in live(self._words).items():
                found = self._seen.get(key.target)
                if found and found[0] == at and key.name == THUMB and isinstance(word, Rating):
                    by["thumbs_down"][found[1]][found[2]].append(float(not word.value))
        share = deployment.shares.get(deployment.aliases[registry.CANDIDATE], 0.0)
        tallies = {name: (tally(old.values()), tally(new.values())) for name, (old, new) in by.items()}
        return CanaryStage(share, deployment.time, tallies, answers, (len(subjects[0]), len(subjects[1])))

    def _windows(self, since: float, now: float) -> tuple[ErrorWindow, ...]:
        """The last whole windows of the candidate's answers, as many as a breach takes."""
        size, count = self.policy.window_s, self.policy.breaches
        last = int((now - since) // size)
        found = []
        for at in range(max(0, last - count), last):
            begin = since + at * size
            inside = [
                seen
                for _, arm, _, seen in self._seen.values()
                if arm == CANDIDATE and begin <= seen["time"] < begin + size
            ]
            failed, slow = (int(sum(seen[name] for seen in inside)) for name in ("error", "slow"))
            found.append(ErrorWindow(begin, len(inside), failed, slow))
        return tuple(found)


def trial_steps(history: Sequence[Deployment]) -> list[Deployment]:
    """The deployments of the trial under way, the first one first; empty where none is."""
    found: list[Deployment] = []
    for deployment in reversed(history):
        named = deployment.aliases
        tried = named.get(registry.CANDIDATE)
        same = not found or (named.get(registry.CHAMPION), tried) == (
            found[0].aliases.get(registry.CHAMPION),
            found[0].aliases.get(registry.CANDIDATE),
        )
        if tried is None or not same:
            break
        found.insert(0, deployment)
    return found


def tally(subjects: Iterable[Sequence[float]]) -> SubjectTally:
    """Sums over subjects, each with what was observed of them, in order."""
    rows = [(len(seen), sum(seen), seen[0]) for seen in subjects if seen]
    return SubjectTally(
        len(rows),
        float(sum(n for n, _, _ in rows)),
        sum(t for _, t, _ in rows),
        float(sum(n * n for n, _, _ in rows)),
        sum(n * t for n, t, _ in rows),
        sum(t * t for _, t, _ in rows),
        sum(first for _, _, first in rows),
    )


def _observed(i: Interaction, sla_ms: float) -> dict[str, float]:
    failed = i.finish_reason in FAILED
    return {
        "time": i.time,
        "error": float(failed),
        "slow": float(not failed and i.latency_ms > sla_ms),
        "cost_usd": i.cost_usd,
    }

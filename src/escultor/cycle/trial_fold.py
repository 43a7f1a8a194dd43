"""The fold of a canary trial: its answers and votes, each taken in once, into tallies of every stage and arm.

A check of the trial reads only what is new since the last one. An answer's id keeps its stage, arm and
person, since a vote may come, change or be withdrawn at any time later.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.evaluate.gate.canary import ErrorWindow
from escultor.stats.sequential import SubjectTally
from escultor.store.feedback import THUMB, FeedbackKey, feedback_key, precedence
from escultor.types import Feedback, Rating

CHAMPION, CANDIDATE = 0, 1
THUMBS_DOWN = "thumbs_down"


class _Assignment(NamedTuple):
    """The stage, arm and person that an answer belongs to."""

    stage: int
    arm: int
    subject: str


@dataclass(slots=True)
class RunningTally:
    """The tally of one guard in one arm and stage."""

    _subjects: dict[str, tuple[int, float, float]] = field(default_factory=dict)  # n, sum, first of each
    _sums: list[float] = field(default_factory=lambda: [0.0] * len(SubjectTally._fields))

    def add(self, subject: str, value: float) -> None:
        """Take in one more observation of a subject."""
        n, total, first = self._subjects.get(subject, (0, 0.0, value))
        self._subjects[subject] = n + 1, total + value, first
        more = (not n, 1, value, 2 * n + 1, total + (n + 1) * value, (2 * total + value) * value)
        self._sums = [a + b for a, b in zip(self._sums, (*more, 0.0 if n else value), strict=True)]

    def replace(self, subject: str, values: Sequence[float]) -> None:
        """Replace a subject's observations with these."""
        if (old := self._subjects.pop(subject, None)) is not None:
            n, total, first = old
            less = (1, n, total, n * n, n * total, total * total, first)
            self._sums = [a - b for a, b in zip(self._sums, less, strict=True)]
        for value in values:
            self.add(subject, value)

    @property
    def sums(self) -> SubjectTally:
        subjects, *rest = self._sums
        return SubjectTally(int(subjects), *rest)


@dataclass(slots=True)
class TrialFold:
    """What is known of a trial. `begins` are the times of its stages; `shadow` those in which nobody saw the
    candidate's answers, of which no vote counts."""

    since: float
    window_s: float
    shadow: frozenset[int] = frozenset()
    _assigned: dict[str, _Assignment] = field(default_factory=dict)  # by interaction id
    _tallies: dict[tuple[str, int, int], RunningTally] = field(  # by guard, stage and arm
        default_factory=lambda: defaultdict(RunningTally)
    )
    _subjects: dict[tuple[int, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    _answers: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # the candidate's, by stage
    _windows: dict[int, list[int]] = field(default_factory=lambda: defaultdict(lambda: [0, 0, 0]))
    _latest: dict[FeedbackKey, Feedback] = field(default_factory=dict)
    _keys: dict[str, list[FeedbackKey]] = field(default_factory=lambda: defaultdict(list))  # by answer
    # A person's votes, in the order in which they came; None: withdrawn.
    _votes: dict[_Assignment, dict[FeedbackKey, float | None]] = field(
        default_factory=lambda: defaultdict(dict)
    )

    def add_answer(
        self, id: str, stage: int, arm: int, subject: str, *, time: float, guards: Mapping[str, float]
    ) -> None:
        """Take in an answer and what it adds to each guard. An id counts once."""
        if id in self._assigned:
            return
        place = self._assigned[id] = _Assignment(stage, arm, subject)
        self._subjects[stage, arm].add(subject)
        for name, value in guards.items():
            self._tallies[name, stage, arm].add(subject, value)
        if arm == CANDIDATE:
            self._answers[stage] += 1
            counts = self._windows[int((time - self.since) // self.window_s)]
            for index, value in enumerate((1, guards["error"], guards["slow"])):
                counts[index] += int(value)
        for key in self._keys.get(id, ()):
            self._vote(place, key)

    def add_feedback(self, event: Feedback) -> None:
        """Take in an event; those that are no thumbs, and no withdrawals of one, do not count."""
        key = feedback_key(event)
        if key.name != THUMB:
            return
        known = self._latest.get(key)
        if known is None:
            self._keys[key.target].append(key)
        elif precedence(event) <= precedence(known):
            return
        self._latest[key] = event
        if (place := self._assigned.get(key.target)) is not None:
            self._vote(place, key)

    def _vote(self, place: _Assignment, key: FeedbackKey) -> None:
        if place.arm == CANDIDATE and place.stage in self.shadow:
            return  # whatever is said of an answer in shadow, nobody saw it
        event, votes = self._latest[key], self._votes[place]
        votes[key] = float(not event.value) if isinstance(event, Rating) else None
        values = [value for value in votes.values() if value is not None]
        self._tallies[THUMBS_DOWN, place.stage, place.arm].replace(place.subject, values)

    def tallies(self, guard: str, stage: int) -> tuple[SubjectTally, SubjectTally]:
        """The tallies of champion and candidate for one guard and stage."""
        champion, candidate = (self._tallies.get((guard, stage, arm)) for arm in (CHAMPION, CANDIDATE))
        return champion.sums if champion else SubjectTally(), candidate.sums if candidate else SubjectTally()

    def subjects(self, stage: int) -> tuple[int, int]:
        """How many people the champion and the candidate answered."""
        return len(self._subjects.get((stage, CHAMPION), ())), len(self._subjects.get((stage, CANDIDATE), ()))

    def answers(self, stage: int) -> int:
        """How many answers the candidate gave."""
        return self._answers.get(stage, 0)

    def windows(self, now: float, most: int) -> tuple[ErrorWindow, ...]:
        """The last whole windows of the candidate's answers, at most `most` of them."""
        last = int((now - self.since) // self.window_s)
        numbers = range(max(0, last - most), last)
        return tuple(
            ErrorWindow(self.since + n * self.window_s, *self._windows.get(n, (0, 0, 0))) for n in numbers
        )

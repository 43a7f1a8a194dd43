"""One prompt: the answers to it, and what each person made of each of them.

What a person said and did about one answer is one judgement: the explicit word where there is one, else
what was done that says most. The judgements of several people on one text are put together as independent
readings: their log-odds add up, so disagreement shows as doubt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.stats.logistic import log_odds, logistic
from escultor.store.feedback import CORRECTION, THUMB
from escultor.types import ImplicitEvent, SourceKind

# What an implicit event says of its answer, and how often it is right. A proposal of the literature on
# satisfaction signals, to be measured on one's own raters; events that are not here say nothing.
IMPLICIT_RULES = "implicit/1"
IMPLICIT: dict[str, tuple[bool, float]] = {
    ImplicitEvent.COPY: (True, 0.60),
    ImplicitEvent.INSERT_ACCEPT: (True, 0.60),
    ImplicitEvent.SHARE: (True, 0.60),
    ImplicitEvent.REGENERATE: (False, 0.60),
    ImplicitEvent.UNDO: (False, 0.60),
    ImplicitEvent.ESCALATE_TO_HUMAN: (False, 0.60),
    ImplicitEvent.FOLLOW_UP_REPHRASE: (False, 0.65),
}
# How often the rest is right, before it is measured: a thumb, an edit that was kept, a regeneration whose
# last answer was kept, a choice between answers side by side.
REGENERATION, CHOICE = "regeneration", "choice"
PRIORS: dict[str, float] = {
    THUMB: 0.85,
    CORRECTION: 0.85,
    REGENERATION: 0.70,
    CHOICE: 0.75,
    **{event: right for event, (_, right) in IMPLICIT.items()},
}
_END_USER = SourceKind.END_USER.value
LEAST_FLIP = 0.02  # however many agree: they may have been misled alike


class FeedbackEvent(NamedTuple):
    """One live event about one answer: a thumb, an implicit event or a correction."""

    seq: int
    id: str
    time: float
    target: str
    subject: str
    name: str  # thumb, correction, or an implicit event's
    up: bool
    source: str


class ChoiceEvent(NamedTuple):
    """One live choice."""

    seq: int
    id: str
    time: float
    subject: str
    shown: tuple[str, ...]
    winner: str
    source: str


class PromptAnswer(NamedTuple):
    """One answer, without its text: `text` is a hash of it, `length` in characters."""

    id: str
    prompt: str
    subject: str
    text: str
    length: int
    parent: str | None  # of which this is a regeneration
    regenerated: bool  # another answer came after it


@dataclass(frozen=True, slots=True)
class RaterTrust:
    """How often each kind of event is right, how much each end user's word counts (1 where not named), how
    much being shown first helps a choice, in log-odds, and who speaks with one voice (under its name)."""

    right: dict[str, float] = field(default_factory=lambda: dict(PRIORS))
    reliability: dict[str, float] = field(default_factory=dict)
    first_bias: float = 0.0
    collectives: dict[str, str] = field(default_factory=dict)

    def of(self, name: str, subject: str) -> float:
        """The probability that this person's event of this kind is right."""
        right = self.right[name]
        return 0.5 + (right - 0.5) * self.reliability[subject] if subject in self.reliability else right

    def picked(self, subject: str, first: bool) -> float:
        """That a choice is right, with the advantage of the first place taken out: the winner's odds are
        those of a person of this bias picking that place when it is better against when it is worse."""
        right = self.of(CHOICE, subject)
        if right <= 0.5:
            return 0.5
        strength, bias = log_odds(right), self.first_bias if first else -self.first_bias
        better, worse = logistic(strength + bias), logistic(bias - strength)
        return better / (better + worse)


class SubjectJudgement(NamedTuple):
    """What one person made of one answer. `words` are all events it stands for."""

    subject: str
    up: bool
    right: float
    explicit: bool
    words: tuple[FeedbackEvent, ...]


class TextVerdict(NamedTuple):
    """What all together made of a text."""

    up: bool
    flip: float
    judgements: tuple[SubjectJudgement, ...]


@dataclass(slots=True)
class PromptGroup:
    """One prompt. `used` names the (person, answer) whose judgement has made an item already."""

    prompt: str
    answers: dict[str, PromptAnswer]
    judgements: dict[str, dict[str, SubjectJudgement]]  # answer -> person -> judgement
    corrections: list[FeedbackEvent]
    choices: list[ChoiceEvent]
    trust: RaterTrust
    used: set[tuple[str, str]] = field(default_factory=set)
    tally: dict[str, int] = field(default_factory=dict)

    def count(self, reason: str, n: int = 1) -> None:
        self.tally[reason] = self.tally.get(reason, 0) + n

    def texts(self) -> dict[str, tuple[PromptAnswer, dict[str, SubjectJudgement]]]:
        """Each distinct text: one answer that says it, and the judgements on it that no route has used.
        One person's judgements on the same text given twice are one; the last holds."""
        found: dict[str, tuple[PromptAnswer, dict[str, SubjectJudgement]]] = {}
        for id in sorted(self.judgements):
            answer = self.answers[id]
            free = {s: j for s, j in self.judgements[id].items() if (s, id) not in self.used}
            if not free:
                continue
            _, held = found.setdefault(answer.text, (answer, {}))
            for subject, judgement in free.items():
                if subject not in held or _last(judgement) > _last(held[subject]):
                    held[subject] = judgement
        return found


def judgements(words: list[FeedbackEvent], trust: RaterTrust) -> dict[str, SubjectJudgement]:
    """What each person made of one answer."""
    if len(words) == 1:
        word = words[0]
        right = trust.of(word.name, word.subject)
        return {word.subject: SubjectJudgement(word.subject, word.up, right, word.name == THUMB, (word,))}
    by: dict[str, list[FeedbackEvent]] = {}
    for word in words:
        by.setdefault(word.subject, []).append(word)
    made = {}
    for subject, said in by.items():
        said.sort(key=lambda w: (w.name != THUMB, -trust.right[w.name], w.name))
        best = said[0]
        right = trust.of(best.name, subject)
        made[subject] = SubjectJudgement(subject, best.up, right, best.name == THUMB, tuple(said))
    return made


def together(judged: dict[str, SubjectJudgement], one: Mapping[str, str]) -> TextVerdict | None:
    """The verdict of several people on one text, of whom some are `one`; None for a draw."""
    total = summed(((s, j.up, j.right) for s, j in judged.items()), one)
    if total is None:
        return None
    up = total > 0
    agreeing = tuple(j for _, j in sorted(judged.items()) if j.up is up)
    return TextVerdict(up, flip_of(total), agreeing)


def summed(readings: Iterable[tuple[str, bool, float]], one: Mapping[str, str]) -> float | None:
    """The log-odds that something is so, from (person, says so, how often right); None for a draw. Those who
    are `one` say together no more than the surest of them says alone."""
    totals: dict[str, float] = {}
    surest: dict[str, float] = {}
    for subject, yes, right in readings:
        name, odds = one.get(subject, subject), log_odds(right)
        totals[name] = totals.get(name, 0.0) + (odds if yes else -odds)
        surest[name] = max(surest.get(name, 0.0), odds)
    total = math.fsum(max(-surest[name], min(surest[name], odds)) for name, odds in totals.items())
    return None if abs(total) < 1e-9 else total


def flip_of(total: float) -> float:
    """How often what these log-odds favour is wrong."""
    return max(LEAST_FLIP, logistic(-abs(total)))


def _last(judgement: SubjectJudgement) -> tuple[float, str]:
    return judgement.words[0].time, judgement.words[0].id


def is_end_user(source: str) -> bool:
    """Whether an event came from outside. Raters, judges, programs and simulated raters are the operator's
    own, and abuse rules do not look at them."""
    return source == _END_USER

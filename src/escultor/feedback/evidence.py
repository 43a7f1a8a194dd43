"""One prompt: the answers to it, and what each person made of each of them.

Everything that a person did with one answer is one judgement: the explicit rating where there is one, else
the implicit event that says most. The judgements of several people on one text are combined as independent
readings: their log-odds add up, so that disagreement shows as doubt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.feedback.index_tables import ChoiceEvent, FeedbackEvent, RatedAnswer
from escultor.feedback.raw_log import IMPLICIT
from escultor.stats.logistic import log_odds, logistic
from escultor.store.feedback import CORRECTION, THUMB

# How often the other kinds of event are right, before that is measured.
REGENERATION, CHOICE = "regeneration", "choice"
PRIOR_ACCURACY: dict[str, float] = {
    THUMB: 0.85,
    CORRECTION: 0.85,
    REGENERATION: 0.70,  # the last answer of a line of regenerations was kept
    CHOICE: 0.75,
    **{event: accuracy for event, (_, accuracy) in IMPLICIT.items()},
}
MIN_FLIP_RATE = 0.02  # however many agree: all may have been misled alike


@dataclass(frozen=True, slots=True)
class RaterTrust:
    """How far feedback is believed."""

    accuracy: dict[str, float] = field(default_factory=lambda: dict(PRIOR_ACCURACY))  # by kind of event
    reliability: dict[str, float] = field(default_factory=dict)  # by end user, 0 to 1; 1 where not listed
    position_bias: float = 0.0  # advantage of the answer shown first in a choice, in log-odds
    collusion_groups: dict[str, str] = field(default_factory=dict)  # end user -> name of their group

    def event_accuracy(self, name: str, subject: str) -> float:
        """The probability that this person's event of this kind is right."""
        return 0.5 + (self.accuracy[name] - 0.5) * self.reliability.get(subject, 1.0)

    def choice_accuracy(self, subject: str, shown_first: bool) -> float:
        """The probability that a choice is right, corrected for the position of the winner: by Bayes' rule,
        how likely this person picks that position when its answer is better, against when it is worse."""
        accuracy = self.event_accuracy(CHOICE, subject)
        if accuracy <= 0.5:
            return 0.5
        strength, bias = log_odds(accuracy), self.position_bias if shown_first else -self.position_bias
        if_better, if_worse = logistic(strength + bias), logistic(bias - strength)
        return if_better / (if_better + if_worse)


class SubjectJudgement(NamedTuple):
    """What one person made of one answer, and all the events that say so, the most telling first."""

    subject: str
    up: bool
    accuracy: float
    is_explicit: bool
    events: tuple[FeedbackEvent, ...]

    @property
    def recency(self) -> tuple[float, str]:
        return self.events[0].time, self.events[0].id


class TextVerdict(NamedTuple):
    """What several people made of a text, and the judgements that agree with it."""

    up: bool
    flip_rate: float
    judgements: tuple[SubjectJudgement, ...]


@dataclass(slots=True)
class PromptGroup:
    """One prompt. `used` holds the (person, answer) whose judgement an item was made of already."""

    prompt: str
    trust: RaterTrust
    regenerated: set[str]  # answers that have a regeneration
    max_pairs: int  # by one rule
    max_flip_rate: float
    answers: dict[str, RatedAnswer] = field(default_factory=dict)
    judgements: dict[str, dict[str, SubjectJudgement]] = field(default_factory=dict)  # answer -> person
    corrections: list[FeedbackEvent] = field(default_factory=list)
    choices: list[ChoiceEvent] = field(default_factory=list)
    used: set[tuple[str, str]] = field(default_factory=set)
    unused_counts: dict[str, int] = field(default_factory=dict)  # why events made no item

    def count(self, reason: str, n: int = 1) -> None:
        self.unused_counts[reason] = self.unused_counts.get(reason, 0) + n

    def verdicts(self, explicit_only: bool) -> Iterator[tuple[RatedAnswer, TextVerdict | None]]:
        """What all make of each distinct text, by its explicit judgements; by all where there are none,
        unless `explicit_only`."""
        for answer, judgements in self.by_text():
            explicit = {subject: j for subject, j in judgements.items() if j.is_explicit}
            used = explicit if explicit or explicit_only else judgements
            yield answer, combine_judgements(used, self.trust.collusion_groups)

    def by_text(self) -> list[tuple[RatedAnswer, dict[str, SubjectJudgement]]]:
        """Each distinct text, by its hash: one answer with it, and the unused judgements on it. Of one
        person's judgements on equal answers the last holds."""
        texts: dict[str, tuple[RatedAnswer, dict[str, SubjectJudgement]]] = {}
        for id in sorted(self.judgements):
            answer = self.answers[id]
            for subject, judgement in self.judgements[id].items():
                if (subject, id) in self.used:
                    continue
                _, held = texts.setdefault(answer.text_hash, (answer, {}))
                if subject not in held or judgement.recency > held[subject].recency:
                    held[subject] = judgement
        return [texts[text_hash] for text_hash in sorted(texts)]


def judge_answer(events: list[FeedbackEvent], trust: RaterTrust) -> dict[str, SubjectJudgement]:
    """What each person made of one answer, from all events about it."""
    by_subject: dict[str, list[FeedbackEvent]] = {}
    for event in events:
        by_subject.setdefault(event.subject, []).append(event)
    judgements = {}
    for subject, own in by_subject.items():
        own.sort(key=lambda e: (e.name != THUMB, -trust.accuracy[e.name], e.name))
        name, up = own[0].name, bool(own[0].up)
        accuracy = trust.event_accuracy(name, subject)
        judgements[subject] = SubjectJudgement(subject, up, accuracy, name == THUMB, tuple(own))
    return judgements


def combine_judgements(
    judgements: dict[str, SubjectJudgement], groups: Mapping[str, str]
) -> TextVerdict | None:
    """The verdict of several people on one text; None for a draw. `groups`: see `combined_log_odds`."""
    total = combined_log_odds(((s, j.up, j.accuracy) for s, j in judgements.items()), groups)
    if total is None:
        return None
    up = total > 0
    return TextVerdict(up, flip_rate(total), tuple(j for _, j in sorted(judgements.items()) if j.up is up))


def combined_log_odds(readings: Iterable[tuple[str, bool, float]], groups: Mapping[str, str]) -> float | None:
    """The log-odds of a statement, from (person, affirms it, accuracy); None for a draw.

    `groups` maps colluding people to their group's name: together they weigh no more than the most accurate
    of them alone.
    """
    totals: dict[str, float] = {}
    largest: dict[str, float] = {}
    for subject, affirms, accuracy in readings:
        name, odds = groups.get(subject, subject), log_odds(accuracy)
        totals[name] = totals.get(name, 0.0) + (odds if affirms else -odds)
        largest[name] = max(largest.get(name, 0.0), odds)
    total = math.fsum(max(-largest[name], min(largest[name], odds)) for name, odds in totals.items())
    return None if abs(total) < 1e-9 else total


def flip_rate(total: float) -> float:
    """The probability that what these log-odds favour is wrong, `MIN_FLIP_RATE` at least."""
    return max(MIN_FLIP_RATE, logistic(-abs(total)))

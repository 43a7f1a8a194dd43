"""One prompt: the answers to it, and what each person made of each of them.

Everything that a person did with one answer is one judgement: the thumb where there is one, else the
correction, else the implicit event that says most. A text's verdict is the vote of all who judged it,
whatever answers it was given in: log-odds of independent readings add up, so that disagreement shows as
doubt. In the same way all direct comparisons of two texts (choices, corrections, regenerations) are one
vote. Every judgement takes part in the vote on its text, and an item is made of the winning side alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from escultor.feedback.index_tables import ChoiceEvent, CorrectionEdit, FeedbackEvent, RatedAnswer
from escultor.feedback.raw_log import IMPLICIT
from escultor.stats.odds import log_odds, logistic
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
    """What one person made of one answer, and all the events that say so, the most telling first; none
    where it follows from a comparison with another text."""

    subject: str
    up: bool
    accuracy: float
    is_explicit: bool  # a thumb
    events: tuple[FeedbackEvent, ...]

    @property
    def log_odds(self) -> float:
        return log_odds(self.accuracy) if self.up else -log_odds(self.accuracy)

    @property
    def is_mixed(self) -> bool:
        """Whether this person likes the answer, and corrected it nevertheless: then they say neither."""
        return self.up and len(self.events) > 1 and self.events[1].name == CORRECTION

    @property
    def precedence(self) -> tuple[bool, float, str]:
        """Of one person's judgements on equal answers the greatest holds: the last thumb, else the last."""
        return self.is_explicit, self.events[0].time, self.events[0].id


class TextVerdict(NamedTuple):
    """The vote of all who judged a text: log-odds that it is good, by all judgements and by thumbs alone.
    `up` is None in a draw, and where thumbs say the opposite of all together."""

    up: bool | None
    total: float
    by_thumbs: float
    agreeing: tuple[SubjectJudgement, ...]
    outvoted: tuple[SubjectJudgement, ...]

    @property
    def flip_rate(self) -> float:
        return flip_rate(self.total)

    def contradicts(self, up: bool) -> bool:
        """Whether all judgements, or the thumbs alone, are against this verdict."""
        return any(not is_draw(odds) and (odds > 0) is not up for odds in (self.total, self.by_thumbs))


class TextPreference(NamedTuple):
    """One person's preference for one text over another."""

    subject: str
    chosen: str  # answer or correction
    rejected: str  # answer
    texts: tuple[str, str]  # hashes, of the chosen one first
    accuracy: float
    events: tuple[FeedbackEvent | ChoiceEvent, ...]


class DraftLimits(NamedTuple):
    """The settings that decide which drafts a prompt has."""

    pairs_per_prompt: int  # by one rule
    max_flip_rate: float
    min_edit: float
    max_edit: float


@dataclass(slots=True)
class PromptGroup:
    """One prompt. `used` holds the ids of the events that an item was made of already."""

    prompt: str
    trust: RaterTrust
    regenerated: set[str]  # answers that have a regeneration
    limits: DraftLimits
    answers: dict[str, RatedAnswer] = field(default_factory=dict)
    judgements: dict[str, dict[str, SubjectJudgement]] = field(default_factory=dict)  # answer -> person
    corrections: list[tuple[TextPreference, CorrectionEdit]] = field(default_factory=list)
    choices: list[TextPreference] = field(default_factory=list)
    regenerations: list[TextPreference] = field(default_factory=list)
    verdicts: dict[str, TextVerdict] = field(default_factory=dict)  # by the hash of the text
    preferences: dict[tuple[str, str], list[float]] = field(default_factory=dict)  # see `preference`
    used: set[str] = field(default_factory=set)
    unused_counts: dict[str, int] = field(default_factory=dict)  # why events made no item

    def count(self, reason: str, n: int = 1) -> None:
        self.unused_counts[reason] = self.unused_counts.get(reason, 0) + n

    def use(self, events: Iterable[FeedbackEvent | ChoiceEvent]) -> None:
        self.used.update(event.id for event in events)

    def add_choice(self, choice: ChoiceEvent) -> None:
        """Add a choice, as a comparison with each other answer that was shown."""
        accuracy = self.trust.choice_accuracy(choice.subject, choice.first == choice.winner)
        winner_text = self.answers[choice.winner].text_hash
        for other in choice.answers:
            texts = winner_text, self.answers[other].text_hash
            if other != choice.winner and texts[0] == texts[1]:
                self.count("no pair: a choice between equal texts")
            elif other != choice.winner:
                fields = choice.subject, choice.winner, other, texts, accuracy, (choice,)
                self.choices.append(TextPreference._make(fields))

    def add_correction(self, event: FeedbackEvent, edit: CorrectionEdit) -> None:
        """Add a correction, as a comparison with what it corrects."""
        texts = edit.text_hash, self.answers[event.target].text_hash
        accuracy = self.trust.event_accuracy(CORRECTION, event.subject)
        fields = event.subject, event.id, event.target, texts, accuracy, (event,)
        self.corrections.append((TextPreference._make(fields), edit))

    def vote(self) -> None:
        """Count all comparisons of each two texts, and all judgements of each text. Of what one person says
        of the same texts the last holds, and what they say before what they do."""
        said = [*self.choices, *(comparison for comparison, _ in self.corrections)]
        said.sort(key=lambda c: (c.events[0].time, c.events[0].id))
        votes: dict[tuple[str, str], dict[str, float]] = {}
        for c in (*self.regenerations, *said):
            first, second = c.texts
            odds, key = (
                (log_odds(c.accuracy), c.texts)
                if first < second
                else (-log_odds(c.accuracy), (second, first))
            )
            votes.setdefault(key, {})[c.subject] = odds
        groups = self.trust.collusion_groups
        self.preferences = {texts: voices(own.items(), groups) for texts, own in votes.items()}
        by_text = self._judgements_by_text()
        for c in said:
            is_choice = isinstance(c.events[0], ChoiceEvent)
            # Of two answers that are good or bad by a fair coin each, half are equal, and a choice between
            # equal ones says nothing of either: it is half as far above chance about one text as about two.
            accuracy = 0.5 + (c.accuracy - 0.5) / 2 if is_choice else c.accuracy
            for text, up in zip(c.texts, (True, False), strict=True):
                judgements = by_text.setdefault(text, {})
                held = judgements.get(c.subject)
                did = held.events if held else ()
                if (up or is_choice) and (not did or did[0].name in IMPLICIT):
                    events = did if held and held.up is up else ()
                    judgements[c.subject] = SubjectJudgement(c.subject, up, accuracy, False, events)
        self.verdicts = {text: combine_judgements(own, groups) for text, own in by_text.items()}

    def preference(self, first: str, second: str) -> list[float]:
        """How all direct comparisons of two texts favour the first: log-odds of independent readings."""
        if first < second:
            return self.preferences.get((first, second), [])
        return [-odds for odds in self.preferences.get((second, first), [])]

    def _judgements_by_text(self) -> dict[str, dict[str, SubjectJudgement]]:
        """What each person made of each text."""
        texts: dict[str, dict[str, SubjectJudgement]] = {}
        for id in sorted(self.judgements):
            held = texts.setdefault(self.answers[id].text_hash, {})
            for subject, judgement in self.judgements[id].items():
                if subject not in held or judgement.precedence > held[subject].precedence:
                    held[subject] = judgement
        return texts


def judge_answer(events: Iterable[FeedbackEvent], trust: RaterTrust) -> dict[str, SubjectJudgement]:
    """What each person made of one answer, from all events about it."""
    by_subject: dict[str, list[FeedbackEvent]] = {}
    for event in events:
        by_subject.setdefault(event.subject, []).append(event)
    judgements = {}
    for subject, own in by_subject.items():
        if len(own) > 1:
            own.sort(key=lambda e: (e.name != THUMB, e.name != CORRECTION, -trust.accuracy[e.name], e.name))
        name, up = own[0].name, bool(own[0].up)
        accuracy = trust.event_accuracy(name, subject)
        judgements[subject] = SubjectJudgement(subject, up, accuracy, name == THUMB, tuple(own))
    return judgements


def combine_judgements(judgements: dict[str, SubjectJudgement], groups: Mapping[str, str]) -> TextVerdict:
    """The verdict of several people on one text. `groups`: see `voices`."""
    if len(judgements) == 1:  # as nine of ten texts have
        (own,) = judgements.values()
        own_odds = own.log_odds
        total, by_thumbs = 0.0 if own.is_mixed else own_odds, own_odds if own.is_explicit else 0.0
    else:
        odds = {s: j.log_odds for s, j in judgements.items()}
        clear = ((s, odds[s]) for s, j in judgements.items() if not j.is_mixed)
        thumbs = ((s, odds[s]) for s, j in judgements.items() if j.is_explicit)
        total, by_thumbs = (math.fsum(voices(part, groups)) for part in (clear, thumbs))
    up = total > 0
    is_open = is_draw(total) or (not is_draw(by_thumbs) and (by_thumbs > 0) is not up)
    agreeing: list[SubjectJudgement] = []
    outvoted: list[SubjectJudgement] = []
    for _, judgement in sorted(judgements.items()):
        if is_open or judgement.up is not up:
            outvoted.append(judgement)
        elif judgement.accuracy > 0.5 and not judgement.is_mixed:
            agreeing.append(judgement)
    return TextVerdict(None if is_open else up, total, by_thumbs, tuple(agreeing), tuple(outvoted))


def voices(readings: Iterable[tuple[str, float]], groups: Mapping[str, str]) -> list[float]:
    """The log-odds of a statement by independent voices, from those of each person. `groups` maps colluding
    people to their group's name: together they weigh no more than the most accurate of them alone."""
    totals: dict[str, float] = {}
    largest: dict[str, float] = {}
    for subject, odds in readings:
        name = groups.get(subject, subject)
        totals[name] = totals.get(name, 0.0) + odds
        largest[name] = max(largest.get(name, 0.0), abs(odds))
    return [max(-largest[name], min(largest[name], odds)) for name, odds in totals.items()]


def is_draw(total: float) -> bool:
    """Whether log-odds that are sums favour neither side but for rounding."""
    return abs(total) < 1e-9


def flip_rate(total: float) -> float:
    """The probability that what these log-odds favour is wrong, `MIN_FLIP_RATE` at least."""
    return max(MIN_FLIP_RATE, logistic(-abs(total)))

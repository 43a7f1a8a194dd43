"""The labelling rules in their order: each turns the feedback about one prompt into drafts of training items.

**Used once.** What a person made of an answer is one judgement. A rule that makes an item of it marks it as
used, for each person whose events the item rests on, and no later rule uses it again: a correction says that
the answer was bad, so the thumb down beside it is no second verdict; nor is the thumb up on the answer that
was kept. Within one rule an answer may occur in several pairs, up to the cap.

**One prompt.** A rule sees one prompt at a time, so a thumb up on one never meets a thumb down on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter, itemgetter
from typing import Literal, NamedTuple

from escultor.feedback.evidence import (
    CORRECTION,
    REGENERATION,
    THUMB,
    PromptGroup,
    SubjectJudgement,
    combine_judgements,
    combined_log_odds,
    flip_rate,
)
from escultor.feedback.index_tables import ChoiceEvent, FeedbackEvent, RatedAnswer
from escultor.feedback.raw_log import is_end_user
from escultor.rng import unit
from escultor.stats.logistic import log_odds
from escultor.types import SourceKind

NOBODY = "nobody"  # the end user of events without one: an item of nobody would have no cap
SEPARATOR = "\x1f"  # of ids in one text
ItemKind = Literal["example", "pair", "unpaired"]


class Draft(NamedTuple):
    """An item before its texts are read: what it is made of, by id; a row of the index."""

    prompt: str  # hash
    rule: str
    kind: ItemKind
    answer: str  # the interaction whose prompt and rights the item has
    chosen: str  # the interaction or correction whose text is preferred, shown or judged
    rejected: str  # empty but for a pair
    desirable: bool
    flip_rate: float
    weight: float
    event_ids: str  # the feedback, joined as all lists of ids
    subject_ids: str  # the end users behind the feedback
    seq: int  # of the newest event, in the log
    time: float  # of the latest event
    simulated: bool

    @property
    def events(self) -> tuple[str, ...]:
        return tuple(self.event_ids.split(SEPARATOR)) if self.event_ids else ()

    @property
    def subjects(self) -> tuple[str, ...]:
        return tuple(self.subject_ids.split(SEPARATOR)) if self.subject_ids else ()


@dataclass(frozen=True, slots=True)
class LabellingRule:
    """One way from feedback to items. A change of what it makes is a new version."""

    name: str
    version: int
    make: Callable[[PromptGroup], Iterator[Draft]]

    @property
    def id(self) -> str:
        return f"{self.name}/{self.version}"


def label_corrections(group: PromptGroup) -> Iterator[Draft]:
    """A correction is preferred to the answer it corrects, and is an example of a good answer. The verdict of
    others who liked that answer counts against it. `selection` drops pairs whose texts hardly differ.
    """
    made = 0
    # Ordered by the person, whose name is salted: clients choose the ids of events, and could try out many.
    order = sorted(group.corrections, key=lambda e: (unit(0, "corrections", e.subject, e.target), e.id))
    for event in order:
        own_flip = 1 - group.trust.event_accuracy(CORRECTION, event.subject)
        if own_flip > group.max_flip_rate:
            group.count("left out: correction of an unreliable subject")
        elif (flip := _correction_flip_rate(group, event, own_flip)) > group.max_flip_rate:
            group.count("left out: correction of what others liked")
        elif made >= group.max_pairs:
            group.count("left out: more corrections of one prompt than the cap")
        else:
            made += 1
            example = _draft(group, "example", event.id, "", (event,), flip=flip, answer=event.target)
            yield example
            yield example._replace(kind="pair", rejected=event.target)
            group.used.add((event.subject, event.target))


def _correction_flip_rate(group: PromptGroup, event: FeedbackEvent, own_flip: float) -> float:
    """How often a correction is wrong, given what others made of the text that it corrects: their log-odds,
    as far as they exceed those of a single thumb, are subtracted from its own."""
    text_hash = group.answers[event.target].text_hash
    others = {
        subject: judgement
        for id, judgements in group.judgements.items()
        if group.answers[id].text_hash == text_hash
        for subject, judgement in judgements.items()
        if judgement.is_explicit and subject != event.subject
    }
    verdict = combine_judgements(others, group.trust.collusion_groups)
    if verdict is None or not verdict.up:
        return own_flip
    against = -log_odds(verdict.flip_rate) - log_odds(group.trust.accuracy[THUMB])
    total = -log_odds(own_flip) - max(0.0, against)
    return flip_rate(total) if total > 0 else 1 - flip_rate(total)


def label_regenerations(group: PromptGroup) -> Iterator[Draft]:
    """The answer that a person kept is preferred to those that they had regenerated. Kept is the last of its
    line, when the person who asked for it approved of it."""
    last = [a for a in group.answers.values() if a.parent is not None and a.id not in group.regenerated]
    for answer in sorted(last, key=attrgetter("id")):
        kept = _unused_judgement(group, answer, answer.subject)
        if kept is None or not kept.up:
            group.count("no pair: the last regeneration was not judged good")
            continue
        made = 0
        for before in _ancestors(group, answer):
            own = _unused_judgement(group, before, answer.subject)
            if own is not None and own.is_explicit and own.up:
                continue
            flip = 1 - group.trust.event_accuracy(REGENERATION, answer.subject)
            if own is not None and own.is_explicit and kept.is_explicit:
                flip = min(flip, (2 - kept.accuracy - own.accuracy) / 2)
            is_same = before.text_hash == answer.text_hash
            if is_same or flip > group.max_flip_rate or made >= group.max_pairs:
                group.count("left out: regeneration, same text, too doubtful or beyond the cap")
                continue
            made += 1
            events = kept.events + (own.events if own else ())
            yield _draft(group, "pair", answer.id, before.id, events, flip=flip, weight=0.5)
            group.used |= {(answer.subject, answer.id), (answer.subject, before.id)}


def _unused_judgement(group: PromptGroup, answer: RatedAnswer, subject: str) -> SubjectJudgement | None:
    if (subject, answer.id) in group.used:
        return None
    return group.judgements.get(answer.id, {}).get(subject)


def _ancestors(group: PromptGroup, answer: RatedAnswer) -> Iterator[RatedAnswer]:
    """The answers that were regenerated into this one, the nearest first, as long as one person asked."""
    seen, ancestor = {answer.id}, answer
    while ancestor.parent in group.answers and ancestor.parent not in seen:
        ancestor = group.answers[ancestor.parent]
        if ancestor.subject != answer.subject:
            return
        seen.add(ancestor.id)
        yield ancestor


class _Comparison(NamedTuple):
    """One person's choice, between two of the texts shown."""

    choice: ChoiceEvent
    other: str  # the answer that the winner was preferred to
    winner_text: str  # hash


def label_choices(group: PromptGroup) -> Iterator[Draft]:
    """The answer that was chosen is preferred to those shown beside it. Choices between the same two texts
    are combined as independent readings, so that many outvote one; the effect of the winner's position is
    taken out."""
    made = 0
    comparisons = _comparisons(group)
    for texts in sorted(comparisons, key=lambda pair: unit(0, "choices", *pair)):
        by_subject = comparisons[texts]
        readings = (
            (s, c.winner_text == texts[0], group.trust.choice_accuracy(s, c.choice.first == c.choice.winner))
            for s, c in by_subject.items()
        )
        total = combined_log_odds(readings, group.trust.collusion_groups)
        if total is None:
            group.count("left out: choices that contradict each other", len(by_subject))
            continue
        winner_text = texts[0] if total > 0 else texts[1]
        agreeing = [c for c in by_subject.values() if c.winner_text == winner_text]
        group.count("no pair: choices that others outvoted", len(by_subject) - len(agreeing))
        if (flip := flip_rate(total)) > group.max_flip_rate:
            group.count("left out: choice too doubtful", len(agreeing))
        elif made >= group.max_pairs:
            group.count("left out: more choices on one prompt than the cap", len(agreeing))
        else:
            made += 1
            choice, other, _ = min(agreeing, key=lambda c: c.choice.seq)
            yield _draft(group, "pair", choice.winner, other, [c.choice for c in agreeing], flip=flip)
            group.used |= {(c.choice.subject, id) for c in agreeing for id in (c.choice.winner, c.other)}


def _comparisons(group: PromptGroup) -> dict[tuple[str, str], dict[str, _Comparison]]:
    """By the hashes of two texts, in order, the last choice of each person between them."""
    comparisons: dict[tuple[str, str], dict[str, _Comparison]] = {}
    for choice in sorted(group.choices, key=lambda c: (c.time, c.id)):
        winner_text = group.answers[choice.winner].text_hash
        for other in choice.answers:
            text = group.answers[other].text_hash
            if other != choice.winner and text == winner_text:
                group.count("no pair: a choice between equal texts")
            elif other != choice.winner:
                texts = (winner_text, text) if winner_text < text else (text, winner_text)
                comparison = _Comparison(choice, other, winner_text)
                comparisons.setdefault(texts, {})[choice.subject] = comparison
    return comparisons


def label_same_prompt(group: PromptGroup) -> Iterator[Draft]:
    """A text that people liked is preferred to one that they disliked. The pair is wrong when both verdicts
    are wrong, and half the time when one is: (a + b) / 2."""
    if len(group.judgements) < 2:
        return
    verdicts = [(answer, verdict) for answer, verdict in group.verdicts(explicit_only=True) if verdict]
    pairs = []
    for (good, for_good), (bad, for_bad) in product(verdicts, verdicts):
        if not for_good.up or for_bad.up:
            continue
        if (flip := (for_good.flip_rate + for_bad.flip_rate) / 2) > group.max_flip_rate:
            group.count("left out: same prompt, too doubtful")
        else:
            judgements = for_good.judgements + for_bad.judgements
            pairs.append((unit(0, "pairs", good.text_hash, bad.text_hash), good, bad, flip, judgements))
    pairs.sort(key=itemgetter(0))
    group.count("left out: more pairs of one prompt than the cap", len(pairs[group.max_pairs :]))
    for _, good, bad, flip, judgements in pairs[: group.max_pairs]:
        events = _events(judgements)
        yield _draft(group, "pair", good.id, bad.id, events, flip=flip)
        group.used.update((event.subject, event.target) for event in events)


def label_unpaired(group: PromptGroup) -> Iterator[Draft]:
    """A verdict that no pair was made of: a good or a bad answer by itself. A doubtful verdict weighs less,
    by the factor 1 - 2 flip by which flipped labels shrink the mean effect."""
    for answer, verdict in group.verdicts(explicit_only=False):
        if verdict is None:
            group.count("left out: as many for as against")
        elif verdict.flip_rate > group.max_flip_rate:
            group.count("left out: verdict too doubtful")
        else:
            flip, events = verdict.flip_rate, _events(verdict.judgements)
            draft = _draft(group, "unpaired", answer.id, "", events, flip=flip, weight=1 - 2 * flip)
            yield draft._replace(desirable=verdict.up)


LABELLING_RULES: tuple[LabellingRule, ...] = (
    LabellingRule("correction", 2, label_corrections),
    LabellingRule("regeneration", 1, label_regenerations),
    LabellingRule("choice", 2, label_choices),
    LabellingRule("same-prompt", 3, label_same_prompt),
    LabellingRule("thumb", 2, label_unpaired),
)


def draft_items(group: PromptGroup) -> list[Draft]:
    """What all rules make of one prompt, in their order."""
    return [draft._replace(rule=rule.id) for rule in LABELLING_RULES for draft in rule.make(group)]


def _events(judgements: Iterable[SubjectJudgement]) -> tuple[FeedbackEvent, ...]:
    return tuple(event for judgement in judgements for event in judgement.events)


def _draft(
    group: PromptGroup,
    kind: ItemKind,
    chosen: str,
    rejected: str,
    events: Sequence[FeedbackEvent | ChoiceEvent],
    *,
    flip: float,
    weight: float = 1.0,
    answer: str = "",
) -> Draft:
    return Draft(
        prompt=group.prompt,
        rule="",
        kind=kind,
        answer=answer or chosen,
        chosen=chosen,
        rejected=rejected,
        desirable=True,
        flip_rate=round(flip, 6),
        weight=round(weight, 6),
        event_ids=SEPARATOR.join(sorted({event.id for event in events})),
        subject_ids=SEPARATOR.join(sorted({e.subject or NOBODY for e in events if is_end_user(e.source)})),
        seq=max(event.seq for event in events),
        time=max(event.time for event in events),
        simulated=any(event.source == SourceKind.SIMULATED for event in events),
    )

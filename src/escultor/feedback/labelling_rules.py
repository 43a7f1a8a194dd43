"""The labelling rules in their order: each turns the feedback about one prompt into drafts of training
items.

**Used once.** What a person made of an answer is one judgement. A rule that makes an item of it marks its
events as used, and no later rule uses them again: a correction says that the answer was bad, so the thumb
down beside it is no second verdict; nor is the thumb up on the answer that was kept. Within one rule an
answer may occur in several pairs, up to the cap. An event that made no item stays free, unless it was
outvoted: the vote on its text used it up. Law: no item contradicts the vote of all live events on its text,
nor the direct comparisons of its two texts.

**One prompt.** A rule sees one prompt at a time, so a thumb up on one never meets a thumb down on another.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from operator import attrgetter
from typing import Literal, NamedTuple

from escultor.feedback.evidence import (
    CORRECTION,
    REGENERATION,
    PromptGroup,
    SubjectJudgement,
    TextPreference,
    TextVerdict,
    flip_rate,
    is_draw,
    voices,
)
from escultor.feedback.index_tables import ChoiceEvent, CorrectionEdit, FeedbackEvent, RatedAnswer
from escultor.feedback.raw_log import is_end_user
from escultor.rng import unit
from escultor.stats.odds import expected_preference, log_odds
from escultor.types import SourceKind

NOBODY = "nobody"  # the end user of events without one: an item of nobody would have no cap
SEPARATOR = "\x1f"  # of ids in one text
SHORT = 20  # characters; any correction changes most of a shorter answer
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
    """A correction is preferred to the answer it corrects, and is an example of a good answer; one that
    rewrites the answer is an example alone, and leaves what else was said of the answer to other rules.
    People who wrote the same text wrote one item.
    """

    def order(correction: tuple[TextPreference, CorrectionEdit]) -> tuple[float, str]:
        # By the person, whose name is salted: clients choose the ids of events, and could try out many.
        comparison, _ = correction
        return unit(0, "corrections", comparison.subject, comparison.rejected), comparison.chosen

    by_text: dict[str, list[tuple[TextPreference, CorrectionEdit]]] = {}
    for comparison, edit in sorted(group.corrections, key=order):
        text, original = map(group.verdicts.__getitem__, comparison.texts)
        if 1 - comparison.accuracy > group.limits.max_flip_rate:
            group.count("left out: correction of an unreliable subject")
        elif original.total > 0 and not is_draw(original.total):
            group.count("left out: correction of what others liked")
        elif text.contradicts(True) or math.fsum(group.preference(*comparison.texts)) < 0:
            group.count("left out: correction that others outvoted")
        else:
            by_text.setdefault(comparison.texts[0], []).append((comparison, edit))
    kept = list(by_text.values())
    beyond = sum(map(len, kept[group.limits.pairs_per_prompt :]))
    group.count("left out: more corrections of one prompt than feedback.pairs_per_prompt", beyond)
    for corrections in kept[: group.limits.pairs_per_prompt]:
        yield from _draft_correction(group, corrections)


def _draft_correction(
    group: PromptGroup, corrections: list[tuple[TextPreference, CorrectionEdit]]
) -> Iterator[Draft]:
    """The example of a corrected text, and a pair, of one who wrote it, with each text that it corrects."""
    yield _draft_comparisons(group, "example", [comparison for comparison, _ in corrections])
    by_original: dict[str, list[TextPreference]] = {}
    for comparison, edit in corrections:
        if edit.distance >= group.limits.max_edit and max(edit.length, edit.length_before) >= SHORT:
            group.count("no pair: correction that changes more than feedback.max_edit")
        else:
            by_original.setdefault(comparison.texts[1], []).append(comparison)
    for comparisons in by_original.values():
        yield _draft_comparisons(group, "pair", comparisons[:1])
        for c in comparisons:
            own = group.judgements.get(c.rejected, {}).get(c.subject)
            group.use(own.events if own else ())
    group.use(comparison.events[0] for comparison, _ in corrections)


def _draft_comparisons(group: PromptGroup, kind: ItemKind, comparisons: Sequence[TextPreference]) -> Draft:
    """What people say who wrote the same correction."""
    first = comparisons[0]
    rejected = first.rejected if kind == "pair" else ""
    odds = voices(((c.subject, log_odds(c.accuracy)) for c in comparisons), group.trust.collusion_groups)
    flip = flip_rate(math.fsum(odds))
    events = [event for c in comparisons for event in c.events]
    return _draft(group, kind, first.chosen, rejected, events, flip=flip, answer=first.rejected)


def is_outvoted(group: PromptGroup, chosen: str, rejected: str) -> bool:
    """Whether a preference for one text over another contradicts the vote on either, or on both."""
    texts = (group.verdicts.get(chosen), True), (group.verdicts.get(rejected), False)
    is_against = any(verdict is not None and verdict.contradicts(up) for verdict, up in texts)
    return is_against or math.fsum(group.preference(chosen, rejected)) < 0


def compare_regenerations(group: PromptGroup) -> Iterator[TextPreference]:
    """The answer that a person kept is preferred to those that they had regenerated. Kept is the last of
    its line, when the person who asked for it approved of it."""
    last = [a for a in group.answers.values() if a.parent is not None and a.id not in group.regenerated]
    for answer in sorted(last, key=attrgetter("id")):
        subject = answer.subject
        kept = group.judgements.get(answer.id, {}).get(subject)
        if kept is None or not kept.up:
            group.count("no pair: the last regeneration was not judged good")
            continue
        for before in _ancestors(group, answer):
            own = group.judgements.get(before.id, {}).get(subject)
            if own is not None and own.is_explicit and own.up:
                continue
            if before.text_hash == answer.text_hash:
                group.count("no pair: a regeneration with the same text")
                continue
            accuracy = group.trust.event_accuracy(REGENERATION, subject)
            if own is not None and own.is_explicit and kept.is_explicit:
                accuracy = max(accuracy, (kept.accuracy + own.accuracy) / 2)
            texts = answer.text_hash, before.text_hash
            events = kept.events + (own.events if own else ())
            yield TextPreference._make((subject, answer.id, before.id, texts, accuracy, events))


def label_regenerations(group: PromptGroup) -> Iterator[Draft]:
    """Of what was compared by regeneration, a pair each, unless a correction used the judgement up."""
    made: dict[str, int] = {}
    used: list[FeedbackEvent | ChoiceEvent] = []
    for c in group.regenerations:
        if any(event.id in group.used for event in c.events):
            continue
        if is_outvoted(group, *c.texts):
            group.count("left out: regeneration that others outvoted")
        elif 1 - c.accuracy > group.limits.max_flip_rate:
            group.count("left out: regeneration, too doubtful (feedback.max_flip_rate)")
        elif made.setdefault(c.chosen, 0) >= group.limits.pairs_per_prompt:
            group.count("left out: more regenerations than feedback.pairs_per_prompt")
        else:
            made[c.chosen] += 1
            used += c.events
            yield _draft(group, "pair", c.chosen, c.rejected, c.events, flip=1 - c.accuracy, weight=0.5)
    group.use(used)


def _ancestors(group: PromptGroup, answer: RatedAnswer) -> Iterator[RatedAnswer]:
    """The answers that were regenerated into this one, the nearest first, as long as one person asked."""
    seen, ancestor = {answer.id}, answer
    while ancestor.parent in group.answers and ancestor.parent not in seen:
        ancestor = group.answers[ancestor.parent]
        if ancestor.subject != answer.subject:
            return
        seen.add(ancestor.id)
        yield ancestor


def label_choices(group: PromptGroup) -> Iterator[Draft]:
    """The answer that was chosen is preferred to those shown beside it. Choices between the same two texts
    are combined as independent readings, so that many outvote one; the effect of the winner's position is
    taken out. A pair weighs by how far its own votes are from what chance makes of equal answers.
    """
    by_texts: dict[tuple[str, str], dict[str, TextPreference]] = {}
    for c in sorted(group.choices, key=lambda c: (c.events[0].time, c.events[0].id)):
        by_texts.setdefault((min(c.texts), max(c.texts)), {})[c.subject] = c
    made = 0
    for texts in sorted(by_texts, key=lambda pair: unit(0, "choices", *pair)):
        odds, n = group.preference(*texts), len(by_texts[texts])
        total = math.fsum(odds)
        if is_draw(total):
            group.count("left out: choices that contradict each other", n)
            continue
        ordered = texts if total > 0 else (texts[1], texts[0])
        agreeing = [c for c in by_texts[texts].values() if c.texts == ordered]
        group.count("no pair: choices that others outvoted", n - len(agreeing))
        if not agreeing:
            continue
        if is_outvoted(group, *ordered):
            group.count("left out: choices that verdicts on the answers outvoted", len(agreeing))
        elif (flip := flip_rate(total)) > group.limits.max_flip_rate:
            group.count("left out: choice too doubtful (feedback.max_flip_rate)", len(agreeing))
        elif made >= group.limits.pairs_per_prompt:
            group.count("left out: more choices on one prompt than feedback.pairs_per_prompt", len(agreeing))
        else:
            made += 1
            first = min(agreeing, key=lambda c: c.events[0].seq)
            events = [event for c in agreeing for event in c.events]
            weight = abs(expected_preference(odds))
            yield _draft(group, "pair", first.chosen, first.rejected, events, flip=flip, weight=weight)
            group.use(events)


def label_same_prompt(group: PromptGroup) -> Iterator[Draft]:
    """A text that people liked is preferred to one that they disliked, the surest of them first. The pair
    is wrong when both verdicts are wrong, and half the time when one is: (a + b) / 2."""
    if not {True, False} <= {verdict.up for verdict in group.verdicts.values()}:
        return
    sides: dict[bool, list[tuple[float, float, str, str]]] = {True: [], False: []}
    for text, verdict in group.verdicts.items():
        explicit = [j for j in unused_judgements(group, verdict) if j.is_explicit]
        if verdict.up is not None and explicit:
            answer = min(j.events[0].target for j in explicit)
            sides[verdict.up].append((verdict.flip_rate, unit(0, "pairs", text), text, answer))
    # Any pair of the cap has sides among the first so many: no list is as long as the product of both.
    good, bad = (sorted(sides[up])[: group.limits.pairs_per_prompt] for up in (True, False))
    n, pairs = len(sides[True]) * len(sides[False]), []
    for (flip, _, chosen, good_id), (other_flip, _, rejected, bad_id) in product(good, bad):
        if (mean := (flip + other_flip) / 2) > group.limits.max_flip_rate:
            group.count("left out: same prompt, too doubtful (feedback.max_flip_rate)")
        elif is_outvoted(group, chosen, rejected):
            group.count("left out: same prompt, and choices are the other way round")
        else:
            pairs.append((mean, unit(0, "pairs", chosen, rejected), good_id, bad_id, chosen, rejected))
    n -= len(good) * len(bad) - len(pairs)
    pairs = sorted(pairs)[: group.limits.pairs_per_prompt]
    group.count("left out: more pairs of one prompt than feedback.pairs_per_prompt", n - len(pairs))
    used: list[FeedbackEvent] = []
    for flip, _, good_id, bad_id, *texts in pairs:
        judged = [j for text in texts for j in unused_judgements(group, group.verdicts[text])]
        events = free_events(group, [j for j in judged if j.is_explicit])
        yield _draft(group, "pair", good_id, bad_id, events, flip=flip)
        used += events
    group.use(used)


def label_unpaired(group: PromptGroup) -> Iterator[Draft]:
    """A verdict with judgements that no pair was made of: a good or a bad answer by itself. A doubtful
    verdict weighs less, by the factor 1 - 2 flip by which flipped labels shrink the mean effect."""
    for text in sorted(group.verdicts):
        verdict = group.verdicts[text]
        if verdict.outvoted:
            outvoted = sum(bool(j.events) and j.events[0].id not in group.used for j in verdict.outvoted)
            if verdict.up is None:
                group.count("left out: as many for as against", outvoted > 0)
                continue
            group.count("counted in the vote on their text, and outvoted", outvoted)
        judgements = unused_judgements(group, verdict)
        if not judgements:
            continue
        if (flip := verdict.flip_rate) > group.limits.max_flip_rate:
            group.count("left out: verdict too doubtful (feedback.max_flip_rate)")
        else:
            answer = min(j.events[0].target for j in judgements)
            events = free_events(group, judgements)
            draft = _draft(group, "unpaired", answer, "", events, flip=flip, weight=1 - 2 * flip)
            yield draft if verdict.up else draft._replace(desirable=False)


def unused_judgements(group: PromptGroup, verdict: TextVerdict) -> list[SubjectJudgement]:
    """The judgements that agree with a verdict, and whose telling event no item was made of."""
    return [
        j
        for j in verdict.agreeing
        if j.events and j.events[0].name != CORRECTION and j.events[0].id not in group.used
    ]


def free_events(group: PromptGroup, judgements: Sequence[SubjectJudgement]) -> list[FeedbackEvent]:
    """The events of these judgements that no item was made of. What a correction says it says by itself."""
    events = (event for judgement in judgements for event in judgement.events)
    return [event for event in events if event.id not in group.used and event.name != CORRECTION]


LABELLING_RULES: tuple[LabellingRule, ...] = (
    LabellingRule("correction", 3, label_corrections),
    LabellingRule("regeneration", 2, label_regenerations),
    LabellingRule("choice", 3, label_choices),
    LabellingRule("same-prompt", 4, label_same_prompt),
    LabellingRule("thumb", 3, label_unpaired),
)

CORRECTION_RULE = LABELLING_RULES[0].id


def draft_items(group: PromptGroup) -> list[Draft]:
    """What all rules make of one prompt, in their order, after all votes are counted."""
    group.regenerations = list(compare_regenerations(group))
    group.vote()
    return [draft._replace(rule=rule.id) for rule in LABELLING_RULES for draft in rule.make(group)]


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

"""The routes in their order. Each takes one prompt and what is known of it and yields drafts.

**Used once.** What a person made of an answer is one judgement. A route that makes an item of it marks it,
for each person whose word the item rests on, and no later route takes it again: an edit says that the answer
was bad, so the thumb down beside it is no second verdict; nor is the thumb up on the answer that was kept.
Within one route an answer may stand in several pairs, up to the cap.

**One prompt.** A route sees one prompt at a time, so an up on one prompt never meets a down on another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

from escultor.feedback.evidence import (
    CHOICE,
    CORRECTION,
    IMPLICIT_RULES,
    REGENERATION,
    THUMB,
    ChoiceEvent,
    FeedbackEvent,
    PromptAnswer,
    PromptGroup,
    SubjectJudgement,
    flip_of,
    is_end_user,
    summed,
    together,
)
from escultor.ids import hash_value
from escultor.rng import unit
from escultor.stats.logistic import log_odds
from escultor.types import SourceKind

NOBODY = "nobody"
ItemKind = Literal["pair", "example", "unpaired"]


class Draft(NamedTuple):
    """An item before its text: what it rests on, by reference, and what selecting needs to know of it.

    `chosen` is the id of an interaction, or of a correction; so is a verdict's and an example's text.
    """

    prompt: str
    route: str
    kind: ItemKind
    about: str  # the interaction whose prompt and rights it has
    chosen: str
    rejected: str  # empty but for a pair
    desirable: bool
    flip: float
    weight: float
    words: tuple[str, ...]  # ids of the feedback it rests on
    subjects: tuple[str, ...]  # end users it rests on, each alike
    seq: int  # of the newest of its words
    time: float
    simulated: bool


@dataclass(frozen=True, slots=True)
class DraftLimits:
    pairs_per_prompt: int = 4
    max_flip_rate: float = 0.4


@dataclass(frozen=True, slots=True)
class LabellingRule:
    """One way from what was said to items. A change of what it makes is a new version."""

    name: str
    version: int
    kinds: tuple[ItemKind, ...]
    make: Callable[[PromptGroup, DraftLimits], Iterator[Draft]]

    @property
    def rule(self) -> str:
        return f"{self.name}/{self.version}"


# --- corrections ------------------------------------------------------------------------------


def corrections(group: PromptGroup, limits: DraftLimits) -> Iterator[Draft]:
    """An edit stands over the answer it mends, and is an example of what to say. Whether it changed enough
    to be a pair is seen when the texts are read (`convert`). What others liked is not for one to mend: their
    verdict stands against the edit, as far as it says more than one person's."""
    if not group.corrections:
        return
    # By the person, whose name is salted: ids of events are the client's own, and could be tried out.
    made = sorted(group.corrections, key=lambda w: (unit(0, "corrections", w.subject, w.target), w.id))
    flip = {w.id: 1 - group.trust.of(CORRECTION, w.subject) for w in made}
    right = [w for w in made if flip[w.id] <= limits.max_flip_rate]
    group.count("left out: correction of an unreliable subject", len(made) - len(right))
    able, right = right, []
    for word in able:
        flip[word.id] = _against_others(group, word, flip[word.id])
        right += [word] if flip[word.id] <= limits.max_flip_rate else []
    group.count("left out: correction of what others liked", len(able) - len(right))
    group.count(
        "left out: more corrections of one prompt than the cap", len(right[limits.pairs_per_prompt :])
    )
    for word in right[: limits.pairs_per_prompt]:
        on = (word,)
        yield _draft(group, "example", word.id, "", on, flip[word.id])
        yield _draft(group, "pair", word.id, word.target, on, flip[word.id])
        group.used.add((word.subject, word.target))


def _against_others(group: PromptGroup, word: FeedbackEvent, flip: float) -> float:
    """How often an edit is wrong, given what others said of the text that it mends."""
    text = group.answers[word.target].text
    others = {
        s: j
        for id, judged in group.judgements.items()
        if group.answers[id].text == text
        for s, j in judged.items()
        if j.explicit and s != word.subject
    }
    verdict = together(others, group.trust.collectives)
    if verdict is None or not verdict.up:
        return flip
    against = -log_odds(verdict.flip) - log_odds(group.trust.right[THUMB])
    total = -log_odds(flip) - max(0.0, against)
    return flip_of(total) if total > 0 else 1 - flip_of(total)


# --- regenerations ----------------------------------------------------------------------------


def regenerations(group: PromptGroup, limits: DraftLimits) -> Iterator[Draft]:
    """The answer that a person kept stands over those they abandoned on the way to it. Only when it is the
    last of its line and the person who asked said or did something good about it."""
    for answer in sorted(a for a in group.answers.values() if a.parent is not None and not a.regenerated):
        kept = _of(group, answer, answer.subject)
        if kept is None or not kept.up:
            group.count("no pair: the last regeneration was not judged good")
            continue
        made = 0
        for before in _abandoned(group, answer):
            own = _of(group, before, answer.subject)
            if own is not None and own.explicit and own.up:
                continue
            flip = 1 - group.trust.of(REGENERATION, answer.subject)
            if own is not None and own.explicit and kept.explicit:
                flip = min(flip, (2 - kept.right - own.right) / 2)
            if before.text == answer.text or flip > limits.max_flip_rate or made >= limits.pairs_per_prompt:
                group.count("left out: regeneration, same text, too doubtful or beyond the cap")
                continue
            made += 1
            words = kept.words + (own.words if own else ())
            yield _draft(group, "pair", answer.id, before.id, words, flip, 0.5)
            group.used |= {(answer.subject, answer.id), (answer.subject, before.id)}


def _of(group: PromptGroup, answer: PromptAnswer, subject: str) -> SubjectJudgement | None:
    if (subject, answer.id) in group.used:
        return None
    return group.judgements.get(answer.id, {}).get(subject)


def _abandoned(group: PromptGroup, answer: PromptAnswer) -> Iterator[PromptAnswer]:
    """The answers before it in its line, the nearest first, as far as one person asked for them all."""
    seen = {answer.id}
    at = answer
    while at.parent is not None and at.parent in group.answers and at.parent not in seen:
        at = group.answers[at.parent]
        if at.subject != answer.subject:
            return
        seen.add(at.id)
        yield at


# --- choices ----------------------------------------------------------------------------------


def choices(group: PromptGroup, limits: DraftLimits) -> Iterator[Draft]:
    """The answer that was picked stands over those shown beside it. Picks between the same two texts are
    put together as independent readings, so the many outvote the one; what its place did for an answer is
    taken out of how often a pick is right."""
    made = 0
    compared = _compared(group)
    for texts in sorted(compared, key=lambda t: unit(0, "choices", *t)):
        picks = compared[texts]
        total = summed(
            ((s, p.won == texts[0], group.trust.picked(s, p.first)) for s, p in picks.items()),
            group.trust.collectives,
        )
        if total is None:
            group.count("left out: choices that contradict each other", len(picks))
            continue
        won = texts[0] if total > 0 else texts[1]
        agreeing = [p for p in picks.values() if p.won == won]
        group.count("no pair: choices that others outvoted", len(picks) - len(agreeing))
        if (flip := flip_of(total)) > limits.max_flip_rate:
            group.count("left out: choice too doubtful", len(agreeing))
            continue
        if made >= limits.pairs_per_prompt:
            group.count("left out: more choices on one prompt than the cap", len(agreeing))
            continue
        made += 1
        words = tuple(sorted(p.word for p in agreeing))
        best = min(agreeing, key=lambda p: p.word)
        yield _draft(group, "pair", best.word.target, best.other, words, flip)
        group.used |= {(p.word.subject, id) for p in agreeing for id in (p.word.target, p.other)}


class _Pick(NamedTuple):
    """One person's pick between two texts."""

    word: FeedbackEvent
    other: str  # the answer it was taken over
    won: str  # the text
    first: bool  # whether it was shown first


def _compared(group: PromptGroup) -> dict[tuple[str, str], dict[str, _Pick]]:
    """By two texts, what each person picked of them; the last holds."""
    found: dict[tuple[str, str], dict[str, _Pick]] = {}
    for pick in sorted(group.choices, key=lambda c: (c.time, c.id)):
        won = group.answers[pick.winner].text
        for other in pick.shown:
            lost = group.answers[other].text
            if other != pick.winner and lost == won:
                group.count("no pair: a choice between equal texts")
            elif other != pick.winner:
                texts = (won, lost) if won < lost else (lost, won)
                first = pick.shown[0] == pick.winner
                found.setdefault(texts, {})[pick.subject] = _Pick(_word(pick), other, won, first)
    return found


def _word(pick: ChoiceEvent) -> FeedbackEvent:
    return FeedbackEvent(pick.seq, pick.id, pick.time, pick.winner, pick.subject, CHOICE, True, pick.source)


# --- same prompt, different verdicts ----------------------------------------------------------


def same_prompt(group: PromptGroup, limits: DraftLimits) -> Iterator[Draft]:
    """A text that people liked stands over one they did not like. Wrong when both verdicts are, and half
    the time when one is: (a + b) / 2."""
    if len(group.judgements) < 2:
        return
    ups, downs = [], []
    for _, (answer, judged) in sorted(group.texts().items()):
        verdict = together({s: j for s, j in judged.items() if j.explicit}, group.trust.collectives)
        if verdict is not None:
            (ups if verdict.up else downs).append((answer, verdict))
    made = []
    for up, liked in ups:
        for down, disliked in downs:
            flip = (liked.flip + disliked.flip) / 2
            if flip > limits.max_flip_rate:
                group.count("left out: same prompt, too doubtful")
                continue
            made.append((unit(0, "pairs", up.text, down.text), up, down, liked, disliked, flip))
    made.sort(key=lambda m: m[0])
    group.count("left out: more pairs of one prompt than the cap", len(made[limits.pairs_per_prompt :]))
    for _, up, down, liked, disliked, flip in made[: limits.pairs_per_prompt]:
        behind = liked.judgements + disliked.judgements
        words = tuple(word for j in behind for word in j.words)
        yield _draft(group, "pair", up.id, down.id, words, flip)
        group.used |= {(word.subject, word.target) for word in words}


# --- what is left -----------------------------------------------------------------------------


def thumbs(group: PromptGroup, limits: DraftLimits) -> Iterator[Draft]:
    """Verdicts that met no other: a good or a bad answer by itself. What is uncertain weighs less, by the
    factor 1 - 2 flip with which a flipped label's mean effect shrinks."""
    for _, (answer, judged) in sorted(group.texts().items()):
        explicit = {s: j for s, j in judged.items() if j.explicit}
        verdict = together(explicit or judged, group.trust.collectives)
        if verdict is None:
            group.count("left out: as many for as against")
        elif verdict.flip > limits.max_flip_rate:
            group.count("left out: verdict too doubtful")
        else:
            words = tuple(word for j in verdict.judgements for word in j.words)
            made = _draft(group, "unpaired", answer.id, "", words, verdict.flip, 1 - 2 * verdict.flip)
            yield made._replace(desirable=verdict.up)


LABELLING_RULES: tuple[LabellingRule, ...] = (
    LabellingRule("correction", 2, ("example", "pair"), corrections),
    LabellingRule("regeneration", 1, ("pair",), regenerations),
    LabellingRule("choice", 2, ("pair",), choices),
    LabellingRule("same-prompt", 3, ("pair",), same_prompt),
    LabellingRule("thumb", 2, ("unpaired",), thumbs),
)
RULES = hash_value([[route.rule for route in LABELLING_RULES], IMPLICIT_RULES])[
    :12
]  # of the version of them all


def drafts(group: PromptGroup, limits: DraftLimits) -> list[Draft]:
    """What all routes make of one prompt, in their order."""
    return [
        draft._replace(route=route.rule) for route in LABELLING_RULES for draft in route.make(group, limits)
    ]


def _draft(
    group: PromptGroup,
    kind: ItemKind,
    chosen: str,
    rejected: str,
    words: tuple[FeedbackEvent, ...],
    flip: float,
    weight: float = 1.0,
) -> Draft:
    newest = max(words)
    about = words[0].target if words[0].name == CORRECTION else chosen
    # Who has no name is somebody all the same: an item of nobody would have no cap.
    subjects = tuple(sorted({word.subject or NOBODY for word in words if is_end_user(word.source)}))
    simulated = any(word.source == SourceKind.SIMULATED for word in words)
    ids = tuple(sorted({word.id for word in words}))
    time = max(word.time for word in words)
    return Draft(
        group.prompt,
        "",
        kind,
        about,
        chosen,
        rejected,
        True,
        round(flip, 6),
        round(weight, 6),
        ids,
        subjects,
        newest.seq,
        time,
        simulated,
    )

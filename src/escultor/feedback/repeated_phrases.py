"""Phrases that come back on many prompts and only among few people: a person's own style, or something that
they want a model to say. Nothing tells the two apart but a look, so the card says where to look."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import NamedTuple

from escultor.feedback import raw_log
from escultor.feedback.labelling_rules import Draft
from escultor.feedback.selection import CORRECTED, BodySource, Selection
from escultor.rng import unit
from escultor.types import Feedback, Interaction

WORDS = 6  # of a phrase
PROMPTS = 10  # on which it comes back at least
FEW = 0.5  # of the people behind as many items drawn by chance: fewer are few
SAMPLE = 1000  # items of a kind that are looked at of those with most of them, and as many of others
_WORD = re.compile(r"\w+")


class TrainedText(NamedTuple):
    """What an item teaches: a text after a prompt, and the end users it rests on. `id` is the text's."""

    id: str
    prompt: str
    text: str
    subjects: tuple[str, ...]


class RepeatedPhrase(NamedTuple):
    """A phrase that is few people's: on how many prompts, by how many people, and one text that has it."""

    prompts: int
    people: int
    example: str


def notes(found: Selection, bodies: BodySource) -> Iterator[str]:
    """What is to be looked at in a selection. No phrase is told: it may be private."""
    for kind, chosen in found.chosen.items():
        taught = list(_taught(_sampled([c.draft for c in chosen if c.draft.desirable]), bodies))
        if (phrase := of_few(taught)) is not None:
            people = f"{phrase.people:,} of {len(_people(taught)):,} people"
            yield (
                f"look at {phrase.example}: a phrase in it comes back on {phrase.prompts:,} prompts of "
                f"{len(taught):,} items looked at ({kind}), from {people}"
            )


def _sampled(drafts: Sequence[Draft]) -> list[Draft]:
    """All items of some end users, since one item a person would not tell what is theirs from what is said
    everywhere: of those who have most, who may be at their cap, and of others by hash."""
    by: dict[str, list[Draft]] = {}
    for draft in drafts:
        if draft.subjects:
            by.setdefault(draft.subjects[0], []).append(draft)
    hashed = sorted(by, key=lambda subject: unit(len(drafts), "looked at", subject))
    most = sorted(hashed, key=lambda subject: -len(by[subject]))
    found: list[Draft] = []
    for people, until in ((most, SAMPLE), (hashed, 2 * SAMPLE)):
        for subject in people:
            if len(found) >= until:
                break
            found += by.pop(subject, [])
    return found


def _taught(drafts: Sequence[Draft], bodies: BodySource) -> Iterator[TrainedText]:
    written = [d.chosen for d in drafts if d.route == CORRECTED]
    asked = {d.about for d in drafts} | {d.chosen for d in drafts if d.route != CORRECTED}
    answers, said = bodies.lean_by_id(Interaction, sorted(asked)), bodies.lean_by_id(Feedback, written)
    for draft in drafts:
        asking, answer = answers.get(draft.about), answers.get(draft.chosen)
        text = said[draft.chosen]["text"] if draft.chosen in said else answer["answer"] if answer else None
        if asking is not None and text is not None:
            yield TrainedText(draft.chosen, raw_log.asked(asking), text, draft.subjects)


def of_few(items: Sequence[TrainedText]) -> RepeatedPhrase | None:
    """The phrase on most prompts that comes from fewer than half of the people behind as many items drawn by
    chance. What stands in its own prompt was asked for, and does not count."""
    found: dict[str, list[int]] = {}
    for i, item in enumerate(items):
        for phrase in _phrases(item.text) - _phrases(item.prompt):
            found.setdefault(phrase, []).append(i)
    shares = [n / len(items) for n in Counter(s for item in items for s in item.subjects).values()]
    by_chance = cache(lambda n: math.fsum(1 - (1 - share) ** n for share in shares))
    best: tuple[int, str] | None = None
    for phrase, rows in found.items():
        prompts = len({items[i].prompt for i in rows}) if len(rows) >= PROMPTS else 0
        few = prompts >= PROMPTS and len(_people(items[i] for i in rows)) < FEW * by_chance(len(rows))
        if few and (best is None or (-prompts, phrase) < best):
            best = -prompts, phrase
    if best is None:
        return None
    rows = [items[i] for i in found[best[1]]]
    return RepeatedPhrase(-best[0], len(_people(rows)), min(row.id for row in rows))


def _people(items: Iterable[TrainedText]) -> set[str]:
    return {subject for item in items for subject in item.subjects}


def _phrases(text: str) -> set[str]:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return {" ".join(words[i : i + WORDS]) for i in range(len(words) - WORDS + 1)}

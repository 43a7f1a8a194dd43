"""Phrases that recur on many prompts but come from few people: a person's own style, or something that they
want a model to say. Only a look tells the two apart, so the card says where to look."""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

from escultor.feedback.items import read_texts
from escultor.feedback.labelling_rules import Draft
from escultor.feedback.raw_log import BodySource
from escultor.feedback.selection import Selection
from escultor.rng import unit
from escultor.types import Role

PHRASE_WORDS = 6
MIN_PROMPTS = 10
MAX_PEOPLE_SHARE = 0.5  # of the people behind as many items drawn by chance
SAMPLE_SIZE = 1000  # items of the people with most of them; and of other people
_WORD = re.compile(r"\w+")
Phrase = tuple[str, ...]  # words


class TrainedText(NamedTuple):
    """What an item teaches: a text after a prompt, and the end users it rests on. `id` is the text's."""

    id: str
    prompt: str
    text: str
    subjects: tuple[str, ...]


class RepeatedPhrase(NamedTuple):
    """On how many prompts a phrase of few people occurs, by how many people, and the id of a text with it."""

    prompts: int
    people: int
    example: str


def phrase_notes(selection: Selection, bodies: BodySource) -> Iterator[str]:
    """What to look at in a selection. The phrase itself is not told: it may be private."""
    for kind, items in selection.chosen.items():
        texts = list(_trained_texts(_sample([i.draft for i in items if i.draft.desirable]), bodies))
        if (phrase := find_repeated_phrase(texts)) is not None:
            yield (
                f"look at {phrase.example}: a phrase in it comes back on {phrase.prompts:,} prompts of "
                f"{len(texts):,} items looked at ({kind}), "
                f"from {phrase.people:,} of {len(_people(texts)):,} people"
            )


def _sample(drafts: Sequence[Draft]) -> list[Draft]:
    """All items of some end users, since one item a person does not tell what is theirs from what everybody
    says: of those who have most, and may be at their cap, and of others by hash."""
    by_subject: dict[str, list[Draft]] = {}
    for draft in drafts:
        if draft.subjects:
            by_subject.setdefault(draft.subjects[0], []).append(draft)
    by_hash = sorted(by_subject, key=lambda subject: unit(len(drafts), "looked at", subject))
    by_size = sorted(by_hash, key=lambda subject: -len(by_subject[subject]))
    sample: list[Draft] = []
    for people, size in ((by_size, SAMPLE_SIZE), (by_hash, 2 * SAMPLE_SIZE)):
        for subject in people:
            if len(sample) >= size:
                break
            sample += by_subject.pop(subject, [])
    return sample


def _trained_texts(drafts: Sequence[Draft], bodies: BodySource) -> Iterator[TrainedText]:
    # Without the rejected side: its text is not taught.
    by_number = {str(n): draft._replace(rejected="") for n, draft in enumerate(drafts)}
    for n, texts in read_texts(by_number, bodies, Counter()).items():
        prompt = "\n".join(m.content for m in texts.prompt if m.role == Role.USER)
        yield TrainedText(by_number[n].chosen, prompt, texts.chosen.content, by_number[n].subjects)


def find_repeated_phrase(items: Sequence[TrainedText]) -> RepeatedPhrase | None:
    """The phrase on most prompts that comes from fewer than half of the people expected behind as many
    items drawn by chance. A phrase that its own prompt holds was asked for, and does not count."""
    taught = [_phrases(item.text) for item in items]
    n_rows = Counter(chain.from_iterable(taught))
    rows_of: dict[Phrase, list[int]] = {phrase: [] for phrase, n in n_rows.items() if n >= MIN_PROMPTS}
    for i, phrases in enumerate(taught):
        if recurring := rows_of.keys() & phrases:
            for phrase in recurring - _phrases(items[i].prompt):
                rows_of[phrase].append(i)
    shares = [n / len(items) for n in Counter(s for item in items for s in item.subjects).values()]
    # A person with a share p of the items is behind at least one of n with probability 1 - (1 - p)^n.
    expected_people = cache(lambda n: math.fsum(1 - (1 - share) ** n for share in shares))
    best: tuple[int, Phrase] | None = None
    for phrase, rows in rows_of.items():
        prompts = len({items[i].prompt for i in rows})
        if prompts < MIN_PROMPTS or (best is not None and (-prompts, phrase) >= best):
            continue
        if len(_people(items[i] for i in rows)) < MAX_PEOPLE_SHARE * expected_people(len(rows)):
            best = -prompts, phrase
    if best is None:
        return None
    texts = [items[i] for i in rows_of[best[1]]]
    return RepeatedPhrase(-best[0], len(_people(texts)), min(text.id for text in texts))


def _people(items: Iterable[TrainedText]) -> set[str]:
    return {subject for item in items for subject in item.subjects}


def _phrases(text: str) -> set[Phrase]:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return set(zip(*(words[i:] for i in range(PHRASE_WORDS)), strict=False))

"""Prompts that never enter training: registered for good, and kept out where rows are read for training.

Held out is every prompt that was registered, and every prompt of a registered suite. A row is kept out when
its prompt is one of them, word for word or nearly (Jaccard similarity of 8-byte windows), or holds one of
eight words and more: behind other instructions, among the turns of a talk, in a document. Compared are the
whole prompt and what is asked at its end, private data redacted, as in rows that were curated.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from escultor.datasets.curation.near_duplicates import band_hashes, bands_for
from escultor.datasets.curation.normalization import Hashes, jaccard, window_set, words_of
from escultor.datasets.curation.passes import PROMPT
from escultor.datasets.curation.personal_data import redacted
from escultor.datasets.curation.phrases import RUN, Phrases
from escultor.datasets.curation.rows import prompt_text
from escultor.ids import hash_bytes, hash_value
from escultor.skills.suites import items_of
from escultor.types import Document, HeldOut, Messages, Role, Suite

if TYPE_CHECKING:
    from escultor.data.jsonl_rows import TrainingItem
    from escultor.store import Store

T = TypeVar("T", bound="TrainingItem")

THRESHOLD = 0.75
PERMUTATIONS = 120
BATCH = 4096  # rows compared at a time
SAME = "dropped: its prompt is held out"
NEAR = "dropped: its prompt is nearly one that is held out"
HOLDS = "dropped: its prompt holds one that is held out"


@dataclass(frozen=True, slots=True)
class HeldOutPrompt:
    """A prompt by the hash of its messages, as one text, and what is asked at its end: what the user says
    last; all of it where that says too little by itself."""

    hash: str
    text: str
    asked: str


def prompt_of(item: TrainingItem) -> HeldOutPrompt:
    """The prompt of an item; of a document, all of it."""
    text = prompt_text(item)
    if isinstance(item, Document):
        return HeldOutPrompt(hash_value(text), text, text)
    return _prompt(item.prompt, text)


def _prompt(messages: Messages, text: str) -> HeldOutPrompt:
    said = [m for m in messages if m.role is not Role.SYSTEM]
    asked = next((m.content for m in reversed(said) if m.role is Role.USER), text)
    # "Why?" at the end of a talk is a question only together with the talk.
    whole = len(said) == 1 or len(words_of(asked)) >= RUN
    return HeldOutPrompt(hash_value(messages), text, asked if whole else text)


def hold_out(store: Store, name: str, items: Iterable[TrainingItem]) -> HeldOut | None:
    """Register the prompts of items: they are held out from now on. None where there are none; the same
    prompts are registered once."""
    prompts = {each.hash: each for each in map(prompt_of, items)}
    if not prompts:
        return None
    lines = (json.dumps(_line(prompts[hash]), ensure_ascii=False) for hash in sorted(prompts))
    text = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
    noun = HeldOut(hash_bytes(text), name, len(prompts), store.blobs.put_bytes(text))
    if (known := store.log.get(HeldOut, noun.id)) is not None:
        return known
    store.log.append(noun)
    return noun


def _line(prompt: HeldOutPrompt) -> dict[str, str]:
    also = {"asked": prompt.asked} if prompt.asked != prompt.text else {}
    return {"hash": prompt.hash, "text": prompt.text, **also}


def registered(store: Store) -> Iterator[HeldOutPrompt]:
    """Every prompt that is held out: those registered as such, and those of suites."""
    for _, noun in store.log.read(HeldOut):
        for line in store.blobs.get_bytes(noun.blob).decode("utf-8", "surrogatepass").split("\n"):
            if line:
                data: Any = json.loads(line)
                yield HeldOutPrompt(data["hash"], data["text"], data.get("asked", data["text"]))
    for _, suite in store.log.read(Suite):
        for item in items_of(store.blobs, suite):
            for messages in filter(None, (item.prompt, item.pressed)):
                yield _prompt(messages, "\n".join(m.content for m in messages))
            if item.document is not None:
                yield HeldOutPrompt(hash_value(item.document), item.document, item.document)


class HeldOutGuard:
    """Knows what is held out, and tells which rows may be learnt from."""

    def __init__(self, prompts: Iterable[HeldOutPrompt]):
        known = {each.hash: each for each in prompts}
        self.hashes = frozenset(known)
        self._texts = sorted({redacted(text) for each in known.values() for text in (each.text, each.asked)})
        self._phrases = Phrases(self._texts)
        self._shape = bands_for(THRESHOLD, PERMUTATIONS)
        self._sets: dict[int, Hashes] = {}
        bands = band_hashes([_parts(text) for text in self._texts], *self._shape)  # (p, b)
        self._order = np.argsort(bands, axis=0, kind="stable")
        self._sorted = np.take_along_axis(bands, self._order, axis=0)

    def allowed(self, items: Sequence[T], counts: Counter[str]) -> list[T]:
        """The items whose prompt is not held out; what is kept out is counted, and why."""
        reasons = self.reasons(items)
        counts.update(reason for reason in reasons if reason is not None)
        return [item for item, reason in zip(items, reasons, strict=True) if reason is None]

    def reasons(self, items: Sequence[TrainingItem]) -> list[str | None]:
        """For each item why it may not be learnt from; None where it may."""
        if not self.hashes:
            return [None] * len(items)
        found: list[str | None] = []
        for at in range(0, len(items), BATCH):
            prompts = [prompt_of(item) for item in items[at : at + BATCH]]
            texts = [redacted(prompt.text) for prompt in prompts]
            near, within = self._near(texts), self._phrases.within(texts)
            ends = [i for i, prompt in enumerate(prompts) if prompt.asked != prompt.text]
            for i, is_near in zip(ends, self._near([redacted(prompts[i].asked) for i in ends]), strict=True):
                near[i] |= is_near
            for prompt, is_near, holds in zip(prompts, near, within, strict=True):
                same = prompt.hash in self.hashes
                found.append(SAME if same else NEAR if is_near else HOLDS if holds else None)
        return found

    def _near(self, texts: Sequence[str]) -> list[bool]:
        bands = band_hashes([_parts(text) for text in texts], *self._shape)
        first = np.column_stack(
            [np.searchsorted(self._sorted[:, b], bands[:, b]) for b in range(bands.shape[1])]
        )
        last = np.column_stack(
            [np.searchsorted(self._sorted[:, b], bands[:, b], "right") for b in range(bands.shape[1])]
        )
        found = [False] * len(texts)
        for row in np.flatnonzero((last > first).any(1)).tolist():
            own = window_set(_parts(texts[row]))
            met = {
                int(self._order[k, b])
                for b in range(bands.shape[1])
                for k in range(first[row, b], last[row, b])
            }
            found[row] = any(jaccard(own, self._set(number)) >= THRESHOLD for number in met)
        return found

    def _set(self, number: int) -> Hashes:
        if number not in self._sets:
            self._sets[number] = window_set(_parts(self._texts[number]))
        return self._sets[number]


def registrations(store: Store) -> str:
    """The name of all that is registered: it changes when anything is held out."""
    nouns = [noun.id for _, noun in store.log.read(HeldOut)]
    return hash_value([*nouns, *(suite.id for _, suite in store.log.read(Suite))])


def guard_of(store: Store) -> HeldOutGuard:
    """The guard of all that is held out in a store."""
    return HeldOutGuard(registered(store))


def _parts(text: str) -> tuple[tuple[str, str], ...]:
    return ((PROMPT, text),)

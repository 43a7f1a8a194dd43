"""Held-out prompts, registered for good, and the one guard that keeps rows with such prompts out of
training.

Held out is every prompt that was registered, and every prompt of a registered suite. A row is kept out if
its prompt is one of them, word for word or nearly (Jaccard similarity of 8-byte shingles), or contains one
of eight words or more: after other instructions, in an earlier turn of a conversation, in a document. A
prompt with other numbers or symbols (`17 * 25` for `17 + 25`) is another prompt. Both the whole prompt and
the last user message are compared, with private data redacted as in curated rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from escultor.data.row_messages import messages_of, without_marks
from escultor.datasets.personal_data import redacted
from escultor.datasets.rows import prompt_text
from escultor.datasets.similarity.duplicates import band_hashes, bands_for
from escultor.datasets.similarity.phrases import NGRAM, Phrases
from escultor.ids import hash_bytes, hash_value
from escultor.skills.suites import load_items
from escultor.text.normalization import contradict, words_of
from escultor.text.shingles import Hashes, jaccard, shingle_set
from escultor.types import Document, HeldOut, Messages, Role, Suite, SuiteItem

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
    """The hash of a prompt's messages, its whole text, and its question: the last user message, or the
    whole text where that message is too short to be recognised by itself."""

    hash: str
    text: str
    question: str


def prompt_of(item: TrainingItem) -> HeldOutPrompt:
    """The prompt of an item's answer; for a document, all of it."""
    text = prompt_text(item)
    if isinstance(item, Document):
        return HeldOutPrompt(hash_value(text), text, text)
    return _prompt(without_marks(item.prompt), text)


def prompts_of(item: TrainingItem) -> list[HeldOutPrompt]:
    """The prompts of all answers that an item teaches: its own, and the earlier turns learnt with it."""
    messages = () if isinstance(item, Document) else item.prompt
    turns = [without_marks(messages[:i]) for i, message in enumerate(messages) if message.learnt and i]
    return [prompt_of(item), *(_prompt(turn, "\n".join(m.content for m in turn)) for turn in turns)]


def _prompt(messages: Messages, text: str) -> HeldOutPrompt:
    turns = [m for m in messages if m.role is not Role.SYSTEM]
    question = next((m.content for m in reversed(turns) if m.role is Role.USER), text)
    # "Why?" at the end of a conversation is a question only together with the conversation.
    is_complete = len(turns) == 1 or len(words_of(question)) >= NGRAM
    return HeldOutPrompt(hash_value(messages), text, question if is_complete else text)


def prompt_hashes(store: Store, blob: str) -> Iterator[str]:
    """The hash of every prompt in a blob of rows, equal to that of a suite item's messages; documents have
    none. Raises StoreError if the blob is missing."""
    with store.blobs.file(blob).open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            prompt = row.get("prompt", row.get("item", {}).get("prompt"))
            if isinstance(prompt, str):
                prompt = [{"role": Role.USER, "content": prompt}]
            if prompt:
                yield hash_value(without_marks(messages_of(prompt, "prompt", Counter())))


# --- registration -------------------------------------------------------------------------------


def hold_out(store: Store, name: str, items: Iterable[TrainingItem]) -> HeldOut | None:
    """Register the prompts of items, which are held out from now on; None without items. The same prompts
    are registered once."""
    prompts = {prompt.hash: prompt for item in items for prompt in prompts_of(item)}
    if not prompts:
        return None
    lines = (json.dumps(_line(prompts[hash]), ensure_ascii=False) for hash in sorted(prompts))
    text = "".join(line + "\n" for line in lines).encode("utf-8", "surrogatepass")
    record = HeldOut(hash_bytes(text), name, len(prompts), store.blobs.put_bytes(text))
    if (known := store.log.get(HeldOut, record.id)) is not None:
        return known
    store.log.append(record)
    return record


def _line(prompt: HeldOutPrompt) -> dict[str, str]:
    question = {"asked": prompt.question} if prompt.question != prompt.text else {}
    return {"hash": prompt.hash, "text": prompt.text, **question}


def held_out_prompts(store: Store) -> Iterator[HeldOutPrompt]:
    """Every prompt that is held out: those registered, and those of suites."""
    for _, record in store.log.read(HeldOut):
        for line in store.blobs.get_bytes(record.blob).decode("utf-8", "surrogatepass").split("\n"):
            if line:
                data: Any = json.loads(line)
                yield HeldOutPrompt(data["hash"], data["text"], data.get("asked", data["text"]))
    for item in _suite_items(store):
        for messages in filter(None, (item.prompt, item.pressed)):
            yield _prompt(messages, "\n".join(m.content for m in messages))
        if item.document is not None:
            yield HeldOutPrompt(hash_value(item.document), item.document, item.document)


def held_out_hashes(store: Store) -> frozenset[str]:
    """The hashes of every prompt that is held out: none of them may be trained on."""
    return frozenset(prompt.hash for prompt in held_out_prompts(store))


def suite_texts(store: Store) -> Iterator[str]:
    """Every text of every registered suite: prompts, reference answers and documents."""
    for item in _suite_items(store):
        yield from (m.content for messages in (item.prompt, item.pressed) for m in messages)
        yield from item.references
        if item.document is not None:
            yield item.document


def _suite_items(store: Store) -> Iterator[SuiteItem]:
    for _, suite in store.log.read(Suite):
        yield from load_items(store.blobs, suite)


def registrations_hash(store: Store) -> str:
    """A hash of all registrations and suites, which changes when anything more is held out."""
    records = [record.id for _, record in store.log.read(HeldOut)]
    return hash_value([*records, *(suite.id for _, suite in store.log.read(Suite))])


def load_guard(store: Store) -> HeldOutGuard:
    """The guard of all that is held out in a store."""
    return HeldOutGuard(held_out_prompts(store))


# --- the guard ----------------------------------------------------------------------------------


class HeldOutGuard:
    """An index of held-out prompts that decides which items may be trained on."""

    def __init__(self, prompts: Iterable[HeldOutPrompt]):
        known = {prompt.hash: prompt for prompt in prompts}
        self.hashes = frozenset(known)
        texts = {redacted(text) for prompt in known.values() for text in (prompt.text, prompt.question)}
        self._texts = sorted(texts)
        self._phrases = Phrases(self._texts)
        self._shape = bands_for(THRESHOLD, PERMUTATIONS)
        self._sets: dict[int, Hashes] = {}
        bands = band_hashes([_parts(text) for text in self._texts], *self._shape)  # (p, b)
        self._order = np.argsort(bands, axis=0, kind="stable")
        self._sorted = np.take_along_axis(bands, self._order, axis=0)

    @classmethod
    def of(cls, prompts: Iterable[Messages]) -> HeldOutGuard:
        """The guard of these prompts, such as those of a suite that is not registered yet."""
        return cls(_prompt(messages, "\n".join(m.content for m in messages)) for messages in prompts)

    def allowed(self, items: Sequence[T], counts: Counter[str]) -> list[T]:
        """The items whose prompt is not held out; the others are counted by reason."""
        reasons = self.reasons(items)
        counts.update(reason for reason in reasons if reason is not None)
        return [item for item, reason in zip(items, reasons, strict=True) if reason is None]

    def reasons(self, items: Sequence[TrainingItem]) -> list[str | None]:
        """For each item the reason not to train on it; None if there is none."""
        if not self.hashes:
            return [None] * len(items)
        reasons: list[str | None] = [None] * len(items)
        for start in range(0, len(items), BATCH):
            prompts = [
                (i, prompt)
                for i, item in enumerate(items[start : start + BATCH], start)
                for prompt in prompts_of(item)
            ]
            for (i, _), reason in zip(prompts, self._reasons([prompt for _, prompt in prompts]), strict=True):
                reasons[i] = reasons[i] or reason
        return reasons

    def _reasons(self, prompts: Sequence[HeldOutPrompt]) -> Iterator[str | None]:
        texts = [redacted(prompt.text) for prompt in prompts]
        near, contains = self._are_near(texts), self._phrases.within(texts)
        ends = [i for i, prompt in enumerate(prompts) if prompt.question != prompt.text]
        questions = [redacted(prompts[i].question) for i in ends]
        for i, is_near in zip(ends, self._are_near(questions), strict=True):
            near[i] |= is_near
        for prompt, is_near, holds in zip(prompts, near, contains, strict=True):
            yield SAME if prompt.hash in self.hashes else NEAR if is_near else HOLDS if holds else None

    def _are_near(self, texts: Sequence[str]) -> list[bool]:
        """For each text whether it is a near duplicate of a held-out one."""
        bands = band_hashes([_parts(text) for text in texts], *self._shape)  # (n, b)
        columns = range(bands.shape[1])
        first, last = (
            np.column_stack([np.searchsorted(self._sorted[:, b], bands[:, b], side) for b in columns])
            for side in ("left", "right")
        )
        is_near = [False] * len(texts)
        for row in np.flatnonzero((last > first).any(1)).tolist():
            shingles = shingle_set(_parts(texts[row]))
            candidates = {int(self._order[k, b]) for b in columns for k in range(first[row, b], last[row, b])}
            alike = [n for n in candidates if jaccard(shingles, self._set(n)) >= THRESHOLD]
            is_near[row] = any(not contradict(_parts(texts[row]), _parts(self._texts[n])) for n in alike)
        return is_near

    def _set(self, number: int) -> Hashes:
        if number not in self._sets:
            self._sets[number] = shingle_set(_parts(self._texts[number]))
        return self._sets[number]


def _parts(text: str) -> tuple[tuple[str, str], ...]:
    return (("prompt", text),)

"""Training items as token ids: what a batch is packed from.

A row's tokens are a trunk and its branches; labelled are the tokens of `labels`, given as positions
in the branch order trunk + branch. Long rows are handled here, once, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from escultor.errors import DataError
from escultor.ids import hash_bytes
from escultor.text.chat import ChatTemplate
from escultor.types import Document, Example, Pair, UnpairedExample

Ids = np.ndarray  # (n,) int32
Lessons = tuple[tuple[Ids, Ids], ...]  # what is seen, and what is learnt after it


@dataclass(frozen=True, slots=True)
class NllRow:
    """One sequence. Labelled with `weight` are the tokens from `start` on; those before it, but the
    first of all, with `prompt_weight` where that is above 0."""

    id: str
    ids: Ids
    start: int
    weight: float = 1.0
    prompt_weight: float = 0.0

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def first_label(self) -> int:
        return 1 if self.prompt_weight > 0 else self.start

    @property
    def lessons(self) -> Lessons:
        return ((self.ids[: self.first_label], self.ids[self.first_label :]),)

    def weights(self) -> np.ndarray:
        """One weight per labelled token: (length - first_label,)."""
        prompt = np.full(self.start - self.first_label, self.prompt_weight, dtype=np.float32)
        return np.concatenate([prompt, np.full(self.length - self.start, self.weight, dtype=np.float32)])


class BranchedRow(Protocol):
    """A prompt and the responses that branch off it; `key` is the content id of the tokens alone."""

    @property
    def prompt(self) -> Ids: ...
    @property
    def branches(self) -> tuple[Ids, ...]: ...
    @property
    def length(self) -> int: ...
    @property
    def key(self) -> str: ...


@dataclass(frozen=True, slots=True)
class PairRow:
    """A prompt computed once, and the two responses that branch off it, both fully labelled."""

    id: str
    prompt: Ids
    chosen: Ids
    rejected: Ids
    weight: float = 1.0
    flip_rate: float = 0.0

    @property
    def branches(self) -> tuple[Ids, ...]:
        return self.chosen, self.rejected

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def lessons(self) -> Lessons:
        return ((self.prompt, self.chosen), (self.prompt, self.rejected))

    @property
    def key(self) -> str:
        """Content id of the tokens alone."""
        return tokens_key(self.prompt, *self.branches)


@dataclass(frozen=True, slots=True)
class UnpairedRow:
    """A prompt with a response that was judged, and with `other`, a response to another prompt, by which
    the divergence from the reference is measured."""

    id: str
    prompt: Ids
    response: Ids
    other: Ids
    desirable: bool
    weight: float = 1.0

    @property
    def branches(self) -> tuple[Ids, ...]:
        return self.response, self.other

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.response) + len(self.other)

    @property
    def lessons(self) -> Lessons:
        return ((self.prompt, self.response),)

    @property
    def key(self) -> str:
        """Content id of the tokens alone."""
        return tokens_key(self.prompt, *self.branches)


def tokens_key(*parts: Ids) -> str:
    """The content id of token ids in parts; a token moved over a border makes another."""
    lengths = np.asarray([len(part) for part in parts], dtype=np.int32)
    return hash_bytes(b"".join(part.tobytes() for part in (lengths, *parts)))


def ids_of(tokens: list[int]) -> Ids:
    return np.asarray(tokens, dtype=np.int32)


def document_rows(
    documents: Iterable[Document], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[NllRow]:
    """Documents as rows of at most `max_length` tokens; longer ones are cut into windows, counted."""
    rows = []
    documents = list(documents)
    coded = chat.documents([document.text for document in documents])
    for document, tokens in zip(documents, coded, strict=True):
        ids = ids_of(tokens)
        counts["documents"] += 1
        counts["documents cut into windows"] += len(ids) > max_length
        for at in range(0, len(ids), max_length):
            window = ids[at : at + max_length]
            if len(window) > 1:
                rows.append(NllRow(f"{document.id}:{at}", window, 1))
            else:  # nothing stands before its token, from which that could be predicted
                counts["dropped: windows of a single token"] += 1
    return rows


def example_rows(
    examples: Iterable[Example], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[NllRow]:
    """Examples as rows labelled on the response. What is longer than `max_length` is dropped and
    counted: cutting it would teach an answer without its end, or to a prompt not seen."""
    rows = []
    for example in examples:
        rendered = chat.example(example.prompt, example.response)
        length = len(rendered.prompt) + len(rendered.response)
        counts["examples"] += 1
        if length > max_length:
            counts["dropped: longer than max_length"] += 1
            continue
        if length == 1:  # nothing stands before its token, from which that could be predicted
            counts["dropped: empty prompt and response"] += 1
            continue
        if not rendered.prompt:
            counts["first tokens not learnt: empty prompt"] += 1
        ids = ids_of(rendered.prompt + rendered.response)
        rows.append(NllRow(example.id, ids, max(1, len(rendered.prompt)), example.weight))
    return rows


def pair_rows(
    pairs: Iterable[Pair], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[PairRow]:
    """Pairs as rows; a pair of which either side is longer than `max_length` is dropped and counted,
    and so is one whose sides are the same tokens, or whose prompt has none."""
    rows = []
    for pair in pairs:
        chosen = chat.example(pair.prompt, pair.chosen)
        rejected = chat.response(pair.rejected)
        counts["pairs"] += 1
        if len(chosen.prompt) + max(len(chosen.response), len(rejected)) > max_length:
            counts["dropped: longer than max_length"] += 1
        elif chosen.response == rejected:
            counts["dropped: chosen equals rejected"] += 1
        elif not chosen.prompt:  # the first token of either side would have nothing before it
            counts["dropped: empty prompt"] += 1
        else:
            parts = (ids_of(chosen.prompt), ids_of(chosen.response), ids_of(rejected))
            rows.append(PairRow(pair.id, *parts, pair.weight, pair.flip_rate))
    return rows


def unpaired_rows(
    items: Iterable[UnpairedExample], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[UnpairedRow]:
    """Verdicts as rows, each with the response of the row before it that has another prompt (the last
    rows stand before the first). What is longer than `max_length` is dropped and counted; such another
    response is cut to fit, counted. Raises DataError where there are no two prompts.
    """
    kept = []
    for item in items:
        rendered = chat.example(item.prompt, item.response)
        counts["verdicts"] += 1
        if len(rendered.prompt) + len(rendered.response) > max_length:
            counts["dropped: longer than max_length"] += 1
        elif not rendered.prompt:
            counts["dropped: empty prompt"] += 1
        else:
            kept.append((item, ids_of(rendered.prompt), ids_of(rendered.response)))
    rows = []
    for (item, prompt, response), at in zip(
        kept, _with_another_prompt([prompt for _, prompt, _ in kept]), strict=True
    ):
        other = kept[at][2]
        room = max_length - len(prompt)
        counts["responses to another prompt cut to max_length"] += len(other) > room
        rows.append(UnpairedRow(item.id, prompt, response, other[:room], item.desirable, item.weight))
    return rows


def _with_another_prompt(prompts: Sequence[Ids]) -> list[int]:
    """For each prompt the nearest earlier one that differs, going round at the beginning. Linear."""
    n = len(prompts)
    codes = [prompt.tobytes() for prompt in prompts]
    first = next((i for i in range(n) if codes[i] != codes[i - 1]), None)
    if first is None:
        if n:
            raise DataError(
                "verdicts on one prompt alone", f"{n} rows", "two prompts or more", "use pairs (dpo)"
            )
        return []
    found = [0] * n
    for i in range(first, first + n):
        before = (i - 1) % n
        found[i % n] = before if codes[before] != codes[i % n] else found[before]
    return found

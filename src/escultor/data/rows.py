"""Training items as token ids: what a batch is packed from.

A row's tokens are a trunk and its branches; labelled are the tokens of `labels`, given as positions
in the branch order trunk + branch. Long rows are handled here, once, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from escultor.ids import hash_bytes
from escultor.text.chat import Chat
from escultor.types import Document, Example, Pair

Ids = np.ndarray  # (n,) int32


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

    def weights(self) -> np.ndarray:
        """One weight per labelled token: (length - first_label,)."""
        prompt = np.full(self.start - self.first_label, self.prompt_weight, dtype=np.float32)
        return np.concatenate([prompt, np.full(self.length - self.start, self.weight, dtype=np.float32)])


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
    def length(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def key(self) -> str:
        """Content id of the tokens alone."""
        return hash_bytes(b"|".join(part.tobytes() for part in (self.prompt, self.chosen, self.rejected)))


def ids_of(tokens: list[int]) -> Ids:
    return np.asarray(tokens, dtype=np.int32)


def document_rows(
    documents: Iterable[Document], chat: Chat, max_length: int, counts: Counter[str]
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
    examples: Iterable[Example], chat: Chat, max_length: int, counts: Counter[str]
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
        ids = ids_of(rendered.prompt + rendered.response)
        rows.append(NllRow(example.id, ids, max(1, len(rendered.prompt)), example.weight))
    return rows


def pair_rows(pairs: Iterable[Pair], chat: Chat, max_length: int, counts: Counter[str]) -> list[PairRow]:
    """Pairs as rows; a pair of which either side is longer than `max_length` is dropped and counted,
    and so is one whose sides are the same tokens, or whose prompt has none."""
    rows = []
    for pair in pairs:
        chosen = chat.example(pair.prompt, pair.chosen)
        rejected = chat.text(pair.rejected) + chat.turn_end
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

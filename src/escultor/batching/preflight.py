"""A report on the rows of a run before its first step: labels, ends of turns, lengths, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from escultor.batching.rows import Ids, TokenRow, tokens_key
from escultor.errors import DataError, InputError, ModelError
from escultor.model.cost import TrainingCost
from escultor.model.inspect import displayed_tokens
from escultor.text.chat import ChatTemplate
from escultor.text.turns import ASKED
from escultor.types import Message, Role

NAMED = 5  # row ids that a warning lists
_TAIL = 32  # last tokens searched for an end of turn written as text


@dataclass(frozen=True, slots=True)
class TextSpan:
    text: str
    labelled: bool


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row token by token, one branch for each response."""

    id: str
    branches: tuple[tuple[TextSpan, ...], ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per row. `bins` are (limit, rows): rows of more than limit / 2 and at most limit tokens."""

    min: int
    p50: int
    p95: int
    max: int
    bins: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens of the tokenizer, rows of the model's embedding, and the largest id in the data."""

    tokenizer: int
    embedding: int
    largest: int


@dataclass(frozen=True, slots=True)
class Preflight:
    """The report. `counts` are the items that became rows, and by reason those that did not."""

    counts: dict[str, int]
    rows: int
    tokens: int  # in one pass over the rows
    labelled: int
    branches: int  # learnt turns: one per row or more, two per pair
    ended: int  # those whose labelled tokens end the turn
    unended: tuple[str, ...]  # ids of the first rows with one that does not end
    duplicates: int  # rows with the tokens of an earlier row; they are kept
    lengths: Lengths
    vocabulary: Vocabulary
    warnings: tuple[str, ...]
    cost: TrainingCost
    first: tuple[ShownRow, ...]

    def raise_faults(self, documents: bool) -> None:
        """Raise ModelError or DataError for what makes the run wrong. `documents` need not end a turn."""
        for fault in self._faults(documents):
            raise fault

    def _faults(self, documents: bool) -> Iterator[InputError]:
        sizes = self.vocabulary
        if max(sizes.largest + 1, sizes.tokenizer) > sizes.embedding:
            yield ModelError(
                "the tokenizer and the model do not belong together",
                f"{sizes.tokenizer} tokens, ids up to {sizes.largest} in the data",
                f"ids below {sizes.embedding}, the rows of the model's embedding",
                "use the tokenizer that the model was trained with",
            )
        if not self.labelled:
            yield DataError("nothing in the data is labelled", f"{self.rows} rows", "at least one token")
        if not self.ended and not documents:
            what = "no row ends its turn within its labelled tokens: the model would never stop"
            got = f"{self.rows} rows, such as {', '.join(self.unended)}"
            remedy = "look at the rows with `escultor data preview`"
            yield DataError(what, got, "the token that ends a turn, labelled, at the end of each", remedy)


def preflight(
    rows: Sequence[TokenRow],
    counts: Mapping[str, int],
    chat: ChatTemplate,
    model: Any,
    cost: TrainingCost,
    documents: bool = False,
    show: int = 3,
) -> Preflight:
    """The report on at least one row; the first `show` are shown token by token. Pure. Faults are not raised
    here, but by `Preflight.raise_faults`. Of `model` only the configuration and the shape of its embedding
    are read: it may be without weights."""
    seen = _Tally(chat, [chat.eos] if documents else chat.turn_end)
    for row in rows:
        seen.add(row)
    return Preflight(
        counts=dict(counts),
        rows=len(rows),
        tokens=sum(seen.lengths),
        labelled=seen.labelled,
        branches=seen.branches,
        ended=seen.ended,
        unended=tuple(seen.unended[:NAMED]),
        duplicates=len(rows) - len(seen.contents),
        lengths=_lengths(np.asarray(seen.lengths)),
        vocabulary=Vocabulary(len(chat.tokenizer), len(model.get_input_embeddings().weight), seen.largest),
        warnings=(*_warnings(seen, counts, documents), *_disagreements(seen, model)),
        cost=cost,
        first=tuple(_shown(row, chat) for row in rows[:show]),
    )


class _Tally:
    """Counts over one pass over the rows."""

    def __init__(self, chat: ChatTemplate, end: list[int]):
        self.chat, self.end = chat, end
        self.lengths: list[int] = []
        self.contents: set[str] = set()
        self.labelled = self.branches = self.ended = self.largest = self.unknown = 0
        self.unended: list[str] = []
        self.written_end: list[str] = []
        self.begun_twice: list[str] = []
        tokenizer = chat.tokenizer
        self.begin = None if tokenizer.bos_token_id in (chat.eos, *end) else _begin(chat)
        self.unknown_id = None if tokenizer.unk_token_id in chat.control else tokenizer.unk_token_id
        self.marks = tuple(tokenizer.convert_ids_to_tokens(sorted({chat.eos, end[-1]})))
        self.closers = {chat.text(mark + tail)[-1] for mark in self.marks for tail in ("", "\n")}

    def add(self, row: TokenRow) -> None:
        self.lengths.append(row.length)
        turns = [turn for sequence in row.sequences for turn in sequence]
        parts = [ids for turn in turns for ids in turn]
        self.contents.add(tokens_key(*parts))
        self.largest = max(self.largest, *(int(ids.max(initial=0)) for ids in parts))
        ended = [ids[-len(self.end) :].tolist() == self.end for _, ids in turns]
        self.branches += len(ended)
        self.ended += sum(ended)
        self.labelled += sum(len(ids) for _, ids in turns)
        if not all(ended):
            self.unended.append(row.id)
        if any(self._writes_end(ids) for _, ids in turns):
            self.written_end.append(row.id)
        if self.begin is not None:
            begins = [
                sum(int((ids == self.begin).sum()) for turn in sequence for ids in turn)
                for sequence in row.sequences
            ]
            if max(begins) > 1:
                self.begun_twice.append(row.id)
        if self.unknown_id is not None:
            self.unknown += sum(int((ids == self.unknown_id).sum()) for ids in parts)

    def _writes_end(self, labelled: Ids) -> bool:
        """Whether the labelled tokens spell the end of a turn as text before they end it."""
        body = labelled[: -len(self.end)]
        if not len(body) or int(body[-1]) not in self.closers:
            return False
        return self.chat.tokenizer.decode(body[-_TAIL:].tolist()).rstrip().endswith(self.marks)


def _begin(chat: ChatTemplate) -> int | None:
    """The token that begins a text, None where the template also writes it at each turn, as SmolLM2's."""
    begin, answered = chat.tokenizer.bos_token_id, (*ASKED, Message(Role.ASSISTANT, "a"), *ASKED)
    short, long = (chat.prompt(messages).count(begin) for messages in (ASKED, answered))
    return None if begin is None or long > short else begin


def _warnings(seen: _Tally, counts: Mapping[str, int], documents: bool) -> Iterator[str]:
    left_out = ("dropped", "cut", "not learnt")
    yield from (f"{why}: {n:,}" for why, n in counts.items() if n and any(word in why for word in left_out))
    if more := len(seen.lengths) - len(seen.contents):
        yield f"{more:,} rows repeat an earlier one token for token; they are kept"
    mark = " or ".join(f"`{mark}`" for mark in seen.marks)
    spelt = f"spell {mark} as text before they end: remove it from the data, or it is learnt"
    for ids, what in (
        ([] if documents else seen.unended, "do not end the turn within their labelled tokens"),
        (seen.written_end, spelt),
        (seen.begun_twice, "contain the token that begins a text more than once"),
    ):
        if ids:
            yield f"{len(ids):,} rows {what}: {', '.join(ids[:NAMED])}{' …' if len(ids) > NAMED else ''}"
    if seen.unknown:
        yield f"{seen.unknown:,} tokens replace characters that the vocabulary lacks"


def _disagreements(seen: _Tally, model: Any) -> Iterator[str]:
    """Where the model's configuration, which other programs read, differs from the tokenizer's."""
    settings = [model.config, *filter(None, [getattr(model, "generation_config", None)])]
    stops: set[int] = set()
    for each in settings:
        eos = getattr(each, "eos_token_id", None)
        stops.update([] if eos is None else eos if isinstance(eos, list) else [eos])
    if stops and seen.end[-1] not in stops:
        yield (
            f"the model's config.json stops at {sorted(stops)}, its turns end with {seen.end[-1]}: "
            "a server of this model will not stop there; the model that is saved names both"
        )
    pads = (model.config.get_text_config().pad_token_id, seen.chat.tokenizer.pad_token_id)
    if None not in pads and pads[0] != pads[1]:
        yield f"the model's config.json pads with {pads[0]}, the tokenizer with {pads[1]}"


def _lengths(lengths: np.ndarray) -> Lengths:
    p50, p95 = np.percentile(lengths, [50, 95], method="nearest")
    exponents = np.ceil(np.log2(np.maximum(lengths, 1))).astype(int)
    bins = {2 ** int(e): int((exponents == e).sum()) for e in range(exponents.min(), exponents.max() + 1)}
    return Lengths(int(lengths.min()), int(p50), int(p95), int(lengths.max()), tuple(bins.items()))


def _shown(row: TokenRow, chat: ChatTemplate) -> ShownRow:
    branches = []
    for turns in row.sequences:
        texts = displayed_tokens(
            chat.tokenizer, np.concatenate([ids for turn in turns for ids in turn]).tolist()
        )
        marks = np.repeat([False, True] * len(turns), [len(ids) for turn in turns for ids in turn])
        branches.append(tuple(map(TextSpan, texts, marks.tolist())))
    return ShownRow(row.id, tuple(branches))

"""What a run is about to learn from, looked at before it begins: masks, ends, lengths, cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from escultor.batching.rows import Ids, Lessons, tokens_key
from escultor.errors import DataError, InputError, ModelError
from escultor.model.cost import TrainingCost
from escultor.model.inspect import displayed_tokens
from escultor.text.chat import ChatTemplate

NAMED = 5  # rows that a finding names
_TAIL = 32  # tokens in which an end of turn written as text is looked for


class TokenRow(Protocol):
    """What every kind of row says of itself."""

    @property
    def id(self) -> str: ...
    @property
    def length(self) -> int: ...
    @property
    def lessons(self) -> Lessons: ...


@dataclass(frozen=True, slots=True)
class TextSpan:
    text: str
    labelled: bool


@dataclass(frozen=True, slots=True)
class ShownRow:
    """A row spelt out, token by token; a pair has two branches."""

    id: str
    branches: tuple[tuple[TextSpan, ...], ...]


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens per row. `bins` are (most, rows): rows of at most `most` tokens, and more than half that."""

    min: int
    p50: int
    p95: int
    max: int
    bins: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Tokens that the tokenizer knows, rows of the model's embedding, the largest id in the data."""

    tokenizer: int
    embedding: int
    largest: int


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found. `counts` are the items that became rows, and those that did not, with why."""

    counts: dict[str, int]
    rows: int
    tokens: int  # computed in one pass over the rows
    labelled: int
    branches: int  # one a row, or two for a pair
    ended: int  # branches that end the turn inside what is learnt
    unended: tuple[str, ...]  # ids of the first rows with a branch that does not
    duplicates: int  # rows that repeat an earlier one token for token; they are kept
    lengths: Lengths
    vocabulary: Vocabulary
    warnings: tuple[str, ...]
    cost: TrainingCost
    first: tuple[ShownRow, ...]

    def refuse(self, documents: bool) -> None:
        """Raise ModelError or DataError for what would make the run wrong. Windows of `documents` need
        not end."""
        for fault in self._faults(documents):
            raise fault

    def _faults(self, documents: bool) -> Iterator[InputError]:
        known = self.vocabulary
        if max(known.largest + 1, known.tokenizer) > known.embedding:
            yield ModelError(
                "the tokenizer and the model do not belong together",
                f"{known.tokenizer} tokens, ids up to {known.largest} in the data",
                f"ids below {known.embedding}, the rows of the model's embedding",
                "use the tokenizer that the model was trained with",
            )
        if not self.labelled:
            yield DataError("nothing in the data is labelled", f"{self.rows} rows", "at least one token")
        if not self.ended and not documents:
            yield DataError(
                "no row ends its turn inside what is learnt: the model would never stop",
                f"{self.rows} rows, such as {', '.join(self.unended)}",
                "the token that ends a turn, labelled, at the end of each",
                "look at the rows with `escultor data preview`",
            )


def preflight(
    rows: Sequence[TokenRow],
    counts: Mapping[str, int],
    chat: ChatTemplate,
    model: Any,
    cost: TrainingCost,
    documents: bool = False,
    show: int = 3,
) -> Preflight:
    """Look at rows (one at least) before a run; the first `show` are spelt out.

    Pure; what it finds it says and does not raise, see `Preflight.refuse`. `model` is asked for its
    configuration and the shape of its embedding alone, and may be one without weights.
    """
    seen = _Seen(chat, [chat.eos] if documents else chat.turn_end)
    for row in rows:
        seen.look(row)
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
        vocabulary=Vocabulary(
            len(chat.tokenizer), model.get_input_embeddings().weight.shape[0], seen.largest
        ),
        warnings=(*_warnings(seen, counts, documents), *_disagreements(seen, model)),
        cost=cost,
        first=tuple(_shown(row, chat) for row in rows[:show]),
    )


class _Seen:
    """What is gathered in one pass over the rows."""

    def __init__(self, chat: ChatTemplate, end: list[int]):
        self.chat, self.end = chat, end
        self.lengths: list[int] = []
        self.contents: set[str] = set()
        self.labelled = self.branches = self.ended = self.largest = self.unknown = 0
        self.unended: list[str] = []
        self.written_end: list[str] = []
        self.begun_twice: list[str] = []
        known = chat.tokenizer
        self.begin = None if known.bos_token_id in (chat.eos, *end) else known.bos_token_id
        self.unknown_id = None if known.unk_token_id in chat.control else known.unk_token_id
        self.marks = tuple(known.convert_ids_to_tokens(sorted({chat.eos, end[-1]})))
        self.closers = {chat.text(mark + tail)[-1] for mark in self.marks for tail in ("", "\n")}

    def look(self, row: TokenRow) -> None:
        self.lengths.append(row.length)
        parts = [part for lesson in row.lessons for part in lesson]
        self.contents.add(tokens_key(*parts))
        self.largest = max(self.largest, *(int(part.max(initial=0)) for part in parts))
        ended = [learnt[-len(self.end) :].tolist() == self.end for _, learnt in row.lessons]
        self.branches += len(ended)
        self.ended += sum(ended)
        self.labelled += sum(len(learnt) for _, learnt in row.lessons)
        if not all(ended):
            self.unended.append(row.id)
        if any(self._writes_end(learnt) for _, learnt in row.lessons):
            self.written_end.append(row.id)
        if self.begin is not None and any(self._begins(*lesson) > 1 for lesson in row.lessons):
            self.begun_twice.append(row.id)
        if self.unknown_id is not None:
            self.unknown += sum(int((part == self.unknown_id).sum()) for part in parts)

    def _begins(self, context: Ids, learnt: Ids) -> int:
        return int((context == self.begin).sum() + (learnt == self.begin).sum())

    def _writes_end(self, learnt: Ids) -> bool:
        """Whether what is learnt says the end of a turn in letters before it ends."""
        said = learnt[: -len(self.end)]
        if not len(said) or int(said[-1]) not in self.closers:
            return False
        return self.chat.tokenizer.decode(said[-_TAIL:].tolist()).rstrip().endswith(self.marks)


def _warnings(seen: _Seen, counts: Mapping[str, int], documents: bool) -> Iterator[str]:
    left_out = ("dropped", "cut", "not learnt")
    yield from (f"{why}: {n:,}" for why, n in counts.items() if n and any(word in why for word in left_out))
    if more := len(seen.lengths) - len(seen.contents):
        yield f"{more:,} rows repeat an earlier one token for token; they are kept"
    mark = " or ".join(f"`{mark}`" for mark in seen.marks)
    for ids, what in (
        ([] if documents else seen.unended, "do not end the turn inside what is learnt"),
        (seen.written_end, f"say {mark} in letters before they end: learnt as text; take it out of the data"),
        (seen.begun_twice, "hold the token that begins a text more than once"),
    ):
        if ids:
            yield f"{len(ids):,} rows {what}: {', '.join(ids[:NAMED])}{' …' if len(ids) > NAMED else ''}"
    if seen.unknown:
        yield f"{seen.unknown:,} tokens stand for characters that the vocabulary does not know"


def _disagreements(seen: _Seen, model: Any) -> Iterator[str]:
    """Where the model's configuration, which other programs read, says something else."""
    settings = [model.config, *filter(None, [getattr(model, "generation_config", None)])]
    stops: set[int] = set()
    for each in settings:
        found = getattr(each, "eos_token_id", None)
        stops.update([] if found is None else found if isinstance(found, list) else [found])
    if stops and seen.end[-1] not in stops:
        yield (
            f"the model's config.json stops at {sorted(stops)}, its turns end with {seen.end[-1]}: "
            "a server that reads it will not stop"
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
    for context, learnt in row.lessons:
        texts = displayed_tokens(chat.tokenizer, [*context.tolist(), *learnt.tolist()])
        branches.append(tuple(TextSpan(text, at >= len(context)) for at, text in enumerate(texts)))
    return ShownRow(row.id, tuple(branches))

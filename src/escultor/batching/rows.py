"""Training items as rows of token ids, from which batches are packed.

A row is a trunk with branches, some of whose tokens are labelled. Items that are too long are cut or dropped
here, and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, pairwise
from typing import TypeVar

import numpy as np

from escultor.errors import DataError, ModelError
from escultor.ids import hash_bytes
from escultor.text.chat import ChatTemplate, Rendered, RenderedConversation
from escultor.text.served_ids import read_ids
from escultor.types import Document, Example, Message, Messages, Pair, UnpairedExample, answer_message

Ids = np.ndarray  # (n,) int32
_Item = TypeVar("_Item")
Triple = tuple[Messages, Message, str]  # prompt, answer and tools
SERVED = "answers in the token ids that were served"
CHUNK = 8192  # items rendered together
Span = tuple[int, int]  # half-open range of positions
Turns = tuple[tuple[Ids, Ids], ...]  # of a sequence: what comes before labelled tokens, and these tokens


@dataclass(frozen=True, slots=True)
class NllRow:
    """One sequence. Tokens from `start` on are labelled with `weight`, but for the `gaps` between the learnt
    turns of a conversation, in ascending order. Tokens in gaps and those before `start`,
    except the first token, are labelled with `prompt_weight` where that is above 0."""

    id: str
    ids: Ids
    start: int
    weight: float = 1.0
    prompt_weight: float = 0.0
    gaps: tuple[Span, ...] = ()

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def first_label(self) -> int:
        return 1 if self.prompt_weight > 0 else self.start

    @property
    def labels(self) -> np.ndarray:
        """The positions of the labelled tokens: (label_count,)."""
        positions = np.arange(self.first_label, self.length)
        return positions[self.weights_by_token()[self.first_label :] > 0] if self.gaps else positions

    @property
    def label_count(self) -> int:
        inside = 0 if self.prompt_weight > 0 else sum(end - start for start, end in self.gaps)
        return self.length - self.first_label - inside

    @property
    def sequences(self) -> tuple[Turns, ...]:
        if self.prompt_weight > 0:
            return (((self.ids[:1], self.ids[1:]),),)
        starts = (self.start, *(end for _, end in self.gaps))
        ends = (*(start for start, _ in self.gaps), self.length)
        before = (0, *ends[:-1])
        spans = zip(before, starts, ends, strict=True)
        return (tuple((self.ids[last:start], self.ids[start:end]) for last, start, end in spans),)

    def weights(self) -> np.ndarray:
        """The weight of each labelled token: (label_count,)."""
        return self.weights_by_token()[self.labels]

    def weights_by_token(self) -> np.ndarray:
        """The weight of every token, 0 where it is not labelled: (length,)."""
        weights = np.full(self.length, self.weight, dtype=np.float32)
        for start, end in ((0, self.start), *self.gaps):
            weights[start:end] = self.prompt_weight
        return weights


class BranchedRow:
    """A prompt, computed once, and the responses that branch off it."""

    __slots__ = ()
    prompt: Ids

    @property
    def branches(self) -> tuple[Ids, ...]:
        raise NotImplementedError

    @property
    def length(self) -> int:
        return len(self.prompt) + self.label_count

    @property
    def label_count(self) -> int:
        """The number of labelled tokens: those of all branches."""
        return sum(map(len, self.branches))

    @property
    def key(self) -> str:
        """Content id of the tokens alone."""
        return tokens_key(self.prompt, *self.branches)


@dataclass(frozen=True, slots=True)
class PairRow(BranchedRow):
    """A prompt with a chosen and a rejected response, both labelled whole."""

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
    def sequences(self) -> tuple[Turns, ...]:
        return ((self.prompt, self.chosen),), ((self.prompt, self.rejected),)


@dataclass(frozen=True, slots=True)
class UnpairedRow(BranchedRow):
    """A prompt with a response labelled good or bad, and `other`, a response to another prompt, on which the
    divergence from the reference is measured."""

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
    def sequences(self) -> tuple[Turns, ...]:
        return (((self.prompt, self.response),),)


TokenRow = NllRow | PairRow | UnpairedRow


def tokens_key(*parts: Ids) -> str:
    """Content id of token ids in parts. Moving a token from one part to the next changes it."""
    lengths = np.asarray([len(part) for part in parts], dtype=np.int32)
    return hash_bytes(b"".join(part.tobytes() for part in (lengths, *parts)))


def to_ids(tokens: list[int]) -> Ids:
    return np.asarray(tokens, dtype=np.int32)


def document_rows(
    documents: Iterable[Document], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[NllRow]:
    """Documents as rows of at most `max_length` tokens. Longer ones are cut into windows and counted."""
    rows = []
    documents = list(documents)
    encoded = chat.documents([document.text for document in documents])
    for document, tokens in zip(documents, encoded, strict=True):
        ids = to_ids(tokens)
        counts["documents"] += 1
        counts["documents cut into windows"] += len(ids) > max_length
        for start in range(0, len(ids), max_length):
            window = ids[start : start + max_length]
            if len(window) > 1:
                rows.append(NllRow(f"{document.id}:{start}", window, 1))
            else:  # no token before it predicts it
                counts["dropped: windows of a single token"] += 1
    return rows


def example_rows(
    examples: Iterable[Example], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[NllRow]:
    """Examples as rows labelled on the response and on the learnt turns before it. Those whose first learnt
    turn ends beyond `max_length` are dropped and counted: cutting them would teach answers without an end, or
    to prompts without a beginning. Conversations are cut after the last turn that fits, and counted."""
    rows = []
    turns = 0
    for example, conversations in _conversations(examples, chat):
        counts["examples"] += 1
        for number, each in enumerate(conversations):
            counts.update(each.notes)
            fitting = [span for span in each.learnt if span[1] <= max_length]
            if not fitting:
                counts["dropped: longer than max_length"] += 1
                continue
            if more := len(each.learnt) - len(fitting):
                counts["turns cut off: longer than max_length"] += more
            id = example.id if len(conversations) == 1 else f"{example.id}:{number}"
            row = _labelled_row(id, each.ids, fitting, example.weight, counts)
            if row is not None:
                rows.append(row)
                turns += len(row.gaps) + 1
    if turns > len(rows):
        counts["turns learnt"] += turns
    return rows


def _conversations(
    examples: Iterable[Example], chat: ChatTemplate
) -> Iterator[tuple[Example, list[RenderedConversation]]]:
    """Each example with its token ids and the ranges to learn."""
    for chunk in _chunks(examples):
        single = [each for each in chunk if not any(message.learnt for message in each.prompt)]
        triples = [(each.prompt, answer_message(each.response, each.extras), each.tools) for each in single]
        rendered = iter(_examples([each.id for each in single], triples, chat))
        for example in chunk:
            if any(message.learnt for message in example.prompt):
                answer = replace(answer_message(example.response, example.extras), learnt=True)
                with _naming(example.id):
                    yield example, chat.conversation((*example.prompt, answer), example.tools)
            else:
                each = next(rendered)
                span = (len(each.prompt), len(each.prompt) + len(each.response))
                yield example, [RenderedConversation(each.prompt + each.response, (span,), each.notes)]


def _examples(ids: Sequence[str], triples: Sequence[Triple], chat: ChatTemplate) -> list[Rendered]:
    """Prompts with their answers as tokens, those that were served where they are known. Raises ModelError
    that names the item that cannot be rendered."""
    try:
        rendered = chat.examples(triples)
        return [
            _as_served(each, answer, chat) for each, (_, answer, _) in zip(rendered, triples, strict=True)
        ]
    except ModelError:
        for id, triple in zip(ids, triples, strict=True):
            with _naming(id):
                chat.example(*triple)
        raise


def _as_served(rendered: Rendered, answer: Message, chat: ChatTemplate) -> Rendered:
    """The answer in the token ids that were served, where they are whole and those of its text."""
    if not answer.token_ids:
        return rendered
    end = rendered.response[-1:] if answer.tool_calls else chat.turn_end  # a call may end otherwise
    ids = read_ids(answer.token_ids, chat.vocabulary_hash)
    if not ids or ids[-len(end) :] != end:
        return rendered
    if not answer.tool_calls and chat.decode(ids) != answer.content:
        return rendered
    return Rendered(rendered.prompt, ids, (*rendered.notes, SERVED))


@contextmanager
def _naming(id: str) -> Iterator[None]:
    """Name the item in a ModelError."""
    try:
        yield
    except ModelError as error:
        raise ModelError(f"{error.what} (row {id})", error.got, error.allowed, error.remedy) from error


def _chunks(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    """Lists of items: many are rendered together in less time than one by one."""
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk


def _labelled_row(
    id: str, ids: list[int], spans: Sequence[Span], weight: float, counts: Counter[str]
) -> NllRow | None:
    """The row of a conversation up to its last learnt turn."""
    if spans[0][0] == 0:  # no token before it predicts the first
        spans = [(max(1, start), end) for start, end in spans if end > 1]
        if not spans:
            counts["dropped: empty prompt and response"] += 1
            return None
        counts["first tokens not learnt: empty prompt"] += 1
    gaps = tuple((end, start) for (_, end), (start, _) in pairwise(spans))
    return NllRow(id, to_ids(ids[: spans[-1][1]]), spans[0][0], weight, gaps=gaps)


def pair_rows(
    pairs: Iterable[Pair], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[PairRow]:
    """Pairs as rows. Pairs with a side longer than `max_length`, with equal sides or without a prompt are
    dropped and counted."""
    rows = []
    for pair, chosen, rejected in _sides(pairs, chat):
        counts["pairs"] += 1
        counts.update({*chosen.notes, *rejected.notes})
        if len(chosen.prompt) + max(len(chosen.response), len(rejected.response)) > max_length:
            counts["dropped: longer than max_length"] += 1
        elif chosen.response == rejected.response:
            counts["dropped: chosen equals rejected"] += 1
        elif not chosen.prompt:  # no token would predict the first of either side
            counts["dropped: empty prompt"] += 1
        else:
            parts = (to_ids(chosen.prompt), to_ids(chosen.response), to_ids(rejected.response))
            rows.append(PairRow(pair.id, *parts, pair.weight, pair.flip_rate))
    return rows


def _sides(pairs: Iterable[Pair], chat: ChatTemplate) -> Iterator[tuple[Pair, Rendered, Rendered]]:
    for chunk in _chunks(pairs):
        triples: list[Triple] = []
        for pair in chunk:
            for answer in (
                answer_message(pair.chosen, pair.chosen_extras),
                answer_message(pair.rejected, pair.rejected_extras),
            ):
                triples.append((pair.prompt, answer, pair.tools))
        rendered = _examples([pair.id for pair in chunk for _ in range(2)], triples, chat)
        yield from zip(chunk, rendered[::2], rendered[1::2], strict=True)


def unpaired_rows(
    items: Iterable[UnpairedExample], chat: ChatTemplate, max_length: int, counts: Counter[str]
) -> list[UnpairedRow]:
    """Unpaired examples as rows, each with the response of the nearest earlier row that has another prompt
    (before the first row come the last ones). Those longer than `max_length` are dropped and counted;
    responses to another prompt are cut to fit and counted. Raises DataError unless there are two prompts."""
    kept: list[tuple[UnpairedExample, Ids, Ids]] = []
    for item, rendered in _verdicts(items, chat):
        counts["verdicts"] += 1
        counts.update(rendered.notes)
        if len(rendered.prompt) + len(rendered.response) > max_length:
            counts["dropped: longer than max_length"] += 1
        elif not rendered.prompt:
            counts["dropped: empty prompt"] += 1
        else:
            kept.append((item, to_ids(rendered.prompt), to_ids(rendered.response)))
    rows = []
    others = _nearest_with_another_prompt([prompt for _, prompt, _ in kept])
    for (item, prompt, response), index in zip(kept, others, strict=True):
        other = kept[index][2]
        room = max_length - len(prompt)
        counts["responses to another prompt cut to max_length"] += len(other) > room
        row = UnpairedRow(item.id, prompt, response, other[:room], item.desirable, weight=item.weight)
        rows.append(row)
    return rows


def _verdicts(
    items: Iterable[UnpairedExample], chat: ChatTemplate
) -> Iterator[tuple[UnpairedExample, Rendered]]:
    for chunk in _chunks(items):
        triples = [(item.prompt, answer_message(item.response, item.extras), item.tools) for item in chunk]
        yield from zip(chunk, _examples([item.id for item in chunk], triples, chat), strict=True)


def _nearest_with_another_prompt(prompts: Sequence[Ids]) -> list[int]:
    """The index of the nearest earlier prompt that differs from each; before the first comes the last.
    Linear: starting where a prompt differs from the one before it, each takes the one before it if that
    differs, and else what the one before it took."""
    n = len(prompts)
    contents = [prompt.tobytes() for prompt in prompts]
    first = next((i for i in range(n) if contents[i] != contents[i - 1]), None)
    if first is None:
        if n:
            remedy = "use pairs (dpo)"
            raise DataError("verdicts on one prompt alone", f"{n} rows", "two prompts or more", remedy)
        return []
    nearest = [0] * n
    for i in range(first, first + n):
        before = (i - 1) % n
        nearest[i % n] = before if contents[before] != contents[i % n] else nearest[before]
    return nearest

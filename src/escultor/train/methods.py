"""The methods as a table. A method is how items become rows, what a frozen model adds, and what is
minimised; none has a loop of its own.

| method   | from            | a frozen model adds    | objective |
|----------|-----------------|------------------------|-----------|
| pretrain | Document        | –                      | nll       |
| sft      | Example         | –                      | nll       |
| dpo      | Pair            | reference log-probs    | dpo       |
| kto      | UnpairedExample | reference log-probs    | kto       |
| distill  | Example         | the teacher's states   | kd        |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from escultor.batching.batches import PairBatch, UnpairedBatch, deal, nll_batch, pair_batch, unpaired_batch
from escultor.batching.reference import ReferenceLogp
from escultor.batching.rows import (
    NllRow,
    PairRow,
    UnpairedRow,
    document_rows,
    example_rows,
    pair_rows,
    unpaired_rows,
)
from escultor.batching.teacher import KdBatch, with_teacher
from escultor.config import Distillation, Dpo, Training
from escultor.errors import DataError
from escultor.text.chat import ChatTemplate
from escultor.train.distributed import ALONE, World
from escultor.train.loop import Objective, Stream
from escultor.train.method_objectives import chosen_loss, distillation, per_token, verdicts
from escultor.train.objectives import nll
from escultor.train.streams import PackedStream, RowStream
from escultor.types import Document, Example, Pair, RowKind, UnpairedExample

RowBuilder = Callable[[Sequence[Any], ChatTemplate, int, Counter[str], Any], Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Frozen:
    """The model that a method asks but does not train, and the folder where what it said is kept
    (None: in memory). What was computed and what was found there is counted. Of several processes (`world`)
    each asks about its share of the rows."""

    model: nn.Module
    cache: Path | None
    counts: Counter[str]
    world: World = ALONE


@dataclass(frozen=True, slots=True)
class Method:
    """`rows` tokenises items of `kind`; `stream(rows, frozen, settings)` adds what the frozen model says (a
    reference: once for each row; a teacher: in every step); `objective(settings)` is what the loop
    minimises."""

    kind: RowKind
    rows: RowBuilder
    stream: Callable[[Sequence[Any], Frozen, Any], Stream]
    objective: Callable[[Any], Objective]
    frozen: Literal["reference", "teacher"] | None = None


def _packed_documents(rows: Sequence[Any], frozen: Frozen, settings: Training) -> Stream:
    return PackedStream(rows, settings, frozen.world)


def _examples(rows: Sequence[Any], frozen: Frozen, settings: Training) -> Stream:
    return RowStream(rows, settings, nll_batch, frozen.world)


def _reference(rows: Sequence[Any], frozen: Frozen, settings: Training) -> ReferenceLogp:
    said = ReferenceLogp(frozen.model, settings.dtype, frozen.cache)
    unique = list({row.key: row for row in rows}.values())
    own = [unique[i] for i in deal([row.length for row in unique], frozen.world.size)[frozen.world.rank]]
    said.prepare(own)
    if frozen.world.size > 1:
        for part in frozen.world.gather(said.known(own)):
            said.add(part)
    computed, reused = map(int, frozen.world.sum([said.computed, said.reused]))
    frozen.counts["reference rows computed"] += computed
    frozen.counts["reference rows reused"] += reused
    return said


def _pairs_with_reference(rows: Sequence[PairRow], frozen: Frozen, settings: Training) -> Stream:
    said = _reference(rows, frozen, settings)

    def collate(taken: Sequence[PairRow]) -> PairBatch:
        return replace(pair_batch(taken), reference_logp=said.of(taken))

    return RowStream(rows, settings, collate, frozen.world)


def _verdicts_with_reference(rows: Sequence[UnpairedRow], frozen: Frozen, settings: Training) -> Stream:
    said = _reference(rows, frozen, settings)

    def collate(taken: Sequence[UnpairedRow]) -> UnpairedBatch:
        own, other = said.split(taken)
        return replace(unpaired_batch(taken), reference_logp=own, other_reference_logp=other)

    return RowStream(rows, settings, collate, frozen.world)


def _examples_with_teacher(rows: Sequence[NllRow], frozen: Frozen, settings: Training) -> Stream:
    def collate(taken: Sequence[NllRow]) -> KdBatch:
        return with_teacher(frozen.model, nll_batch(taken), settings.dtype)

    return RowStream(rows, settings, collate, frozen.world)


def _document_rows(
    items: Sequence[Document], chat: ChatTemplate, room: int, counts: Counter[str], settings: Training
) -> Sequence[NllRow]:
    return document_rows(items, chat, room, counts)


def _example_rows(
    items: Sequence[Example], chat: ChatTemplate, room: int, counts: Counter[str], settings: Training
) -> Sequence[NllRow]:
    return example_rows(items, chat, room, counts)


def _weighted_rows(
    items: Sequence[Example], chat: ChatTemplate, room: int, counts: Counter[str], settings: Distillation
) -> Sequence[NllRow]:
    rows = example_rows(items, chat, room, counts)
    return [replace(row, prompt_weight=settings.prompt_weight) for row in rows]


def _pair_rows(
    items: Sequence[Pair], chat: ChatTemplate, room: int, counts: Counter[str], settings: Dpo
) -> Sequence[PairRow]:
    """Raises DataError where pairs carry a flip rate that the loss has no use for."""
    noisy = sum(pair.flip_rate > 0 for pair in items)
    if noisy and not settings.takes_flip_rate:
        raise DataError(
            f"the loss {settings.loss} has no use for a flip rate",
            f"{noisy} of {len(items)} pairs carry one",
            "loss robust or cdpo",
            "set dpo.loss, or leave flip_rate out of the rows",
        )
    rows = pair_rows(items, chat, room, counts)
    return [replace(row, flip_rate=row.flip_rate or settings.flip_rate) for row in rows]


def _unpaired_rows(
    items: Sequence[UnpairedExample], chat: ChatTemplate, room: int, counts: Counter[str], settings: Training
) -> Sequence[UnpairedRow]:
    return unpaired_rows(items, chat, room, counts)


METHODS: dict[str, Method] = {
    "pretrain": Method("document", _document_rows, _packed_documents, per_token(nll)),
    "sft": Method("example", _example_rows, _examples, per_token(nll)),
    "dpo": Method("pair", _pair_rows, _pairs_with_reference, chosen_loss, "reference"),
    "kto": Method("unpaired", _unpaired_rows, _verdicts_with_reference, verdicts, "reference"),
    "distill": Method("example", _weighted_rows, _examples_with_teacher, distillation, "teacher"),
}

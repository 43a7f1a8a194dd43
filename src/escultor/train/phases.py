"""The methods as a table. A method is how items become rows, what a frozen model adds, and what is
minimised; none has a loop of its own.

| phase    | from       | a frozen model adds    | objective |
|----------|------------|------------------------|-----------|
| pretrain | Document   | –                      | nll       |
| sft      | Example    | –                      | nll       |
| dpo      | Pair       | reference log-probs    | dpo       |
| distill  | Example    | the teacher's logits   | kd        |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from escultor.config import Distillation, Dpo, Training
from escultor.data.batches import NllBatch, PairBatch, nll_batch, pair_batch
from escultor.data.rows import NllRow, PairRow, document_rows, example_rows, pair_rows
from escultor.data.signals import KdBatch, reference_logp, with_teacher
from escultor.errors import TrainingError
from escultor.model.forward import logits_at_labels, logp_at_labels
from escultor.text.chat import Chat
from escultor.train.loop import Objective, Stream
from escultor.train.objectives import Loss, dpo, kd, nll
from escultor.train.streams import PackedStream, RowStream
from escultor.types import Document, Example, Pair

Rows = Callable[[Sequence[Any], Chat, int, Counter[str], Any], Sequence[Any]]
Prepare = Callable[[Sequence[Any], nn.Module, Any], Stream]


@dataclass(frozen=True, slots=True)
class Phase:
    """`rows` tokenises items; `prepare(rows, frozen, settings)` makes the stream, with what the
    frozen model says; `objective(settings)` is what the loop minimises."""

    rows: Rows
    prepare: Prepare
    objective: Callable[[Any], Objective]


def _nll(settings: Training) -> Objective:
    def objective(model: nn.Module, batch: NllBatch) -> Loss:
        return nll(logp_at_labels(model, batch.packed), batch.weight)

    return objective


def _dpo(settings: Dpo) -> Objective:
    def objective(model: nn.Module, batch: PairBatch) -> Loss:
        if batch.reference_logp is None:
            raise TrainingError("a pair batch came without reference log-probs")
        packed = batch.packed
        return dpo(
            logp_at_labels(model, packed),
            batch.reference_logp,
            packed.sequence,
            packed.sequences,
            batch.chosen,
            batch.rejected,
            batch.weight,
            settings.beta,
            settings.nll_weight,
            batch.flip_rate,
        )

    return objective


def _kd(settings: Distillation) -> Objective:
    def objective(model: nn.Module, batch: KdBatch) -> Loss:
        logits = logits_at_labels(model, batch.packed)
        target = batch.packed.target
        return kd(logits, batch.teacher_logits, target, batch.weight, settings.temperature, settings.alpha)

    return objective


def _packed_documents(rows: Sequence[Any], frozen: nn.Module, settings: Training) -> Stream:
    return PackedStream(rows, settings)


def _examples(rows: Sequence[Any], frozen: nn.Module, settings: Training) -> Stream:
    return RowStream(rows, settings, nll_batch)


def _pairs_with_reference(rows: Sequence[Any], frozen: nn.Module, settings: Training) -> Stream:
    said = reference_logp(frozen, rows, settings.dtype)

    def collate(chosen: Sequence[PairRow]) -> PairBatch:
        return replace(pair_batch(chosen), reference_logp=torch.cat([said[row.key] for row in chosen]))

    return RowStream(rows, settings, collate)


def _examples_with_teacher(rows: Sequence[Any], frozen: nn.Module, settings: Training) -> Stream:
    return RowStream(rows, settings, lambda chosen: with_teacher(frozen, nll_batch(chosen), settings.dtype))


def _document_rows(
    items: Sequence[Document], chat: Chat, room: int, counts: Counter[str], settings: Training
) -> Sequence[NllRow]:
    return document_rows(items, chat, room, counts)


def _example_rows(
    items: Sequence[Example], chat: Chat, room: int, counts: Counter[str], settings: Training
) -> Sequence[NllRow]:
    return example_rows(items, chat, room, counts)


def _weighted_rows(
    items: Sequence[Example], chat: Chat, room: int, counts: Counter[str], settings: Distillation
) -> Sequence[NllRow]:
    rows = example_rows(items, chat, room, counts)
    return [replace(row, prompt_weight=settings.prompt_weight) for row in rows]


def _pair_rows(
    items: Sequence[Pair], chat: Chat, room: int, counts: Counter[str], settings: Training
) -> Sequence[PairRow]:
    return pair_rows(items, chat, room, counts)


PHASES: dict[str, Phase] = {
    "pretrain": Phase(_document_rows, _packed_documents, _nll),
    "sft": Phase(_example_rows, _examples, _nll),
    "dpo": Phase(_pair_rows, _pairs_with_reference, _dpo),
    "distill": Phase(_weighted_rows, _examples_with_teacher, _kd),
}

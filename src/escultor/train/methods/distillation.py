"""Distillation of a teacher into a student with the same tokenizer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from escultor.batching.batches import nll_batch
from escultor.batching.rows import NllRow, example_rows
from escultor.batching.teacher import KdBatch, with_teacher
from escultor.config import Distillation
from escultor.model.forward import hidden_at_labels, logits_of, vocabulary_of
from escultor.model.head import in_chunks
from escultor.text.chat import ChatTemplate
from escultor.train.loop import Objective, Stream
from escultor.train.methods.method import Frozen, Method
from escultor.train.objectives.kd import kd
from escultor.train.objectives.loss import Loss, add_losses
from escultor.train.streams import RowStream
from escultor.types import Example


def _objective(settings: Distillation) -> Objective:
    """`kd` over chunks of tokens, so that a batch's whole distributions are never in memory. Only logits of
    rows that both embeddings have are compared: rows beyond the tokenizer belong to no token."""

    def loss(model: nn.Module, batch: KdBatch, step_mean: float) -> Loss:
        def chunk_loss(hidden: Tensor, teacher_hidden: Tensor, target: Tensor, weight: Tensor) -> Loss:
            logits, teacher_logits = logits_of(model, hidden), batch.teacher_head(teacher_hidden)  # (k, V)
            shared = slice(min(logits.shape[1], teacher_logits.shape[1]))
            logits, teacher_logits = logits[:, shared], teacher_logits[:, shared]
            return kd(logits, teacher_logits, target, weight, settings.temperature, alpha=settings.alpha)

        columns = (hidden_at_labels(model, batch.packed), batch.teacher_hidden)
        columns += (batch.packed.target, batch.weight)
        return add_losses(in_chunks(chunk_loss, vocabulary_of(model), *columns))

    return Objective(loss)


def _rows(
    items: Sequence[Example],
    chat: ChatTemplate,
    max_length: int,
    counts: Counter[str],
    settings: Distillation,
) -> Sequence[NllRow]:
    rows = example_rows(items, chat, max_length, counts)
    return [replace(row, prompt_weight=settings.prompt_weight) for row in rows]


def _stream(rows: Sequence[NllRow], frozen: Frozen, settings: Distillation) -> Stream:
    def collate(rows: Sequence[NllRow]) -> KdBatch:
        return with_teacher(frozen.model, nll_batch(rows), settings.dtype)

    return RowStream(rows, settings, collate, frozen.world)


DISTILL = Method("example", _rows, _stream, _objective, frozen="teacher")

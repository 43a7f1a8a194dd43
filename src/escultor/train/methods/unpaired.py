"""KTO, on single responses labelled good or bad."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from escultor.batching.batches import UnpairedBatch, unpaired_batch
from escultor.batching.reference import ReferenceLogp
from escultor.batching.rows import UnpairedRow, unpaired_rows
from escultor.config import Kto
from escultor.errors import DataError
from escultor.text.chat import ChatTemplate
from escultor.train.loop import Objective
from escultor.train.methods.method import Method
from escultor.train.methods.reference import sequence_logps, with_reference
from escultor.train.objectives.kto import kto, log_ratio_sum
from escultor.train.objectives.loss import Loss
from escultor.types import UnpairedExample


def _objective(settings: Kto) -> Objective:
    def divergence(model: nn.Module, batch: UnpairedBatch) -> Loss:
        return log_ratio_sum(sequence_logps(model, batch.other, batch.other_reference_logp))

    def loss(model: nn.Module, batch: UnpairedBatch, step_mean: float) -> Loss:
        return kto(
            sequence_logps(model, batch.packed, batch.reference_logp),
            batch.desirable,
            batch.weight,
            divergence=step_mean,
            beta=settings.beta,
            desirable_weight=settings.desirable_weight,
            undesirable_weight=settings.undesirable_weight,
        )

    return Objective(loss, divergence, dropout=False)


def _rows(
    items: Sequence[UnpairedExample],
    chat: ChatTemplate,
    max_length: int,
    counts: Counter[str],
    settings: Kto,
) -> Sequence[UnpairedRow]:
    """Raises DataError where all rows are of one kind: the loss would push every answer one way, and nothing
    would say what makes one better than another."""
    rows = unpaired_rows(items, chat, max_length, counts)
    good = sum(row.desirable for row in rows)
    if rows and good in (0, len(rows)):
        what = "KTO learns from good and bad answers, and these rows are all of one kind"
        got = f"{good} good, {len(rows) - good} bad"
        remedy = "collect bad ratings too, or teach the good answers with `escultor sft`"
        if not good:
            remedy = "collect good ratings too, or better answers for `escultor sft` or `escultor dpo`"
        raise DataError(what, got, "at least one of each", remedy)
    return rows


def _collate(rows: Sequence[UnpairedRow], reference: ReferenceLogp) -> UnpairedBatch:
    own, other = reference.get_branches(rows)
    return replace(unpaired_batch(rows), reference_logp=own, other_reference_logp=other)


KTO = Method("unpaired", _rows, with_reference(_collate), _objective, frozen="reference")

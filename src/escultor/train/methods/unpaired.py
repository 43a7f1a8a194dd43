"""KTO, on single responses labelled good or bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from escultor.batching.batches import UnpairedBatch, unpaired_batch
from escultor.batching.rows import UnpairedRow, unpaired_rows
from escultor.config import Kto
from escultor.train.loop import Objective, Stream
from escultor.train.methods.method import Frozen, Method, without_settings
from escultor.train.methods.reference import prepare_reference, sequence_logps
from escultor.train.objectives.kto import kto, log_ratio_sum
from escultor.train.objectives.loss import Loss
from escultor.train.streams import RowStream


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


def _stream(rows: Sequence[UnpairedRow], frozen: Frozen, settings: Kto) -> Stream:
    reference = prepare_reference(rows, frozen, settings)

    def collate(rows: Sequence[UnpairedRow]) -> UnpairedBatch:
        own, other = reference.get_branches(rows)
        return replace(unpaired_batch(rows), reference_logp=own, other_reference_logp=other)

    return RowStream(rows, settings, collate, frozen.world)


KTO = Method("unpaired", without_settings(unpaired_rows), _stream, _objective, frozen="reference")

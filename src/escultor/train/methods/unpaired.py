"""KTO, on single responses labelled good or bad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from escultor.batching.batches import UnpairedBatch, unpaired_batch
from escultor.batching.reference import ReferenceLogp
from escultor.batching.rows import UnpairedRow, unpaired_rows
from escultor.config import Kto
from escultor.train.loop import Objective
from escultor.train.methods.method import Method, without_settings
from escultor.train.methods.reference import sequence_logps, with_reference
from escultor.train.objectives.kto import kto, log_ratio_sum
from escultor.train.objectives.loss import Loss


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


def _collate(rows: Sequence[UnpairedRow], reference: ReferenceLogp) -> UnpairedBatch:
    own, other = reference.get_branches(rows)
    return replace(unpaired_batch(rows), reference_logp=own, other_reference_logp=other)


KTO = Method(
    "unpaired", without_settings(unpaired_rows), with_reference(_collate), _objective, frozen="reference"
)

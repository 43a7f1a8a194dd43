"""DPO and its variants, on pairs of a chosen and a rejected response."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from torch import nn

from escultor.batching.batches import PairBatch, pair_batch
from escultor.batching.reference import ReferenceLogp
from escultor.batching.rows import PairRow, pair_rows
from escultor.config import Dpo
from escultor.errors import DataError
from escultor.text.chat import ChatTemplate
from escultor.train.loop import Objective
from escultor.train.methods.method import Method
from escultor.train.methods.reference import sequence_logps, with_reference
from escultor.train.objectives.dpo import LOSSES, PairLoss, PreferencePairs, dpo
from escultor.train.objectives.loss import Loss
from escultor.types import Pair


def per_pair(pair_loss: PairLoss) -> Callable[[Dpo], Objective]:
    """The column `objective` of a method, from a pure loss of pairs' margins; see `objectives.dpo`."""

    def objective(settings: Dpo) -> Objective:
        def loss(model: nn.Module, batch: PairBatch, step_mean: float) -> Loss:
            return dpo(
                sequence_logps(model, batch.packed, batch.reference_logp),
                PreferencePairs(batch.chosen, batch.rejected, batch.weight, batch.flip_rate),
                settings.beta,
                loss=pair_loss,
                nll_weight=settings.nll_weight,
                length_normalised=settings.length_normalised,
            )

        return Objective(loss, dropout=False)

    return objective


def _configured_loss(settings: Dpo) -> Objective:
    return per_pair(LOSSES[settings.loss])(settings)


def _rows(
    items: Sequence[Pair], chat: ChatTemplate, max_length: int, counts: Counter[str], settings: Dpo
) -> Sequence[PairRow]:
    """Raises DataError where pairs carry a flip rate that the loss does not use."""
    noisy = sum(pair.flip_rate > 0 for pair in items)
    if noisy and not settings.takes_flip_rate:
        what = f"the loss {settings.loss} has no use for a flip rate"
        remedy = "set dpo.loss, or leave flip_rate out of the rows"
        raise DataError(what, f"{noisy} of {len(items)} pairs carry one", "loss robust or cdpo", remedy)
    rows = pair_rows(items, chat, max_length, counts)
    return [replace(row, flip_rate=row.flip_rate or settings.flip_rate) for row in rows]


def _collate(rows: Sequence[PairRow], reference: ReferenceLogp) -> PairBatch:
    return replace(pair_batch(rows), reference_logp=reference.get(rows))


DPO = Method("pair", _rows, with_reference(_collate), _configured_loss, frozen="reference")

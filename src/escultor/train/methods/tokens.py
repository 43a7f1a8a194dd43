"""Methods on single texts: pre-training on documents and SFT on examples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from escultor.batching.batches import NllBatch, nll_batch
from escultor.batching.rows import document_rows, example_rows
from escultor.config import Training
from escultor.model.forward import logp_at_labels
from escultor.train.loop import Objective, Stream
from escultor.train.methods.method import Frozen, Method, without_settings
from escultor.train.objectives.loss import Loss
from escultor.train.objectives.nll import nll
from escultor.train.streams import PackedStream, RowStream


def per_token(objective: Callable[[Tensor, Tensor], Loss]) -> Callable[[Training], Objective]:
    """The column `objective` of a method, from a pure `objective(logp, weight)` of K labelled tokens."""

    def loss(model: nn.Module, batch: NllBatch, step_mean: float) -> Loss:
        return objective(logp_at_labels(model, batch.packed), batch.weight)

    return lambda settings: Objective(loss)


def _packed_documents(rows: Sequence[Any], frozen: Frozen, settings: Training) -> Stream:
    return PackedStream(rows, settings, frozen.world)


def _examples(rows: Sequence[Any], frozen: Frozen, settings: Training) -> Stream:
    return RowStream(rows, settings, nll_batch, frozen.world)


PRETRAIN = Method("document", without_settings(document_rows), _packed_documents, per_token(nll))
SFT = Method("example", without_settings(example_rows), _examples, per_token(nll))

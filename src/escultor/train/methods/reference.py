"""The reference's log-probs, for methods that compare the trained model with its start."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from escultor.batching.batches import split_evenly
from escultor.batching.reference import ReferenceLogp
from escultor.config import Training
from escultor.errors import TrainingError
from escultor.model.attention import Packed
from escultor.model.forward import logp_at_labels
from escultor.train.loop import Stream
from escultor.train.methods.method import Frozen
from escultor.train.objectives.sequence_logps import SequenceLogps
from escultor.train.streams import RowStream


def with_reference(
    collate: Callable[[Sequence[Any], ReferenceLogp], Any],
) -> Callable[[Sequence[Any], Frozen, Training], Stream]:
    """The column `stream` of a method whose `collate(rows, reference)` adds log-probs of the reference."""

    def stream(rows: Sequence[Any], frozen: Frozen, settings: Training) -> Stream:
        reference = _prepare(rows, frozen, settings)
        return RowStream(rows, settings, lambda rows: collate(rows, reference), frozen.world)

    return stream


def _prepare(rows: Sequence[Any], frozen: Frozen, settings: Training) -> ReferenceLogp:
    """The reference's log-probs of all rows, each computed by one process and known to all."""
    reference = ReferenceLogp(frozen.model, settings.dtype, frozen.cache)
    unique = list({row.key: row for row in rows}.values())
    own = [
        unique[i] for i in split_evenly([row.length for row in unique], frozen.world.size)[frozen.world.rank]
    ]
    reference.prepare(own)
    if frozen.world.size > 1:
        for part in frozen.world.gather(reference.cached(own)):
            reference.add(part)
    computed, reused = map(int, frozen.world.sum([reference.computed, reference.reused]))
    frozen.counts["reference rows computed"] += computed
    frozen.counts["reference rows reused"] += reused
    return reference


def sequence_logps(model: nn.Module, packed: Packed, reference_logp: Tensor | None) -> SequenceLogps:
    """The log-probs of a packed batch under `model` and its reference. Raises TrainingError without these."""
    if reference_logp is None:
        raise TrainingError("a batch came without reference log-probs")
    return SequenceLogps(logp_at_labels(model, packed), reference_logp, packed.sequence, packed.sequences)

"""From rows to the micro-batches of each step.

Each process takes a share of a step's rows, of about as many tokens as the others' shares. All take equally
many micro-batches, since the forward passes of sharded weights are collective: a process with no rows left
repeats a batch that is marked as without rows and does not count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from escultor.batching.batches import (
    FORWARD_TOKENS,
    NllBatch,
    best_fit,
    epoch_order,
    group_by_length,
    nll_batch,
    split_evenly,
)
from escultor.batching.rows import NllRow
from escultor.config import Training
from escultor.train.distributed import ALONE, World


@dataclass(frozen=True, slots=True)
class RowStream:
    """`batch_size` rows per step, in forward passes of rows of like length; `collate` makes their batches."""

    rows: Sequence[Any]
    settings: Training
    collate: Callable[[Sequence[Any]], Any]
    world: World = ALONE

    @property
    def steps(self) -> int:
        steps = max(1, math.ceil(self.settings.epochs * len(self.rows) / self.settings.batch_size))
        return min(steps, self.settings.max_steps) if self.settings.max_steps else steps

    def micro_batches(self, step: int) -> Iterator[Any]:
        """This process's share of the step's rows, cut into groups, then batches without rows until it has
        as many as the others."""
        rows = self._step_rows(step)
        lengths = [row.length for row in rows]
        shares = [self._cut(share, lengths) for share in split_evenly(lengths, self.world.size)]
        for group in shares[self.world.rank]:
            yield self.collate([rows[i] for i in group])
        for _ in range(max(map(len, shares)) - len(shares[self.world.rank])):
            yield replace(self.collate([min(rows, key=lambda row: row.length)]), rows=())

    def _step_rows(self, step: int) -> list[Any]:
        """The rows of a step: the next batch_size of the epochs' orders laid end to end."""
        rows: list[Any] = []
        count, settings = len(self.rows), self.settings
        position = step * settings.batch_size
        end = min(position + settings.batch_size, math.ceil(settings.epochs * count))
        while position < end:
            epoch, offset = divmod(position, count)
            order = epoch_order(count, settings.seed, epoch, settings.shuffle)
            part = order[offset : offset + end - position]
            rows += [self.rows[i] for i in part]
            position += len(part)
        return rows

    def _cut(self, share: list[int], lengths: Sequence[int]) -> list[list[int]]:
        groups = group_by_length([lengths[i] for i in share], self.settings.micro_batch_size)
        return [[share[i] for i in group] for group in groups]


@dataclass(frozen=True, slots=True)
class _PackedRow:
    """Documents that share one row."""

    documents: list[NllRow]

    @property
    def length(self) -> int:
        return sum(document.length for document in self.documents)


class PackedStream(RowStream):
    """`batch_size` full rows of `max_length` tokens per step: documents packed once, by best fit."""

    def __init__(self, rows: Sequence[NllRow], settings: Training, world: World = ALONE):
        layout = best_fit([row.length for row in rows], settings.max_length, settings.seed)
        packed = [_PackedRow([rows[i] for i in members]) for members in layout]
        super().__init__(packed, settings, self._batch, world)

    def _cut(self, share: list[int], lengths: Sequence[int]) -> list[list[int]]:
        size = self.settings.micro_batch_size or max(1, FORWARD_TOKENS // self.settings.max_length)
        return [share[i : i + size] for i in range(0, len(share), size)]

    def _batch(self, packed: Sequence[_PackedRow]) -> NllBatch:
        ends = np.cumsum([len(row.documents) for row in packed]).tolist()
        layout = [list(range(end - len(row.documents), end)) for row, end in zip(packed, ends, strict=True)]
        rows = [document for row in packed for document in row.documents]
        return nll_batch(rows, self.settings.max_length, layout)

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


def _steps(count: int, settings: Training) -> int:
    steps = max(1, math.ceil(settings.epochs * count / settings.batch_size))
    return min(steps, settings.max_steps) if settings.max_steps else steps


def _step_items(count: int, settings: Training, step: int) -> list[int]:
    """The items of a step: the next batch_size of the epochs' orders laid end to end."""
    items: list[int] = []
    position = step * settings.batch_size
    end = min(position + settings.batch_size, math.ceil(settings.epochs * count))
    while position < end:
        epoch, offset = divmod(position, count)
        order = epoch_order(count, settings.seed, epoch, settings.shuffle)
        part = order[offset : offset + end - position]
        items += [int(i) for i in part]
        position += len(part)
    return items


def _in_step(
    lengths: Sequence[int],
    cut: Callable[[list[int]], list[list[int]]],
    collate: Callable[[list[int]], Any],
    world: World,
) -> Iterator[Any]:
    """This process's micro-batches of a step whose items have these `lengths`: its share `cut` into groups,
    then batches without rows until it has as many as the others."""
    shares = [cut(share) for share in split_evenly(lengths, world.size)]
    for group in shares[world.rank]:
        yield collate(group)
    for _ in range(max(map(len, shares)) - len(shares[world.rank])):
        shortest = min(range(len(lengths)), key=lambda i: lengths[i])
        yield replace(collate([shortest]), rows=())


@dataclass(frozen=True, slots=True)
class RowStream:
    """`batch_size` rows per step, in forward passes of rows of like length; `collate` makes their batches."""

    rows: Sequence[Any]
    settings: Training
    collate: Callable[[Sequence[Any]], Any]
    world: World = ALONE

    @property
    def steps(self) -> int:
        return _steps(len(self.rows), self.settings)

    def micro_batches(self, step: int) -> Iterator[Any]:
        rows = [self.rows[i] for i in _step_items(len(self.rows), self.settings, step)]
        lengths = [row.length for row in rows]

        def cut(share: list[int]) -> list[list[int]]:
            groups = group_by_length([lengths[i] for i in share], self.settings.micro_batch_size)
            return [[share[i] for i in group] for group in groups]

        yield from _in_step(lengths, cut, lambda group: self.collate([rows[i] for i in group]), self.world)


class PackedStream:
    """`batch_size` full rows of `max_length` tokens per step: documents packed once, by best fit."""

    def __init__(self, rows: Sequence[NllRow], settings: Training, world: World = ALONE):
        self.rows, self.settings, self.world = rows, settings, world
        self.layout = best_fit([row.length for row in rows], settings.max_length, settings.seed)

    @property
    def steps(self) -> int:
        return _steps(len(self.layout), self.settings)

    def micro_batches(self, step: int) -> Iterator[NllBatch]:
        packed = [self.layout[i] for i in _step_items(len(self.layout), self.settings, step)]
        size = self.settings.micro_batch_size or max(1, FORWARD_TOKENS // self.settings.max_length)
        lengths = [sum(self.rows[i].length for i in row) for row in packed]

        def cut(share: list[int]) -> list[list[int]]:
            return [share[i : i + size] for i in range(0, len(share), size)]

        yield from _in_step(lengths, cut, lambda group: self._batch([packed[i] for i in group]), self.world)

    def _batch(self, part: list[list[int]]) -> NllBatch:
        rows = [self.rows[i] for row in part for i in row]
        ends = np.cumsum([len(row) for row in part]).tolist()
        layout = [list(range(end - len(row), end)) for row, end in zip(part, ends, strict=True)]
        return nll_batch(rows, self.settings.max_length, layout)

"""From rows to the micro-batches of each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from escultor.config import Training
from escultor.data.batches import FORWARD_TOKENS, NllBatch, best_fit, chunks, nll_batch, order
from escultor.data.rows import NllRow


def _steps(count: int, settings: Training) -> int:
    steps = max(1, math.ceil(settings.epochs * count / settings.batch_size))
    return min(steps, settings.max_steps) if settings.max_steps else steps


def _chunk(count: int, settings: Training, step: int) -> list[int]:
    """The items of a step: the next batch_size of the epochs' orders laid end to end."""
    items: list[int] = []
    at = step * settings.batch_size
    end = min(at + settings.batch_size, math.ceil(settings.epochs * count))
    while at < end:
        epoch, offset = divmod(at, count)
        taken = order(count, settings.seed, epoch, settings.shuffle)[offset : offset + end - at]
        items += [int(i) for i in taken]
        at += len(taken)
    return items


@dataclass(frozen=True, slots=True)
class RowStream:
    """`batch_size` rows a step, in forward passes of rows of like length, made tensors by `collate`."""

    rows: Sequence[Any]
    settings: Training
    collate: Callable[[Sequence[Any]], Any]

    @property
    def steps(self) -> int:
        return _steps(len(self.rows), self.settings)

    def micro_batches(self, step: int) -> Iterator[Any]:
        chosen = [self.rows[i] for i in _chunk(len(self.rows), self.settings, step)]
        for group in chunks([row.length for row in chosen], self.settings.micro_batch_size):
            yield self.collate([chosen[i] for i in group])


class PackedStream:
    """`batch_size` full rows of `max_length` tokens a step: documents packed once, by best fit."""

    def __init__(self, rows: Sequence[NllRow], settings: Training):
        self.rows, self.settings = rows, settings
        self.layout = best_fit([row.length for row in rows], settings.max_length, settings.seed)

    @property
    def steps(self) -> int:
        return _steps(len(self.layout), self.settings)

    def micro_batches(self, step: int) -> Iterator[NllBatch]:
        packed = [self.layout[i] for i in _chunk(len(self.layout), self.settings, step)]
        size = self.settings.micro_batch_size or max(1, FORWARD_TOKENS // self.settings.max_length)
        for at in range(0, len(packed), size):
            part = packed[at : at + size]
            rows = [self.rows[i] for row in part for i in row]
            ends = np.cumsum([len(row) for row in part]).tolist()
            layout = [list(range(end - len(row), end)) for row, end in zip(part, ends, strict=True)]
            yield nll_batch(rows, self.settings.max_length, layout)

"""From rows to the micro-batches of each step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from escultor.config import Training
from escultor.data.batches import order

MAX_PADDING = 0.12  # share of a group that may be padding
MIN_GROUP_TOKENS = 2048  # a group smaller than this is not split: small products waste the processor
MAX_GROUP_TOKENS = 8192  # of one forward pass


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


def group_by_length(lengths: Sequence[int], most: int | None) -> list[list[int]]:
    """Indices in groups of like length, shortest first: each is one forward pass, padded to its
    longest. `most` bounds the rows of a group."""
    groups: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if groups:
            cells = (len(groups[-1]) + 1) * lengths[i]
            padded = cells - tokens - lengths[i] > MAX_PADDING * cells and tokens >= MIN_GROUP_TOKENS
            if not padded and cells <= MAX_GROUP_TOKENS and (most is None or len(groups[-1]) < most):
                groups[-1].append(i)
                tokens += lengths[i]
                continue
        groups.append([i])
        tokens = lengths[i]
    return groups


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
        for group in group_by_length([row.length for row in chosen], self.settings.micro_batch_size):
            yield self.collate([chosen[i] for i in group])

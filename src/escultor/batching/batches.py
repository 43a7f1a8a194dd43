"""Rows as tensors: packed without padding between them, and the order in which steps take them.

The rows of a step are a function of (rows, settings, seed, step) alone, so that the cursor of a run is its
step number and resuming needs no replay.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from escultor.batching.rows import BranchedRow, Ids, NllRow, PairRow, UnpairedRow
from escultor.model.attention import Packed
from escultor.rng import derive_seed

CAPACITY = 512  # tokens of a packed row, unless a segment is longer
FORWARD_TOKENS = 8192  # in one forward pass
Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class NllBatch:
    packed: Packed
    weight: Tensor  # (K,)
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """P pairs; `chosen` and `rejected` are numbers of sequences in `packed`."""

    packed: Packed
    chosen: Tensor  # (P,)
    rejected: Tensor  # (P,)
    weight: Tensor  # (P,)
    flip_rate: Tensor  # (P,)
    rows: tuple[str, ...]
    reference_logp: Tensor | None = None  # (K,)


@dataclass(frozen=True, slots=True)
class UnpairedBatch:
    """S responses labelled good or bad; `other` packs the same prompts with responses to other prompts."""

    packed: Packed
    other: Packed
    desirable: Tensor  # (S,) bool
    weight: Tensor  # (S,)
    rows: tuple[str, ...]
    reference_logp: Tensor | None = None  # (K,), of `packed`
    other_reference_logp: Tensor | None = None  # of `other`


Layout = list[list[int]]  # the indices of the segments in each packed row


def first_fit(lengths: Sequence[int], capacity: int) -> Layout:
    """Lay segments into rows of `capacity` tokens, longest first, each into the first with room for it."""
    layout: Layout = []
    room: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, left in enumerate(room) if left >= lengths[i]), len(room))
        if row == len(room):
            room.append(capacity)
            layout.append([])
        layout[row].append(i)
        room[row] -= lengths[i]
    return layout


def best_fit(lengths: Sequence[int], capacity: int, seed: int) -> Layout:
    """Lay segments into rows of `capacity` tokens in a seeded order, each where it leaves least room. Linear
    in their number; rows are about 99 % full where lengths vary."""
    open_: list[Layout] = [[] for _ in range(capacity + 1)]  # by room left
    for i in np.random.default_rng(derive_seed(seed, "best_fit")).permutation(len(lengths)):
        n = int(lengths[i])
        room = next((room for room in range(n, capacity) if open_[room]), capacity)
        row = open_[room].pop() if open_[room] else []
        row.append(int(i))
        open_[room - n].append(row)
    return [row for rows in open_ for row in rows]


class _Packer:
    """Writes segments to their places in packed rows and collects the labelled tokens. Rows are `capacity`
    wide whatever they hold: padding costs less than a new shape, for which every kernel is prepared anew."""

    def __init__(self, lengths: Sequence[int], layout: Layout, capacity: int):
        self.starts: dict[int, tuple[int, int]] = {}  # row and offset of each segment
        for row, members in enumerate(layout):
            offset = 0
            for i in members:
                self.starts[i] = (row, offset)
                offset += lengths[i]
        self.width = capacity
        grids = (np.zeros((len(layout), capacity), dtype=np.int64) for _ in range(4))
        self.ids, self.position, self.segment, self.branch = grids
        self.source: list[np.ndarray] = []
        self.target: list[np.ndarray] = []
        self.sequence: list[np.ndarray] = []

    def put(self, index: int, trunk: Ids, branches: Sequence[Ids], labels: np.ndarray) -> None:
        """Write segment `index`. Labelled are the trunk at the positions `labels` and all branches."""
        row, offset = self.starts[index]
        end = offset + len(trunk)
        first = row * self.width + offset  # in the flattened rows
        self._write(row, offset, index, trunk, branch=0, position=0)
        if len(labels):
            self._label(first - 1 + labels, trunk[labels])
        for branch, ids in enumerate(branches, 1):
            self._write(row, end, index, ids, branch=branch, position=len(trunk))
            source = row * self.width + end - 1 + np.arange(len(ids))
            source[0] = first + len(trunk) - 1  # the trunk's last token predicts a branch's first
            self._label(source, ids)
            end += len(ids)

    def _write(self, row: int, offset: int, index: int, ids: Ids, branch: int, position: int) -> None:
        span = slice(offset, offset + len(ids))
        self.ids[row, span] = ids
        self.position[row, span] = position + np.arange(len(ids))
        self.segment[row, span] = index + 1
        self.branch[row, span] = branch

    def _label(self, source: np.ndarray, target: np.ndarray) -> None:
        self.sequence.append(np.full(len(target), len(self.source)))
        self.source.append(source)
        self.target.append(target.astype(np.int64))

    def packed(self) -> Packed:
        tensor = torch.from_numpy
        alone = len(self.starts) == len(self.ids) and (self.position.max(1) > 0).all()
        return Packed(
            ids=tensor(self.ids),
            position=tensor(self.position),
            segment=tensor(self.segment),
            branch=tensor(self.branch),
            source=tensor(np.concatenate(self.source)),
            target=tensor(np.concatenate(self.target)),
            sequence=tensor(np.concatenate(self.sequence)),
            sequences=len(self.source),
            causal=bool(alone and not self.branch.any()),
        )


_Segment = tuple[Ids, Sequence[Ids], np.ndarray]  # trunk, branches, labelled positions of the trunk
_NO_LABELS = np.arange(0)


def nll_batch(rows: Sequence[NllRow], capacity: int = CAPACITY, layout: Layout | None = None) -> NllBatch:
    """Pack rows for `nll` and `kd` into packed rows of `capacity` tokens (more for a longer row). `layout`
    says which rows share a packed row; by default `first_fit` decides."""
    packed = _pack([(row.ids, (), row.labels) for row in rows], capacity, layout)
    weight = torch.from_numpy(np.concatenate([row.weights() for row in rows]))
    return NllBatch(packed, weight, tuple(row.id for row in rows))


def branch_pack(rows: Sequence[BranchedRow], capacity: int = CAPACITY) -> Packed:
    """Pack each prompt once with its branches. Every branch is a sequence, labelled whole."""
    return _pack([(row.prompt, row.branches, _NO_LABELS) for row in rows], capacity)


def pair_batch(rows: Sequence[PairRow], capacity: int = CAPACITY) -> PairBatch:
    """Pack pairs, each prompt once."""
    sides = torch.arange(2 * len(rows)).reshape(-1, 2)
    return PairBatch(
        packed=branch_pack(rows, capacity),
        chosen=sides[:, 0],
        rejected=sides[:, 1],
        weight=torch.tensor([r.weight for r in rows], dtype=torch.float32),
        flip_rate=torch.tensor([r.flip_rate for r in rows], dtype=torch.float32),
        rows=tuple(r.id for r in rows),
    )


def unpaired_batch(rows: Sequence[UnpairedRow]) -> UnpairedBatch:
    """Pack responses with their prompts, and apart from them the same prompts with responses to others."""
    return UnpairedBatch(
        packed=_pack([_continued(row.prompt, row.response) for row in rows], CAPACITY),
        other=_pack([_continued(row.prompt, row.other) for row in rows], CAPACITY),
        desirable=torch.tensor([r.desirable for r in rows]),
        weight=torch.tensor([r.weight for r in rows], dtype=torch.float32),
        rows=tuple(r.id for r in rows),
    )


def _continued(prompt: Ids, response: Ids) -> _Segment:
    """A single response needs no branch of its own: plain causal attention is exact."""
    ids = np.concatenate([prompt, response])
    return ids, (), np.arange(len(prompt), len(ids))


def _pack(segments: Sequence[_Segment], capacity: int, layout: Layout | None = None) -> Packed:
    lengths = [len(trunk) + sum(map(len, branches)) for trunk, branches, _ in segments]
    capacity = max(capacity, *lengths)
    packer = _Packer(lengths, layout or first_fit(lengths, capacity), capacity)
    for i, (trunk, branches, labels) in enumerate(segments):
        packer.put(i, trunk, branches, labels)
    return packer.packed()


def group_by_length(lengths: Sequence[int], max_rows: int | None = None) -> list[list[int]]:
    """Indices in groups for one forward pass each: rows of like length, at most FORWARD_TOKENS together."""
    groups: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = not groups or tokens + lengths[i] > FORWARD_TOKENS
        if full or (max_rows is not None and len(groups[-1]) >= max_rows):
            groups.append([])
            tokens = 0
        groups[-1].append(i)
        tokens += lengths[i]
    return groups


def split_evenly(lengths: Sequence[int], parts: int) -> list[list[int]]:
    """Indices split into `parts` of about equally many tokens: the longest first, each to the part that holds
    the fewest tokens so far. Every index is in one part; within a part the order is kept."""
    groups: list[list[int]] = [[] for _ in range(parts)]
    held = [(0, part) for part in range(parts)]
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        tokens, part = heapq.heappop(held)
        groups[part].append(i)
        heapq.heappush(held, (tokens + lengths[i], part))
    return [sorted(group) for group in groups]


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on `device`."""
    if device.type == "cpu":
        return batch
    moved: dict[str, Any] = {}
    for name, value in ((f.name, getattr(batch, f.name)) for f in fields(batch)):  # type: ignore[arg-type]
        if isinstance(value, Tensor):
            moved[name] = value.to(device, non_blocking=True)
        elif is_dataclass(value):
            moved[name] = to_device(value, device)
    return replace(batch, **moved)  # type: ignore[type-var]


@lru_cache(maxsize=2)  # a step spans at most two epochs; a long permutation takes longer than the step
def epoch_order(count: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order in which an epoch takes its items: a permutation drawn from (seed, epoch). Read only."""
    order = np.arange(count)
    if shuffle:
        order = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)
    order.flags.writeable = False
    return order

"""Rows to tensors: packed without padding between, and which rows each step takes.

Which rows a step takes is a function of (rows, settings, seed, step) alone, so the cursor of a run
is its step number and resuming needs no replay.
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
from escultor.rng import derive_seed

CAPACITY = 512  # tokens of a packed row, where none of its segments is longer
FORWARD_TOKENS = 8192  # of one forward pass
Batch = TypeVar("Batch")


@dataclass(frozen=True, slots=True)
class Packed:
    """Sequences side by side in R rows of T tokens. K labelled tokens, S sequences.

    `source` says at which position (of R*T) the hidden state stands that predicts `target`;
    a branch's first token is predicted by the last token of its trunk.
    """

    ids: Tensor  # (R, T)
    position: Tensor  # (R, T)
    segment: Tensor  # (R, T), 0 is padding
    branch: Tensor  # (R, T)
    source: Tensor  # (K,)
    target: Tensor  # (K,)
    sequence: Tensor  # (K,)
    sequences: int
    causal: bool  # one trunk alone in every row: plain causal attention is exact, no mask is needed

    @property
    def tokens(self) -> int:
        """Tokens that are no padding."""
        return int((self.segment > 0).sum())


@dataclass(frozen=True, slots=True)
class NllBatch:
    packed: Packed
    weight: Tensor  # (K,)
    rows: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """P pairs; `chosen` and `rejected` say which sequence of `packed` each side is."""

    packed: Packed
    chosen: Tensor  # (P,)
    rejected: Tensor  # (P,)
    weight: Tensor  # (P,)
    flip_rate: Tensor  # (P,)
    rows: tuple[str, ...]
    reference_logp: Tensor | None = None  # (K,), what the frozen reference says


@dataclass(frozen=True, slots=True)
class UnpairedBatch:
    """S verdicts; `other` packs the same prompts with responses to other prompts."""

    packed: Packed
    other: Packed
    desirable: Tensor  # (S,) bool
    weight: Tensor  # (S,)
    rows: tuple[str, ...]
    reference_logp: Tensor | None = None  # (K,), of `packed`
    other_reference_logp: Tensor | None = None  # of `other`


Layout = list[list[int]]  # for every packed row, the indices of the segments laid into it


def first_fit(lengths: Sequence[int], capacity: int) -> Layout:
    """Segments into rows of `capacity` tokens, longest first, each where it first fits."""
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
    """Many segments into rows of `capacity` tokens, taken in a seeded order, each where least room is
    left over. Linear in their number; fills about 99 % where lengths vary."""
    open_: list[Layout] = [[] for _ in range(capacity + 1)]  # by room left
    for i in np.random.default_rng(derive_seed(seed, "best_fit")).permutation(len(lengths)):
        n = int(lengths[i])
        room = next((room for room in range(n, capacity) if open_[room]), capacity)
        row = open_[room].pop() if open_[room] else []
        row.append(int(i))
        open_[room - n].append(row)
    return [row for rows in open_ for row in rows]


class _Packer:
    """Writes segments where a layout puts them and notes what is labelled.

    Rows are `capacity` wide whatever they hold: equal shapes are worth more than the padding
    they cost, since every new shape has its kernels prepared anew.
    """

    def __init__(self, lengths: Sequence[int], layout: Layout, capacity: int):
        self.place: dict[int, tuple[int, int]] = {}
        for row, members in enumerate(layout):
            at = 0
            for i in members:
                self.place[i] = (row, at)
                at += lengths[i]
        self.width = capacity
        grids = (np.zeros((len(layout), capacity), dtype=np.int64) for _ in range(4))
        self.ids, self.position, self.segment, self.branch = grids
        self.source: list[np.ndarray] = []
        self.target: list[np.ndarray] = []
        self.sequence: list[np.ndarray] = []
        self.sequences = 0

    def put(self, index: int, trunk: Ids, branches: Sequence[Ids], start: int) -> None:
        """Lay segment `index`: labelled are the trunk from `start` on, and every branch."""
        row, at = self.place[index]
        base = row * self.width
        n = len(trunk)
        self._write(row, at, index, trunk, 0, 0)
        if start < n:
            self._label(base + at + np.arange(start - 1, n - 1), trunk[start:])
        for b, ids in enumerate(branches, 1):
            own = at + n + sum(len(x) for x in branches[: b - 1])
            self._write(row, own, index, ids, b, n)
            source = base + own - 1 + np.arange(len(ids))
            source[0] = base + at + n - 1
            self._label(source, ids)

    def _write(self, row: int, at: int, index: int, ids: Ids, branch: int, position: int) -> None:
        span = slice(at, at + len(ids))
        self.ids[row, span] = ids
        self.position[row, span] = position + np.arange(len(ids))
        self.segment[row, span] = index + 1
        self.branch[row, span] = branch

    def _label(self, source: np.ndarray, target: np.ndarray) -> None:
        self.source.append(source)
        self.target.append(target.astype(np.int64))
        self.sequence.append(np.full(len(target), self.sequences))
        self.sequences += 1

    def packed(self) -> Packed:
        tensor = torch.from_numpy
        alone = len(self.place) == len(self.ids) and (self.position.max(1) > 0).all()
        causal = bool(alone and not self.branch.any())
        return Packed(
            ids=tensor(self.ids),
            position=tensor(self.position),
            segment=tensor(self.segment),
            branch=tensor(self.branch),
            source=tensor(np.concatenate(self.source)),
            target=tensor(np.concatenate(self.target)),
            sequence=tensor(np.concatenate(self.sequence)),
            sequences=self.sequences,
            causal=causal,
        )


def nll_batch(rows: Sequence[NllRow], capacity: int = CAPACITY, layout: Layout | None = None) -> NllBatch:
    """Pack rows for `nll` and `kd`, side by side in rows of `capacity` tokens (more for a longer one).

    `layout` says which rows share a packed row; without it they are laid first fit.
    """
    lengths = [r.length for r in rows]
    capacity = max(capacity, *lengths)
    packer = _Packer(lengths, layout or first_fit(lengths, capacity), capacity)
    for i, row in enumerate(rows):
        packer.put(i, row.ids, (), row.first_label)
    weight = torch.from_numpy(np.concatenate([row.weights() for row in rows]))
    return NllBatch(packer.packed(), weight, tuple(row.id for row in rows))


def branch_pack(rows: Sequence[BranchedRow], capacity: int = CAPACITY) -> Packed:
    """Pack prompts once, each with its branches; every branch is a sequence, labelled whole."""
    return _pack([(row.prompt, row.branches) for row in rows], capacity)


def pair_batch(rows: Sequence[PairRow], capacity: int = CAPACITY) -> PairBatch:
    """Pack pairs, each prompt once."""
    sides = torch.arange(2 * len(rows)).reshape(-1, 2)
    return PairBatch(
        branch_pack(rows, capacity),
        sides[:, 0],
        sides[:, 1],
        torch.tensor([r.weight for r in rows], dtype=torch.float32),
        torch.tensor([r.flip_rate for r in rows], dtype=torch.float32),
        tuple(r.id for r in rows),
    )


def unpaired_batch(rows: Sequence[UnpairedRow], capacity: int = CAPACITY) -> UnpairedBatch:
    """Pack verdicts, and apart from them their prompts with the responses to other prompts."""
    return UnpairedBatch(
        _pack([(row.prompt, (row.response,)) for row in rows], capacity),
        _pack([(row.prompt, (row.other,)) for row in rows], capacity),
        torch.tensor([r.desirable for r in rows]),
        torch.tensor([r.weight for r in rows], dtype=torch.float32),
        tuple(r.id for r in rows),
    )


def _pack(segments: Sequence[tuple[Ids, tuple[Ids, ...]]], capacity: int) -> Packed:
    lengths = [len(trunk) + sum(len(ids) for ids in branches) for trunk, branches in segments]
    capacity = max(capacity, *lengths)
    packer = _Packer(lengths, first_fit(lengths, capacity), capacity)
    for i, (trunk, branches) in enumerate(segments):
        if len(branches) == 1:  # a plain continuation: no branch to keep apart
            packer.put(i, np.concatenate([trunk, branches[0]]), (), len(trunk))
        else:
            packer.put(i, trunk, branches, len(trunk))
    return packer.packed()


def chunks(lengths: Sequence[int], most_rows: int | None = None) -> list[list[int]]:
    """Indices in groups for one forward pass each: at most FORWARD_TOKENS, like lengths together."""
    groups: list[list[int]] = []
    tokens = 0
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        full = not groups or tokens + lengths[i] > FORWARD_TOKENS
        if full or (most_rows is not None and len(groups[-1]) >= most_rows):
            groups.append([])
            tokens = 0
        groups[-1].append(i)
        tokens += lengths[i]
    return groups


def deal(lengths: Sequence[int], hands: int) -> list[list[int]]:
    """Indices dealt into `hands` of about the same number of tokens: the longest first, each to the hand
    that holds the fewest tokens. Their union is every index once; within a hand the order is kept."""
    dealt: list[list[int]] = [[] for _ in range(hands)]
    held = [(0, hand) for hand in range(hands)]
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        tokens, hand = heapq.heappop(held)
        dealt[hand].append(i)
        heapq.heappush(held, (tokens + lengths[i], hand))
    return [sorted(hand) for hand in dealt]


def on(device: torch.device, batch: Batch) -> Batch:
    """The batch with all its tensors on `device`; itself where they are there already."""
    if device.type == "cpu":
        return batch
    moved: dict[str, Any] = {}
    for name, value in ((f.name, getattr(batch, f.name)) for f in fields(batch)):  # type: ignore[arg-type]
        if isinstance(value, Tensor):
            moved[name] = value.to(device, non_blocking=True)
        elif is_dataclass(value):
            moved[name] = on(device, value)
    return replace(batch, **moved)  # type: ignore[type-var]


@lru_cache(maxsize=2)  # a step lies in one epoch or two; of many rows the permutation takes longer than it
def order(count: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order in which an epoch takes its items: a permutation named by (seed, epoch). Read only."""
    taken = np.arange(count)
    if shuffle:
        taken = np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)
    taken.flags.writeable = False
    return taken

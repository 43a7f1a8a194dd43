"""Rows to tensors: packed without padding between, and which rows each step takes.

Which rows a step takes is a function of (rows, settings, seed, step) alone, so the cursor of a run
is its step number and resuming needs no replay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from escultor.data.rows import Ids, NllRow, PairRow
from escultor.rng import derive_seed


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


class _Packer:
    """Lays segments into rows, first fit in decreasing length, and notes what is labelled."""

    def __init__(self, lengths: Sequence[int], capacity: int):
        order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
        room: list[int] = []
        self.place: list[tuple[int, int]] = [(0, 0)] * len(lengths)
        for i in order:
            row = next((r for r, left in enumerate(room) if left >= lengths[i]), len(room))
            if row == len(room):
                room.append(capacity)
            self.place[i] = (row, capacity - room[row])
            room[row] -= lengths[i]
        shape = (len(room), capacity - min(room))
        self.width = shape[1]
        grids = (np.zeros(shape, dtype=np.int64) for _ in range(4))
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
        grids = (torch.from_numpy(x) for x in (self.ids, self.position, self.segment, self.branch))
        labels = (torch.from_numpy(np.concatenate(x)) for x in (self.source, self.target, self.sequence))
        causal = len(self.place) == len(self.ids) and not self.branch.any()
        return Packed(*grids, *labels, self.sequences, causal)


def nll_batch(rows: Sequence[NllRow], capacity: int = 0) -> NllBatch:
    """Lay out rows for `nll` and `kd`. With `capacity` (tokens), rows share a packed row where they
    fit; without, each has its own, which is cheaper where their lengths are alike."""
    longest = max(r.length for r in rows)
    packer = _Packer([r.length if capacity else longest for r in rows], max(capacity, longest))
    for i, row in enumerate(rows):
        packer.put(i, row.ids, (), row.start)
    weight = np.concatenate([np.full(r.length - r.start, r.weight) for r in rows])
    return NllBatch(packer.packed(), torch.from_numpy(weight).float(), tuple(r.id for r in rows))


def pair_batch(rows: Sequence[PairRow], capacity: int = 0) -> PairBatch:
    """Lay out pairs, each prompt once, in rows of `capacity` tokens or of the longest pair."""
    packer = _Packer([r.length for r in rows], max(capacity, max(r.length for r in rows)))
    chosen, rejected = [], []
    for i, row in enumerate(rows):
        packer.put(i, row.prompt, (row.chosen, row.rejected), len(row.prompt))
        chosen.append(packer.sequences - 2)
        rejected.append(packer.sequences - 1)
    return PairBatch(
        packer.packed(),
        torch.tensor(chosen),
        torch.tensor(rejected),
        torch.tensor([r.weight for r in rows], dtype=torch.float32),
        torch.tensor([r.flip_rate for r in rows], dtype=torch.float32),
        tuple(r.id for r in rows),
    )


def order(count: int, seed: int, epoch: int, shuffle: bool) -> np.ndarray:
    """The order in which an epoch takes its items: a permutation named by (seed, epoch)."""
    if not shuffle:
        return np.arange(count)
    return np.random.default_rng(derive_seed(seed, "order", epoch)).permutation(count)

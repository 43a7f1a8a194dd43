"""Columns of numbers on disk, one entry a row: a window of them in memory at a time, or rows with equal keys.

They are read and not kept mapped: mapped pages would count as memory of whoever looked at them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TypeAlias

import numpy as np

PART = 1 << 16  # rows that are looked at and sorted at once, about


@dataclass(frozen=True, slots=True)
class Column:
    """One number a row, in a file."""

    path: Path
    dtype: np.dtype
    rows: int

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, at: slice) -> np.ndarray:
        """The entries of a window."""
        start, stop, _ = at.indices(self.rows)
        if start == stop:
            return np.empty(0, self.dtype)
        return np.fromfile(self.path, self.dtype, stop - start, offset=start * self.dtype.itemsize)

    def at(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) the entries of rows with these ascending numbers."""
        found = np.empty(len(numbers), self.dtype)
        ends = np.searchsorted(numbers, [*range(0, self.rows, PART), self.rows])
        for window, (start, end) in zip(spans(self.rows), pairwise(ends.tolist()), strict=True):
            if start < end:
                # Mapped for a moment: few pages of a window are touched.
                offset, shape = window.start * self.dtype.itemsize, window.stop - window.start
                mapped = np.memmap(self.path, self.dtype, "r", offset, (shape,))
                found[start:end] = mapped[numbers[start:end] - window.start]
        return found


Numbers: TypeAlias = Column | np.ndarray  # what takes a window


def spans(rows: int) -> Iterator[slice]:
    """All rows, a window at a time."""
    return (slice(at, min(at + PART, rows)) for at in range(0, rows, PART))


def among(mask: np.ndarray, at: slice) -> np.ndarray:
    """Numbers of the rows of a window that are in a mask (rows,)."""
    return np.flatnonzero(mask[at]) + at.start


def first(mask: np.ndarray, count: int) -> np.ndarray:
    """The first numbers of a mask (rows,), so many at most."""
    found = np.empty(0, dtype=np.int64)
    for at in spans(len(mask)):
        if len(found) >= count:
            break
        found = np.concatenate([found, among(mask, at)])
    return found[:count]


def frequencies(codes: Numbers, mask: np.ndarray, size: int) -> np.ndarray:
    """(size,) how often each code is there among the rows of a mask (rows,)."""
    found = np.zeros(size, dtype=np.int64)
    for at in spans(len(mask)):
        found += np.bincount(codes[at][mask[at]], minlength=size)
    return found


# --- rows with equal keys -----------------------------------------------------------------------


def parts(
    keys: Sequence[Numbers], mask: np.ndarray, folder: Path | None
) -> Iterator[tuple[bool, np.ndarray]]:
    """Keys and number (m, k + 1) of the rows of a mask (rows,), numbers ascending: rows with equal keys are
    in one part. The first key is a hash, so that parts are of like size however many rows there are; one
    that is larger, for its keys are equal, comes in pieces, and all but the first are told to go on."""
    count = 1 + int(np.count_nonzero(mask)) // PART
    records = (_records(keys, mask, at) for at in spans(len(mask)))
    if count == 1:
        yield False, np.concatenate([np.empty((0, len(keys) + 1), dtype=np.uint64), *records])
        return
    sizes = np.zeros(count, dtype=np.int64)
    for at in spans(len(mask)):
        sizes += np.bincount(_part(keys[0][at][mask[at]], count), minlength=count)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    with TemporaryFile(dir=folder) as file:
        _grouped(file, records, ends[:-1].copy(), 8 * (len(keys) + 1))
        for start, end in pairwise(ends.tolist()):
            for first in range(start, end, 2 * PART):
                file.seek(first * 8 * (len(keys) + 1))
                data = file.read((min(end, first + 2 * PART) - first) * 8 * (len(keys) + 1))
                yield first > start, np.frombuffer(data, dtype=np.uint64).reshape(-1, len(keys) + 1)


def _records(keys: Sequence[Numbers], mask: np.ndarray, at: slice) -> np.ndarray:
    own = mask[at]
    return np.column_stack([*(key[at][own] for key in keys), among(mask, at).astype(np.uint64)])


def _part(keys: np.ndarray, count: int) -> np.ndarray:
    return ((keys >> np.uint64(40)) % np.uint64(count)).astype(np.int64)


def _grouped(file: IO[bytes], records: Iterator[np.ndarray], ends: np.ndarray, width: int) -> None:
    """Write records one part behind the other. `ends` (parts,) are where each part's next one goes."""
    for some in records:
        own = _part(some[:, 0], len(ends))
        counts = np.bincount(own, minlength=len(ends))
        some = some[np.argsort(own, kind="stable")]
        at = 0
        for part in np.flatnonzero(counts).tolist():
            file.seek(int(ends[part]) * width)
            file.write(some[at : at + counts[part]].tobytes())
            at += counts[part]
        ends += counts

"""Columns of numbers on disk, one entry a row, read a window at a time; rows grouped or selected by key.

Files are read and not kept mapped: mapped pages would count as memory of the process that touched them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TypeAlias

import numpy as np

WINDOW_ROWS = 1 << 16  # rows read or sorted at once, about
_DIGIT_BITS = 8  # of a key, in one round of radix selection


@dataclass(frozen=True, slots=True)
class Column:
    """One number a row, in a file."""

    path: Path
    dtype: np.dtype
    rows: int

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, window: slice) -> np.ndarray:
        """The entries of a window of rows."""
        start, stop, _ = window.indices(self.rows)
        if start == stop:
            return np.empty(0, self.dtype)
        return np.fromfile(self.path, self.dtype, stop - start, offset=start * self.dtype.itemsize)

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """(n,) the entries of the rows with these ascending numbers (n,)."""
        entries = np.empty(len(numbers), self.dtype)
        ends = np.searchsorted(numbers, [*range(0, self.rows, WINDOW_ROWS), self.rows])
        for window, (start, end) in zip(row_windows(self.rows), pairwise(ends.tolist()), strict=True):
            if start < end:
                # Mapped only here: few pages of a window are touched.
                offset, shape = window.start * self.dtype.itemsize, window.stop - window.start
                mapped = np.memmap(self.path, self.dtype, "r", offset, (shape,))
                entries[start:end] = mapped[numbers[start:end] - window.start]
        return entries


Numbers: TypeAlias = Column | np.ndarray  # can be sliced by a window of rows


def row_windows(rows: int) -> Iterator[slice]:
    """Slices that cover all rows, `WINDOW_ROWS` each."""
    return (slice(start, min(start + WINDOW_ROWS, rows)) for start in range(0, rows, WINDOW_ROWS))


def selected_rows(mask: np.ndarray, window: slice) -> np.ndarray:
    """Numbers of the rows of a window that are in a mask (rows,)."""
    return np.flatnonzero(mask[window]) + window.start


def select(mask: np.ndarray, is_chosen: Callable[[slice], np.ndarray]) -> np.ndarray:
    """(rows,) the rows of a mask (rows,) that are chosen, decided a window of rows at a time."""
    chosen = np.zeros(len(mask), dtype=bool)
    for window in row_windows(len(mask)):
        chosen[window] = is_chosen(window) & mask[window]
    return chosen


def first_rows(mask: np.ndarray, count: int) -> np.ndarray:
    """The lowest row numbers in a mask (rows,), at most `count`."""
    numbers = chain.from_iterable(selected_rows(mask, window) for window in row_windows(len(mask)))
    return np.fromiter(islice(numbers, count), dtype=np.int64)


def count_codes(codes: Numbers, mask: np.ndarray, size: int) -> np.ndarray:
    """(size,) how often each code 0 … size − 1 occurs among the rows of a mask (rows,)."""
    counts = np.zeros(size, dtype=np.int64)
    for window in row_windows(len(mask)):
        counts += np.bincount(codes[window][mask[window]], minlength=size)
    return counts


# --- rows with equal keys -----------------------------------------------------------------------


def partition_by_key(
    keys: Sequence[Numbers], mask: np.ndarray, folder: Path | None
) -> Iterator[tuple[bool, np.ndarray]]:
    """Partition the rows of a mask (rows,) so that rows with equal keys are in one partition, and yield
    records (m, k + 1): the k keys and the row number, ascending. The flag is true where a record block
    continues the partition of the block before.

    An external hash partitioning (the first half of a Grace hash join): a first scan over the keys counts
    the rows of each of P = 1 + rows / WINDOW_ROWS partitions, whose cumulative sums are where each begins
    in a temporary file; a second scan writes each record to its partition's next free place. The first
    key is a hash, so that a partition holds about WINDOW_ROWS rows whatever their number. Only many equal
    keys can make one larger; it then arrives in blocks of at most 2 · WINDOW_ROWS records, which bounds
    the memory.
    """
    count = 1 + int(np.count_nonzero(mask)) // WINDOW_ROWS
    records = (_records(keys, mask, window) for window in row_windows(len(mask)))
    if count == 1:
        yield False, np.concatenate([np.empty((0, len(keys) + 1), dtype=np.uint64), *records])
        return
    sizes = np.zeros(count, dtype=np.int64)
    for window in row_windows(len(mask)):
        sizes += np.bincount(_partition(keys[0][window][mask[window]], count), minlength=count)
    ends = np.concatenate([[0], np.cumsum(sizes)])
    record_bytes = 8 * (len(keys) + 1)
    with TemporaryFile(dir=folder) as file:
        _write_partitions(file, records, ends[:-1].copy(), record_bytes)
        for start, end in pairwise(ends.tolist()):
            for first in range(start, end, 2 * WINDOW_ROWS):
                file.seek(first * record_bytes)
                data = file.read((min(end, first + 2 * WINDOW_ROWS) - first) * record_bytes)
                yield first > start, np.frombuffer(data, dtype=np.uint64).reshape(-1, len(keys) + 1)


def _records(keys: Sequence[Numbers], mask: np.ndarray, window: slice) -> np.ndarray:
    in_mask = mask[window]
    return np.column_stack(
        [*(key[window][in_mask] for key in keys), selected_rows(mask, window).astype(np.uint64)]
    )


def _partition(keys: np.ndarray, count: int) -> np.ndarray:
    return ((keys >> np.uint64(40)) % np.uint64(count)).astype(np.int64)


def _write_partitions(
    file: IO[bytes], records: Iterator[np.ndarray], next_free: np.ndarray, record_bytes: int
) -> None:
    """Write every record to its partition. `next_free` (partitions,) is the index of each one's next record
    and is advanced."""
    for block in records:
        partition_of = _partition(block[:, 0], len(next_free))
        counts = np.bincount(partition_of, minlength=len(next_free))
        block = block[np.argsort(partition_of, kind="stable")]
        start = 0
        for partition in np.flatnonzero(counts).tolist():
            file.seek(int(next_free[partition]) * record_bytes)
            file.write(block[start : start + counts[partition]].tobytes())
            start += counts[partition]
        next_free += counts


# --- rows with the lowest keys ------------------------------------------------------------------

# For a window of rows, the group (m,) of each row that takes part, and its key (words, m) of uint64 words,
# the first the most significant.
Keyed = Callable[[slice], tuple[np.ndarray, np.ndarray]]


def sortable(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 that order as the floats (n,) do, none of which is not-a-number.

    The bits of a positive IEEE 754 number order as the number itself once the sign bit is set; those of a
    negative one order in reverse, which inverting all of them undoes.
    """
    bits = (values + 0.0).view(np.uint64)  # −0 becomes 0
    top = np.uint64(1 << 63)
    return np.where(bits & top, ~bits, bits | top)


def bounds(keyed: Keyed, rows: int, words: int, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each group the greatest of its `wanted` (g,) lowest keys, (words, g), and how many rows with
    exactly that key belong to them, (g,). Each group has at least `wanted` rows, and at least 1 is wanted.

    Radix selection (MSD): let k be the rank wanted in a group. One scan counts, among the rows whose key
    agrees with the bound in all digits known so far, how many have each value d of the next 8-bit digit.
    The digit of the bound is the smallest d with count(digits ≤ d) ≥ k, and k drops by count(digits < d):
    those rows are below the bound for certain. After all 8 · words digits the bound is exact and k is the
    number of rows equal to it that are still wanted. Memory is 256 counters a group, whatever the rows.
    """
    bound = np.zeros((words, len(wanted)), dtype=np.uint64)
    rank = wanted.astype(np.int64)
    for word in range(words):
        for shift in range(64 - _DIGIT_BITS, -1, -_DIGIT_BITS):
            counts = np.zeros((len(wanted), 1 << _DIGIT_BITS), dtype=np.int64)
            for window in row_windows(rows):
                group, key = keyed(window)
                agrees = np.ones(len(group), dtype=bool)  # with the bound, in the digits known so far
                for earlier in range(word):
                    agrees &= key[earlier] == bound[earlier][group]
                # XOR clears the known digits where they agree: what is left is the next digit alone.
                digits = (key[word] ^ bound[word][group]) >> np.uint64(shift)
                agrees &= digits < 1 << _DIGIT_BITS
                cell = group[agrees] << _DIGIT_BITS | digits[agrees].astype(np.int64)
                counts += np.bincount(cell, minlength=counts.size).reshape(counts.shape)
            below = np.cumsum(counts, axis=1)  # (g, 256)
            digit = (below < rank[:, None]).sum(1)
            rank -= np.where(digit, below[np.arange(len(wanted)), digit - 1], 0)
            bound[word] |= digit.astype(np.uint64) << np.uint64(shift)
    return bound, rank


def lowest(keyed: Keyed, mask: np.ndarray, words: int, wanted: np.ndarray) -> np.ndarray:
    """(rows,) for each group its `wanted` (g,) rows with the lowest keys; of equal keys the first rows.
    `keyed` yields the rows of the mask (rows,)."""
    bound, left = bounds(keyed, len(mask), words, np.maximum(wanted, 1))
    chosen = np.zeros(len(mask), dtype=bool)
    for window in row_windows(len(mask)):
        group, key = keyed(window)
        below, equal = np.zeros(len(group), dtype=bool), np.ones(len(group), dtype=bool)
        for word in range(words):
            below |= equal & (key[word] < bound[word][group])
            equal &= key[word] == bound[word][group]
        ties = np.flatnonzero(equal)
        ties = ties[np.argsort(group[ties], kind="stable")]
        tied_group = group[ties]
        counts = np.bincount(tied_group, minlength=len(wanted))
        rank = np.arange(len(ties)) - np.repeat(np.cumsum(counts) - counts, counts)
        below[ties[rank < left[tied_group]]] = True
        left = np.maximum(0, left - counts)
        chosen[window][mask[window]] = below & (wanted[group] > 0)
    return chosen

"""Selection of the rows with the lowest keys in each group, by radix selection instead of a sort."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from escultor.datasets.disk.columns import row_windows

# For a window of rows, the group (m,) of each row that takes part, and its key (words, m) of uint64 words,
# the first the most significant.
Keyed = Callable[[slice], tuple[np.ndarray, np.ndarray]]
_DIGIT_BITS = 8


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

"""The rows with the least keys, without a sort of all: the bound to the others is found digit by digit."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from escultor.datasets.curation.columns import spans

# The group (m,) of each row of a window that is looked at, and its key: (words, m) uint64, the first word
# weighs most.
Keyed = Callable[[slice], tuple[np.ndarray, np.ndarray]]
_DIGIT = 8  # bits


def sortable(values: np.ndarray) -> np.ndarray:
    """(n,) uint64 in the order of floats (n,) that are numbers."""
    bits = (values + 0.0).view(np.uint64)  # -0 is 0
    top = np.uint64(1 << 63)
    return np.where(bits & top, ~bits, bits | top)


def bounds(keyed: Keyed, rows: int, words: int, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(words, g) the greatest key among the `wanted` (g,) least of each group, and (g,) how many of the rows
    with that key are among them. Of each group there are so many, and one at least is wanted."""
    bound = np.zeros((words, len(wanted)), dtype=np.uint64)
    left = wanted.astype(np.int64)
    for word in range(words):
        for shift in range(64 - _DIGIT, -1, -_DIGIT):
            counts = np.zeros((len(wanted), 1 << _DIGIT), dtype=np.int64)
            for at in spans(rows):
                group, key = keyed(at)
                like = np.ones(len(group), dtype=bool)  # as the bound, as far as that is known
                for earlier in range(word):
                    like &= key[earlier] == bound[earlier][group]
                digits = (key[word] ^ bound[word][group]) >> np.uint64(shift)
                like &= digits < 1 << _DIGIT
                place = group[like] << _DIGIT | digits[like].astype(np.int64)
                counts += np.bincount(place, minlength=counts.size).reshape(counts.shape)
            below = np.cumsum(counts, axis=1)
            digit = (below < left[:, None]).sum(1)
            left -= np.where(digit, below[np.arange(len(wanted)), digit - 1], 0)
            bound[word] |= digit.astype(np.uint64) << np.uint64(shift)
    return bound, left


def least(keyed: Keyed, mask: np.ndarray, words: int, wanted: np.ndarray) -> np.ndarray:
    """(rows,) the rows of a mask (rows,) that are among the `wanted` (g,) of their group with the least keys;
    of equal keys the first count. `keyed` gives the rows of the mask."""
    some = np.maximum(wanted, 1)
    bound, left = bounds(keyed, len(mask), words, some)
    chosen = np.zeros(len(mask), dtype=bool)
    for at in spans(len(mask)):
        group, key = keyed(at)
        less, like = np.zeros(len(group), dtype=bool), np.ones(len(group), dtype=bool)
        for word in range(words):
            less |= like & (key[word] < bound[word][group])
            like &= key[word] == bound[word][group]
        equal = np.flatnonzero(like)
        equal = equal[np.argsort(group[equal], kind="stable")]
        own = group[equal]
        counts = np.bincount(own, minlength=len(wanted))
        rank = np.arange(len(own)) - np.repeat(np.cumsum(counts) - counts, counts)
        less[equal[rank < left[own]]] = True
        left = np.maximum(0, left - counts)
        chosen[at][mask[at]] = less & (wanted[group] > 0)
    return chosen

"""Rows that are the same: exactly, by hash; nearly, by MinHash bands and then by their real similarity.

Broder 1997 (resemblance of documents), Indyk and Motwani 1998 (locality-sensitive hashing).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.datasets.curation.columns import Numbers, among, parts, spans
from escultor.datasets.curation.normalization import Hashes, jaccard, mixed, squashed, window_sets, windows
from escultor.datasets.curation.rows import CurationRow, RowPart, parts_of
from escultor.datasets.curation.rows_on_disk import RowsHandle
from escultor.process_pool import ProcessPool

ODDS = 0.97  # with which a pair at the threshold is looked at, at least
NEIGHBOURS = 8  # a row is compared with so many before it in its bucket, and so many at its beginning
BATCH = 100  # rows whose windows are in the cache of a core at once
PIECE_BYTES = 1 << 20  # of rows that are compared in one piece of work, about
TRIED = 1 << 19  # pairs that are remembered not to be compared again
_SEED = 1


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows a band: the longest bands with which two rows as similar as `threshold` meet in one of
    them with odds of 97 %, 1 − (1 − sʳ)ᵇ."""
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= ODDS:
            return bands, rows
    return permutations, 1


def band_hashes(rows: Sequence[Sequence[RowPart]], bands: int, width: int) -> np.ndarray:
    """(rows, bands) uint64: equal in a band with odds of (Jaccard similarity of windows) ** width."""
    found = [_bands(rows[at : at + BATCH], bands, width) for at in range(0, len(rows), BATCH)]
    return np.concatenate([np.empty((0, bands), dtype=np.uint64), *found])


def _bands(rows: Sequence[Sequence[RowPart]], bands: int, width: int) -> np.ndarray:
    from rensa import RMinHash  # type: ignore[attr-defined]

    tokens, starts = windows(rows)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(
        tokens, starts.astype(np.uint64), bands * width, _SEED
    )
    # By way of an array: numpy reads lists of lists more slowly.
    values = np.asarray(array("I", chain.from_iterable(digests.to_rows())), dtype=np.uint64)
    found = values.reshape(len(rows), bands, width)
    out = np.broadcast_to(np.arange(bands, dtype=np.uint64), (len(rows), bands))
    for k in range(width):
        out = mixed(out ^ found[:, :, k])
    return out


# --- exact --------------------------------------------------------------------------------------


def exact_columns(rows: Sequence[CurationRow], settings: Curation) -> dict[str, np.ndarray]:
    """`content` (n, 2): 128 bits of the hash of what a row says, white space and case aside; `name` (n,) of
    its id."""
    content = np.frombuffer(b"".join(_digest(parts_of(row.item)) for row in rows), dtype="<u8")
    names = [blake2b(row.item.id.encode("utf-8", "replace"), digest_size=8).digest() for row in rows]
    return {"content": content.reshape(-1, 2), "name": np.frombuffer(b"".join(names), dtype="<u8")}


def _digest(parts: Sequence[RowPart]) -> bytes:
    text = "\x00".join(f"{role}\x01{squashed(text)}" for role, text in parts)
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def exact_choice(
    content: Sequence[Numbers], name: Numbers, mask: np.ndarray, folder: Path | None
) -> dict[str, np.ndarray]:
    """Of the rows of a mask (rows,) those to leave out, by reason: all but the first of those that say the
    same, then all but the first of those with one id."""
    found = []
    for keys in (content, [name]):
        again = np.zeros(len(mask), dtype=bool)
        for pairs in repeats(keys, mask, folder):
            again[pairs[:, 1]] = True
        mask = mask & ~again
        found.append(again)
    return dict(zip(("exact duplicate", "id of another row"), found, strict=True))


def repeats(keys: Sequence[Numbers], mask: np.ndarray, folder: Path | None) -> Iterator[np.ndarray]:
    """(m, 2) of rows with equal keys the first one of the mask (rows,), and each of the others."""
    seen = np.empty((0, len(keys) + 1), dtype=np.uint64)
    for goes_on, records in parts(keys, mask, folder):
        seen = np.concatenate([seen, records]) if goes_on else records
        order = np.lexsort(seen.T[:-1])  # stable: equal keys stay in their order
        own = seen[order, :-1]
        equal = np.zeros(len(order), dtype=bool)
        equal[1:] = (own[1:] == own[:-1]).all(1)
        first = np.maximum.accumulate(np.where(equal, 0, np.arange(len(order))))
        yield seen[np.column_stack([order[first[equal]], order[equal]]), -1].astype(np.int64)
        seen = np.delete(seen, order[equal], axis=0)


# --- near ---------------------------------------------------------------------------------------


def near_columns(rows: Sequence[CurationRow], settings: Curation) -> dict[str, np.ndarray]:
    """`bands` (n, b) of each row's texts."""
    shape = bands_for(settings.near.threshold, settings.near.permutations)
    return {"bands": band_hashes([parts_of(row.item) for row in rows], *shape)}


@dataclass(frozen=True, slots=True)
class SimilarityChecker:
    """How rows are compared: where they are, which of their texts, by whom."""

    place: RowsHandle
    crew: ProcessPool
    texts: Callable[[CurationRow], Sequence[RowPart]]

    @property
    def folder(self) -> Path | None:
        """Where rows are sorted."""
        return self.place.folder

    def similar(self, pairs: Iterable[np.ndarray], threshold: float) -> Iterator[np.ndarray]:
        """Of pairs (m, 2) of row numbers those whose real Jaccard similarity reaches the threshold."""
        pieces = ((self.place, self.texts, threshold, some) for some in self._pieces(pairs))
        return self.crew.over(_compared, pieces)

    def _pieces(self, pairs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        # By the size of the rows, so that long ones do not fill the memory.
        held = np.empty((0, 2), dtype=np.int64)
        for some in pairs:
            held = np.concatenate([held, some])
            size = np.cumsum(self.place.sizes(held).sum(1))
            *full, held = np.split(held, np.flatnonzero(np.diff(size // PIECE_BYTES)) + 1)
            yield from full
        if len(held):
            yield held


def _compared(
    shared: Any, piece: tuple[RowsHandle, Callable[[CurationRow], Sequence[RowPart]], float, np.ndarray]
) -> np.ndarray:
    place, texts, threshold, pairs = piece
    numbers, at = np.unique(pairs, return_inverse=True)
    return pairs[alike([texts(row) for row in place.read(numbers)], at.reshape(-1, 2), threshold)]


def alike(rows: Sequence[Sequence[RowPart]], pairs: np.ndarray, threshold: float) -> np.ndarray:
    """(m,) whether the real Jaccard similarity of pairs (m, 2) of these rows reaches the threshold."""
    batches = (rows[at : at + BATCH] for at in range(0, len(rows), BATCH))
    sets = [found for batch in batches for found in window_sets(batch)]
    found = (_reaches(sets[one], sets[other], threshold) for one, other in pairs.tolist())
    return np.fromiter(found, dtype=bool, count=len(pairs))


def _reaches(one: Hashes, other: Hashes, threshold: float) -> bool:
    # The sizes alone bound the similarity.
    small, large = sorted((len(one), len(other)))
    return small >= threshold * large and jaccard(one, other) >= threshold


def candidates(column: Hashes, numbers: np.ndarray) -> np.ndarray:
    """(m, 2) pairs of row numbers, the earlier first, whose value in one band is equal: each row with the
    eight before it in its bucket and with the first eight of it."""
    order = np.argsort(column)
    values, ids = column[order], numbers[order]
    # Most rows are alone in their bucket; only the others are put into their order.
    same = np.zeros(len(values) + 1, dtype=bool)  # as the one before
    np.equal(values[1:], values[:-1], out=same[1:-1])
    met = same[:-1] | same[1:]
    values, ids, same = values[met], ids[met], same[:-1][met]
    ids = ids[np.lexsort((ids, values))]
    at = np.arange(len(ids))
    start = np.maximum.accumulate(np.where(same, 0, at))
    rank = at - start
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for back in range(1, NEIGHBOURS + 1):
        at = np.flatnonzero(rank >= back)
        pairs.append(np.column_stack([ids[at - back], ids[at]]))
    for k in range(NEIGHBOURS):
        at = np.flatnonzero(rank - k > NEIGHBOURS)
        pairs.append(np.column_stack([ids[start[at] + k], ids[at]]))
    return np.concatenate(pairs)


def met(column: Numbers, mask: np.ndarray, folder: Path | None) -> Iterator[np.ndarray]:
    """(m, 2) the candidates of all rows of a mask (rows,), part by part."""
    before = np.empty((0, 2), dtype=np.uint64)
    for goes_on, records in parts([column], mask, folder):
        first = int(records[0, 1]) if goes_on else 0
        before = np.concatenate([_ends(before), records]) if goes_on else records
        pairs = candidates(before[:, 0], before[:, 1].astype(np.int64))
        yield pairs[pairs[:, 1] >= first]


def _ends(records: np.ndarray) -> np.ndarray:
    """Of the records (m, 2) the first eight and the last eight of each bucket: no other meets a later row."""
    order = np.argsort(records[:, 0], kind="stable")
    starts = np.flatnonzero(np.diff(records[order, 0], prepend=~records[order[:1], 0]))
    sizes = np.diff(starts, append=len(order))
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    stays = (rank < NEIGHBOURS) | (rank >= np.repeat(sizes, sizes) - NEIGHBOURS)
    return records[np.sort(order[stays])]


class _Tried:
    """Pairs that were looked at, in one place each by their hash, so that there are never more: one that had
    to go for another is looked at again, to the same end."""

    def __init__(self) -> None:
        self._known = np.zeros(TRIED, dtype=np.uint64)

    def fresh(self, pairs: np.ndarray) -> np.ndarray:
        """Those of the pairs (m, 2) that are not known to be tried, in their order."""
        keys = np.sort(pairs[:, 0].astype(np.uint64) << np.uint64(32) | pairs[:, 1].astype(np.uint64))
        place = (mixed(keys) % np.uint64(TRIED)).astype(np.int64)
        new = self._known[place] != keys
        keys, place = keys[new], place[new]
        self._known[place] = keys
        return np.column_stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)]).astype(np.int64)


def edges(
    bands: Sequence[Numbers], mask: np.ndarray, threshold: float, comparing: SimilarityChecker, collapse: bool
) -> Iterator[np.ndarray]:
    """(m, 2) pairs of similar rows of a mask (rows,), band by band. With `collapse` a row that was found
    similar to an earlier one takes no further part in the next bands: fewer comparisons, and a partner for
    each all the same."""
    tried, mask = _Tried(), mask.copy()
    for column in bands:
        out = np.zeros(len(mask), dtype=bool)
        fresh = map(tried.fresh, met(column, mask, comparing.folder))
        for same in comparing.similar(fresh, threshold):
            yield same
            out[same[:, 1]] = collapse
        mask &= ~out


def near_choice(
    bands: Sequence[Numbers], mask: np.ndarray, threshold: float, comparing: SimilarityChecker
) -> dict[str, np.ndarray]:
    """Of the rows of a mask (rows,) those to leave out: each is as similar as the threshold to a row that
    stays and stands before it."""
    left = np.zeros(len(mask), dtype=bool)
    # A row's pairs are those of one band; the earliest partner is the one kept.
    root = np.arange(len(mask), dtype=np.uint32)
    for pairs in edges(bands, mask, threshold, comparing, collapse=True):
        np.minimum.at(root, pairs[:, 1], pairs[:, 0].astype(np.uint32))
        left[pairs[:, 1]] = True
    chained = np.zeros(len(mask), dtype=bool)
    for at in spans(len(mask)):
        chained[at] = left[root[at]]
    follow(root)
    # Who was tied to the row that stays by a chain alone is compared with it itself.
    left &= ~chained
    tied = (np.column_stack([root[n], n]).astype(np.int64) for n in _numbers(chained))
    for pairs in comparing.similar(tied, threshold):
        left[pairs[:, 1]] = True
    return {"near duplicate": left}


def _numbers(mask: np.ndarray) -> Iterator[np.ndarray]:
    return (among(mask, at) for at in spans(len(mask)))


def follow(root: np.ndarray) -> None:
    """In place of each row's number (rows,) of an earlier row, or its own, the one where that chain ends."""
    for at in spans(len(root)):
        # As far again as the chain was followed.
        while ((further := root[root[at]]) != root[at]).any():
            root[at] = further

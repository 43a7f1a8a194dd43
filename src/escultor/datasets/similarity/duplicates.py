"""Exact duplicates by hash; near duplicates by MinHash bands, decided by the actual similarity of their
words and by their numbers and symbols.

Broder 1997 (resemblance of documents), Indyk and Motwani 1998 (locality-sensitive hashing).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.data.jsonl_rows import TrainingItem
from escultor.datasets.disk.columns import Numbers, partition_by_key, row_windows, select, selected_rows
from escultor.datasets.disk.rows_on_disk import RowsHandle
from escultor.datasets.rows import CurationRow, RowPart, text_parts
from escultor.process_pool import ProcessPool
from escultor.text.near_duplicates import NEIGHBOURS, are_similar, band_hashes, bands_for, candidate_pairs
from escultor.text.normalization import normalized
from escultor.text.shingles import mix64

TASK_BYTES = 1 << 20  # of rows that one task compares, about
TRIED_PAIRS = 1 << 19  # remembered, so that they are not compared again


# --- exact duplicates ---------------------------------------------------------------------------


def name_hashes(names: Sequence[str]) -> np.ndarray:
    """(n,) uint64 hashes of names."""
    digests = [blake2b(name.encode("utf-8", "replace"), digest_size=8).digest() for name in names]
    return np.frombuffer(b"".join(digests), dtype="<u8")


def exact_columns(rows: Sequence[CurationRow], settings: Curation) -> dict[str, np.ndarray]:
    """`content` (n, 2): a 128-bit hash of all texts of a row, white space and case aside; `name` (n,): a
    hash of its id."""
    texts = (
        "\x00".join(f"{role}\x01{normalized(text)}" for role, text in text_parts(row.item)) for row in rows
    )
    digests = [blake2b(text.encode("utf-8", "replace"), digest_size=16).digest() for text in texts]
    content = np.frombuffer(b"".join(digests), dtype="<u8").reshape(-1, 2)
    return {"content": content, "name": name_hashes([row.item.id for row in rows])}


def drop_exact_duplicates(
    content: Sequence[Numbers], name: Numbers, mask: np.ndarray, folder: Path | None
) -> dict[str, np.ndarray]:
    """The rows of a mask (rows,) to drop, by reason: all but the first with the same content, then all but
    the first with the same id."""
    dropped = []
    for keys in (content, [name]):
        repeated = np.zeros(len(mask), dtype=bool)
        for pairs in equal_pairs(keys, mask, folder):
            repeated[pairs[:, 1]] = True
        mask = mask & ~repeated
        dropped.append(repeated)
    return dict(zip(("exact duplicate", "id of another row"), dropped, strict=True))


def equal_pairs(keys: Sequence[Numbers], mask: np.ndarray, folder: Path | None) -> Iterator[np.ndarray]:
    """(m, 2) pairs of rows of a mask (rows,) with equal keys: the first such row, and each of the
    others."""
    seen = np.empty((0, len(keys) + 1), dtype=np.uint64)
    for continues, records in partition_by_key(keys, mask, folder):
        seen = np.concatenate([seen, records]) if continues else records
        order = np.lexsort(seen.T[:-1])  # stable: rows with equal keys keep their order
        ordered_keys = seen[order, :-1]
        is_equal = np.zeros(len(order), dtype=bool)
        is_equal[1:] = (ordered_keys[1:] == ordered_keys[:-1]).all(1)
        first = np.maximum.accumulate(np.where(is_equal, 0, np.arange(len(order))))
        pairs = np.column_stack([order[first[is_equal]], order[is_equal]])
        yield seen[pairs, -1].astype(np.int64)
        seen = np.delete(seen, order[is_equal], axis=0)


# --- near duplicates ----------------------------------------------------------------------------


def near_columns(rows: Sequence[CurationRow], settings: Curation) -> dict[str, np.ndarray]:
    """`bands` (n, b): the band hashes of each row's texts."""
    shape = bands_for(settings.near.threshold, settings.near.permutations)
    return {"bands": band_hashes([text_parts(row.item) for row in rows], *shape)}


# --- comparison ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SimilarityChecker:
    """Compares pairs of rows on disk in a process pool, by those of their texts that `parts` selects."""

    rows: RowsHandle
    pool: ProcessPool
    parts: Callable[[TrainingItem], Sequence[RowPart]]

    def similar(self, pairs: Iterable[np.ndarray], threshold: float) -> Iterator[np.ndarray]:
        """Of pairs (m, 2) of row numbers, those that are similar."""
        tasks = ((self.rows, self.parts, threshold, task) for task in self._tasks(pairs))
        return self.pool.map(_compare, tasks)

    def _tasks(self, pairs: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        # By the size of the rows, so that long ones do not fill the memory.
        waiting = np.empty((0, 2), dtype=np.int64)
        for block in pairs:
            waiting = np.concatenate([waiting, block])
            size = np.cumsum(self.rows.sizes(waiting).sum(1))
            *full, waiting = np.split(waiting, np.flatnonzero(np.diff(size // TASK_BYTES)) + 1)
            yield from full
        if len(waiting):
            yield waiting


def _compare(
    shared: Any, task: tuple[RowsHandle, Callable[[TrainingItem], Sequence[RowPart]], float, np.ndarray]
) -> np.ndarray:
    rows, parts, threshold, pairs = task
    numbers, index = np.unique(pairs, return_inverse=True)
    texts = [parts(row.item) for row in rows.read(numbers)]
    return pairs[are_similar(texts, index.reshape(-1, 2), threshold)]


# --- candidates ---------------------------------------------------------------------------------


def candidates_by_partition(column: Numbers, mask: np.ndarray, folder: Path | None) -> Iterator[np.ndarray]:
    """(m, 2) the candidate pairs of one band among the rows of a mask (rows,), partition by partition."""
    seen = np.empty((0, 2), dtype=np.uint64)
    for continues, records in partition_by_key([column], mask, folder):
        first = int(records[0, 1]) if continues else 0
        seen = np.concatenate([_bucket_ends(seen), records]) if continues else records
        pairs = candidate_pairs(seen[:, 0], seen[:, 1].astype(np.int64))
        yield pairs[pairs[:, 1] >= first]


def _bucket_ends(records: np.ndarray) -> np.ndarray:
    """The first and the last eight records of each bucket (m, 2): later rows are compared with no
    others."""
    order = np.argsort(records[:, 0], kind="stable")
    starts = np.flatnonzero(np.diff(records[order, 0], prepend=~records[order[:1], 0]))
    sizes = np.diff(starts, append=len(order))
    rank = np.arange(len(order)) - np.repeat(starts, sizes)
    stays = (rank < NEIGHBOURS) | (rank >= np.repeat(sizes, sizes) - NEIGHBOURS)
    return records[np.sort(order[stays])]


class _TriedPairs:
    """A cache of fixed size of pairs already compared, one slot a hash: an evicted pair is compared again,
    with the same result."""

    def __init__(self) -> None:
        self._keys = np.zeros(TRIED_PAIRS, dtype=np.uint64)

    def new(self, pairs: np.ndarray) -> np.ndarray:
        """The pairs (m, 2) that are not in the cache, ordered; they are added to it."""
        keys = np.sort(pairs[:, 0].astype(np.uint64) << np.uint64(32) | pairs[:, 1].astype(np.uint64))
        slots = (mix64(keys) % np.uint64(TRIED_PAIRS)).astype(np.int64)
        is_new = self._keys[slots] != keys
        keys, slots = keys[is_new], slots[is_new]
        self._keys[slots] = keys
        return np.column_stack([keys >> np.uint64(32), keys & np.uint64(2**32 - 1)]).astype(np.int64)


def similar_pairs(
    bands: Sequence[Numbers], mask: np.ndarray, threshold: float, checker: SimilarityChecker, collapse: bool
) -> Iterator[np.ndarray]:
    """(m, 2) pairs of similar rows of a mask (rows,), band by band. With `collapse`, a row that is similar
    to an earlier one is left out of the next bands: fewer comparisons, and still a partner for each."""
    tried, mask = _TriedPairs(), mask.copy()
    for column in bands:
        collapsed = np.zeros(len(mask), dtype=bool)
        new = map(tried.new, candidates_by_partition(column, mask, checker.rows.folder))
        for pairs in checker.similar(new, threshold):
            yield pairs
            collapsed[pairs[:, 1]] = collapse
        mask &= ~collapsed


def drop_near_duplicates(
    bands: Sequence[Numbers], mask: np.ndarray, threshold: float, checker: SimilarityChecker
) -> dict[str, np.ndarray]:
    """The rows of a mask (rows,) to drop: each reaches the threshold with an earlier row that stays.

    Similarity is not transitive, so the rule "drop what is similar to any earlier row" would follow chains
    a ~ b ~ c to a row c that resembles nothing left. Three steps avoid that:

    1. Every row with a similar earlier row is marked, and `root` is the earliest of those partners (with
       `collapse` all of a row's pairs come from one band).
    2. A row is *chained* when its partner is marked itself. A row that is marked and not chained has a
       partner that stays: it is dropped. `resolve_roots` follows partner to partner to the row at the end
       of each chain, which is not marked and stays.
    3. Each chained row is compared with the end of its own chain, and dropped only if it is similar to it;
       the others stay.
    """
    dropped = np.zeros(len(mask), dtype=bool)
    root = np.arange(len(mask), dtype=np.uint32)
    for pairs in similar_pairs(bands, mask, threshold, checker, collapse=True):
        np.minimum.at(root, pairs[:, 1], pairs[:, 0].astype(np.uint32))
        dropped[pairs[:, 1]] = True
    chained = select(mask, lambda window: dropped[root[window]])
    resolve_roots(root)
    dropped &= ~chained
    numbers = (selected_rows(chained, window) for window in row_windows(len(mask)))
    ends = (np.column_stack([root[n], n]).astype(np.int64) for n in numbers)
    for pairs in checker.similar(ends, threshold):
        dropped[pairs[:, 1]] = True
    return {"near duplicate": dropped}


# --- clusters -----------------------------------------------------------------------------------
# A disjoint-set forest over row numbers: `root` links each row to an earlier one; the lowest row of a
# cluster is its root, linked to itself.


def resolve_roots(root: np.ndarray) -> None:
    """Replace each row's link (rows,) to an earlier row, or to itself, by the end of its chain of links."""
    for window in row_windows(len(root)):
        # Pointer doubling: each round follows twice as many links.
        while ((further := root[root[window]]) != root[window]).any():
            root[window] = further


def merge_clusters(root: np.ndarray, pairs: np.ndarray) -> None:
    """Merge the clusters of the two rows of each pair (m, 2): the greater root is linked to the lesser."""
    while len(pairs):
        ends = root[pairs]
        while ((further := root[ends]) != ends).any():
            ends = further
        pairs = np.sort(ends[ends[:, 0] != ends[:, 1]].astype(np.int64), axis=1)
        np.minimum.at(root, pairs[:, 1], pairs[:, 0].astype(np.uint32))
        linked = np.unique(pairs)
        while ((further := root[root[linked]]) != root[linked]).any():
            root[linked] = further

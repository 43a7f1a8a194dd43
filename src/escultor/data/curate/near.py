"""Rows that are the same: exactly, by hash; nearly, by MinHash bands and then by their real similarity.

Broder 1997 (resemblance of documents), Indyk and Motwani 1998 (locality-sensitive hashing).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from typing import Any

import numpy as np

from escultor.config.curation import Curation
from escultor.data.crew import Crew
from escultor.data.curate.normal import Hashes, jaccard, mixed, squashed, window_sets, windows
from escultor.data.curate.rows import Part, Row, parts_of
from escultor.data.curate.spill import Place, parts

ODDS = 0.97  # with which a pair at the threshold is looked at, at least
NEIGHBOURS = 8  # a row is compared with so many before it in its bucket, and so many at its beginning
BATCH = 100  # rows whose windows are in the cache of a core at once
PIECE_BYTES = 1 << 21  # of rows that are compared in one piece of work, about
_SEED = 1


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands and rows a band: the longest bands with which two rows as similar as `threshold` meet in one of
    them with odds of 97 %, 1 − (1 − sʳ)ᵇ."""
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= ODDS:
            return bands, rows
    return permutations, 1


def band_hashes(rows: Sequence[Sequence[Part]], bands: int, width: int) -> np.ndarray:
    """(rows, bands) uint64: equal in a band with odds of (Jaccard similarity of windows) ** width."""
    found = [_bands(rows[at : at + BATCH], bands, width) for at in range(0, len(rows), BATCH)]
    return np.concatenate([np.empty((0, bands), dtype=np.uint64), *found])


def _bands(rows: Sequence[Sequence[Part]], bands: int, width: int) -> np.ndarray:
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


def exact_columns(rows: Sequence[Row], settings: Curation) -> dict[str, np.ndarray]:
    """`content` (n, 2): 128 bits of the hash of what a row says, white space and case aside; `name` (n,) of
    its id."""
    content = np.frombuffer(b"".join(_digest(parts_of(row.item)) for row in rows), dtype="<u8")
    names = [blake2b(row.item.id.encode("utf-8", "replace"), digest_size=8).digest() for row in rows]
    return {"content": content.reshape(-1, 2), "name": np.frombuffer(b"".join(names), dtype="<u8")}


def _digest(parts: Sequence[Part]) -> bytes:
    text = "\x00".join(f"{role}\x01{squashed(text)}" for role, text in parts)
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()


def exact_choice(content: Sequence[Hashes], name: Hashes, alive: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers of rows to leave out, by reason: all but the first of those that say the same, then all but
    the first of those with one id."""
    again = _repeats(content, alive)
    same, rest = alive[again], alive[~again]
    return {"exact duplicate": same, "id of another row": rest[_repeats([name], rest)]}


def _repeats(keys: Sequence[Hashes], alive: np.ndarray) -> np.ndarray:
    """(n,) whether the keys of a row stand before, at an earlier one of `alive` (n,)."""
    again = np.zeros(len(alive), dtype=bool)
    for at in parts(keys[0], alive):
        own = [np.asarray(key[alive[at]]) for key in keys]
        order = np.lexsort(own)  # stable: equal keys stay in their order
        equal = np.ones(max(0, len(at) - 1), dtype=bool)
        for key in own:
            equal &= key[order[1:]] == key[order[:-1]]
        again[at[order[1:][equal]]] = True
    return again


# --- near ---------------------------------------------------------------------------------------


def near_columns(rows: Sequence[Row], settings: Curation) -> dict[str, np.ndarray]:
    """`bands` (n, b) of each row's texts."""
    shape = bands_for(settings.near.threshold, settings.near.permutations)
    return {"bands": band_hashes([parts_of(row.item) for row in rows], *shape)}


@dataclass(frozen=True, slots=True)
class Comparing:
    """How rows are compared: where they are, which of their texts, by whom."""

    place: Place
    crew: Crew
    texts: Callable[[Row], Sequence[Part]]

    def similar(self, pairs: np.ndarray, threshold: float) -> np.ndarray:
        """(m,) whether the real Jaccard similarity of pairs (m, 2) of row numbers reaches the threshold."""
        pieces = ((self.place, self.texts, threshold, some) for some in self._pieces(pairs))
        return np.concatenate([np.empty(0, dtype=bool), *self.crew.over(_compared, pieces)])

    def _pieces(self, pairs: np.ndarray) -> list[np.ndarray]:
        # By the size of the rows, so that long ones do not fill the memory.
        size = np.cumsum(self.place.sizes(pairs.ravel()).reshape(-1, 2).sum(1))
        return np.split(pairs, np.flatnonzero(np.diff(size // PIECE_BYTES)) + 1)


def _compared(
    shared: Any, piece: tuple[Place, Callable[[Row], Sequence[Part]], float, np.ndarray]
) -> np.ndarray:
    place, texts, threshold, pairs = piece
    numbers, at = np.unique(pairs, return_inverse=True)
    return alike([texts(row) for row in place.read(numbers)], at.reshape(-1, 2), threshold)


def alike(rows: Sequence[Sequence[Part]], pairs: np.ndarray, threshold: float) -> np.ndarray:
    """(m,) whether the real Jaccard similarity of pairs (m, 2) of these rows reaches the threshold."""
    sets = window_sets(rows)
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


def edges(
    bands: Sequence[Hashes], alive: np.ndarray, threshold: float, comparing: Comparing, collapse: bool
) -> Iterator[np.ndarray]:
    """(m, 2) pairs of similar rows, band by band and part by part of it, none twice. With `collapse` a row
    that was found similar to an earlier one takes no further part in the next bands: fewer comparisons, and
    a partner for each all the same."""
    tried = np.empty(0, dtype=np.int64)
    total = int(alive[-1]) + 1 if len(alive) else 0
    out = np.zeros(total, dtype=bool)
    for band in range(len(bands)):
        column = bands[band]
        for at in parts(column, alive):
            numbers = alive[at]
            pairs = candidates(np.asarray(column[numbers]), numbers)
            keys = np.unique(pairs[:, 0] * total + pairs[:, 1])
            keys = keys[~np.isin(keys, tried, assume_unique=True)]
            pairs = np.column_stack([keys // total, keys % total]) if total else pairs
            same = pairs[comparing.similar(pairs, threshold)]
            yield same
            out[same[:, 1]] = collapse
            tried = np.union1d(tried, keys)
        alive = alive[~out[alive]]


def near_choice(
    bands: Sequence[Hashes], alive: np.ndarray, threshold: float, comparing: Comparing
) -> dict[str, np.ndarray]:
    """Rows to leave out: each is as similar as the threshold to a row that stays and stands before it."""
    found = [np.empty((0, 2), dtype=np.int64), *edges(bands, alive, threshold, comparing, collapse=True)]
    pairs = np.concatenate(found)
    # A row's pairs are those of one band; the earliest partner is the one kept.
    pairs = pairs[np.lexsort((pairs[:, 0], pairs[:, 1]))]
    left, first = np.unique(pairs[:, 1], return_index=True)
    partner = pairs[first, 0]
    root = _roots(left, partner)
    # Who was tied to the row that stays by a chain alone is compared with it itself.
    chained = root != partner
    pairs = np.column_stack([root[chained], left[chained]])
    held = comparing.similar(pairs, threshold) if len(pairs) else np.empty(0, dtype=bool)
    return {"near duplicate": np.setdiff1d(left, left[chained][~held])}


def _roots(left: np.ndarray, partner: np.ndarray) -> np.ndarray:
    """(m,) where the chain of partners of each row ends. `left` (m,) ascends; a partner stands before it."""
    root = partner
    while len(left):
        at = np.searchsorted(left, root)
        at[at == len(left)] = 0
        again = left[at] == root
        if not again.any():
            break
        root = np.where(again, root[at], root)  # as far again as the chain was followed
    return root

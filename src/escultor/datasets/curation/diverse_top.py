"""The best rows that are not all alike: quality and facility location, by lazy greedy choice.

f(S) = mean over sampled rows of max(similarity to a row of S) + 4 · (sum of the scores in S) / rows wanted
is monotone and submodular, so that greedy choice reaches (1 − 1/e) of the best f there is among the rows
considered (Nemhauser, Wolsey and Fisher 1978); laziness changes nothing but the time (Minoux 1978).
"""

from __future__ import annotations

import heapq
import zlib
from dataclasses import replace
from itertools import pairwise

import numpy as np

from escultor.datasets.curation.columns import Numbers, among, spans
from escultor.datasets.curation.normalization import words_of
from escultor.datasets.curation.rows import CurationRow, whole
from escultor.datasets.curation.rows_on_disk import RowsHandle
from escultor.datasets.splits import SplitSides
from escultor.errors import InputError

DIMENSIONS = 256
POOL = 1024  # rows considered at least, and four for each row wanted
CELLS = 40_000_000  # similarities in memory at most: 160 MB
WORDS = 512  # of a row that are looked at
QUALITY = 4.0  # weight of the mean score against the mean similarity


def vector(row: CurationRow) -> np.ndarray:
    """(DIMENSIONS,) counts of words and pairs of words under a signed hash, square roots, length 1."""
    words = words_of(whole(row.item))[:WORDS]
    grams = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
    hashes = np.asarray([zlib.crc32(gram.encode("utf-8", "replace")) for gram in grams], dtype=np.int64)
    signs = 1.0 - 2.0 * ((hashes >> 16) & 1)
    found = np.bincount(hashes % DIMENSIONS, weights=signs, minlength=DIMENSIONS)
    found = np.sign(found) * np.sqrt(np.abs(found))
    return (found / max(1e-12, float(np.linalg.norm(found)))).astype(np.float32)


def best(place: RowsHandle, score: Numbers, mask: np.ndarray, count: int) -> tuple[np.ndarray, str]:
    """(rows,) `count` rows of a mask with their scores, and how they were chosen. Considered are the
    best-scored rows: four for each that is wanted, 1,024 at least.

    Raises InputError where fewer rows are left than are wanted: none is ever taken twice.
    """
    if count > (left := int(np.count_nonzero(mask))):
        raise InputError(
            "there are fewer rows to train on than --top asks for",
            f"{left:,} rows, --top {count:,}",
            "at most what is left",
            "loosen the steps, hold less out or ask for fewer",
        )
    pool, scores = _pool(score, mask, max(POOL, 4 * count))
    vectors = np.stack([vector(row) for row in place.read(pool)])  # (m, d)
    sampled = np.unique(
        np.linspace(0, len(pool) - 1, min(len(pool), max(64, CELLS // len(pool)))).astype(int)
    )
    similarity = np.maximum(vectors @ vectors[sampled].T, 0)  # (m, r)
    chosen = facility_location(similarity, QUALITY * len(sampled) / count * scores, count)
    told = (
        f"top {count:,}: facility location over the {len(pool):,} best-scored rows and {len(sampled):,} "
        "sampled ones; at least 1 - 1/e of the best choice among them"
    )
    found = np.zeros(len(mask), dtype=bool)
    found[pool[chosen]] = True
    return found, told


def fewer(parted: SplitSides, place: RowsHandle, score: Numbers, count: int) -> SplitSides:
    """The sides with the best of what is held out, as many beside `count` rows to train on as are held out
    beside all: prompts are held out for good, and what is not learnt need not be."""
    train, held = (int(np.count_nonzero(side)) for side in (parted.train, parted.held_out))
    wanted = max(1, min(held, round(count * held / max(1, train))))
    return replace(parted, held_out=best(place, score, parted.held_out, wanted)[0])


def _pool(score: Numbers, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, ascending, of the best-scored rows of a mask, and their scores; of equal ones the first."""
    pool, scores = np.empty(0, dtype=np.int64), np.empty(0)
    for at in spans(len(mask)):
        pool = np.concatenate([pool, among(mask, at)])
        scores = np.concatenate([scores, score[at][mask[at]]])
        best = np.sort(np.argsort(-scores, kind="stable")[:size])
        pool, scores = pool[best], scores[best]
    return pool, scores


def facility_location(similarity: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows of similarity (m, r), in the order chosen, that greedily raise
    Σ_r max over chosen of similarity + Σ over chosen of value (m,). Ties fall to the lower number."""
    covered = np.zeros(similarity.shape[1], dtype=similarity.dtype)
    gains = similarity.sum(1, dtype=np.float64) + value
    heap = [(-float(gain), at, 0) for at, gain in enumerate(gains)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count:
        _, at, known = heapq.heappop(heap)
        if known == len(chosen):
            chosen.append(at)
            np.maximum(covered, similarity[at], out=covered)
        else:  # a gain only shrinks, so that an old one is a bound
            gain = float(np.maximum(similarity[at] - covered, 0).sum(dtype=np.float64) + value[at])
            heapq.heappush(heap, (-gain, at, len(chosen)))
    return np.asarray(chosen)

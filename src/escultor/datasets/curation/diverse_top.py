"""The best rows that are not all alike: quality plus facility location, chosen by lazy greedy search.

f(S) = mean over sampled rows of max(similarity to a row of S) + 4 · (sum of the scores in S) / rows wanted
is monotone and submodular, so that greedy search reaches (1 − 1/e) of the best f among the rows considered
(Nemhauser, Wolsey and Fisher 1978); lazy evaluation gives the same choice in less time (Minoux 1978).
"""

from __future__ import annotations

import heapq
import zlib
from dataclasses import replace
from itertools import pairwise

import numpy as np

from escultor.datasets.disk.columns import Numbers, row_windows, selected_rows
from escultor.datasets.disk.rows_on_disk import RowsHandle
from escultor.datasets.rows import CurationRow, full_text
from escultor.datasets.splits import SplitSides
from escultor.errors import InputError
from escultor.text.normalization import words_of

DIMENSIONS = 256
MIN_POOL = 1024  # rows considered at least; otherwise four for each row wanted
MAX_CELLS = 40_000_000  # similarities in memory: 160 MB
MAX_WORDS = 512  # of a row that its vector reads
QUALITY_WEIGHT = 4.0  # of the mean score against the mean similarity


def vector(row: CurationRow) -> np.ndarray:
    """(DIMENSIONS,) signed hashed counts of words and word pairs, square-rooted, of length 1."""
    words = words_of(full_text(row.item))[:MAX_WORDS]
    terms = [*words, *(f"{a} {b}" for a, b in pairwise(words))]
    hashes = np.asarray([zlib.crc32(term.encode("utf-8", "replace")) for term in terms], dtype=np.int64)
    signs = 1.0 - 2.0 * ((hashes >> 16) & 1)
    counts = np.bincount(hashes % DIMENSIONS, weights=signs, minlength=DIMENSIONS)
    counts = np.sign(counts) * np.sqrt(np.abs(counts))
    return (counts / max(1e-12, float(np.linalg.norm(counts)))).astype(np.float32)


def best_diverse_rows(
    rows: RowsHandle, score: Numbers, mask: np.ndarray, count: int
) -> tuple[np.ndarray, str]:
    """(rows,) `count` rows of a mask, and how they were chosen. Considered are the best-scored rows: four
    for each row wanted, 1,024 at least.

    Raises InputError if the mask has fewer rows than wanted.
    """
    if count > (available := int(np.count_nonzero(mask))):
        raise InputError(
            "there are fewer rows to train on than --top asks for",
            f"{available:,} rows, --top {count:,}",
            "at most the rows available",
            "loosen the steps, hold out less or ask for fewer",
        )
    pool, scores = _best_scored(score, mask, max(MIN_POOL, 4 * count))
    vectors = np.stack([vector(row) for row in rows.read(pool)])  # (m, d)
    sample_size = min(len(pool), max(64, MAX_CELLS // len(pool)))
    sample = np.unique(np.linspace(0, len(pool) - 1, sample_size).astype(int))
    similarity = np.maximum(vectors @ vectors[sample].T, 0)  # (m, r)
    chosen = facility_location(similarity, QUALITY_WEIGHT * len(sample) / count * scores, count)
    method = (
        f"top {count:,}: facility location over the {len(pool):,} best-scored rows and {len(sample):,} "
        "sampled ones; at least 1 - 1/e of the best choice among them"
    )
    top = np.zeros(len(mask), dtype=bool)
    top[pool[chosen]] = True
    return top, method


def shrink_held_out(sides: SplitSides, rows: RowsHandle, score: Numbers, count: int) -> SplitSides:
    """The sides with only the best held-out rows: in the same proportion to `count` training rows as all
    held-out rows to all training rows. Held-out prompts are registered for good, so that no more of them
    than needed should be."""
    train, held = (int(np.count_nonzero(side)) for side in (sides.train, sides.held_out))
    wanted = max(1, min(held, round(count * held / max(1, train))))
    return replace(sides, held_out=best_diverse_rows(rows, score, sides.held_out, wanted)[0])


def _best_scored(score: Numbers, mask: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers, ascending, of the best-scored rows of a mask, and their scores; of equal scores the first."""
    pool, scores = np.empty(0, dtype=np.int64), np.empty(0)
    for window in row_windows(len(mask)):
        pool = np.concatenate([pool, selected_rows(mask, window)])
        scores = np.concatenate([scores, score[window][mask[window]]])
        best = np.sort(np.argsort(-scores, kind="stable")[:size])
        pool, scores = pool[best], scores[best]
    return pool, scores


def facility_location(similarity: np.ndarray, value: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows of similarity (m, r), in the order chosen, that greedily maximise
    Σ_r max over chosen of similarity + Σ over chosen of value (m,). Ties go to the lower number."""
    covered = np.zeros(similarity.shape[1], dtype=similarity.dtype)
    gains = similarity.sum(1, dtype=np.float64) + value
    heap = [(-float(gain), row, 0) for row, gain in enumerate(gains)]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count:
        _, row, chosen_then = heapq.heappop(heap)
        if chosen_then == len(chosen):
            chosen.append(row)
            np.maximum(covered, similarity[row], out=covered)
        else:  # a gain only shrinks, so that an old one is an upper bound
            gain = float(np.maximum(similarity[row] - covered, 0).sum(dtype=np.float64) + value[row])
            heapq.heappush(heap, (-gain, row, len(chosen)))
    return np.asarray(chosen)

"""Near duplicates: candidates by MinHash bands, decided by the actual similarity of their words and by their
numbers and symbols.

Broder 1997 (resemblance of documents), Indyk and Motwani 1998 (locality-sensitive hashing).
"""

from __future__ import annotations

from array import array
from collections.abc import Hashable, Sequence
from itertools import chain

import numpy as np

from escultor.text.normalization import contradict, question_key
from escultor.text.shingles import Hashes, RowPart, jaccard, mix64, shingle_sets, shingles

MIN_RECALL = 0.97  # probability with which a pair at the threshold becomes a candidate, at least
NEIGHBOURS = 8  # a row is compared with so many before it in its bucket, and so many at its beginning
BATCH = 100  # rows whose shingles fit the cache of a core
THRESHOLD = 0.75  # the Jaccard similarity from which on questions are one, as for curated rows
PERMUTATIONS = 64
FRAMED_FROM = 20  # wordings; the same words around fewer are what is asked, not a template
_SEED = 1


def bands_for(threshold: float, permutations: int) -> tuple[int, int]:
    """Bands, and rows per band r: the longest bands for which two rows of similarity `threshold` share a
    band with a probability 1 − (1 − sʳ)ᵇ of at least 97 %."""
    for rows in range(permutations, 1, -1):
        bands = permutations // rows
        if 1 - (1 - threshold**rows) ** bands >= MIN_RECALL:
            return bands, rows
    return permutations, 1


def band_hashes(rows: Sequence[Sequence[RowPart]], bands: int, width: int) -> np.ndarray:
    """(rows, bands) uint64: equal in a band with probability (Jaccard similarity of shingles) ** width."""
    batches = (_bands(rows[start : start + BATCH], bands, width) for start in range(0, len(rows), BATCH))
    return np.concatenate([np.empty((0, bands), dtype=np.uint64), *batches])


def _bands(rows: Sequence[Sequence[RowPart]], bands: int, width: int) -> np.ndarray:
    from rensa import RMinHash  # type: ignore[attr-defined]

    tokens, starts = shingles(rows)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(
        tokens, starts.astype(np.uint64), bands * width, _SEED
    )
    # By way of an array: numpy reads lists of lists more slowly.
    values = np.asarray(array("I", chain.from_iterable(digests.to_rows())), dtype=np.uint64)
    signatures = values.reshape(len(rows), bands, width)
    hashes = np.broadcast_to(np.arange(bands, dtype=np.uint64), (len(rows), bands))
    for k in range(width):
        hashes = mix64(hashes ^ signatures[:, :, k])
    return hashes


def candidate_pairs(column: Hashes, numbers: np.ndarray) -> np.ndarray:
    """(m, 2) pairs of row numbers, the earlier first, with equal values in one band: each row with the
    eight before it in its bucket and with the first eight of the bucket."""
    order = np.argsort(column)
    values, ids = column[order], numbers[order]
    # Most rows are alone in their bucket; only the others are put in order.
    as_before = np.zeros(len(values) + 1, dtype=bool)
    np.equal(values[1:], values[:-1], out=as_before[1:-1])
    is_shared = as_before[:-1] | as_before[1:]
    values, ids, as_before = values[is_shared], ids[is_shared], as_before[:-1][is_shared]
    ids = ids[np.lexsort((ids, values))]
    index = np.arange(len(ids))
    start = np.maximum.accumulate(np.where(as_before, 0, index))
    rank = index - start
    pairs = [np.empty((0, 2), dtype=np.int64)]
    for back in range(1, NEIGHBOURS + 1):
        index = np.flatnonzero(rank >= back)
        pairs.append(np.column_stack([ids[index - back], ids[index]]))
    for k in range(NEIGHBOURS):
        index = np.flatnonzero(rank - k > NEIGHBOURS)
        pairs.append(np.column_stack([ids[start[index] + k], ids[index]]))
    return np.concatenate(pairs)


def are_similar(rows: Sequence[Sequence[RowPart]], pairs: np.ndarray, threshold: float) -> np.ndarray:
    """(m,) whether the rows of pairs (m, 2) are similar: the actual Jaccard similarity of their words
    reaches the threshold, and no number or symbol of one contradicts the other."""
    batches = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
    sets = [shingle_set for batch in batches for shingle_set in shingle_sets(batch)]
    similar = (
        _reaches(sets[a], sets[b], threshold) and not contradict(rows[a], rows[b]) for a, b in pairs.tolist()
    )
    return np.fromiter(similar, dtype=bool, count=len(pairs))


def _reaches(a: Hashes, b: Hashes, threshold: float) -> bool:
    # The sizes alone bound the similarity.
    small, large = sorted((len(a), len(b)))
    return small >= threshold * large and jaccard(a, b) >= threshold


# --- questions ------------------------------------------------------------------------------------


def shared_clusters(
    questions: Sequence[Sequence[RowPart]],
    answers: Sequence[Hashable],
    names: Sequence[str],
    framed: bool = True,
) -> list[str]:
    """The cluster of each question, where equal and near-equal ones share one: the first of the names that
    they were given. Questions are equal whose words are, as they look (see `normalization.question_key`);
    near-equal ones have the same `answers` besides. Where they are `framed`, what begins and ends twenty
    questions or more alike, such as an instruction, is not compared. In time near-linear in their number.
    """
    parent = list(range(len(questions)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    def join(i: int, j: int) -> None:
        first, second = sorted((root(i), root(j)))
        parent[second] = first

    seen: dict[Hashable, int] = {}
    exact = [tuple((role, question_key(text)) for role, text in parts) for parts in questions]
    for i, (words, name) in enumerate(zip(exact, names, strict=True)):
        for key in (("words", words), ("name", name)):
            join(i, seen.setdefault(key, i))
    # Each wording once; texts without any word are alike only where they are equal.
    wordings = {words: i for i, words in reversed(list(enumerate(exact)))}
    alone = [i for words, i in wordings.items() if any(c.isalnum() for _, text in words for c in text)]
    own = [list(questions[i]) for i in alone]
    if framed and len(own) >= FRAMED_FROM:
        own = _without_frame(own)
    columns = band_hashes(own, *bands_for(THRESHOLD, PERMUTATIONS))
    found = [candidate_pairs(column, np.arange(len(alone))) for column in columns.T]
    pairs = np.unique(np.concatenate([np.empty((0, 2), dtype=np.int64), *found]), axis=0)
    same = [answers[alone[a]] == answers[alone[b]] for a, b in pairs.tolist()]
    pairs = pairs[np.asarray(same, dtype=bool)]
    for a, b in pairs[are_similar(own, pairs, THRESHOLD)].tolist():
        join(alone[a], alone[b])
    return [names[root(i)] for i in range(len(questions))]


def _without_frame(questions: Sequence[Sequence[RowPart]]) -> list[list[RowPart]]:
    """The questions without the words that all of them begin with, and those that all of them end with."""
    words = [text.split() for parts in questions for _, text in (parts[-1:] or [("", "")])]
    short = min(map(len, words), default=0)
    first, last = (min(words, default=[]), max(words, default=[]))
    begin = next((k for k in range(short) if first[k] != last[k]), short)
    turned = [each[::-1] for each in words]
    first, last = (min(turned, default=[]), max(turned, default=[]))
    end = next((k for k in range(short - begin) if first[k] != last[k]), short - begin)
    return [
        [*parts[:-1], (parts[-1][0], " ".join(each[begin : len(each) - end]))] if parts else []
        for parts, each in zip(questions, words, strict=True)
    ]

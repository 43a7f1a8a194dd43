"""Passages inside longer texts: found by the rarest word 8-grams of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from escultor.text.normalization import symbol_counts, words_of
from escultor.text.shingles import Hashes, ngram_hashes, shingle_sets

NGRAM = 8  # words; a shorter text is too common to be recognised inside another
ANCHORS = 4  # n-grams by which a text is looked up
MIN_SHARE = 0.75  # of a text's shingles
BATCH = 200  # texts whose n-grams are in memory at once


class Phrases:
    """An index of texts of eight words or more, to be found in others word for word or nearly: one of a
    text's four rarest 8-grams occurs there, three quarters of its shingles, and all of its numbers and
    symbols. Case, punctuation and white space are ignored; of scripts without blanks, characters count as
    words."""

    def __init__(self, texts: Iterable[str]):
        found = [(words, text) for text in texts if len(words := words_of(text)) >= NGRAM]
        self._texts = [" ".join(words) for words, _ in found]
        self._symbols = [symbol_counts(text) for _, text in found]
        anchors, owners = _rarest_ngrams(self._texts)
        order = np.argsort(anchors, kind="stable")
        self._anchors, self._owners = anchors[order], owners[order]

    def within(self, texts: Sequence[str]) -> list[bool]:
        """For each text, whether one of the phrases occurs in it."""
        occurs = [False] * len(texts)
        if not self._texts:
            return occurs
        for first, batch, ngrams, owner in _ngrams([" ".join(words_of(text)) for text in texts]):
            low = np.searchsorted(self._anchors, ngrams)
            high = np.searchsorted(self._anchors, ngrams, "right")
            candidates: dict[int, set[int]] = {}  # phrases by text
            for i in np.flatnonzero(high > low).tolist():
                candidates.setdefault(int(owner[i]), set()).update(self._owners[low[i] : high[i]].tolist())
            for number, numbers in candidates.items():
                symbols = symbol_counts(texts[first + number])
                phrases = [self._texts[i] for i in sorted(numbers) if not self._symbols[i] - symbols]
                occurs[first + number] = bool(phrases) and _holds_one(batch[number], phrases)
        return occurs


def _holds_one(text: str, phrases: Sequence[str]) -> bool:
    """Whether one of the phrases occurs in a text, or three quarters of the shingles of one."""
    if any(f" {phrase} " in f" {text} " for phrase in phrases):
        return True
    whole, *sets = shingle_sets([(("", each),) for each in (text, *phrases)])
    shares = (np.isin(each, whole, assume_unique=True).sum() / len(each) for each in sets)
    return any(share >= MIN_SHARE for share in shares)


def _ngrams(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str], Hashes, np.ndarray]]:
    """Batches of texts whose words have one blank between them: the number of the first text, the texts,
    the hashes of their 8-grams, and the text each one lies in."""
    for first in range(0, len(texts), BATCH):
        batch = texts[first : first + BATCH]
        yield first, batch, *ngram_hashes([text.split() for text in batch], NGRAM)


def _rarest_ngrams(texts: Sequence[str]) -> tuple[Hashes, np.ndarray]:
    """(m,) of each text the four 8-grams that occur in the fewest texts, and (m,) the text of each.

    Occurrences are counted in a table of fixed size; two 8-grams in one slot count as more frequent than
    they are, which does no harm."""
    counts = np.zeros(1 << 22, dtype=np.uint32)
    last_slot = np.uint64(len(counts) - 1)
    for _, _, ngrams, _ in _ngrams(texts):
        np.add.at(counts, ngrams & last_slot, 1)
    anchors, owners = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    for first, batch, ngrams, owner in _ngrams(texts):
        order = np.lexsort((ngrams, counts[ngrams & last_slot], owner))
        starts = np.searchsorted(owner[order], np.arange(len(batch)))
        rare = order[np.arange(len(order)) - starts[owner[order]] < ANCHORS]
        anchors.append(ngrams[rare])
        owners.append(owner[rare] + first)
    return np.concatenate(anchors), np.concatenate(owners)

"""Texts that stand word for word within longer ones: found by one run of words of each, the rarest it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from escultor.data.curate.normal import Hashes, grams, words_of

RUN = 8  # words; a shorter text says too little to be known again inside another
BATCH = 200  # texts whose runs are in memory at once


class Phrases:
    """Texts of eight words and more, to be found in others; case, punctuation and white space aside."""

    def __init__(self, texts: Iterable[str]):
        words = (words_of(text) for text in texts)
        known = [" ".join(found) for found in words if len(found) >= RUN]
        anchors = _rarest(known)  # (n,)
        order = np.argsort(anchors, kind="stable")
        self._anchors = anchors[order]
        self._texts = [known[at] for at in order.tolist()]

    def within(self, texts: Sequence[str]) -> list[bool]:
        """For each text whether one of the phrases stands in it."""
        found = [False] * len(texts)
        if not self._texts:
            return found
        for first, own, runs, owner in _runs([" ".join(words_of(text)) for text in texts]):
            low = np.searchsorted(self._anchors, runs)
            high = np.searchsorted(self._anchors, runs, "right")
            for at in np.flatnonzero(high > low).tolist():
                number = int(owner[at])
                if not found[first + number]:
                    text = f" {own[number]} "
                    met = self._texts[int(low[at]) : int(high[at])]
                    found[first + number] = any(f" {phrase} " in text for phrase in met)
        return found


def _runs(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str], Hashes, np.ndarray]]:
    """Some texts at a time, as words with a blank between: the number of the first, the texts, all their
    runs and whose they are."""
    for first in range(0, len(texts), BATCH):
        some = texts[first : first + BATCH]
        yield first, some, *grams([text.split() for text in some], RUN)


def _rarest(texts: Sequence[str]) -> Hashes:
    """(n,) of each text the run that the fewest have, the least of those. How many is counted in a table of
    fixed size; runs that share a place in it count as more frequent than they are, which does no harm."""
    seen = np.zeros(1 << 22, dtype=np.uint32)
    place = np.uint64(len(seen) - 1)
    for _, _, runs, _ in _runs(texts):
        np.add.at(seen, runs & place, 1)
    found = [np.empty(0, dtype=np.uint64)]
    for _, some, runs, owner in _runs(texts):
        order = np.lexsort((runs, seen[runs & place], owner))
        found.append(runs[order][np.searchsorted(owner[order], np.arange(len(some)))])
    return np.concatenate(found)

"""Texts that stand word for word within longer ones: found by one run of words of each, the rarest it has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from escultor.data.curate.normal import Hashes, grams, words_of

RUN = 8  # words; a shorter text says too little to be known again inside another
BATCH = 200  # texts whose runs are in memory at once


class Phrases:
    """Texts of eight words and more, to be found in others; case, punctuation and white space aside."""

    def __init__(self, texts: Sequence[str]):
        words = [found for text in texts if len(found := words_of(text)) >= RUN]
        self._anchors: Hashes = np.empty(0, dtype=np.uint64)
        self._texts: list[str] = []
        if words:
            anchors = _rarest(words)  # (n,)
            order = np.argsort(anchors, kind="stable")
            self._anchors = anchors[order]
            self._texts = [" ".join(words[at]) for at in order.tolist()]

    def within(self, texts: Sequence[str]) -> list[bool]:
        """For each text whether one of the phrases stands in it."""
        found = [False] * len(texts)
        if not self._texts:
            return found
        for first, words, runs, owner in _runs([words_of(text) for text in texts]):
            low = np.searchsorted(self._anchors, runs)
            high = np.searchsorted(self._anchors, runs, "right")
            for at in np.flatnonzero(high > low).tolist():
                number = first + int(owner[at])
                if not found[number]:
                    own = f" {' '.join(words[owner[at]])} "
                    found[number] = any(
                        f" {self._texts[k]} " in own for k in range(int(low[at]), int(high[at]))
                    )
        return found


def _runs(
    words: Sequence[list[str]],
) -> Iterator[tuple[int, Sequence[list[str]], Hashes, np.ndarray]]:
    """Some texts at a time: the number of the first, their words, all their runs and whose they are."""
    for first in range(0, len(words), BATCH):
        some = words[first : first + BATCH]
        yield first, some, *grams(some, RUN)


def _rarest(words: Sequence[list[str]]) -> Hashes:
    """(n,) of each text the run that the fewest others have, the least of those."""
    runs, owner = [], []
    for first, _, found, own in _runs(words):
        runs.append(found)
        owner.append(own + first)
    every, whose = np.concatenate(runs), np.concatenate(owner)
    _, at, counts = np.unique(every, return_inverse=True, return_counts=True)
    order = np.lexsort((every, counts[at], whose))
    return every[order][np.searchsorted(whose[order], np.arange(len(words)))]

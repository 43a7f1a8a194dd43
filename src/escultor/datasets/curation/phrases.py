"""Texts that stand within longer ones: found by a few runs of words of each, the rarest that it has."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from escultor.datasets.curation.normalization import Hashes, grams, window_sets, words_of

RUN = 8  # words; a shorter text says too little to be known again inside another
ANCHORS = 4  # runs by which a text is found
SHARE = 0.75  # of a text's windows
BATCH = 200  # texts whose runs are in memory at once


class Phrases:
    """Texts of eight words and more, to be found in others, word for word or nearly: where one of its four
    rarest runs of words stands and three quarters of its windows. Case, punctuation and white space aside."""

    def __init__(self, texts: Iterable[str]):
        words = (words_of(text) for text in texts)
        self._texts = [" ".join(found) for found in words if len(found) >= RUN]
        anchors, whose = _rarest(self._texts)
        order = np.argsort(anchors, kind="stable")
        self._anchors, self._whose = anchors[order], whose[order]

    def within(self, texts: Sequence[str]) -> list[bool]:
        """For each text whether one of the phrases stands in it."""
        found = [False] * len(texts)
        if not self._texts:
            return found
        for first, own, runs, owner in _runs([" ".join(words_of(text)) for text in texts]):
            low = np.searchsorted(self._anchors, runs)
            high = np.searchsorted(self._anchors, runs, "right")
            met: dict[int, set[int]] = {}
            for at in np.flatnonzero(high > low).tolist():
                met.setdefault(int(owner[at]), set()).update(self._whose[low[at] : high[at]].tolist())
            for number, phrases in met.items():
                some = [self._texts[at] for at in sorted(phrases)]
                found[first + number] = any(f" {phrase} " in f" {own[number]} " for phrase in some) or _holds(
                    own[number], some
                )
        return found


def _holds(text: str, phrases: Sequence[str]) -> bool:
    """Whether a text has three quarters of the windows of one of the phrases, those at its end aside."""
    whole, *each = window_sets([(("", found),) for found in (text, *phrases)])
    shared = (np.isin(found, whole, assume_unique=True).sum() / len(found) for found in each)
    return any(share >= SHARE for share in shared)


def _runs(texts: Sequence[str]) -> Iterator[tuple[int, Sequence[str], Hashes, np.ndarray]]:
    """Some texts at a time, as words with a blank between: the number of the first, the texts, all their
    runs and whose they are."""
    for first in range(0, len(texts), BATCH):
        some = texts[first : first + BATCH]
        yield first, some, *grams([text.split() for text in some], RUN)


def _rarest(texts: Sequence[str]) -> tuple[Hashes, np.ndarray]:
    """(m,) of each text the four runs that the fewest have, and (m,) whose they are. How many have a run is
    counted in a table of fixed size; runs that share a place in it count as more frequent than they are,
    which does no harm."""
    seen = np.zeros(1 << 22, dtype=np.uint32)
    place = np.uint64(len(seen) - 1)
    for _, _, runs, _ in _runs(texts):
        np.add.at(seen, runs & place, 1)
    found, whose = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    for first, some, runs, owner in _runs(texts):
        order = np.lexsort((runs, seen[runs & place], owner))
        starts = np.searchsorted(owner[order], np.arange(len(some)))
        rare = order[np.arange(len(order)) - starts[owner[order]] < ANCHORS]
        found.append(runs[rare])
        whose.append(owner[rare] + first)
    return np.concatenate(found), np.concatenate(whose)

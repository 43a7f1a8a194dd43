"""The control tokens that occur in a text as literals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_PREFIX = 2  # characters by which an occurrence is looked for


class Literals:
    """Finds occurrences of given texts, as a tokenizer does: the first, of those at one place the longest."""

    def __init__(self, texts: Iterable[str]):
        self.texts = frozenset(texts) - {""}
        self._lengths = sorted({len(text) for text in self.texts}, reverse=True)
        prefixes = sorted({text[:_PREFIX] for text in self.texts}, key=len, reverse=True)
        self._begin = re.compile("|".join(map(re.escape, prefixes))) if prefixes else None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of every occurrence, in order; they do not overlap."""
        at = 0
        while self._begin is not None and (begun := self._begin.search(text, at)):
            start = begun.start()
            lengths = (n for n in self._lengths if text[start : start + n] in self.texts)
            if length := next(lengths, 0):
                yield start, start + length
            at = start + max(length, 1)

    def break_up(self, text: str, mark: str) -> str:
        """The text with `mark` after the first character of every occurrence, so that none is left."""
        parts, at = [], 0
        for start, _ in self.find(text):
            parts += [text[at : start + 1], mark]
            at = start + 1
        return "".join([*parts, text[at:]]) if parts else text

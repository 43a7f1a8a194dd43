"""The control tokens that occur in a text as literals."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator


class Literals:
    """Finds occurrences of given texts, as a tokenizer does: the first, of those at one place the longest."""

    def __init__(self, texts: Iterable[str]):
        self.texts = frozenset(texts) - {""}
        self._lengths = sorted({len(text) for text in self.texts}, reverse=True)
        self._compared = min(2, *self._lengths, 2)  # characters that are compared before whole literals are
        self._prefixes = {text[: self._compared] for text in self.texts}
        first = "".join(sorted({re.escape(text[0]) for text in self.texts}))
        self._first = re.compile(f"[{first}]") if first else None

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Start and end of every occurrence, in order; they do not overlap."""
        at = 0
        while self._first is not None and (begun := self._first.search(text, at)):
            start, length = begun.start(), 0
            if text[start : start + self._compared] in self._prefixes:
                found = (text[start : start + n] for n in self._lengths)
                length = next((len(part) for part in found if part in self.texts), 0)
            if length:
                yield start, start + length
            at = start + max(length, 1)

    def break_up(self, text: str, mark: str) -> str:
        """The text with `mark` after every character of every occurrence, so that no literal is left: those
        within others and those that begin within others neither."""
        parts, at = [], 0
        for start, end in self.find(text):
            parts += [text[at:start], *(character + mark for character in text[start:end])]
            at = end
        return "".join([*parts, text[at:]]) if parts else text

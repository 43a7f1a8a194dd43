"""Long documents in sections: cut at headings, else at blank lines, lines or words, until each fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator

_BOUNDARIES = ("\n# ", "\n## ", "\n### ", "\n\n", "\n", " ")  # where to cut, best first
_LONGEST_TOKEN = 12  # characters of a token on average at most: a longer text is cut without counting


def sections(text: str, limit: int, count: Callable[[str], int]) -> Iterator[str]:
    """The parts of a text, in order, each of at most `limit` by `count` (such as tokens). What they hold,
    joined, is the text up to white space at the cuts."""
    waiting = [text.strip()]
    while waiting:
        part = waiting.pop()
        if len(part) <= 1 or (len(part) <= limit * _LONGEST_TOKEN and count(part) <= limit):
            if part:
                yield part
            continue
        at = _cut(part)
        waiting += [part[at:].strip(), part[:at].strip()]


def _cut(text: str) -> int:
    """Where to cut a text in two: the best boundary near its middle, else its middle."""
    middle, quarter = len(text) // 2, len(text) // 4
    for boundary in _BOUNDARIES:
        before = text.rfind(boundary, middle - quarter, middle + len(boundary))
        after = text.find(boundary, middle, middle + quarter)
        found = [at for at in (before, after) if at > 0]
        if found:
            return min(found, key=lambda at: abs(at - middle))
    return max(1, middle)

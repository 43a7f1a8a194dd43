"""Which part of an answer is scored: up to a stop text, and of that what a pattern extracts."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from escultor.errors import DataError
from escultor.patterns import linear_pattern


@dataclass(frozen=True, slots=True)
class AnswerParts:
    """`stop`: texts before which an answer ends. `extract`: a pattern (RE2) of the part that metrics read:
    its last match in the answer, or that match's group where it has one; empty: the whole answer."""

    stop: tuple[str, ...] = ()
    extract: str = ""

    def problems(self) -> list[str]:
        """What is wrong with the patterns and stop texts, in words."""
        found = ["`stop` has an empty text"] if "" in self.stop else []
        if self.extract:
            try:
                groups = linear_pattern(self.extract, "`extract`").groups
            except DataError as error:
                return [*found, str(error)]
            if groups > 1:
                found.append(f"`extract` has {groups} groups; one at most, the others as (?:…)")
        return found

    def extracted(self, answer: str) -> str | None:
        """The part of an answer that metrics read; None where the pattern matches nowhere."""
        if not self.extract:
            return answer
        pattern = linear_pattern(self.extract)
        last = deque(pattern.finditer(answer.encode("utf-8", "replace")), maxlen=1)
        return (last[0][pattern.groups] or b"").decode("utf-8", "replace").strip() if last else None


def before_stop(text: str, stops: Sequence[str]) -> str:
    """A text up to the first of the texts that stop it."""
    for stop in stops:
        text = text.partition(stop)[0]
    return text

"""The documentation of the installed packages, split: what is learnt from and what is judged by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from escultor.data.sources.documentation import (
    Gold,
    balanced,
    documents,
    golds,
    is_held_out,
    is_traffic,
    records,
)
from escultor.data.sources.python_docs import DocEntry, mine
from escultor.types import Document, Example

Roots = Sequence[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class Corpus:
    entries: tuple[DocEntry, ...]
    train: tuple[Gold, ...]
    traffic: tuple[Gold, ...]
    held_out: tuple[Gold, ...]
    counts: dict[str, int]

    def examples(self, count: int) -> list[Example]:
        return [gold.example() for gold in balanced(self.train, count)]

    def documents(self) -> list[Document]:
        """What a base is pre-trained on: the training packages alone."""
        return documents(e for e in self.entries if not is_held_out(e.package))

    def records(self) -> list[Document]:
        """What a base's second stage reads: the training packages' documents with their Trinities."""
        return records([e for e in self.entries if not is_held_out(e.package)])


def read_corpus(cache: Path, roots: Roots | None = None) -> Corpus:
    """Mine packages (default: all installed) and split them; a package stays on one side."""
    entries = mine(cache, roots)
    counts: Counter[str] = Counter()
    all_golds = golds(entries, counts)
    train = [g for g in all_golds if not is_held_out(g.package)]
    return Corpus(
        tuple(entries),
        tuple(g for g in train if not is_traffic(g)),
        tuple(g for g in train if is_traffic(g)),
        tuple(g for g in all_golds if is_held_out(g.package)),
        dict(counts),
    )

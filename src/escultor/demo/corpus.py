"""The documentation of the installed packages, split into a training side and a held-out side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from escultor.demo.documentation import (
    Gold,
    balanced,
    documents,
    golds,
    is_held_out,
    is_traffic,
    records,
)
from escultor.demo.python_docs import DocEntry, mine
from escultor.types import Document, Example

Roots = Sequence[tuple[str, Path]]


@dataclass(frozen=True, slots=True)
class Corpus:
    """Documented objects, and the golds (documents with the Trinities of their authors) made of them: those
    to train on, those that simulated users ask about, and those of held-out packages."""

    entries: tuple[DocEntry, ...]
    train: tuple[Gold, ...]
    traffic: tuple[Gold, ...]
    held_out: tuple[Gold, ...]
    counts: dict[str, int]

    def examples(self, count: int) -> list[Example]:
        return [gold.example() for gold in balanced(self.train, count)]

    def documents(self) -> list[Document]:
        """The documents to pre-train a base on: those of the training packages."""
        return documents(e for e in self.entries if not is_held_out(e.package))

    def records(self) -> list[Document]:
        """The documents of the training packages with their Trinities, for the second stage of a base."""
        return records([e for e in self.entries if not is_held_out(e.package)])


def read_corpus(cache: Path | None = None, roots: Roots | None = None) -> Corpus:
    """Mine packages (default: all installed) and split them; a package stays on one side. The folder `cache`
    keeps what was mined."""
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

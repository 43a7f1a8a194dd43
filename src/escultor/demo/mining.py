"""The documentation of the installed packages as rows to train on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from escultor.demo import corpus
from escultor.demo.corpus import Corpus
from escultor.demo.documentation import balanced, documents, is_held_out
from escultor.types import Document, Example

MinedKind = Literal["trinity", "documents"]
SplitSide = Literal["train", "held-out"]
DEFAULT_KIND: MinedKind = "trinity"


def mined_rows(
    kind: MinedKind, split: SplitSide, limit: int | None = None, cache: Path | None = None
) -> Sequence[Example | Document]:
    """Prompts with the answers that the authors wrote, or plain text, of the packages that are trained on or
    of those that never are. A limit keeps the packages in balance, and takes the texts of lowest hash, a
    uniform sample in any order. The folder `cache` keeps what was mined."""
    found = corpus.read_corpus(cache)
    if kind == "documents":
        return _documents(found, split == "held-out", limit)
    golds = found.train if split == "train" else found.held_out
    return [gold.example() for gold in (golds if limit is None else balanced(golds, limit))]


def _documents(found: Corpus, held_out: bool, limit: int | None) -> list[Document]:
    entries = (e for e in found.entries if is_held_out(e.package) is held_out)
    by_id = {document.id: document for document in documents(entries)}
    return [by_id[id] for id in (by_id if limit is None else sorted(by_id)[:limit])]

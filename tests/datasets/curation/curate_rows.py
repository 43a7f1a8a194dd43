"""Rows that the tests of curation share."""

from __future__ import annotations

import json
import random
from pathlib import Path

from escultor.datasets.curation.labels import with_labels
from escultor.datasets.rows import CurationRow, parse_row

SAID = (
    "river stone garden window letter morning copper thunder velvet market engine harbour pencil "
    "silver forest kettle ladder mirror needle orange planet quarry ribbon saddle timber valley "
    "winter yellow"
)
WORDS = SAID.split()


def text(seed: object, count: int = 60) -> str:
    """Words by chance: two seeds give texts that are not alike."""
    draw = random.Random(str(seed))
    words = [draw.choice(WORDS) + draw.choice(("", "s", "ed", "ing", "er", "ly")) for _ in range(count)]
    return " ".join(words).capitalize() + "."


def changed(said: str, seed: object, edits: int = 1) -> str:
    """The text with some words replaced."""
    draw, words = random.Random(str(seed)), said.split()
    for at in draw.sample(range(len(words)), edits):
        words[at] = f"changed{draw.randrange(1000)}"
    return " ".join(words)


def example(seed: object, **more: object) -> dict[str, object]:
    return {"prompt": text(f"p{seed}", 30), "completion": text(f"c{seed}", 40), **more}


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def row(data: dict[str, object] | str) -> CurationRow:
    """The row of an example, or of a document for text."""
    kind = "document" if isinstance(data, str) else "example"
    return with_labels(parse_row(kind, {"text": data} if isinstance(data, str) else data, "test", 1))

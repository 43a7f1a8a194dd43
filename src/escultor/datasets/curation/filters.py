"""Steps that look at one row: its language, its length, how much it repeats itself."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.curation.rows import CurationRow, Dropped, learnt, whole

RUN = 5  # words in a row that make a repetition
MIN_WORDS = 20  # shorter rows have no repetition to speak of


@cache
def identifier() -> Any:
    """What tells languages: 70 MB, and 30 more while it is read."""
    from py3langid import langid

    return langid._get_identifier()


def language(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """The language by py3langid over the first characters; too short a row is `und` and kept."""
    text = whole(row.item)[: settings.language.characters]
    told = len(text.split()) >= settings.language.min_words
    code = identifier().classify(text)[0] if told else "und"
    if told and settings.language.keep and code not in settings.language.keep:
        return Dropped(f"language {code}")
    return row.label("language", code)


def length(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Words of what is learnt, and of the whole row."""
    if len(learnt(row.item).split()) < settings.length.min_words:
        return Dropped("too short")
    if len(whole(row.item).split()) > settings.length.max_words:
        return Dropped("too long")
    return row


def repetition(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """How much of the learnt text was in it before: lines, and words in runs of five.

    The measures are those of Rae et al. 2021 (arXiv:2112.11446, table A1), over one length of run.
    """
    text = learnt(row.item)
    words = text.split()
    if len(words) < MIN_WORDS:
        return row
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and 1 - len(set(lines)) / len(lines) > settings.repetition.max_lines:
        return Dropped("lines repeated")
    if repeated_share(words) > settings.repetition.max_words:
        return Dropped("words repeated")
    return row


def repeated_share(words: list[str]) -> float:
    """The share of runs of five words that occurred before; 0 for fewer than five words."""
    runs = Counter(zip(*(words[i:] for i in range(RUN)), strict=False))
    total = max(0, len(words) - RUN + 1)
    return 1 - len(runs) / total if total else 0.0

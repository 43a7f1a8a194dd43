"""Steps that filter single rows: by language, length and repetition."""

from __future__ import annotations

from functools import cache
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.rows import CurationRow, Dropped, full_text, target_text

NGRAM = 5  # words
MIN_WORDS = 20  # the repetition of shorter texts is not measured


@cache
def language_identifier() -> Any:
    """The language model of py3langid: 70 MB, and 30 more while it loads."""
    from py3langid import langid

    return langid._get_identifier()


def language(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Label a row with its language, by py3langid over the first characters, and drop other languages than
    those to keep. Too short a row gets `und` and is kept."""
    text = full_text(row.item)[: settings.language.characters]
    if len(text.split()) < settings.language.min_words:
        return row.with_label("language", "und")
    code = language_identifier().classify(text)[0]
    if settings.language.keep and code not in settings.language.keep:
        return Dropped(f"language {code}")
    return row.with_label("language", code)


def length(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Drop a row with too few words to learn, or too many in all."""
    if len(target_text(row.item).split()) < settings.length.min_words:
        return Dropped("too short")
    if len(full_text(row.item).split()) > settings.length.max_words:
        return Dropped("too long")
    return row


def repetition(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Drop a row whose target text repeats too many of its lines or word 5-grams.

    The measures of Rae et al. 2021 (arXiv:2112.11446, table A1), with one length of n-gram.
    """
    text = target_text(row.item)
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
    """The share of word 5-grams that occurred before; 0 for fewer than five words."""
    ngrams = set(zip(*(words[i:] for i in range(NGRAM)), strict=False))
    total = max(0, len(words) - NGRAM + 1)
    return 1 - len(ngrams) / total if total else 0.0

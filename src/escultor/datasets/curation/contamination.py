"""The decontaminate step: rows that share text with a registered evaluation suite are dropped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from escultor.config.curation import Curation
from escultor.datasets.rows import CurationRow, Dropped, text_parts
from escultor.text.normalization import (
    CHARACTERS_PER_WORD,
    has_characters,
    words_of,
    words_with_symbols,
)
from escultor.text.shingles import Hashes, mix64, ngram_hashes

MIN_CHARACTERS = 8  # a shorter text without blanks is too common to be recognised inside another


@dataclass(frozen=True, slots=True)
class NgramTable:
    """N-grams of suites as sorted hashes: of their words, and of these with the symbols between them."""

    words: Hashes
    exact: Hashes

    def finds(self, texts: Sequence[tuple[str, list[str]]], count: int) -> bool:
        """Whether a text, given with its words, has one of these n-grams of `count` words."""
        if not _is_in(ngram_hashes([words for _, words in texts], count)[0], self.words).any():
            return False
        # Symbols are looked at in the few texts with the same words.
        return any(_is_in(_ngrams(text, words, count)[1], self.exact).any() for text, words in texts)


@dataclass(frozen=True, slots=True)
class SuiteTexts:
    """The texts of suites as tables by number of words: n-grams that no row may have, texts that no prompt
    or document may hold, and shorter texts that none may be."""

    words: int
    ngrams: Mapping[int, NgramTable]
    passages: Mapping[int, NgramTable]
    short_texts: Mapping[int, NgramTable]


def index_texts(texts: Iterable[str], words: int) -> SuiteTexts:
    """The hashes of every text of the suites: prompts, reference answers and documents. Of texts without
    blanks, two characters count as a word."""
    found: list[defaultdict[int, list[tuple[Hashes, Hashes]]]] = [defaultdict(list) for _ in range(3)]
    ngrams, passages, short_texts = found
    for text in texts:
        each = words_of(text)
        is_characters = has_characters(each)
        count = words * CHARACTERS_PER_WORD if is_characters else words
        if len(each) >= count:
            ngrams[count].append(_ngrams(text, each, count))
        elif each:
            short_texts[len(each)].append(_ngrams(text, each, len(each)))
            if is_characters and len(each) >= MIN_CHARACTERS:
                passages[len(each)].append(_ngrams(text, each, len(each)))
    return SuiteTexts(words, *({n: _table(pairs) for n, pairs in sorted(by.items())} for by in found))


def _table(pairs: Sequence[tuple[Hashes, Hashes]]) -> NgramTable:
    return NgramTable(*(np.unique(np.concatenate(hashes)) for hashes in zip(*pairs, strict=True)))


def _ngrams(text: str, words: list[str], count: int) -> tuple[Hashes, Hashes]:
    """The hashes of a text's n-grams of words, and those of these n-grams with the symbols inside them."""
    plain, _ = ngram_hashes([words], count)
    inner, _ = ngram_hashes([words_with_symbols(text)], max(1, count - 1))
    return plain, mix64(plain ^ inner[: len(plain)]) if count > 1 else plain


def decontaminate(row: CurationRow, settings: Curation, context: SuiteTexts | None) -> CurationRow | Dropped:
    """Drop a row that shares an n-gram (13 words by default, or 26 characters of a script without blanks)
    with a suite text, or whose prompt or document has a part that is, word for word, a suite text of fewer
    words, or that holds one of eight characters or more. Symbols between the words must be the same.

    The rule of Brown et al. 2020 (arXiv:2005.14165, appendix C), without its exception for frequent
    n-grams."""
    if context is None:
        return row
    parts = [(role, text, words_of(text)) for role, text in text_parts(row.item)]
    texts = [(text, words) for _, text, words in parts]
    for count, table in context.ngrams.items():
        if table.finds(texts, count):
            unit = "words" if count == context.words else "characters"
            return Dropped(f"shares {count} {unit} with an evaluation item")
    # Short answers ("yes", "42") are no evidence; a short question is.
    asked = [(text, words) for role, text, words in parts if role.startswith(("prompt", "text"))]
    for text, words in asked:
        table = context.short_texts.get(len(words))
        if table is not None and table.finds([(text, words)], len(words)):
            return Dropped("is an evaluation item")
        for count, table in context.passages.items() if not text.isascii() else ():
            if table.finds([(text, words)], count):
                return Dropped("holds an evaluation item")
    return row


def _is_in(values: Hashes, table: Hashes) -> np.ndarray:
    """(n,) whether each of values (n,) is in a sorted table: by binary search, as the table is the
    larger."""
    if not len(table):
        return np.zeros(len(values), dtype=bool)
    index = np.searchsorted(table, values)
    index[index == len(table)] = 0
    return table[index] == values

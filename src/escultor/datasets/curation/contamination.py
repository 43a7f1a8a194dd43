"""The decontaminate step: rows that share text with a registered evaluation suite are dropped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from escultor.config.curation import Curation
from escultor.datasets.rows import CurationRow, Dropped, text_parts
from escultor.datasets.similarity.normalization import Hashes, ngram_hashes, text_hash, words_of


@dataclass(frozen=True, slots=True)
class SuiteTexts:
    """The texts of suites as sorted hashes: of n-grams of `words` words, and of shorter texts as a whole."""

    words: int
    ngrams: Hashes
    short_texts: Hashes

    def shares_ngram(self, texts: Sequence[Sequence[str]]) -> bool:
        """Whether any text shares an n-gram with a suite."""
        hashes, _ = ngram_hashes(texts, self.words)
        return bool(_is_in(hashes, self.ngrams).any())

    def contains(self, words: Sequence[str]) -> bool:
        """Whether a short text is, word for word, a short text of a suite."""
        if not words or len(words) >= self.words:
            return False
        return bool(_is_in(np.asarray([text_hash(words)], dtype=np.uint64), self.short_texts)[0])


def index_texts(texts: Iterable[str], words: int) -> SuiteTexts:
    """The hashes of every text of the suites: prompts, reference answers and documents."""
    ngrams: list[Hashes] = [np.empty(0, dtype=np.uint64)]
    short_texts: list[int] = []
    for text in texts:
        each = words_of(text)
        if len(each) >= words:
            ngrams.append(ngram_hashes([each], words)[0])
        elif each:
            short_texts.append(text_hash(each))
    short = np.unique(np.asarray(short_texts, dtype=np.uint64))
    return SuiteTexts(words, np.unique(np.concatenate(ngrams)), short)


def decontaminate(row: CurationRow, settings: Curation, context: SuiteTexts | None) -> CurationRow | Dropped:
    """Drop a row that shares an n-gram (13 words by default) with a suite text, or whose prompt or document
    has a part that is, word for word, a suite text of fewer words.

    The rule of Brown et al. 2020 (arXiv:2005.14165, appendix C), without its exception for frequent n-grams.
    """
    if context is None:
        return row
    parts = [(role, words_of(text)) for role, text in text_parts(row.item)]
    if context.shares_ngram([words for _, words in parts]):
        return Dropped(f"shares {context.words} words with an evaluation item")
    # Short answers ("yes", "42") are no evidence; a short question is.
    if any(context.contains(words) for role, words in parts if role.startswith(("prompt", "text"))):
        return Dropped("is an evaluation item")
    return row


def _is_in(values: Hashes, table: Hashes) -> np.ndarray:
    """(n,) whether each of values (n,) is in a sorted table: by binary search, as the table is the larger."""
    if not len(table):
        return np.zeros(len(values), dtype=bool)
    index = np.searchsorted(table, values)
    index[index == len(table)] = 0
    return table[index] == values

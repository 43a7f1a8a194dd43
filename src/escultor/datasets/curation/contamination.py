"""What a model will be examined on must not be in what it learns from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from escultor.config.curation import Curation
from escultor.datasets.curation.normalization import Hashes, grams, whole_hash, words_of
from escultor.datasets.curation.rows import CurationRow, Dropped, parts_of


@dataclass(frozen=True, slots=True)
class SuiteTexts:
    """What the registered suites hold: sorted hashes of runs of `words` words, and of texts that are shorter
    than that as wholes."""

    words: int
    runs: Hashes
    wholes: Hashes
    texts: int

    def shares_run(self, texts: Sequence[Sequence[str]]) -> bool:
        """Whether any text has a run of words in common with an examined one."""
        found, _ = grams(texts, self.words)
        return bool(len(self.runs) and len(found) and _member(found, self.runs).any())

    def is_whole(self, words: Sequence[str]) -> bool:
        """Whether a short text is an examined one word for word."""
        if not words or len(words) >= self.words or not len(self.wholes):
            return False
        return bool(_member(np.asarray([whole_hash(words)], dtype=np.uint64), self.wholes)[0])


def examined(texts: Iterable[str], words: int) -> SuiteTexts:
    """The hashes of every text of the suites: prompts and reference answers."""
    runs: list[Hashes] = [np.empty(0, dtype=np.uint64)]
    wholes: list[int] = []
    count = 0
    for text in texts:
        found = words_of(text)
        count += 1
        if len(found) >= words:
            runs.append(grams([found], words)[0])
        elif found:
            wholes.append(whole_hash(found))
    return SuiteTexts(
        words, np.unique(np.concatenate(runs)), np.unique(np.asarray(wholes, dtype=np.uint64)), count
    )


def decontaminate(row: CurationRow, settings: Curation, context: SuiteTexts | None) -> CurationRow | Dropped:
    """Left out is a row that has 13 words in a row in common with an examined text, or of which a part is,
    word for word, an examined text of fewer words than that.

    The rule of Brown et al. 2020 (arXiv:2005.14165, appendix C), without its exception for common runs.
    """
    if context is None:
        return row
    texts = [words_of(text) for _, text in parts_of(row.item)]
    if context.shares_run(texts):
        return Dropped(f"shares {context.words} words with an evaluation item")
    # Short answers ("yes", "42") are no evidence; a short question is.
    if any(
        context.is_whole(words)
        for words, (role, _) in zip(texts, parts_of(row.item), strict=True)
        if role.startswith(("prompt", "text"))
    ):
        return Dropped("is an evaluation item")
    return row


def _member(values: Hashes, table: Hashes) -> np.ndarray:
    at = np.searchsorted(table, values)
    at[at == len(table)] = 0
    return table[at] == values

"""Text metrics: pure functions of an answer and its reference, each in [0, 1] except bits per byte."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection

from escultor.errors import DataError

WORD = re.compile(r"\w+")


def words(text: str) -> list[str]:
    """Lower-cased word tokens: runs of letters, digits and underscores of any script."""
    return WORD.findall(text.lower())


def f1(overlap: int, candidate: int, reference: int) -> float:
    """Harmonic mean of precision and recall from three counts; two empty sides agree (1.0)."""
    return 1.0 if candidate == reference == 0 else 2 * overlap / (candidate + reference)


def rouge_l(candidate: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, eq. 2-4 with beta = 1), no stemming."""
    from rapidfuzz.distance import LCSseq

    ours, theirs = words(candidate), words(reference)
    return f1(LCSseq.similarity(ours, theirs), len(ours), len(theirs))


def exact_match(candidate: str, reference: str) -> float:
    """1.0 if both are the same text up to Unicode composition (NFC) and white space, else 0.0."""
    return float(_normal(candidate) == _normal(reference))


def _normal(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def set_f1(candidate: Collection[str], reference: Collection[str]) -> float:
    """F1 of two sets of strings; order and repetition do not count, two empty sets agree (1.0).

    A single string is refused: it would be read as a set of letters.
    """
    for side in (candidate, reference):
        if isinstance(side, str):
            raise DataError(
                "a string is no set of strings", repr(side[:40]), "a list, tuple or set of strings"
            )
    ours, theirs = set(candidate), set(reference)
    return f1(len(ours & theirs), len(ours), len(theirs))


def bits_per_byte(nll_nats_sum: float, n_bytes: int) -> float:
    """Summed negative log-likelihood in nats / (ln 2 · UTF-8 bytes): comparable across tokenizers."""
    if n_bytes <= 0 or not math.isfinite(nll_nats_sum):
        raise DataError(
            "bits per byte cannot be formed",
            f"{nll_nats_sum} nats over {n_bytes} bytes",
            "finite nats over at least one byte",
            "score a text that is not empty",
        )
    return nll_nats_sum / (math.log(2) * n_bytes)

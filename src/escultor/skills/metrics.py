"""Text metrics: pure functions of an answer and its reference, in [0, 1]; and bits per byte.

All compare texts in one Unicode form (`text_forms.normal_form`)."""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Collection
from fractions import Fraction

from escultor.errors import DataError
from escultor.skills.numbers import DecimalMark, final_number
from escultor.skills.refusals import begins_with_refusal
from escultor.skills.text_forms import folded, normal_form, spread, terms, words

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)
CHRF_ORDER, CHRF_BETA = 6, 2


def f1(overlap: int, candidate: int, reference: int) -> float:
    """Harmonic mean of precision and recall from three counts; two empty sides agree (1.0)."""
    return 1.0 if candidate == reference == 0 else 2 * overlap / (candidate + reference)


def rouge_l(candidate: str, reference: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004, eq. 2-4 with beta = 1), no stemming."""
    from rapidfuzz.distance import LCSseq

    ours, theirs = words(candidate), words(reference)
    return f1(LCSseq.similarity(ours, theirs), len(ours), len(theirs))


def exact_match(
    candidate: str, reference: str, *, ignore_case: bool = False, ignore_punctuation: bool = False
) -> float:
    """1.0 if both are the same text up to Unicode form (`text_forms.normal_form`) and white space, else 0.0;
    without regard to case and punctuation where asked."""
    form = folded if ignore_case else normal_form
    ours, theirs = form(candidate), form(reference)
    if ignore_punctuation:
        ours, theirs = (" ".join(_without_punctuation(text).split()) for text in (ours, theirs))
    return float(ours == theirs)


def contains(candidate: str, reference: str) -> float:
    """1.0 if the candidate contains the reference's words, whole and in sequence, else 0.0.

    Numbers, contractions and names such as C++ are whole words: "3.14" does not contain 3, nor "don't" don.
    """
    ours, theirs = terms(candidate), terms(reference)
    width = len(theirs)
    return float(width > 0 and any(ours[i : i + width] == theirs for i in range(len(ours) - width + 1)))


def includes(candidate: str, reference: str) -> float:
    """1.0 if the reference stands anywhere in the candidate, inside words too and whatever the case."""
    wanted = folded(reference)
    return float(bool(wanted) and wanted in folded(candidate))


def token_f1(candidate: str, reference: str) -> float:
    """F1 of two bags of words, without regard to case, punctuation and English articles (SQuAD; Rajpurkar et
    al. 2016, arXiv:1606.05250); two empty sides agree (1.0). In scripts without blanks each character is a
    word."""
    ours, theirs = Counter(_squad_words(candidate)), Counter(_squad_words(reference))
    return f1((ours & theirs).total(), ours.total(), theirs.total())


def _squad_words(text: str) -> list[str]:
    return spread(_ARTICLES.sub(" ", _without_punctuation(folded(text)))).split()


def _without_punctuation(text: str) -> str:
    """ASCII punctuation is taken out, as SQuAD does; that of other scripts, which may stand between words
    without a blank, becomes one."""
    text = text.translate(_PUNCTUATION)
    if text.isascii():
        return text
    return "".join(" " if unicodedata.category(c).startswith("P") else c for c in text)


def numeric_answer(
    candidate: str,
    reference: str,
    *,
    decimal: DecimalMark = ".",
    tolerance: float | str = 0,
    units: bool = False,
) -> float:
    """1.0 if both have the same final number (GSM8K; Cobbe et al. 2021, arXiv:2110.14168), else 0.0.

    18, 18.0, $18 and "#### 18" are one number, as are 0.5, 0,5 and 1/2; see `numbers.final_number`.

    decimal: the mark before decimals where both readings are possible. tolerance: the greatest difference, in
    units of the number, or as a percentage of the reference ("1%"). units: what stands behind the reference's
    number must stand behind the answer's too.
    """
    ours, theirs = final_number(candidate, decimal), final_number(reference, decimal)
    if ours is None or theirs is None or (units and theirs.unit and ours.unit != theirs.unit):
        return 0.0
    return float(abs(ours.value - theirs.value) <= _allowed(tolerance, theirs.value))


def _allowed(tolerance: float | str, reference: Fraction) -> Fraction:
    if isinstance(tolerance, str):
        return Fraction(tolerance.removesuffix("%")) / 100 * abs(reference)
    return Fraction(str(tolerance))


def chrf(candidate: str, reference: str) -> float:
    """Character n-gram F-score, n = 1 to 6, beta = 2, white space left out (Popović 2015, W15-3049).

    Precision and recall are averaged over the orders that both sides are long enough for, as in sacrebleu,
    whose scale is [0, 100].
    """
    ours, theirs = (normal_form(text).replace(" ", "") for text in (candidate, reference))
    orders = min(CHRF_ORDER, len(ours), len(theirs))
    if orders == 0:
        return 0.0
    precision = recall = 0.0
    for n in range(1, orders + 1):
        mine = Counter(ours[i : i + n] for i in range(len(ours) - n + 1))
        gold = Counter(theirs[i : i + n] for i in range(len(theirs) - n + 1))
        same = (mine & gold).total()
        precision, recall = precision + same / mine.total(), recall + same / gold.total()
    weight = CHRF_BETA**2
    if precision == 0:
        return 0.0
    return (1 + weight) * precision * recall / (orders * (weight * precision + recall))


def refused(answer: str) -> bool:
    """Whether an answer begins with a refusal, by phrases in five languages (`escultor.skills.refusals`).

    It does not see an evasive answer: it measures refusal, not safety.
    """
    return begins_with_refusal(answer)


def set_f1(candidate: Collection[str], reference: Collection[str]) -> float:
    """F1 of two sets of strings; order and repetition do not count, two empty sets agree (1.0).

    Raises DataError for a single string, which would be read as a set of letters.
    """
    for side in (candidate, reference):
        if isinstance(side, str):
            allowed = "a list, tuple or set of strings"
            raise DataError("a string is no set of strings", repr(side[:40]), allowed)
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

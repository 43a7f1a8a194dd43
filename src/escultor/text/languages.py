"""The language of a text, by py3langid."""

from __future__ import annotations

from functools import cache
from typing import Any

from escultor.text.normalization import word_count

MIN_PROBABILITY = 0.6  # of a language, by py3langid; tables, commands and lists of names reach 0.05
MIN_WORDS = 5
UNDETERMINED = "und"


@cache
def language_identifier() -> Any:
    """The language model of py3langid, with calibrated probabilities: 70 MB, and 30 more while it loads."""
    from py3langid import langid

    return langid._load_identifier(norm_probs=True)


def text_language(text: str) -> str:
    """The ISO 639-1 code of a short text's language; `und` for few words and where it is uncertain."""
    if word_count(text) < MIN_WORDS:
        return UNDETERMINED
    code, probability = language_identifier().classify(text)
    return code if probability >= MIN_PROBABILITY else UNDETERMINED

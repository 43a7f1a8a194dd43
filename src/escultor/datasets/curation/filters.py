"""Steps on single rows: language, length, repetition, and damage by wrong encodings or remains of HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from escultor.config.curation import Curation, Language
from escultor.datasets.rows import CurationRow, Dropped, full_text, map_texts, prompt_text, target_text
from escultor.text.languages import MIN_PROBABILITY, UNDETERMINED, language_identifier
from escultor.text.normalization import (
    CHARACTERS_PER_WORD,
    has_characters,
    word_count,
    words_of,
)
from escultor.types import Document

NGRAM = 5  # words
MIN_WORDS = 20  # the repetition of shorter texts is not measured

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufff9-\ufffb]")
_MARKUP = re.compile(
    r"</?(?:a|abbr|b|body|br|button|center|code|div|em|font|footer|form|h[1-6]|head|header|hr|html|i|iframe|"
    r"img|input|label|li|link|meta|nav|noscript|ol|option|p|pre|script|section|select|small|span|strong|"
    r"style|sub|sup|svg|table|tbody|td|th|thead|tr|u|ul)\b[^<>]{0,300}>|&(?:[a-z]{2,8}|#\d{1,6});",
    re.I,
)
# UTF-8 decoded as Windows-1252: the first byte of a sequence, then what its next bytes became.
_MOJIBAKE = re.compile(
    "[\u00c2-\u00f4][\u0080-\u00bf\u20ac\u201a\u0192\u201e\u2026\u2020\u2021\u02c6\u2030\u0160\u2039\u0152"
    "\u017d\u2018\u2019\u201c\u201d\u2022\u2013\u2014\u02dc\u2122\u0161\u203a\u0153\u017e\u0178]+"
)
LOST = "\ufffd"


def language(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Label a row with its language, and drop other languages than those to keep. Rows too short to tell,
    code and rows in several languages get `und`, are counted and kept."""
    code = language_of(row, settings.language)
    if code == UNDETERMINED:
        return replace(row.with_label("language", code), notes=(*row.notes, "language undetermined"))
    if settings.language.keep and code not in settings.language.keep:
        wanted = ", ".join(settings.language.keep)
        return Dropped(f"language {code}, and language.keep is {wanted}: add {code} to keep it, or empty it")
    return row.with_label("language", code)


def language_of(row: CurationRow, settings: Language) -> str:
    """The ISO 639-1 code of a row's language by py3langid, of the beginnings of its prompt and of what it
    teaches (of a document: its beginning and its middle), which must agree; `und` otherwise."""
    if row.labels.get("style") == "code":
        return UNDETERMINED
    size = settings.characters // 2
    target = target_text(row.item)
    is_document = isinstance(row.item, Document)
    first, second = (target, target[len(target) // 2 :]) if is_document else (prompt_text(row.item), target)
    if is_document and len(target) < 2 * settings.characters:
        first, second = target[: settings.characters], ""
    excerpts = [first[: size if second else settings.characters], second[:size]]
    if any(word_count(excerpt) < settings.min_words for excerpt in excerpts):
        excerpts = ["\n".join(excerpts)]
    if any(word_count(excerpt) < settings.min_words for excerpt in excerpts):
        return UNDETERMINED
    guesses = [language_identifier().classify(excerpt) for excerpt in excerpts]
    is_certain = all(probability >= MIN_PROBABILITY for _, probability in guesses)
    codes = {code for code, _ in guesses}
    return codes.pop() if is_certain and len(codes) == 1 else UNDETERMINED


def length(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Drop a row with too few words to learn, or too many in all. Of scripts without blanks, two characters
    count as a word."""
    if word_count(target_text(row.item)) < settings.length.min_words:
        return Dropped("too short")
    if word_count(full_text(row.item)) > settings.length.max_words:
        return Dropped("too long")
    return row


def repetition(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Drop a row whose target text repeats too many of its lines or word 5-grams (10-grams of characters
    where words have no blanks between them).

    The measures of Rae et al. 2021 (arXiv:2112.11446, table A1), with one length of n-gram.
    """
    text = target_text(row.item)
    if word_count(text) < MIN_WORDS:
        return row
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if len(lines) > 1 and 1 - len(set(lines)) / len(lines) > settings.repetition.max_lines:
        return Dropped("lines repeated")
    characters = [] if text.isascii() else words_of(text)
    words = characters if has_characters(characters) else text.split()
    if repeated_share(words) > settings.repetition.max_words:
        return Dropped("words repeated")
    return row


def repeated_share(words: Sequence[str]) -> float:
    """The share of word 5-grams (of characters of scripts without blanks: 10-grams) that occurred before; 0
    for fewer words."""
    size = NGRAM * (CHARACTERS_PER_WORD if has_characters(words) else 1)
    ngrams = set(zip(*(words[i:] for i in range(size)), strict=False))
    total = max(0, len(words) - size + 1)
    return 1 - len(ngrams) / total if total else 0.0


# --- damage -------------------------------------------------------------------------------------


def damage(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Repair what has one reading and drop what cannot be repaired.

    Control characters are removed; UTF-8 that was decoded as Windows-1252 is decoded again. Rows with lost
    characters and rows that are mostly markup are dropped.
    """
    text = full_text(row.item)
    if text.count(LOST) > settings.damage.max_replaced * len(text):
        return Dropped("characters lost")
    if ("<" in text or "&" in text) and markup_share(text) > settings.damage.max_markup:
        return Dropped("mostly markup")
    if text.isascii() and not _CONTROL.search(text):
        return row
    repaired = map_texts(row.item, _repair)
    if repaired == row.item:
        return row
    after = full_text(repaired)
    if not after.strip():
        return Dropped("nothing but control characters")
    had_control = bool(_CONTROL.search(text))
    had_mojibake = bool(_MOJIBAKE.search(text)) and not _MOJIBAKE.search(after)
    notes = ("control characters taken out",) * had_control + ("encoding mended",) * had_mojibake
    return replace(row, item=repaired, notes=(*row.notes, *notes))


def markup_share(text: str) -> float:
    """The share of characters in HTML tags and entities."""
    return sum(len(match) for match in _MARKUP.findall(text)) / max(1, len(text))


def _repair(text: str) -> str:
    # The encoding first: some of its bytes look like control characters.
    return _CONTROL.sub("", _MOJIBAKE.sub(_decode_again, text))


def _decode_again(match: re.Match[str]) -> str:
    """UTF-8 that was decoded as Windows-1252, decoded as UTF-8; the text itself if that is not UTF-8."""
    try:
        # Bytes that Windows-1252 leaves undefined were kept as control characters.
        data = b"".join(c.encode("latin-1" if 0x80 <= ord(c) < 0xA0 else "cp1252") for c in match[0])
        return data.decode("utf-8")
    except UnicodeError:
        return match[0]

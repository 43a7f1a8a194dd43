"""One form for texts that read the same: Unicode composition, compatibility letters, quotes and blanks; and
the words of any script."""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

import regex

# Written without blanks between words: each character counts as a word (as in MLQA, arXiv:1910.07475).
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_CHARACTER = rf"[{_UNSPACED}]\p{{M}}*+"
_LETTERS = rf"[[\w\p{{M}}]--[{_UNSPACED}]]"
_ASCII_WORD = re.compile(r"\w+")
_WORD = regex.compile(rf"{_CHARACTER}|{_LETTERS}++", regex.V1)
_UNSPACED_CHARACTER = regex.compile(_CHARACTER, regex.V1)
# A signed number, or a word with its contraction (don't) or the signs that belong to it (C++, C#).
_TERM = regex.compile(
    rf"(?:(?<![\w)\]])[-+])?\d++(?:[.,]\d++)*+(?!\w)|{_CHARACTER}"
    rf"|{_LETTERS}++(?:'(?:t|re|ve|ll|d|m)\b|[+#]++(?!\w))?",
    regex.V1,
)
_BLANKS = re.compile(r"\s+")
# Invisible characters that change no reading: zero-width spaces, soft hyphens, marks of direction.
_INVISIBLE = dict.fromkeys(
    (0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
)
_ALIKE = _INVISIBLE | str.maketrans("‘’‚‛ʼ′“”„‟″‐‑−﹣－", "''''''\"\"\"\"\"-----")
_KEPT = ("<super>", "<sub>", "<fraction>")  # 10² is not 102, and 1½ is not 11/2


def normal_form(text: str) -> str:
    """A text in NFKC, without invisible characters, with straight quotes and hyphens, and in runs of white
    space a single blank. Raised and lowered digits and fractions stay what they are."""
    if not text.isascii():
        text = text.translate(_ALIKE)
        if not unicodedata.is_normalized("NFKC", text):
            text = unicodedata.normalize("NFC", text)
            text = unicodedata.normalize("NFC", "".join(map(_compatible, text)))
    return _BLANKS.sub(" ", text).strip()


@lru_cache(maxsize=4096)
def _compatible(character: str) -> str:
    if unicodedata.decomposition(character).startswith(_KEPT):
        return character
    return unicodedata.normalize("NFKC", character)


def folded(text: str) -> str:
    """The normal form without regard to case: Straße is STRASSE, and İstanbul istanbul."""
    text = normal_form(text)
    return text.lower() if text.isascii() else text.casefold().replace("i\u0307", "i")


def words(text: str) -> list[str]:
    """Words without regard to case: runs of letters, digits and underscores of any script; of scripts
    that put no blanks between words, each character."""
    text = folded(text)
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text)


def terms(text: str) -> list[str]:
    """Words as a search takes them: 3.14, -5, don't, C++ and C# are one each."""
    return _TERM.findall(folded(text))


def spread(text: str) -> str:
    """A text with blanks around each character of scripts that put none between words."""
    return text if text.isascii() else _UNSPACED_CHARACTER.sub(r" \g<0> ", text)

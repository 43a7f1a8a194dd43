"""What a recogniser of private data is: a pattern, and the check of its matches."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

CONTEXT_BEFORE = 48  # characters before a match in which a word may say what it is
CONTEXT_AFTER = 16

Check = Callable[[re.Match[str]], bool]

# What must not stand beside a number. Letters of other alphabets may, since not all write blanks.
BEFORE = r"(?<![\w.+/$-])"
AFTER = r"(?![\w/+-]|[.,]\d)"
_DIGITS = re.compile(r"\d(?:\D{0,2}\d){6,}", re.ASCII)  # seven with two characters between them at most
_BEFORE_DIGITS, _AFTER_DIGITS = 24, 32  # characters that may belong to the same number: letters of an IBAN


@dataclass(frozen=True, slots=True)
class Recogniser:
    """One form of private data. `kind` is its key among the settings, `name` its placeholder, `countries`
    those it is looked for in (none: always). A text for which `needs` is false holds none and is not
    searched; a form that `needs` the digits of numbers (`number_zones`) is searched for around them
    alone."""

    kind: str
    pattern: re.Pattern[str]
    check: Check = lambda match: True
    needs: Callable[[str], object] | None = None
    name: str = ""
    countries: tuple[str, ...] = ()

    @property
    def placeholder(self) -> str:
        """What takes the place of a match."""
        return f"[{(self.name or self.kind).upper()}]"


def pattern(form: str, flags: int = 0) -> re.Pattern[str]:
    """A pattern over text in which digits, blanks and dashes are ASCII: letters of other alphabets are not
    `\\w`."""
    return re.compile(form, re.ASCII | flags)


def number_zones(text: str) -> list[tuple[int, int]]:
    """Where numbers of seven digits and more may stand, with what may belong to them on both sides."""
    zones: list[tuple[int, int]] = []
    for match in _DIGITS.finditer(text):
        start, end = max(0, match.start() - _BEFORE_DIGITS), min(len(text), match.end() + _AFTER_DIGITS)
        if zones and start <= zones[-1][1]:
            start = zones.pop()[0]
        zones.append((start, end))
    return zones


def any_of(*parts: str) -> Callable[[str], bool]:
    """Whether a text has one of these parts; faster than a pattern of alternatives."""
    return lambda text: any(part in text for part in parts)


def any_word_of(*some: str) -> Callable[[str], bool]:
    """Whether one of these words stands between blanks in a text."""
    wanted = frozenset(some)
    return lambda text: not wanted.isdisjoint(_words_between_blanks(text))


@lru_cache(maxsize=1)
def _words_between_blanks(text: str) -> frozenset[str]:
    return frozenset(text.split())


def words(*alternatives: str) -> re.Pattern[str]:
    """A pattern of words that say what a number beside them is. Those of five letters and fewer are whole
    words, longer ones beginnings; those in capitals count in capitals alone."""
    ends = [word if len(word) > 5 else f"{word}(?![a-zA-Z])" for word in alternatives]
    forms = [end if word.isupper() else f"(?i:{end})" for word, end in zip(alternatives, ends, strict=True)]
    return re.compile(f"(?<![a-zA-Z])(?:{'|'.join(forms)})")


def has_context(match: re.Match[str], context: re.Pattern[str]) -> bool:
    """Whether one of the words stands shortly before or just after a match."""
    text, (start, end) = match.string, match.span()
    before, after = text[max(0, start - CONTEXT_BEFORE) : start], text[end : end + CONTEXT_AFTER]
    return bool(context.search(before) or context.search(after))


def digits_of(text: str) -> str:
    """The digits of a text alone."""
    return "".join(c for c in text if c.isdigit())


class _Plain(dict[int, str | int]):
    def __missing__(self, code: int) -> str | int:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Nd":
            value: str | int = str(unicodedata.digit(character))
        elif 0xFF01 <= code <= 0xFF5E:  # full width
            value = chr(code - 0xFEE0)
        elif category == "Zs":
            value = " "
        else:
            value = "-" if category == "Pd" or code == 0x2212 else code
        self[code] = value
        return value


_PLAIN = _Plain()


def plain(text: str) -> str:
    """A text of equal length with digits, blanks, dashes and full-width letters in ASCII."""
    return text if text.isascii() else text.translate(_PLAIN)

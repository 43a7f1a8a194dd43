"""IBANs in text (ISO 13616): a search pattern with each country's length; `stdnum` checks what it matches."""

from __future__ import annotations

import re
from itertools import product
from string import ascii_uppercase

from stdnum import iban, numdb

MIN_DIGITS = 8  # the pattern also matches words in lower case, which have none
_GAP = "[ \u00a0-]"


def iban_pattern() -> re.Pattern[str]:
    """What an IBAN looks like, in one piece or grouped by four, in either case: exactly as many characters
    as its country defines, so that a word after it is not taken for a part of it."""
    registry = numdb.get("iban")
    countries: dict[tuple[int, str], list[str]] = {}  # by length of the account number and its characters
    for country in map("".join, product(ascii_uppercase, repeat=2)):
        structure = registry.info(country)[0][1].get("bban")
        if structure:
            fields = re.findall(r"(\d+)!([nac])", structure)
            characters = r"\d" if {kind for _, kind in fields} == {"n"} else "[A-Za-z0-9]"
            countries.setdefault((sum(int(n) for n, _ in fields), characters), []).append(country)
    forms = []
    for (length, characters), names in sorted(countries.items()):
        full, rest = divmod(length, 4)
        tail = f"{_GAP}?{characters}{{{rest}}}" if rest else ""
        forms.append(rf"(?i:{'|'.join(names)})\d\d(?:{_GAP}?{characters}{{4}}){{{full}}}{tail}")
    return re.compile(rf"(?<!\w)(?=[A-Za-z]{{2}}\d\d)(?:{'|'.join(forms)})(?!\w)")


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: its country's structure, and 1 modulo 97 (ISO 7064)."""
    compact = re.sub(_GAP, "", text)
    if not compact.isascii() or sum(c.isdigit() for c in compact) < MIN_DIGITS:
        return False
    return iban.is_valid(compact, check_country=False)

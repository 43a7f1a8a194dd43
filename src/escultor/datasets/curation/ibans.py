"""Bank accounts of ISO 13616: the lengths that countries give them, and the check modulo 97."""

from __future__ import annotations

import re

# Length by country, from the registry of SWIFT. In the first table the account is digits alone, in the
# second letters may stand among them.
_DIGITS = (
    "AE23 AT20 BA20 BE16 BI27 CR22 CZ24 DE22 DJ27 DK18 EE20 EG29 ES24 FI18 FO18 GL18 HR21 HU28 IL23 IS26 "
    "LT20 LY25 ME22 MN20 MR27 NO15 PL28 PT25 RS22 SD18 SE24 SI19 SK24 SO23 ST25 TL23 TN24 VA22 XK20"
)
_LETTERS = (
    "AD24 AL28 AZ28 BG22 BH22 BR29 BY28 CH21 CY28 DO28 FK18 FR27 GB22 GE22 GI23 GR27 GT28 HN28 IE22 IQ23 "
    "IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LU20 LV21 MC27 MD24 MK19 MT31 MU30 NI28 NL18 OM23 PK24 PS29 QA29 "
    "RO24 RU33 SA24 SC31 SM27 SV28 TR26 UA29 VG24 YE30"
)
_LENGTHS = {each[:2]: int(each[2:]) for each in f"{_DIGITS} {_LETTERS}".split()}
_LEAST_DIGITS = 8  # words in lower case have none
_GAP = "[ \u00a0-]"


def pattern() -> re.Pattern[str]:
    """What an IBAN looks like, in one piece or grouped by four, in either case: as many characters as its
    country gives it, so that a word behind it is none of it."""
    shapes: dict[tuple[int, str], list[str]] = {}
    for table, kind in ((_DIGITS, r"\d"), (_LETTERS, "[A-Za-z0-9]")):
        for each in table.split():
            shapes.setdefault((int(each[2:]), kind), []).append(each[:2])
    ways = []
    for (length, kind), countries in sorted(shapes.items()):
        full, rest = divmod(length - 4, 4)
        names = "|".join(f"[{a}{a.lower()}][{b}{b.lower()}]" for a, b in countries)
        ways.append(
            rf"(?:{names})\d\d(?:{_GAP}?{kind}{{4}}){{{full}}}" + (f"{_GAP}?{kind}{{{rest}}}" if rest else "")
        )
    return re.compile(rf"(?<!\w)(?=[A-Za-z]{{2}}\d\d)(?:{'|'.join(ways)})(?!\w)")


def is_iban(found: str) -> bool:
    """Whether a text is an IBAN: of its country's length, and 1 modulo 97 with letters as two digits, rotated
    by four."""
    compact = re.sub(_GAP, "", found).upper()
    if len(compact) != _LENGTHS.get(compact[:2]) or not compact.isalnum() or not compact.isascii():
        return False
    if sum(c.isdigit() for c in compact) < _LEAST_DIGITS:
        return False
    return int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1

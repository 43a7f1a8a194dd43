"""Personal data and secrets: recognisers with checks, and what is put in their place."""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from escultor.config.curation import Curation
from escultor.datasets.curation import ibans
from escultor.datasets.curation.rows import CurationRow, Dropped, rewritten, whole


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A kind of private data: what it looks like and the check it passes. A text without one of `needs`
    holds none, and is not searched."""

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] = lambda found: True
    needs: re.Pattern[str] | None = None


def luhn(digits: str) -> bool:
    """Whether the digits pass the check of ISO/IEC 7812-1 (Luhn)."""
    numbers = [int(c) for c in digits if c.isdigit()]
    doubled = (n if i % 2 == 0 else n * 2 - 9 * (n > 4) for i, n in enumerate(reversed(numbers)))
    return sum(doubled) % 10 == 0


# The first digits and lengths that issuers give out: Visa, Mastercard, American Express, Diners Club, JCB,
# Maestro, Discover and UnionPay. A time written as 14 digits is none.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12}|"
    r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|(?:5[06-8]|6)\d{11,17}"
)


def _is_card(found: str) -> bool:
    digits = "".join(c for c in found if c.isdigit())
    return bool(_ISSUED.fullmatch(digits)) and len(set(digits)) > 1 and luhn(digits)


def _is_phone(found: str) -> bool:
    digits = "".join(c for c in found if c.isdigit()).removeprefix("00")
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2


def _is_public(found: str) -> bool:
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


def entropy(text: str) -> float:
    """Shannon's entropy of the characters, in bits each."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _is_random(found: str) -> bool:
    """A token of 32 or more that mixes digits and both cases and is close to random. A hash in hex, at most
    four bits a character, is none, nor are names and paths, which consist of words."""
    kinds = (str.isdigit, str.isupper, str.islower)
    mixed = all(any(kind(c) for c in found) for kind in kinds) and entropy(found) >= 4.2
    # Of random letters and digits 0.3 % reach this share at 32 characters, at 40 0.1 %.
    return mixed and sum(map(len, _WORDS.findall(found))) < 0.7 * len(found)


_WORDS = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}|\d{4,}")
_FILES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "pdf")


def _is_address(found: str) -> bool:
    """Not a picture's name (logo@2x.png), nor how git names a server."""
    return not found.startswith("git@") and not found.lower().endswith(_FILES)


# Country codes that the ITU gave out. Behind `00` one of them must follow, and the rest in groups: numbers
# that begin with zeros are many.
_COUNTRY = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2(?:1[1-368]|[2-6]\d|9[0179])|"
    r"(?:35|37|38|50|59|67|68|69|96|97|99)\d|42[013]|85[0-6]|88[06])"
)
_AREA = r"(?:\(\d{1,4}\)[ .-]?)?"
_PLUS = rf"(?:\(\+\d{{1,3}}\)|\+\d{{1,3}})[ .-]?{_AREA}\d{{1,4}}(?:[ .-]?\d{{2,4}}){{1,4}}"
_ZEROS = (  # and not in the middle of a longer number
    rf"(?<!\d{{4}}[ .-])(?:\(00{_COUNTRY}\)[ .-]?|00{_COUNTRY}(?:[ .-]|(?=\()))"
    rf"{_AREA}\d{{1,4}}(?:[ .-]?\d{{2,4}}){{1,4}}"
)
_GROUPED = rf"(?<![\w.+/=-])(?:{_PLUS}|{_ZEROS})(?![\w/=-])"
_AMERICAN = r"(?<![\w.+/=$-])(?:1[ .-])?(?:\(\d{3}\) ?\d{3}[ .-]|\d{3}[.-]\d{3}[.-])\d{4}(?![\w/=-])"
_V6 = r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6}(?![\w:])"
_DIGITS = re.compile(r"\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d")

RECOGNISERS = (
    Recogniser(
        "secret",
        re.compile(
            r"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----.*?(?:-----END (?:[A-Z]+ )*PRIVATE KEY-----|\Z)", re.S
        ),
        needs=re.compile("PRIVATE KEY-----"),
    ),
    Recogniser(
        "secret",
        re.compile(
            r"(?<!\w)(?:(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|"
            r"github_pat_\w{22,}|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,}|xox[abprs]-[\w-]{10,}|"
            r"AIza[\w-]{35}|sk-[\w-]{20,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{16,}|"
            r"[sr]k_live_[A-Za-z0-9]{16,}|SG\.[\w-]{16,}\.[\w-]{16,})"
        ),
        needs=re.compile(
            r"AKIA|ASIA|AGPA|AIDA|AROA|gh[pousr]_|github_pat_|eyJ|xox|AIza|sk-|glpat-|hf_|npm_|pypi-|k_live_|SG\."
        ),
    ),
    Recogniser(
        "secret",
        re.compile(r"(?<![\w+/=.-])[A-Za-z0-9+/_-]{32,}={0,2}(?![\w+/-])"),
        _is_random,
        re.compile(r"[A-Za-z0-9+/_-]{32}"),
    ),
    Recogniser(
        "email",
        re.compile(
            r"(?<![\w.+%@-])[A-Za-z0-9](?:[\w.+%'-]{0,62}\w)?@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+"
            r"[A-Za-z]{2,24}(?!\w)"
        ),
        _is_address,
        re.compile("@"),
    ),
    Recogniser("iban", ibans.pattern(), ibans.is_iban, _DIGITS),
    Recogniser(  # in one piece, or grouped as on a card: by four, or four, six and the rest
        "card",
        re.compile(
            r"(?<![\w.+])(?:\d{13,19}|"
            r"\d{4}([ -])(?:\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{6}\1\d{4,5}))(?!\w)"
        ),
        _is_card,
        _DIGITS,
    ),
    Recogniser(
        "ip",
        re.compile(rf"(?<![\w.])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?![\w]|\.\d)|{_V6}"),
        _is_public,
        re.compile(r"\d\.\d{1,3}\.\d|[0-9a-fA-F]:[0-9a-fA-F:]+:"),
    ),
    Recogniser("phone", re.compile(f"{_GROUPED}|{_AMERICAN}"), _is_phone, _DIGITS),
)


def redacted(
    text: str, found: list[tuple[str, str]] | None = None, kinds: frozenset[str] | None = None
) -> str:
    """The text with everything private of these kinds (None: of all) replaced by `[KIND]`; what was there is
    added to `found`. A text that is redacted again stays as it is."""
    for each in RECOGNISERS:
        if (kinds is not None and each.kind not in kinds) or (each.needs and not each.needs.search(text)):
            continue

        def put(match: re.Match[str], each: Recogniser = each) -> str:
            if not each.check(match[0]):
                return match[0]
            if found is not None:
                found.append((each.kind, match[0]))
            return f"[{each.kind.upper()}]"

        text = each.pattern.sub(put, text)
    return text


def private(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Redacts or leaves out, kind by kind, and notes each that was found."""
    found: list[tuple[str, str]] = []
    redacted(whole(row.item), found)
    if not found:
        return row
    chosen = settings.private.model_dump()
    present = Counter(kind for kind, _ in found)
    for kind in present:
        if chosen[kind] == "drop":
            return Dropped(f"holds {kind}")
    notes = (
        *row.notes,
        *(f"{kind} {'redacted' if chosen[kind] == 'redact' else 'kept'}" for kind in present),
    )
    kinds = frozenset(kind for kind in present if chosen[kind] == "redact")
    return replace(row, item=rewritten(row.item, lambda text: redacted(text, None, kinds)), notes=notes)

"""Personal data and secrets: recognisers with checks, and their replacement by placeholders."""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product
from string import ascii_uppercase
from typing import Any

from stdnum import iban, luhn, numdb

from escultor.config.curation import Curation
from escultor.datasets.rows import CurationRow, Dropped, full_text, map_texts


@dataclass(frozen=True, slots=True)
class Recogniser:
    """A kind of private data: its pattern, and the check that a match must pass. A text without a match of
    `needs` holds none and is not searched."""

    kind: str
    pattern: re.Pattern[str]
    check: Callable[[str], bool] = lambda text: True
    needs: re.Pattern[str] | None = None


# The leading digits and lengths that card issuers use: Visa, Mastercard, American Express, Diners Club, JCB,
# Maestro, Discover and UnionPay. They exclude times written as 14 digits.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12}|"
    r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|(?:5[06-8]|6)\d{11,17}"
)


def _digits(text: str) -> str:
    return "".join(c for c in text if c.isdigit())


def _is_card(text: str) -> bool:
    digits = _digits(text)
    return bool(_ISSUED.fullmatch(digits)) and len(set(digits)) > 1 and luhn.is_valid(digits)


def _is_phone(text: str) -> bool:
    digits = _digits(text).removeprefix("00")
    return 8 <= len(digits) <= 15 and len(set(digits)) > 2


def _is_public_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and not address.is_multicast


def entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def _is_random(text: str) -> bool:
    """Whether a token of 32 characters or more mixes digits and both cases and is close to random. This
    excludes hexadecimal hashes (at most four bits a character), and names and paths, made of words."""
    kinds = (str.isdigit, str.isupper, str.islower)
    is_mixed = all(any(kind(c) for c in text) for kind in kinds) and entropy(text) >= 4.2
    # Of random letters and digits 0.3 % reach this share of words at 32 characters, 0.1 % at 40.
    return is_mixed and sum(map(len, _WORDS.findall(text))) < 0.7 * len(text)


_WORDS = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}|\d{4,}")
_FILES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "pdf")


def _is_email(text: str) -> bool:
    """Whether a match is neither the name of an image (logo@2x.png) nor a git server's address."""
    return not text.startswith("git@") and not text.lower().endswith(_FILES)


# Country codes assigned by the ITU. After `00` one of them must follow, and the rest in groups, because many
# other numbers begin with zeros.
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
_SEVEN_DIGITS = re.compile(r"\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d\D{0,2}\d")

# --- IBANs (ISO 13616) --------------------------------------------------------------------------

MIN_IBAN_DIGITS = 8  # the pattern also matches words in lower case, which have none
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
    if not compact.isascii() or sum(c.isdigit() for c in compact) < MIN_IBAN_DIGITS:
        return False
    return iban.is_valid(compact, check_country=False)


# --- the recognisers ----------------------------------------------------------------------------

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
        _is_email,
        re.compile("@"),
    ),
    Recogniser("iban", iban_pattern(), is_iban, _SEVEN_DIGITS),
    Recogniser(  # in one piece, or grouped as on a card: by four, or four, six and the rest
        "card",
        re.compile(
            r"(?<![\w.+])(?:\d{13,19}|"
            r"\d{4}([ -])(?:\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{6}\1\d{4,5}))(?!\w)"
        ),
        _is_card,
        _SEVEN_DIGITS,
    ),
    Recogniser(
        "ip",
        re.compile(rf"(?<![\w.])(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?![\w]|\.\d)|{_V6}"),
        _is_public_address,
        re.compile(r"\d\.\d{1,3}\.\d|[0-9a-fA-F]:[0-9a-fA-F:]+:"),
    ),
    Recogniser("phone", re.compile(f"{_GROUPED}|{_AMERICAN}"), _is_phone, _SEVEN_DIGITS),
)


def redacted(
    text: str, matches: list[tuple[str, str]] | None = None, kinds: frozenset[str] | None = None
) -> str:
    """The text with all private data of these kinds (None: every kind) replaced by `[KIND]`. Kind and text
    of each replacement are appended to `matches`. Idempotent."""
    for recogniser in RECOGNISERS:
        if kinds is not None and recogniser.kind not in kinds:
            continue
        if recogniser.needs and not recogniser.needs.search(text):
            continue

        def replace_match(match: re.Match[str], recogniser: Recogniser = recogniser) -> str:
            if not recogniser.check(match[0]):
                return match[0]
            if matches is not None:
                matches.append((recogniser.kind, match[0]))
            return f"[{recogniser.kind.upper()}]"

        text = recogniser.pattern.sub(replace_match, text)
    return text


def private(row: CurationRow, settings: Curation, context: Any) -> CurationRow | Dropped:
    """Redact, drop or keep a row by each kind of private data in it, and note every kind that is present."""
    matches: list[tuple[str, str]] = []
    redacted(full_text(row.item), matches)
    if not matches:
        return row
    action = settings.private.model_dump()
    present = dict.fromkeys(kind for kind, _ in matches)
    for kind in present:
        if action[kind] == "drop":
            return Dropped(f"holds {kind}")
    notes = (f"{kind} {'redacted' if action[kind] == 'redact' else 'kept'}" for kind in present)
    kinds = frozenset(kind for kind in present if action[kind] == "redact")
    item = map_texts(row.item, lambda text: redacted(text, None, kinds))
    return replace(row, item=item, notes=(*row.notes, *notes))

"""Secrets, e-mail addresses, bank accounts, cards and addresses of the network: the same in every
country."""

from __future__ import annotations

import ipaddress
import math
import re
from collections import Counter
from itertools import product
from string import ascii_uppercase

from stdnum import iban, luhn, numdb

from escultor.datasets.recognisers.recogniser import (
    Recogniser,
    any_of,
    digits_of,
    has_context,
    number_zones,
    pattern,
    words,
)

# --- secrets --------------------------------------------------------------------------------------


def entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


_WORDS = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}|\d{4,}")
_CHANGE = re.compile(r"(?<=[A-Za-z])\d|(?<=\d)[A-Za-z]")
_PARTS = re.compile(r"[-_/=+]+")
_IS_NAMED = re.compile(r"[a-z\d]+|[A-Z\d]+|(?:[A-Z][a-z]*)+\d{0,3}")  # of one case, or as classes are written


def is_random(text: str) -> bool:
    """Whether a token of 32 characters or more mixes digits and both cases and is close to random. This
    excludes hexadecimal hashes (at most four bits a character), names, paths, packages and classes, made of
    words."""
    kinds = (str.isdigit, str.isupper, str.islower)
    if not all(any(kind(c) for c in text) for kind in kinds) or entropy(text) < 4.2:
        return False
    # Of random letters and digits 0.3 % reach this share of words at 32 characters, 0.1 % at 40, and 0.7 %
    # change
    # between letters and digits fewer than three times.
    if sum(map(len, _WORDS.findall(text))) >= 0.7 * len(text) or len(_CHANGE.findall(text)) < 2:
        return False
    parts = [part for part in _PARTS.split(text) if part]
    named = sum(len(part) for part in parts if _IS_NAMED.fullmatch(part))
    return len(parts) < 3 or named < 0.5 * len(text)


_PEM = pattern(
    r"-----BEGIN (?:[A-Z]+ ){0,4}PRIVATE KEY-----.*?(?:-----END (?:[A-Z]+ ){0,4}PRIVATE KEY-----|\Z)", re.S
)
_KNOWN_KEY = pattern(
    r"(?<!\w)(?:(?:AKIA|ASIA|AGPA|AIDA|AROA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|"
    r"xox[abprs]-[\w-]{10,}|AIza[\w-]{35}|sk-[\w-]{20,}|glpat-[\w-]{20,}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|"
    r"pypi-[\w-]{16,}|[sr]k_live_[A-Za-z0-9]{16,}|(?<!-)SG\.[\w-]{16,}\.[\w-]{16,}|"
    r"(?<!-)eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]{8,})"
)
_KEY_BEGINS = (
    "AKIA ASIA AGPA AIDA AROA ghp_ gho_ ghu_ ghs_ ghr_ github_pat_ eyJ xox "
    "AIza sk- glpat- hf_ npm_ pypi- k_live_ SG."
)


def _is_key(match: re.Match[str]) -> bool:
    """Whether what begins as a key is one: names of packages and classes (sk-toggleable__content) are
    words."""
    if not match[0].startswith(("sk-", "pypi-", "glpat-", "xox")):
        return True
    rest = match[0].partition("-")[2]
    return any(c.isdigit() for c in rest) and sum(map(len, _WORDS.findall(rest))) < 0.7 * len(rest)


# --- e-mail ---------------------------------------------------------------------------------------

_FILES = ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "pdf", "js", "css")
_ATTRIBUTES = (
    "shape",
    "dot",
    "inv",
    "conj",
    "mean",
    "sum",
    "transpose",
    "reshape",
    "view",
    "item",
    "copy",
    "diag",
)


def _is_email(match: re.Match[str]) -> bool:
    """Whether a match is neither the name of an image (logo@2x.png), a git server's address, nor a product
    of matrices (x@y.shape)."""
    last = match[0].rpartition(".")[2].lower()
    return not match[0].startswith("git@") and last not in (*_FILES, *_ATTRIBUTES)


_LATIN_EMAIL = pattern(
    r"(?<![\w.+%@-])[A-Za-z0-9](?:[\w.+%'-]{0,62}\w)?@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}"
    r"(?:[A-Za-z]{2,24}|xn--[A-Za-z0-9-]{2,59})(?!\w)"
)
# In any script: the local part and the domain of what is neither a blank nor a mark of punctuation.
_LETTER = r"[^\s@.,;:!?<>()\[\]{}\"'`|\\/、。，；：！？“”‘’「」（）…]"
_ANY_EMAIL = re.compile(
    rf"(?<![\w.+%@-]){_LETTER}{{1,64}}(?:\.{_LETTER}{{1,64}}){{0,4}}@(?:{_LETTER}{{1,63}}\.){{1,8}}"
    r"(?![\d_])(?:[^\W\d_]|[\u0300-\u036f\u0900-\u0dff\u0e00-\u0eff]){2,24}"
)


_FOREIGN_AT = re.compile(r"[^\x00-\x7f]@|@[^\s@]{0,63}[^\x00-\x7f]")


def _has_foreign_email(text: str) -> bool:
    return not text.isascii() and "@" in text and bool(_FOREIGN_AT.search(text))


def _is_other_email(match: re.Match[str]) -> bool:
    return not match[0].isascii() and _is_email(match)


# --- IBANs (ISO 13616) ----------------------------------------------------------------------------

MIN_IBAN_DIGITS = 8  # the pattern also matches words in lower case, which have none
_GAP = "[ -]"


def iban_pattern() -> re.Pattern[str]:
    """What an IBAN looks like, in one piece or grouped by four, in either case: exactly as many characters
    as its country defines, so that a word after it is not taken for a part of it."""
    registry = numdb.get("iban")
    countries: dict[tuple[int, str], list[str]] = {}  # by length of the account number and its characters
    for country in map("".join, product(ascii_uppercase, repeat=2)):
        structure = registry.info(country)[0][1].get("bban")
        if structure:
            fields = re.findall(r"(\d{1,3})!([nac])", structure)
            characters = r"\d" if {kind for _, kind in fields} == {"n"} else "[A-Za-z0-9]"
            countries.setdefault((sum(int(n) for n, _ in fields), characters), []).append(country)
    forms = []
    for (length, characters), names in sorted(countries.items()):
        full, rest = divmod(length, 4)
        tail = f"{_GAP}?{characters}{{{rest}}}" if rest else ""
        forms.append(rf"(?i:{'|'.join(names)})\d\d(?:{_GAP}?{characters}{{4}}){{{full}}}{tail}")
    return pattern(rf"(?<!\w)(?=[A-Za-z]{{2}}\d\d)(?:{'|'.join(forms)})(?!\w)")


def is_iban(text: str) -> bool:
    """Whether a text is an IBAN: its country's structure, and 1 modulo 97 (ISO 7064)."""
    compact = re.sub(_GAP, "", text)
    if not compact.isascii() or sum(c.isdigit() for c in compact) < MIN_IBAN_DIGITS:
        return False
    return iban.is_valid(compact, check_country=False)


# --- cards ----------------------------------------------------------------------------------------

# The leading digits and lengths that card issuers use: Visa, Mastercard, American Express, Diners Club,
# JCB,
# Maestro, Discover and UnionPay. They exclude times written as 14 digits.
_ISSUED = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})|(?:5[1-5]\d\d|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720))\d{12}|"
    r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35\d{14}|(?:5[06-8]|6)\d{11,17}"
)
_CARD = pattern(  # in one piece, or grouped as on a card: by four, or four, six and the rest
    r"(?<![\w.+])(?:\d{13,19}|\d{4}([ -])(?:\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{6}\1\d{4,5}))(?!\w)"
)


def _is_card(match: re.Match[str]) -> bool:
    digits = digits_of(match[0])
    return bool(_ISSUED.fullmatch(digits)) and len(set(digits)) > 1 and luhn.is_valid(digits)


# --- addresses of the network ---------------------------------------------------------------------

_V4 = pattern(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?!\w|\.\d)")
_V6 = pattern(r"(?<![\w:.])(?:[0-9a-fA-F]{1,4}:){2,7}(?::?[0-9a-fA-F]{1,4}){1,6}(?![\w:])")
_VERSION = re.compile(
    r"(?:\b(?:versions?|versão|versões|versión|versioni?|ver|vers|releases?|build|rev|revision|firmware|driver|"
    r"kernel|oid|section|sdk|api|requires?|since|package|chapter|(?:upgraded?|updated?) to|"
    r"(?:changed|added) in)\b"
    r"[\s.:=#`\"'(v]{0,4}|[=~<>!]=\s?|版本\s?|バージョン\s?|[A-Za-z0-9_)]/|[A-Za-z_]-|@)$",
    re.I,
)
_NETWORK = words(
    *("ip", "host", "server", "dns", "ping", "ssh", "address", "gateway", "endereço", "servidor")
)


def _is_public_address(match: re.Match[str]) -> bool:
    """Whether an address is public and no version of something: neither after a word or sign of versions,
    nor four numbers below 20 without a word of networks beside them."""
    try:
        address = ipaddress.ip_address(match[0])
    except ValueError:
        return False
    if not address.is_global or address.is_multicast:
        return False
    if address.version == 6:
        return True
    before = match.string[max(0, match.start() - 24) : match.start()]
    if _VERSION.search(before) and not before.endswith("://"):
        return False
    parts = set(map(int, match[0].split(".")))
    return max(parts) >= 20 or len(parts) == 1 or has_context(match, _NETWORK)


GENERAL = (
    Recogniser("secret", _PEM, needs=any_of("PRIVATE KEY-----")),
    Recogniser("secret", _KNOWN_KEY, _is_key, any_of(*_KEY_BEGINS.split())),
    Recogniser(
        "secret",
        pattern(r"(?<![\w+/=.-])[A-Za-z0-9+/_-]{32,}={0,2}(?![\w+/-])"),
        lambda match: is_random(match[0]),
        re.compile(r"[A-Za-z0-9+/_-]{32}").search,
    ),
    Recogniser("email", _LATIN_EMAIL, _is_email, any_of("@")),
    Recogniser("email", _ANY_EMAIL, _is_other_email, _has_foreign_email),
    Recogniser("iban", iban_pattern(), lambda match: is_iban(match[0]), number_zones),
    Recogniser("card", _CARD, _is_card, number_zones),
    Recogniser("ip", _V4, _is_public_address, re.compile(r"\d\.\d{1,3}\.\d").search),
    Recogniser("ip", _V6, _is_public_address, lambda text: "::" in text or text.count(":") >= 7),
)

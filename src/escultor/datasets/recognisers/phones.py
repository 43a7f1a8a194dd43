"""Telephone numbers: international, in the national forms of countries, and bare ones after a word of
telephones.

Where numbers begin and end is our own pattern; which are numbers of a country says `phonenumbers` (the
numbering plans of libphonenumber)."""

from __future__ import annotations

import re
from itertools import pairwise

import phonenumbers

from escultor.datasets.recognisers.recogniser import (
    Check,
    Recogniser,
    digits_of,
    has_context,
    number_zones,
    pattern,
)

_TELEPHONE = re.compile(
    r"(?<![a-zA-Z])(?i:phone|mobile|cell|call|tel(?![a-z])|fone|celular|cel(?![a-z])|whats|zap|ligu?e|ligar|contat[oe]|contact|"
    r"fax|sms|t[ée]l[ée]phone|portable|appel|m[óo]vil|ll[áa]m|handy|telefon|mobil|ruf|"
    r"(?:my|phone) number|número (?:é|es|de))|"
    r"电话|手机|联系|致电|电联|電話|携帯|फोन|मोबाइल|संपर्क"
)
_TELEFONE = re.compile(
    r"(?<![a-zA-Z])(?i:tel(?![a-z])|telefone|fone|celular|cel(?![a-z])|whats|zap|ligue|ligar|contato)"
)
_HAN = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")

# Country codes assigned by the ITU. After `00` one of them must follow, and the rest in groups, because
# many
# other numbers begin with zeros.
_COUNTRY = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|2(?:1[1-368]|[2-6]\d|9[0179])|"
    r"(?:35|37|38|50|59|67|68|69|96|97|99)\d|42[013]|85[0-6]|88[06])"
)
_AREA = r"(?:\(\d{1,4}\)[ .-]?)?"
_REST = r"\d{1,5}(?:[ .-]?\d{2,5}){1,4}"
_PLUS = rf"(?:\(\+\d{{1,3}}\)|\+\d{{1,3}})[ .-]?{_AREA}{_REST}"
_ZEROS = (  # and not in the middle of a longer number
    rf"(?<!\d{{4}}[ .-])(?:\(00{_COUNTRY}\)[ .-]?|00{_COUNTRY}(?:[ .-]|(?=\()))"
    rf"{_AREA}\d{{1,4}}(?:[ .-]?\d{{2,4}}){{1,4}}"
)
_DECIMAL = re.compile(r"\+\d{1,3}\.\d+")


def _is_international(match: re.Match[str]) -> bool:
    """Whether the digits are as many as a number of that country has, and no decimal fraction or
    coordinate."""
    digits = digits_of(match[0]).removeprefix("00")
    if not 8 <= len(digits) <= 15 or len(set(digits)) <= 2:
        return False
    if _DECIMAL.fullmatch(match[0]) and not has_context(match, _TELEPHONE):
        return False
    number = re.sub(r"\(0\)", "", match[0]).replace("(", "").replace(")", "")
    return _is_possible("+" + digits_of(number).removeprefix("00"))


def _is_possible(number: str) -> bool:
    try:
        return phonenumbers.is_possible_number(phonenumbers.parse(number, None))
    except phonenumbers.NumberParseException:
        return False


def is_number_of(text: str, country: str) -> bool:
    """Whether a text is a telephone number of a country's numbering plan, in its national form."""
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(text, country))
    except phonenumbers.NumberParseException:
        return False


# --- national forms -------------------------------------------------------------------------------

_EDGE, _END = r"(?<![\w.+/=$-])", r"(?![\w/=-]|[.,]\d)"
_ALONE, _TO_THE_END = r"(?<!\d[ .-])", r"(?![ .-]\d)"  # no part of a longer row of groups
_YEARS = re.compile(r"\D{0,4}(?:\d\d\D)?(?:19|20)\d\d-(?:19|20)\d\d")
_DDD = r"(?:1[1-9]|2[12478]|3[1-578]|4[1-9]|5[1345]|6[1-9]|7[134579]|8[1-9]|9[1-9])"


def _valid(country: str) -> Check:
    return lambda match: is_number_of(match[0], country)


def _called(country: str) -> Check:
    """A number of a country after a word of telephones."""
    return lambda match: has_context(match, _TELEPHONE) and is_number_of(match[0], country)


def _is_brazilian(match: re.Match[str]) -> bool:
    national = match[0][2:] if match[0].startswith("55") and len(digits_of(match[0])) > 11 else match[0]
    return not _YEARS.fullmatch(match[0]) and is_number_of(national, "BR")


def _is_british(match: re.Match[str]) -> bool:
    """Ten or eleven digits, in groups or after a word of telephones."""
    is_grouped = "(" in match[0] or " " in match[0]
    return len(digits_of(match[0])) in (10, 11) and (is_grouped or has_context(match, _TELEPHONE))


def _is_chinese(match: re.Match[str]) -> bool:
    """A mobile number in groups, among Chinese characters, or after a word of telephones."""
    around = match.string[max(0, match.start() - 12) : match.end() + 12]
    is_marked = len(match[0]) > 11 or _HAN.search(around) or has_context(match, _TELEPHONE)
    return bool(is_marked) and is_number_of(match[0], "CN")


def _is_french(match: re.Match[str]) -> bool:
    """Five pairs that do not go up evenly, as those of a table do."""
    pairs = [int(pair) for pair in re.findall(r"\d\d", match[0])]
    return len({b - a for a, b in pairwise(pairs)}) > 1 and is_number_of(match[0], "FR")


def _is_american(match: re.Match[str]) -> bool:
    digits = digits_of(match[0])[-10:]
    return "." not in match[0] or (digits[0] > "1" and digits[3] > "1")


def _is_called_in_portuguese(match: re.Match[str]) -> bool:
    return has_context(match, _TELEFONE)


def _phone(country: str, form: str, check: Check) -> Recogniser:
    return Recogniser("phone", pattern(f"{_EDGE}(?:{form}){_END}"), check, number_zones, countries=(country,))


_BRAZILIAN = (
    rf"(?:55[ -]?)?(?:\(0?{_DDD}\) ?(?:9[ .]?)?\d{{4}}[ .-]?\d{{4}}|"
    rf"0?{_DDD}[ -](?:9[ .]?\d{{4}}|[2-5]\d{{3}})[ .-]\d{{4}})"
)
_BRITISH = (
    r"(?:\(0[1-9]\d{1,3}\)|0[1-9]\d{1,3}) (?:\d{3} \d{3,4}|\d{4} \d{4}|\d{5,6})|07\d{3} ?\d{3} ?\d{3}|"
    r"01\d{9}|0[1-9]\d{3}-\d{6}"
)
_GERMAN = (
    r"\(0\d{2,5}\) ?\d[\d -]{3,10}\d|0\d{2,5} ?/ ?\d[\d -]{3,10}\d|01[567]\d{1,2}[ -]\d{6,8}|"
    r"01[567]\d(?: \d{2,4}){2,3}"
)
_SPANISH = rf"{_ALONE}(?:[89]\d([ .])\d{{3}}\1\d{{2}}\1\d{{2}}|[6-9]\d\d(?: \d\d){{3}}){_TO_THE_END}"

_NATIONAL = (
    _phone("US", r"(?:1[ .-])?(?:\(\d{3}\) ?\d{3}[ .-]|\d{3}([.-])\d{3}\1)\d{4}", _is_american),
    _phone("US", r"(?:1[ .-]?)?[2-9]\d{2}[ .-]?[2-9]\d{2}[ .-]?\d{4}", _called("US")),
    _phone("BR", _BRAZILIAN, _is_brazilian),
    _phone("BR", r"0[358]00(?:[ .-]\d{3}[ .-]?\d{3,4}|[ .-]\d{6,7})", lambda match: True),
    _phone("BR", r"0[358]00\d{6,7}|(?:9[ .]?)?\d{4}[ .-]\d{4}|[2-5]\d{7}|9\d{8}", _is_called_in_portuguese),
    _phone("BR", rf"(?:55)?0?{_DDD} ?9?\d{{4}}[ -]?\d{{4}}", _called("BR")),
    _phone("GB", _BRITISH, _is_british),
    _phone("FR", rf"{_ALONE}0[1-9](?:([ .-])\d{{2}})(?:\1\d{{2}}){{3}}{_TO_THE_END}", _is_french),
    _phone("FR", r"0[1-9]\d{8}", _called("FR")),
    _phone("DE", _GERMAN, _valid("DE")),
    _phone("DE", r"0\d{2,5}[ -]?\d{3,8}(?:[ -]\d{1,6}){0,3}", _called("DE")),
    _phone("JP", r"0\d{1,4}-\d{1,4}-\d{3,4}|\(0\d{1,4}\) ?\d{1,4}-\d{4}", _valid("JP")),
    _phone("JP", r"0\d{9,10}", _called("JP")),
    _phone("CN", r"1[3-9]\d([ -]?)\d{4}\1\d{4}", _is_chinese),
    _phone("CN", r"\(0\d{2,3}\) ?\d{7,8}|0\d{2,3}-\d{7,8}", _valid("CN")),
    _phone("IN", r"0?[6-9]\d{4}[ -]?\d{5}|0\d{2,4}[ -]\d{6,8}|0?[6-9]\d{2}[ -]\d{3}[ -]\d{4}", _called("IN")),
    _phone("ES", _SPANISH, _valid("ES")),
    _phone("ES", r"[6-9]\d{2}[ .-]?\d{3}[ .-]?\d{3}", _called("ES")),
)
_INTERNATIONAL = pattern(rf"(?<![\w.+/=-])(?:{_PLUS}|{_ZEROS})(?![\w/=-])")

PHONES = (Recogniser("phone", _INTERNATIONAL, _is_international, number_zones), *_NATIONAL)

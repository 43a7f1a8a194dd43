"""Numbers of identity, tax and health by country, and PIX keys.

A number is taken for one of them if its form and check digits say so, or if its form and a word beside it
do. Where a form is common (a bare row of digits) and one check digit is all there is, both are needed."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date

from stdnum.br import cnpj, cpf
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir, siret
from stdnum.gb import nhs
from stdnum.in_ import aadhaar, pan
from stdnum.jp import in_ as my_number

from escultor.datasets.recognisers.recogniser import (
    AFTER,
    BEFORE,
    Check,
    Recogniser,
    any_of,
    digits_of,
    has_context,
    number_zones,
    pattern,
    words,
)

Valid = Callable[[str], bool]


def _compact(text: str) -> str:
    return re.sub(r"[ ./-]", "", text)


def _checked(is_valid: Valid) -> Check:
    """Check digits decide."""
    return lambda match: len(set(digits_of(match[0]))) > 1 and is_valid(_compact(match[0]))


def _checked_or_named(is_valid: Valid, context: re.Pattern[str]) -> Check:
    """The form is telling by itself: check digits or a word beside it decide."""
    return lambda match: is_valid(_compact(match[0])) or has_context(match, context)


def _checked_and_named(is_valid: Valid, context: re.Pattern[str]) -> Check:
    """Both are needed."""
    return lambda match: has_context(match, context) and is_valid(_compact(match[0]))


def _named(context: re.Pattern[str]) -> Check:
    return lambda match: has_context(match, context)


def _number(country: str, name: str, form: str, check: Check, flags: int = 0) -> Recogniser:
    compiled = pattern(f"{BEFORE}(?:{form}){AFTER}", flags)
    return Recogniser("document", compiled, check, number_zones, name=name, countries=(country,))


# --- Brazil ---------------------------------------------------------------------------------------

_CPF, _CNPJ = words("cpf"), words("cnpj")
_PIS = words("pis", "pasep", "nis", "NIT")
_RG = words("rg", "r\\.g", "registro geral", "(?:carteira|cédula|documento) de identidade", "identidade")
_PIX = words("pix", "chave aleatória")


def is_pis(digits: str) -> bool:
    """Whether eleven digits are a PIS, PASEP or NIS number: its check digit modulo 11."""
    total = sum(int(d) * w for d, w in zip(digits, (3, 2, 9, 8, 7, 6, 5, 4, 3, 2), strict=False))
    return len(digits) == 11 and len(set(digits)) > 1 and int(digits[10]) == (11 - total % 11) % 11 % 10


_has_cnpj = re.compile(r"/\w{4}-\d\d|CNPJ|cnpj|Cnpj").search

_BRAZIL = (
    _number("BR", "cpf", r"\d{3}\.\d{3}\.\d{3}[-/.]\d{2}", _checked_or_named(cpf.is_valid, _CPF)),
    _number("BR", "cpf", r"\d{3}[ .]?\d{3}[ .]?\d{3}[ .-]?\d{2}", _named(_CPF)),
    *(
        Recogniser(
            "document",
            pattern(f"{BEFORE}(?:{form}){AFTER}", re.I),
            check,
            _has_cnpj,
            name="cnpj",
            countries=("BR",),
        )
        for form, check in (
            (r"[A-Z\d]{2}\.[A-Z\d]{3}\.[A-Z\d]{3}/[A-Z\d]{4}-\d{2}", _checked_or_named(cnpj.is_valid, _CNPJ)),
            (r"[A-Z\d]{8}[ /]?[A-Z\d]{4}[ -]?\d{2}", _checked_and_named(cnpj.is_valid, _CNPJ)),
        )
    ),
    _number("BR", "cnpj", r"\d{14}", _checked(cnpj.is_valid)),
    _number("BR", "pis", r"\d{3}\.\d{5}\.\d{2}-\d", _checked_or_named(is_pis, _PIS)),
    _number("BR", "pis", r"\d{11}|\d{3} \d{5} \d{2} \d", _checked_and_named(is_pis, _PIS)),
    _number("BR", "cpf", r"\d{11}", _checked(cpf.is_valid)),
    _number("BR", "rg", r"\d{1,2}\.\d{3}\.\d{3}-[\dXx]", lambda match: True),
    _number("BR", "rg", r"\d{1,2}\.?\d{3}\.?\d{3}-?[\dXx]|\d{7,9}", _named(_RG)),
    Recogniser(
        "pix",
        pattern(r"(?<![\w-])[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}(?![\w-])"),
        _named(_PIX),
        any_of("pix", "PIX", "Pix", "have aleat"),
        countries=("BR",),
    ),
)

# --- other countries ------------------------------------------------------------------------------

_SSN = words("ssn", "itin", "TIN", "social security", "taxpayer")
_NINO = words("nino", "NI", "national insurance")
_NHS = words("nhs", "national health", "patient")
_SIRET = words("siret", "siren")
_NIR = words(*("NIR", "insee", "sécurité sociale", "numéro de sécu", "n° de sécu", "carte vitale"))
_STEUER = words("steuer", "idnr", "id-nr", "identifikationsnummer", "TIN")
_MY_NUMBER = re.compile(f"{words('my ?number', 'individual number').pattern}|マイナンバー|個人番号")
_AADHAAR = re.compile(f"{words('aadhaa?r', 'uidai', 'UID').pattern}|आधार")
_PAN = words("PAN", "permanent account")
_DNI = words("dni", "nif", "NIE", "documento nacional")


def is_resident_id(text: str) -> bool:
    """Whether eighteen characters are a Chinese resident number: a date of birth, and its check digit (GB
    11643)."""
    try:
        born = date(int(text[6:10]), int(text[10:12]), int(text[12:14]))
    except ValueError:
        return False
    return 1900 <= born.year <= 2100 and ric.calc_check_digit(text) == text[17].upper()


_SSN_FORM = r"(?!000|666|9)\d{3}([- ]?)(?!00)\d{2}\1(?!0000)\d{4}"
_ITIN_FORM = r"9\d\d-(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])-\d{4}"
_NINO_FORM = r"(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]( ?)\d{2}\1\d{2}\1\d{2}\1[A-D]"
_FOUR_DIGITS = re.compile(r"\d\d ?\d\d ?\d\d ?[A-Da-d]").search
_NIR_FORM = r"[12]( ?)\d{2}\1(?:0[1-9]|1[0-2]|[2-9]\d)\1\d[\dAB]\1\d{3}\1\d{3}[ -]?\d{2}"

_OTHERS = (
    _number("US", "ssn", _SSN_FORM.replace("[- ]?", "-"), lambda match: True),
    _number("US", "ssn", _ITIN_FORM, lambda match: True),
    _number("US", "ssn", _SSN_FORM, _named(_SSN)),
    *(
        Recogniser(
            "document",
            pattern(f"{BEFORE}{_NINO_FORM}{AFTER}", flags),
            check,
            _FOUR_DIGITS,
            name="nino",
            countries=("GB",),
        )
        for check, flags in ((lambda match: True, 0), (_named(_NINO), re.I))
    ),
    _number("GB", "nhs", r"\d{3}([ -]?)\d{3}\1\d{4}", _checked_and_named(nhs.is_valid, _NHS)),
    _number("FR", "nir", _NIR_FORM, _checked_or_named(nir.is_valid, _NIR)),
    _number("FR", "siret", r"\d{3} \d{3} \d{3} \d{5}", _checked(siret.is_valid)),
    _number("FR", "siret", r"\d{14}|\d{9}|\d{3} \d{3} \d{3}(?: \d{5})?", _named(_SIRET)),
    _number("DE", "steuer-id", r"\d{2} \d{3} \d{3} \d{3}", _checked(idnr.is_valid)),
    _number(
        "DE", "steuer-id", r"\d{2}[ /]?\d{3}[ /]?\d{3}[ /]?\d{3}", _checked_and_named(idnr.is_valid, _STEUER)
    ),
    _number(
        "JP", "my-number", r"\d{4}([ -]?)\d{4}\1\d{4}", _checked_and_named(my_number.is_valid, _MY_NUMBER)
    ),
    _number("CN", "resident-id", r"[1-9]\d{16}[\dXx]", lambda match: is_resident_id(match[0])),
    _number(
        "IN", "aadhaar", r"[2-9]\d{3}([ -]?)\d{4}\1\d{4}", _checked_and_named(aadhaar.is_valid, _AADHAAR)
    ),
    _number("IN", "aadhaar", r"(?<!\d[ -])[2-9]\d{3} \d{4} \d{4}(?![ -]\d)", _checked(aadhaar.is_valid)),
    Recogniser(
        "document",
        pattern(r"(?<![\w-])[A-Z]{5}\d{4}[A-Z](?![\w-])"),
        lambda match: pan.is_valid(match[0]) and (match[0][3] == "P" or has_context(match, _PAN)),
        re.compile(r"\d{4}[A-Z]").search,
        name="pan",
        countries=("IN",),
    ),
    _number("ES", "dni", r"\d{8}[- ]?[A-Z]|\d{2}\.\d{3}\.\d{3}[- ]?[A-Z]", _checked(dni.is_valid)),
    _number("ES", "dni", r"[XYZ][- ]?\d{7}[- ]?[A-Z]", _checked(nie.is_valid)),
    _number("ES", "dni", r"(?:\d{8}|[XYZ][- ]?\d{7})[- ]?[A-Z]", _named(_DNI), re.I),
)

DOCUMENTS = (*_BRAZIL, *_OTHERS)

"""Postal addresses and codes, where their form is telling: streets with a number, and codes beside a
word."""

from __future__ import annotations

import re
from collections.abc import Callable

from escultor.datasets.recognisers.recogniser import (
    Check,
    Recogniser,
    any_of,
    any_word_of,
    has_context,
    number_zones,
    pattern,
    words,
)

_NAME = r"[A-ZÀ-ÖØ-Þ][\wÀ-ÖØ-öø-ÿ'.-]{0,24}"
_OF = r"(?: d[aeo]s?| du| des| de la| de l'| e| del)?"
_NAMES = rf"{_NAME}(?:{_OF} {_NAME}){{0,4}}"
_CEP = words(
    *("cep", "endereço", "rua", "av", "avenida", "travessa", "alameda", "praça", "rodovia", "bairro"),
    "código postal",
)
_BR_STREETS = (
    "Rua",
    "R.",
    "Avenida",
    "Av.",
    "Travessa",
    "Alameda",
    "Praça",
    "Rodovia",
    "Estrada",
    "rua",
    "avenida",
)
_BR_NUMBER = r"(?:,? ?n[ºo°.]{1,2} ?|, ?)\d{1,5}(?![\w.]\d|\w)(?:,? ?(?:apto?|bloco|casa|sala)\.? ?\w{1,5})?"
_US_STREETS = (
    *(
        "Street",
        "St",
        "Avenue",
        "Ave",
        "Road",
        "Rd",
        "Boulevard",
        "Blvd",
        "Lane",
        "Ln",
        "Drive",
        "Dr",
        "Court",
    ),
    *("Place", "Parkway", "Pkwy", "Terrace"),
)
_US_REST = r"(?:,? (?:Apt|Suite|Unit|#)\.? ?\w{1,6})?(?:, [A-Z][A-Za-z .]{1,30}, [A-Z]{2} \d{5}(?:-\d{4})?)?"
_GB_CODE = r"(?<![\w-])(?:GIR 0AA|[A-PR-UWYZ][A-HK-Y]?\d[A-Z\d]? \d[ABD-HJLNP-UW-Z]{2})(?![\w-])"
_FR_STREETS = (
    "rue",
    "Rue",
    "avenue",
    "Avenue",
    "boulevard",
    "bd",
    "place",
    "chemin",
    "allée",
    "impasse",
    "quai",
)
_DE_STREETS = ("straße", "strasse", "str.", "weg", "platz", "allee", "gasse", "damm", "ufer")
_DE_NAME = r"[A-ZÄÖÜ][\wäöüß-]{1,30}"
_ES_STREETS = ("Calle", "C/", "Avenida", "Avda.", "Plaza", "Paseo", "Camino", "calle")


def _any(streets: tuple[str, ...]) -> str:
    return "|".join(map(re.escape, streets))


def _is_street(match: re.Match[str]) -> bool:
    """Whether what follows `R.` is a street: neither a person's initials nor a year."""
    name, _, number = match[0].rpartition(",")
    return not match[0].startswith("R.") or (
        "." not in name[2:] and not re.match(r" ?(?:19|20)\d\d$", number)
    )


def _address(
    country: str, form: str, needs: Callable[[str], object], check: Check = lambda match: True
) -> Recogniser:
    return Recogniser("address", pattern(form), check, needs, countries=(country,))


def _near(context: re.Pattern[str]) -> Check:
    return lambda match: has_context(match, context)


ADDRESSES = (
    _address(
        "BR",
        rf"(?<!\w)(?:{_any(_BR_STREETS)}){_OF} {_NAMES}{_BR_NUMBER}",
        any_word_of(*_BR_STREETS),
        _is_street,
    ),
    _address("BR", r"(?<![\w.-])\d{2}\.?\d{3}-\d{3}(?![\w-])", number_zones, _near(_CEP)),
    _address("BR", r"(?<![\w.-])\d{8}(?![\w.-])", number_zones, _near(words("cep"))),
    _address(
        "US",
        rf"(?<![\w.])\d{{1,5}} (?:[NSEW]\.? )?(?:{_NAME} ){{1,3}}(?:{_any(_US_STREETS)})\b\.?{_US_REST}",
        any_word_of(*(street + end for street in _US_STREETS for end in ("", ".", ","))),
    ),
    _address("GB", _GB_CODE, re.compile(r"\d[A-Z]{2}(?![A-Za-z])").search),
    _address(
        "FR",
        rf"(?<!\w)\d{{1,4}}(?: ?(?:bis|ter))?,? (?:{_any(_FR_STREETS)}){_OF} {_NAMES}(?:,? \d{{5}} {_NAME})?",
        any_word_of(*_FR_STREETS),
    ),
    _address(
        "DE",
        rf"(?<!\w)(?:{_NAME}[ -])?(?:{_DE_NAME}(?:{_any(_DE_STREETS)})|{_NAME}[ -](?:Straße|Platz|Weg))"
        r" \d{1,4} ?[a-z]?(?!\w)(?:, \d{5} [A-ZÄÖÜ][\wäöüß-]{1,30})?",
        any_of(*(f"{street} " for street in (*_DE_STREETS, "Straße", "Platz", "Weg"))),
    ),
    _address(
        "ES",
        rf"(?<!\w)(?:{_any(_ES_STREETS)}){_OF} ?{_NAMES},? (?:n[ºo°]? ?)?\d{{1,4}}(?!\w)",
        any_word_of(*_ES_STREETS),
    ),
    _address("JP", r"〒 ?\d{3}-\d{4}", any_of("〒")),
)

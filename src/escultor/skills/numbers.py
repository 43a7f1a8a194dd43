"""The final number of a text, however it is written: signs, thousands, decimal commas, fractions, powers,
units."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from escultor.skills.text_forms import normal_form

DecimalMark = Literal[".", ","]
_NEGATIVE = ("-", "–")
MAX_DIGITS, MAX_EXPONENT = (
    300,
    300,
)  # beyond, it is no number: a power could fill the memory
_SUPERSCRIPTS = "[⁺⁻⁰¹²³⁴-⁹]++"
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "0123456789+-")
_DIGITS = r"\d++(?:[.,'_]\d++|[ ]\d{3}(?!\d))*+"
_CURRENCY = r"(?:(?:R|US|A|C)?\$|[€£¥₹₩₽])"
_NUMBER = re.compile(
    rf"(?P<sign>(?<![\w)\]}}%\-–])[-+–]|(?<=[=:][ ])-[ ]|)(?:{_CURRENCY}[ ]?(?P<after>[-+–]?))?"
    rf"(?<![A-Za-z\d_])(?:(?P<whole>{_DIGITS})(?P<chain>(?:[-–]{_DIGITS})*+)|(?P<part>(?<![.\w])\.\d++))"
    rf"(?:\^\{{?(?P<degree>[-+]?\d++)\}}?|(?P<raised_degree>{_SUPERSCRIPTS}))?"
    r"(?:(?P<over>[ ]\d++)?[ ]?[/⁄][ ]?(?P<under>\d++)(?P<date>(?:/\d++)*+))?"
    r"(?:[eE](?P<exponent>[-+]?\d++)"
    rf"|[ ]?[×x*·][ ]?10(?:\^\{{?(?P<power>[-+]?\d++)\}}?|(?P<raised>{_SUPERSCRIPTS})))?"
    r"(?:[ ]?(?P<unit>%|°?[^\W\d_]++))?"
)
_SCALES = {
    **dict.fromkeys(("thousand", "mil", "mille", "tausend"), 3),
    **dict.fromkeys(("lakh", "lakhs"), 5),
    **dict.fromkeys(("crore", "crores"), 7),
    **dict.fromkeys(
        ("mio", "million", "millions", "millionen", "milhão", "milhões", "millón", "millones"), 6
    ),
    **dict.fromkeys(
        ("mrd", "bn", "billion", "billions", "bilhão", "bilhões", "milliard", "milliards", "milliarden"), 9
    ),
    **dict.fromkeys(("trillion", "trillions", "trilhões", "billones"), 12),
}
_ASIAN_SCALES = {"万": 4, "萬": 4, "만": 4, "億": 8, "亿": 8, "억": 8}  # before what is counted: 12万円
_FRACTION = re.compile(r"([-+]?)\\[dt]?frac\{(\d+)\}\{(\d+)\}")
_TOLERANCE = re.compile(r"[ ]?(?:±|\+/-)[ ]?\d[\d.,]*+")  # 10 ± 2 is about 10
# In words, where it is the sign of an answer: of `10 minus 7` it is none.
_MINUS = re.compile(
    r"(^|[=:(][ ]?|\b(?:is|was|equals|é|es|est|ist|fait|è) )(?:minus|negative|menos|moins|meno) (?=[\d.])",
    re.IGNORECASE,
)
_BOXED = re.compile(r"\\boxed\{([^{}]*+)\}")
_FINAL = "####"  # GSM8K's mark before the final answer
_ANSWER = re.compile(
    r"(?:\b(?:answer|resposta|respuesta|réponse|antwort|risposta)\b|答案|答え|정답|ответ)"
    r"(?:[ ]?(?:is|was|é|es|est|ist|là|:|=|是|は|：))*+"
    r"(?:[ ]?(?:about|approximately|exactly|therefore|thus|only|cerca de|aproximadamente|environ|etwa)\b)?"
    r"(?:[ ]?[a-z][ ]?=)?[\s*_\"'(]*+(?=[-+]?[ ]?(?:(?:R|US)?\$|[€£¥])?[ ]?[-+]?\.?\d)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ReadNumber:
    """A number as it stands in a text, its value, and the unit behind it (`%`, `kg`), if any."""

    text: str
    value: Fraction
    unit: str


def final_number(text: str, decimal: DecimalMark = ".") -> ReadNumber | None:
    r"""The number that a text ends up with; None where there is none.

    It is the first after GSM8K's mark `####`, else the one in the last `\boxed{}`, else the one behind the
    last "answer is" (in eight languages), else the last. A mark without a number is passed over.

    decimal: the mark before decimals where a text leaves both readings open: 1,234 is a thousand and more
    with ".", and a little more than one with ",". Dates, versions and differences (2024-05, 1.2.3, 10-5) are
    no numbers; of a range (3-5) the end is.
    """
    text = _plain(text)
    _, mark, after = text.rpartition(_FINAL)
    boxes = _BOXED.findall(text)
    answers = list(_ANSWER.finditer(text))
    places = [(after, 0)] if mark else []
    places += [(boxes[-1], -1)] if boxes else []
    places += [(text[answers[-1].end() :], 0)] if answers else []
    for place, index in (*places, (text, -1)):
        if numbers := _numbers(place, decimal):
            return numbers[index]
    return None


def _plain(text: str) -> str:
    """A text with ASCII digits, and fractions as `1/2`."""
    text = _FRACTION.sub(r" \1\2/\3", normal_form(text)).replace("\u066b", ".").replace("\u066c", ",")
    text = re.sub(r"\*\*|__|`|[{}]?\\[,!;][{}]?|\{,\}|(?<=\d)\\%", _markup, text)
    if not text.isascii():
        text = "".join(c if c.isascii() else _ascii_digit(c) for c in text).replace("  ", " ").lstrip()
    text = _MINUS.sub(r"\1-", _TOLERANCE.sub("", text))
    if re.fullmatch(r"[-+] \S+", text):  # alone; before other words it is the bullet of a list
        text = text[0] + text[2:]
    return text


def _markup(found: re.Match[str]) -> str:
    return {"{,}": ",", "\\%": "%"}.get(found[0], "")


def _ascii_digit(character: str) -> str:
    if unicodedata.decomposition(character).startswith("<fraction>"):
        return " " + unicodedata.normalize("NFKC", character)
    digit = unicodedata.decimal(character, None)
    return character if digit is None else str(digit)


def _numbers(text: str, decimal: DecimalMark) -> list[ReadNumber]:
    found = ((match, _value(match, decimal)) for match in _NUMBER.finditer(text))
    return [
        ReadNumber(match[0].strip(), value, (match["unit"] or "").casefold())
        for match, value in found
        if value is not None
    ]


def _value(match: re.Match[str], decimal: DecimalMark) -> Fraction | None:
    """The value of what `_NUMBER` found; None for what only looks like a number."""
    value = _digits(match["whole"], decimal) if match["whole"] else Fraction("0" + match["part"])
    if value is None or match["date"]:
        return None
    if chain := [each for each in re.split("[-–]", match["chain"] or "") if each]:
        end = _digits(chain[0], decimal)
        if len(chain) > 1 or end is None or end <= value:
            return None
        value = end
    degree = _exponent(match["degree"] or match["raised_degree"] or "1")
    if degree is None or abs(degree) * len(match["whole"] or "") > MAX_DIGITS or (value == 0 and degree < 0):
        return None
    value **= degree
    if match["under"]:
        under = int(match["under"][:MAX_DIGITS])
        if under == 0:
            return None
        over = match["over"]
        value = value / under if over is None else value + Fraction(int(over[:MAX_DIGITS]), under)
    exponent = _exponent(match["exponent"] or match["power"] or match["raised"] or "0")
    if exponent is None:
        return None
    unit = (match["unit"] or "").casefold()
    scale = _SCALES.get(unit) or _ASIAN_SCALES.get(unit[:1], 0)
    is_negative = match["sign"].strip() in _NEGATIVE or match["after"] in _NEGATIVE
    return (-value if is_negative else value) * Fraction(10) ** (exponent + scale)


def _exponent(text: str) -> int | None:
    text = text.translate(_RAISED)
    is_whole = text.lstrip("+-").isdigit() and len(text) <= 4
    return int(text) if is_whole and abs(int(text)) <= MAX_EXPONENT else None


def _digits(text: str, decimal: DecimalMark) -> Fraction | None:
    """The value of digits with their marks; None where these fit no way of writing numbers."""
    for mark in "'_ ":
        if mark in text:
            head, *groups = re.split("[.,]", text)[0].split(mark)
            if len(head) > 3 or any(len(group) != 3 for group in groups):
                return None
            text = text.replace(mark, "")
    dots, commas = text.count("."), text.count(",")
    if len(text) > MAX_DIGITS or (dots > 1 and commas > 1):
        return None
    point = "." if text.rfind(".") > text.rfind(",") else ","
    other = "," if point == "." else "."
    whole, _, part = text.rpartition(point) if point in text else (text, "", "")
    if dots and commas:
        return _joined(whole, other, part) if text.count(point) == 1 else None
    if text.count(point) > 1:
        return _joined(text, point, "")
    if len(part) == 3 and 0 < len(whole) <= 3 and whole[0] != "0" and point != decimal:
        return Fraction(whole + part)
    return Fraction(f"{whole or 0}.{part or 0}")


def _joined(whole: str, mark: str, part: str) -> Fraction | None:
    """Groups of digits as one number: of three, or as in India of two before the last three."""
    head, *groups = whole.split(mark)
    if not 0 < len(head) <= 3 or not groups or len(groups[-1]) != 3:
        return None
    if {len(group) for group in groups[:-1]} - {3} and {len(g) for g in (head, *groups[:-1])} - {1, 2}:
        return None
    return Fraction(f"{head}{''.join(groups)}.{part or 0}")

"""Strict reading of JSON: what Python's reader accepts and the standard does not is refused."""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any, NoReturn

_MAY_BE_INFINITE = re.compile(rb"\d[eE]\+?\d{3}|\d{200}")  # what a float cannot hold has one of these
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
LARGEST = sys.float_info.max
_SEARCHED = 1 << 14  # bytes
JsonObject = dict[str, Any]  # a JSON object as Python reads it


def no_constant(name: str) -> NoReturn:
    """Refuse NaN and the infinities, which JSON does not have; a hook for `parse_constant`.

    Raises ValueError.
    """
    raise ValueError(f"{name} is no JSON number")


def keys_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Build an object whose keys occur once each; a hook for `object_pairs_hook`.

    Raises ValueError for a key given twice, of which Python would silently keep the last value.
    """
    unique = dict(pairs)
    if len(unique) != len(pairs):
        raise ValueError("a key is given twice")
    return unique


def finite_float(text: str) -> float:
    """A number as a float; a hook for `parse_float`.

    Raises ValueError for one that no float holds, such as 1e999, which would be infinity.
    """
    value = float(text)
    if math.isinf(value):
        raise ValueError("a number is too large")
    return value


def bounded_int(text: str) -> int:
    """A whole number; a hook for `parse_int`.

    Raises ValueError for one that no float holds.
    """
    if len(text) > 300:
        raise ValueError(f"a number of {len(text):,} digits is too large")
    return int(text)


NUMBERS: dict[str, Any] = {
    "parse_constant": no_constant,
    "parse_float": finite_float,
    "parse_int": bounded_int,
}  # hooks of `json.loads`


def strict_loads(text: str) -> Any:
    """The value of JSON text: each key once, numbers that a float holds, valid Unicode.

    Raises ValueError for anything else, and for text that is nested too deep.
    """
    try:
        value = json.loads(text, object_pairs_hook=keys_once, **NUMBERS)
        if _SURROGATE.search(text):  # half of a pair cannot be encoded, which is a ValueError
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except RecursionError:
        raise ValueError("nested too deep") from None


def check_finite(text: bytes, parsed: Any) -> None:
    """Refuse numbers beyond those of a float, such as 1e999, which readers turn into infinity and writers
    into what is no JSON.

    Raises ValueError if `parsed`, which was read from `text`, holds one.
    """
    # A long text takes longer to search than its values take to look at.
    if len(text) > _SEARCHED or _MAY_BE_INFINITE.search(text):
        check_numbers(parsed)


def check_numbers(parsed: Any) -> None:
    """Raise ValueError for a value with a number that no float holds, or with NaN."""
    waiting = [parsed]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, int | float) and not -LARGEST <= value <= LARGEST:
            raise ValueError("a number is too large")


def whole_numbers(body: Any) -> Any:
    """The body with 1 for 1.0, also within its lists: JSON has one kind of number."""
    if isinstance(body, list):
        return [int(v) if isinstance(v, float) and v.is_integer() else v for v in body]
    if not isinstance(body, dict):
        return body
    prompts = {k: [whole_numbers(v) for v in body[k]] for k in ("prompt",) if isinstance(body.get(k), list)}
    return dict(zip(body, whole_numbers(list(body.values())), strict=True)) | {
        name: whole_numbers(prompt) for name, prompt in prompts.items()
    }

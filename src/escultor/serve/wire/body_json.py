"""JSON text within limits: found to be too much without parsing it, then parsed strictly."""

from __future__ import annotations

from collections.abc import Callable
from itertools import accumulate
from typing import Any, TypeVar

from jiter import from_json

from escultor.serve.wire.errors import ApiError
from escultor.strict_json import check_finite

T = TypeVar("T")
BodyReader = Callable[[Any], T]  # of a parsed body; picklable, and so is what it returns

MAX_VALUES = 300_000  # of one body: at a hundred bytes each, what Python makes of it stays below 32 MB
MAX_KEYS = 64_000
_SCANNED = 4096  # brackets that are looked at in one step
_DEPTH = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
_NO_BRACKETS = bytes(set(range(256)) - set(_DEPTH))


def read_body(data: bytes, max_depth: int, reader: BodyReader[T]) -> tuple[int, T]:
    """How many values a body holds, and what `reader` makes of it. Raises ApiError, and as `reader` does."""
    values = refuse_excess(data, max_depth)
    return values, reader(parsed_json(data))


def refuse_excess(body: bytes, max_depth: int) -> int:
    """How many values JSON text holds, found without parsing it. Raises ApiError for one that nests deeper or
    holds more values or keys than allowed. Linear, whatever the text is."""
    # Backslashes occur in strings alone: without escapes, every other quote begins a string.
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    quotes = plain.count(b'"')
    if quotes > 2 * (MAX_VALUES + MAX_KEYS):
        raise _excess(f"{quotes // 2} strings", MAX_VALUES)
    outside = b"".join(plain.split(b'"')[::2])
    opened = outside.count(b"[") + outside.count(b"{")
    values, keys = outside.count(b",") + opened + 1, outside.count(b":")
    if values > MAX_VALUES:
        raise _excess(f"{values} values", MAX_VALUES)
    if keys > MAX_KEYS:
        raise _excess(f"{keys} keys", MAX_KEYS)
    if opened > max_depth and _is_deeper(outside, max_depth):
        raise ApiError(400, f"the JSON nests deeper than {max_depth} brackets", "invalid_json")
    return values


def _is_deeper(outside: bytes, limit: int) -> bool:
    brackets = outside.translate(None, _NO_BRACKETS)
    depth = 0
    for start in range(0, len(brackets), _SCANNED):  # other threads get their turn in between
        depths = list(accumulate(map(_DEPTH.__getitem__, brackets[start : start + _SCANNED]), initial=depth))
        if max(depths) > limit:
            return True
        depth = depths[-1]
    return False


def parsed_json(body: bytes) -> Any:
    """The value of JSON text. Raises ApiError for anything else, for a key that is given twice in one object,
    and for a number that no float holds."""
    try:
        value = from_json(body, allow_inf_nan=False, catch_duplicate_keys=True)
        check_finite(body, value)
    except ValueError as error:
        raise ApiError(400, f"the body is not JSON: {error}", "invalid_json") from None
    return value


def _excess(got: str, allowed: int) -> ApiError:
    return ApiError(400, f"the JSON holds {got}; allowed: {allowed}", "invalid_json")

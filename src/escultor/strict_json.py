"""Strict reading of JSON: hooks for `json.loads` that refuse what Python's reader accepts."""

from __future__ import annotations

from typing import Any, NoReturn

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

"""What strict reading of JSON refuses and Python's reader lets pass: hooks for `json.loads`."""

from __future__ import annotations

from typing import NoReturn


def no_constant(name: str) -> NoReturn:
    """For `parse_constant`: NaN and the infinities are no JSON. Raises ValueError."""
    raise ValueError(f"{name} is no JSON number")


def keys_once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """For `object_pairs_hook`: an object whose keys stand once each; a key given twice would hide what it
    first said. Raises ValueError."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key is given twice")
    return found

"""JSON answers that were cut: what of them is complete enough to be used."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json


def read_partial(answer: str) -> dict[str, Any]:
    """The object that an answer begins to write, whose last text may be cut; empty where there is none."""
    start = answer.find("{")
    try:
        value = from_json(answer[start:], allow_partial="trailing-strings") if start >= 0 else None
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}

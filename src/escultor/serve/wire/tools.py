"""The record of the tools that a request offers. An application offers the same ones with every request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.types import ToolDefinitions

_REMEMBERED = 64  # offers; a longer one than this many characters is not remembered
_LONGEST = 1 << 16


def tool_definitions(tools: Sequence[Any]) -> ToolDefinitions:
    """The record of tools, as JSON values. Raises InputError where they nest too deep."""
    text = compact(tools)
    return _remembered(text) if len(text) <= _LONGEST else ToolDefinitions(hash_value(tools), text)


@lru_cache(_REMEMBERED)
def _remembered(text: str) -> ToolDefinitions:
    return ToolDefinitions(hash_value(json.loads(text)), text)


def compact(value: Any) -> str:
    """A JSON value as text without spaces. Raises InputError where it nests too deep."""
    try:
        return _ENCODER.encode(value)
    except RecursionError as error:
        raise InputError("a part of the request nests too deep") from error


_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

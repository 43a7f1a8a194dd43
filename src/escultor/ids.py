"""Identifiers: content hashes of values and files, time-ordered random ids of events."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from operator import itemgetter
from pathlib import Path
from typing import Any

from pydantic_core import to_json

# The id that a client gives an event, which is a part of urls, log lines and cursors.
GIVEN_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.:@~+=,-]{0,127}$"
HASH_LENGTH = 32  # hex digits kept of SHA-256: 128 bits, collision-free in practice
_ENCODE = {
    sort_keys: json.JSONEncoder(sort_keys=sort_keys, separators=(",", ":"), ensure_ascii=False).encode
    for sort_keys in (False, True)
}
# Metadata of a field that a content id leaves out while it has its default: with it a record gains a field
# without new ids for the records that do not use it.
OMIT_DEFAULT = {"omit_default": True}


def hash_bytes(data: bytes) -> str:
    """The content id of bytes: the first 32 hex digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def plain(value: Any) -> Any:
    """Convert dataclasses, enums, paths, tuples and sets to JSON values in a fixed order."""
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain(each) for name, each in _items_of_record(value)}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(plain(v) for v in value)
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def _items_of_record(value: Any, is_sorted: bool = False) -> list[tuple[str, Any]]:
    """The name of a dataclass under `_`, then its fields but those that an id leaves out at their default;
    sorted by name, if that is asked for."""
    items: list[tuple[str, Any]] = [("_", type(value).__name__)]
    for name, is_omitted, default in _fields(type(value), is_sorted):
        each = getattr(value, name)
        if not (is_omitted and (each is default or each == default)):
            items.append((name, each))
    return items


@cache
def _fields(record_type: type, is_sorted: bool) -> tuple[tuple[str, bool, Any], ...]:
    described = ((f.name, "omit_default" in f.metadata, f.default) for f in fields(record_type))
    # `_` goes before every name of a field, which is lower-case.
    return tuple(sorted(described, key=_key) if is_sorted else described)


def hash_value(value: Any) -> str:
    """The content id of a value: the hash of its canonical JSON (sorted keys, no spaces)."""
    try:
        text = to_json(_ready(value, is_sorted=True))
    except (TypeError, ValueError):
        text = _ENCODE[True](plain(value)).encode()
    return hash_bytes(text)


def compact_json(value: Any, numbers: Iterable[float] | None = None) -> bytes:
    """What `json` makes of JSON values without spaces, byte for byte, in less time. `numbers` are all the
    numbers in it but small integers, where the caller knows them: then nothing else is looked at."""
    try:
        if numbers is None:
            return to_json(_ready(value, is_sorted=False))
        if all(map(_is_written_alike, numbers)):
            return to_json(value)
        raise _OtherForm
    except (TypeError, ValueError):
        return _ENCODE[False](value).encode()


def _ready(value: Any, is_sorted: bool) -> Any:
    """The plain value that pydantic's writer turns into the very bytes of `json`. Raises _OtherForm for what
    they write in different ways: numbers very large or very small, keys that are no text."""
    if isinstance(value, str) or value is None or value is True or value is False:
        return value._value_ if isinstance(value, Enum) else value
    kind = type(value)
    if kind is list or kind is tuple:
        return [each if type(each) is str else _ready(each, is_sorted) for each in value]
    if kind is int or kind is float:
        if _is_written_alike(value):
            return value
        raise _OtherForm
    if kind is dict:
        items = sorted(value.items(), key=_key) if is_sorted else value.items()
    elif hasattr(kind, "__dataclass_fields__"):
        items = _items_of_record(value, is_sorted)
        return {key: each if type(each) is str else _ready(each, is_sorted) for key, each in items}
    elif isinstance(value, Enum | Path | set | frozenset):
        return _ready(plain(value), is_sorted)
    else:
        raise _OtherForm
    ready = {}
    for key, each in items:
        if type(key) is not str:
            raise _OtherForm
        ready[key] = each if type(each) is str else _ready(each, is_sorted)
    return ready


def _is_written_alike(number: float) -> bool:
    return number == 0 or 1e-4 <= abs(number) < 1e15


_key = itemgetter(0)


class _OtherForm(TypeError):
    """A value that `_ready` leaves to `json`."""


def hash_file(path: Path) -> str:
    """The content id of a file, read in constant memory."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:HASH_LENGTH]


def new_id(prefix: str) -> str:
    """A new id that sorts by creation time: `<prefix>-<milliseconds in 12 hex digits><12 random>`."""
    return f"{prefix}-{time.time_ns() // 1_000_000:012x}{secrets.token_hex(6)}"


@cache
def code_hash() -> str:
    """The content id of this package's Python files, recorded as provenance."""
    root = Path(__file__).parent
    return hash_value([[str(p.relative_to(root)), hash_file(p)] for p in sorted(root.rglob("*.py"))])

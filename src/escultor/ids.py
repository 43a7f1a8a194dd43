"""Identifiers: content hashes of values and files, time-ordered random ids of events."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

HASH_LENGTH = 32  # hex digits kept of SHA-256: 128 bits, collision-free in practice
_ATOMS = frozenset((str, int, float, bool, type(None)))  # JSON values as they are
_canonical_json = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
# Metadata of a field that a content id leaves out while it has its default: with it a record gains a field
# without new ids for the records that do not use it.
OMIT_DEFAULT = {"omit_default": True}


def hash_bytes(data: bytes) -> str:
    """The content id of bytes: the first 32 hex digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def plain(value: Any) -> Any:
    """Convert dataclasses, enums, paths, tuples and sets to JSON values in a fixed order."""
    if type(value) in _ATOMS:  # most values: looked up before anything slower
        return value
    if is_dataclass(value) and not isinstance(value, type):
        converted = {"_": type(value).__name__}
        for name, is_omitted, default in _fields(type(value)):
            each = getattr(value, name)
            if not (is_omitted and each == default):
                converted[name] = each if type(each) in _ATOMS else plain(each)
        return converted
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


@cache
def _fields(record_type: type) -> tuple[tuple[str, bool, Any], ...]:
    """Of each field of a dataclass its name, whether an id leaves it out at its default, and the default."""
    return tuple((f.name, "omit_default" in f.metadata, f.default) for f in fields(record_type))


def hash_value(value: Any) -> str:
    """The content id of a value: the hash of its canonical JSON (sorted keys, no spaces)."""
    return hash_bytes(_canonical_json(plain(value)).encode())


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

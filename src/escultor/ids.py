"""Identifiers: content hashes of values and files, time-ordered random ids of events."""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from dataclasses import Field, fields, is_dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

HASH_LENGTH = 32  # hex digits kept of SHA-256: 128 bits, collision-free in practice
# Metadata of a field that a content id leaves out while it has its default: with it a record gains a field
# without new ids for the records that do not use it.
OMIT_DEFAULT = {"omit_default": True}


def hash_bytes(data: bytes) -> str:
    """The content id of bytes: the first 32 hex digits of their SHA-256."""
    return hashlib.sha256(data).hexdigest()[:HASH_LENGTH]


def plain(value: Any) -> Any:
    """Convert dataclasses, enums, paths, tuples and sets to JSON values in a fixed order."""
    if is_dataclass(value) and not isinstance(value, type):
        return {
            "_": type(value).__name__,
            **{f.name: plain(getattr(value, f.name)) for f in fields(value) if not _is_omitted(f, value)},
        }
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


def _is_omitted(field: Field[Any], value: Any) -> bool:
    return "omit_default" in field.metadata and getattr(value, field.name) == field.default


def hash_value(value: Any) -> str:
    """The content id of a value: the hash of its canonical JSON (sorted keys, no spaces)."""
    text = json.dumps(plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hash_bytes(text.encode())


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

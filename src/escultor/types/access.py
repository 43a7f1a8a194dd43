"""API keys of the gateway and their scopes: append-only; the valid keys are a fold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    INFER = "infer"  # request completions
    FEEDBACK = "feedback"  # send feedback
    READ = "read"  # read the records
    ADMIN = "admin"  # all of these, imports and erasure


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """A key of the gateway, of which only the digest is stored. Writer: `escultor keys`."""

    id: str
    time: float
    name: str
    scopes: tuple[Scope, ...]
    digest: str  # SHA-256 of the key, which is 256 random bits


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """The end of a key. Writer: `escultor keys`."""

    id: str
    time: float
    key: str


KeyEvent = KeyCreated | KeyRevoked

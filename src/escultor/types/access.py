"""Who may use the gateway, and for what: keys, append-only; what holds now is a fold."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Scope(StrEnum):
    INFER = "infer"  # ask for answers
    FEEDBACK = "feedback"  # say what they are worth
    READ = "read"  # read what is recorded
    ADMIN = "admin"  # all of these, imports and erasure


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """A key for the gateway. Writer: `escultor keys`. The key itself is nowhere; only its digest is."""

    id: str
    time: float
    name: str
    scopes: tuple[Scope, ...]
    digest: str  # SHA-256 of the key, which is 256 random bits: nothing shorter finds it


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """The end of a key. Writer: `escultor keys`."""

    id: str
    time: float
    key: str


KeyEvent = KeyCreated | KeyRevoked

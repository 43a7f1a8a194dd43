"""API keys of the gateway: created, revoked, folded from the log, and checked in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Iterable
from dataclasses import dataclass

from escultor.errors import InputError
from escultor.serve.wire.errors import ApiError
from escultor.types import KeyCreated, KeyEvent, KeyRevoked, Scope

_KEY = re.compile(r"esk-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_UNKNOWN_DIGEST = "0" * 64  # compared with for an unknown key, so that it takes as long as a known one
MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the id of a key, or None where the gateway has no keys and requires none."""

    key: str | None
    scopes: frozenset[Scope]

    def has_scope(self, scope: Scope) -> bool:
        """Whether the key has this scope; `admin` has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANYONE = Caller(None, frozenset(Scope))


def create(name: str, scopes: Iterable[Scope], now: float | None = None) -> tuple[str, KeyCreated]:
    """A new key and its record. The key is shown once; the record holds only its digest.

    Raises InputError for a name that is empty, too long or not printable, or without any scope.
    """
    distinct = tuple(dict.fromkeys(scopes))
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise InputError("a key needs a name", repr(name), f"1 to {MAX_NAME} printable characters")
    if not distinct:
        raise InputError("a key needs a scope", "none", ", ".join(Scope))
    id = secrets.token_hex(6)
    key = f"esk-{id}-{secrets.token_urlsafe(32)}"
    return key, KeyCreated(id, time.time() if now is None else now, name, distinct, _digest(key))


def revoke(keyring: Keyring, id: str, now: float | None = None) -> KeyRevoked:
    """The record that revokes a key. Raises InputError where no valid key has this id."""
    if id not in keyring.keys:
        allowed = ", ".join(keyring.keys) or "there is no valid key"
        raise InputError("there is no valid key with this id", id, allowed, "see `escultor keys list`")
    return KeyRevoked(f"revoke-{id}", time.time() if now is None else now, id)


class Keyring:
    """The valid keys: the fold of all events about keys, in any order."""

    def __init__(self, events: Iterable[KeyEvent] = ()):
        created: dict[str, KeyCreated] = {}
        revoked: set[str] = set()
        for event in events:
            if isinstance(event, KeyCreated):
                created[event.id] = event
            else:
                revoked.add(event.key)
        self.guarded = bool(created)  # from the first key on, even a revoked one, requests need a key
        self.keys = {id: key for id, key in created.items() if id not in revoked}

    def authenticate(self, key: str | None, scope: Scope) -> Caller:
        """The caller with this key, if the key is valid and has the scope.

        Raises ApiError: 401 without a valid key, 403 where the key lacks the scope. The time it takes does
        not reveal which character of a key is wrong.
        """
        if not self.guarded:
            return ANYONE
        if key is None:
            remedy = "send `Authorization: Bearer KEY`; `escultor keys create` makes one"
            raise _unauthorized(f"no API key was given; {remedy}")
        parts = _KEY.fullmatch(key)
        record = self.keys.get(parts[1]) if parts else None
        matches = hmac.compare_digest(_digest(key), record.digest if record else _UNKNOWN_DIGEST)
        if record is None or not matches:
            raise _unauthorized("the API key is not valid for this gateway, or was revoked")
        caller = Caller(record.id, frozenset(record.scopes))
        if not caller.has_scope(scope):
            message = f"the API key has no scope `{scope}`; it has: {', '.join(sorted(record.scopes))}"
            raise ApiError(403, message, "insufficient_scope", kind="permission_error")
        return caller


def key_of(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key in a request's headers: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    for name, value in headers:
        if name == b"x-api-key":
            return value.decode("latin-1").strip()
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if scheme.lower() == "bearer" and key.strip() else None
    return None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _unauthorized(message: str) -> ApiError:
    return ApiError(401, message, "invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

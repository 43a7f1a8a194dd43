"""Keys of the gateway: made, revoked, folded from the log, and checked in constant time."""

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
_NOBODY = "0" * 64  # compared with where no such key is known, so that this takes as long
MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: a key, or None where the gateway has none and so asks for none."""

    key: str | None
    scopes: frozenset[Scope]

    def may(self, scope: Scope) -> bool:
        """Whether the key has this scope; `admin` has all."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


ANYONE = Caller(None, frozenset(Scope))


def create(name: str, scopes: Iterable[Scope], now: float | None = None) -> tuple[str, KeyCreated]:
    """A fresh key and its record. The key is shown once; the record holds no more than its digest.

    Raises InputError for a name that cannot be shown, or without any scope.
    """
    wanted = tuple(dict.fromkeys(scopes))
    if not name.strip() or len(name) > MAX_NAME or not name.isprintable():
        raise InputError("a key needs a name", repr(name), f"1 to {MAX_NAME} printable characters")
    if not wanted:
        raise InputError("a key needs a scope", "none", ", ".join(Scope))
    id = secrets.token_hex(6)
    key = f"esk-{id}-{secrets.token_urlsafe(32)}"
    return key, KeyCreated(id, time.time() if now is None else now, name, wanted, _digest(key))


def revoke(ring: Keyring, id: str, now: float | None = None) -> KeyRevoked:
    """The record that ends a key. Raises InputError where no such key is in force."""
    if id not in ring.keys:
        known = ", ".join(ring.keys) or "none is in force"
        raise InputError("no such key is in force", id, known, "see `escultor keys list`")
    return KeyRevoked(f"revoke-{id}", time.time() if now is None else now, id)


class Keyring:
    """The keys in force: the fold of all that was recorded about keys, in any order."""

    def __init__(self, events: Iterable[KeyEvent] = ()):
        made: dict[str, KeyCreated] = {}
        ended: set[str] = set()
        for event in events:
            if isinstance(event, KeyCreated):
                made[event.id] = event
            else:
                ended.add(event.key)
        self.guarded = bool(made)  # one key ever, even a revoked one, and keys are asked for
        self.keys = {id: key for id, key in made.items() if id not in ended}

    def caller(self, given: str | None, scope: Scope) -> Caller:
        """Who holds the key given, if it has the scope.

        Raises Refusal: 401 without a key that is in force, 403 where the scope is not the key's. Which
        character of a key is wrong cannot be told from the time this takes.
        """
        if not self.guarded:
            return ANYONE
        if given is None:
            remedy = "send `Authorization: Bearer KEY`; `escultor keys create` makes one"
            raise _unknown(f"no API key was given; {remedy}")
        shape = _KEY.fullmatch(given)
        key = self.keys.get(shape[1]) if shape else None
        right = hmac.compare_digest(_digest(given), key.digest if key else _NOBODY)
        if key is None or not right:
            raise _unknown("the API key is not one of this gateway's, or was revoked")
        caller = Caller(key.id, frozenset(key.scopes))
        if not caller.may(scope):
            message = f"the API key has no scope `{scope}`; it has: {', '.join(sorted(key.scopes))}"
            raise ApiError(403, message, "insufficient_scope", kind="permission_error")
        return caller


def given_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The key that a request carries: `Authorization: Bearer KEY` or `X-API-Key: KEY`."""
    for name, value in headers:
        if name == b"x-api-key":
            return value.decode("latin-1").strip()
        if name == b"authorization":
            scheme, _, key = value.decode("latin-1").partition(" ")
            return key.strip() if scheme.lower() == "bearer" and key.strip() else None
    return None


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _unknown(message: str) -> ApiError:
    headers = {"WWW-Authenticate": "Bearer"}
    return ApiError(401, message, "invalid_api_key", headers=headers)

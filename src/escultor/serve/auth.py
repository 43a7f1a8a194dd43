"""Who may use the gateway: API keys, tokens that let a browser send feedback on one answer, and rate limits.

Keys are created, revoked, folded from the log, and checked in constant time. A token is signed
(`serve.signed_tokens`); its payload is `[target, subject, [name, ...], until]`.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from escultor.errors import InputError, TokenError
from escultor.ids import new_id
from escultor.serve.signed_tokens import read_signed, sign
from escultor.serve.wire.errors import ApiError
from escultor.store.secrets import secret
from escultor.types import KeyCreated, KeyEvent, KeyLimits, KeyRevoked, KeyRotated, Scope

_KEY = re.compile(r"esk-([0-9a-f]{12})-([A-Za-z0-9_-]{43})")
_UNKNOWN_DIGEST = "0" * 64  # compared with for an unknown key, so that it takes as long as a known one
MAX_NAME = 100
EVERY_TENANT = "*"
_MAX_BUCKETS = 1 << 16  # the bucket unused for longest is dropped, and starts full again
_REMEDY = "take the token that came with the answer"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who makes a request: the id of a key, or None where the gateway has no keys and requires none. `keys`
    are those whose rows it may act on ("": rows without a key); None: all. `tenant` names whose subjects and
    ids of events are its own; it is empty where it shares those from before there were tenants. `skill` is
    that of requests which name none; empty: the gateway's."""

    key: str | None
    scopes: frozenset[Scope]
    limits: KeyLimits | None = None
    tenant: str = ""
    keys: frozenset[str] | None = None
    skill: str = ""

    def has_scope(self, scope: Scope) -> bool:
        """Whether the key has this scope; `admin` has all."""
        given = self.scopes | ({Scope.FEEDBACK} if Scope.RATER in self.scopes else set())
        return scope in given or Scope.ADMIN in given


ANYONE = Caller(None, frozenset(Scope))


def create(
    name: str,
    scopes: Iterable[Scope],
    now: float | None = None,
    limits: KeyLimits | None = None,
    tenant: str | None = None,
    skill: str = "",
) -> tuple[str, KeyCreated]:
    """A new key and its record. The key is shown once; the record holds only its digest. Its tenant is its
    name, unless another is given (`EVERY_TENANT`: all). `skill` is that of requests which name none.
    Raises InputError for a name that is empty, too long or not printable, or without any scope."""
    distinct = tuple(dict.fromkeys(scopes))
    tenant = name if tenant is None else tenant
    for each, what in ((name, "a key needs a name"), (tenant, "a tenant needs a name")):
        if not each.strip() or len(each) > MAX_NAME or not each.isprintable():
            raise InputError(what, repr(each), f"1 to {MAX_NAME} printable characters")
    if not distinct:
        raise InputError("a key needs a scope", "none", ", ".join(Scope))
    id = secrets.token_hex(6)
    key, limits = _new_secret(id), None if limits == KeyLimits() else limits
    now = time.time() if now is None else now
    return key, KeyCreated(id, now, name, distinct, _digest(key), limits=limits, tenant=tenant, skill=skill)


def rotate(keyring: Keyring, id: str, overlap_s: float, now: float | None = None) -> tuple[str, KeyRotated]:
    """A new secret for a key, and its record; the old one is valid for `overlap_s` more. Raises InputError
    where no valid key has this id."""
    _require_key(keyring, id)
    now, key = time.time() if now is None else now, _new_secret(id)
    return key, KeyRotated(new_id("rotate"), now, id, _digest(key), now + overlap_s)


def revoke(keyring: Keyring, id: str) -> KeyRevoked:
    """The record that revokes a key. Raises InputError where no valid key has this id."""
    _require_key(keyring, id)
    return KeyRevoked(f"revoke-{id}", time.time(), id)


def _new_secret(id: str) -> str:
    return f"esk-{id}-{secrets.token_urlsafe(32)}"


def _require_key(keyring: Keyring, id: str) -> None:
    if id not in keyring.keys:
        allowed = ", ".join(keyring.keys) or "there is no valid key"
        raise InputError("there is no valid key with this id", id, allowed, "see `escultor keys list`")


class Keyring:
    """The valid keys: the fold of all events about keys, in any order."""

    def __init__(self, events: Iterable[KeyEvent] = (), clock: Callable[[], float] = time.time):
        self._clock = clock
        created: dict[str, KeyCreated] = {}
        revoked: set[str] = set()
        rotations: list[KeyRotated] = []
        for event in events:
            if isinstance(event, KeyCreated):
                created[event.id] = event
            elif isinstance(event, KeyRotated):
                rotations.append(event)
            else:
                revoked.add(event.key)
        # Of each key its digests, the present one last, and until when each is valid.
        self._digests = {id: [(key.digest, math.inf)] for id, key in created.items()}
        for each in sorted(rotations, key=lambda r: (r.time, r.id)):
            before = self._digests.get(each.key, [])
            valid = [(digest, min(until, each.old_until)) for digest, until in before]
            self._digests[each.key] = [*valid, (each.digest, math.inf)]
        # From the first key on, even a revoked one, requests need a key; one that only approves aside.
        self.guarded = any(set(key.scopes) != {Scope.APPROVE} for key in created.values())
        self.keys = {id: key for id, key in created.items() if id not in revoked}
        self._tenants = {id: key.tenant for id, key in created.items()}

    def caller(self, record: KeyCreated) -> Caller:
        """Who shows this key. A key from before there were tenants shares what such keys made, and with the
        scope `admin` acts on all."""
        key, scopes, tenant = record.id, frozenset(record.scopes), record.tenant
        if tenant == EVERY_TENANT or (not tenant and Scope.ADMIN in scopes):
            return Caller(key, scopes, record.limits, skill=record.skill)
        keys = frozenset(id for id, each in self._tenants.items() if each == tenant)
        keys = keys if tenant else keys | {""}
        return Caller(key, scopes, record.limits, tenant, keys, skill=record.skill)

    def authenticate(self, key: str | None, scope: Scope) -> Caller:
        """The caller with this key, if the key is valid and has the scope. Raises ApiError: 401 without a
        valid key, 403 where the key lacks the scope. The time it takes does not reveal which character of a
        key is wrong."""
        if not self.guarded:
            return ANYONE
        if key is None:
            remedy = "send `Authorization: Bearer KEY`; `escultor keys create` makes one"
            raise _unauthorized(f"no API key was given; {remedy}")
        record = self._record(key)
        if record is None:
            raise _unauthorized("the API key is not valid for this gateway, has expired, or was revoked")
        caller = self.caller(record)
        if not caller.has_scope(scope):
            message = f"the API key has no scope `{scope}`; it has: {', '.join(sorted(record.scopes))}"
            raise ApiError(403, message, "insufficient_scope", kind="permission_error")
        return caller

    def holder(self, key: str | None, scope: Scope) -> KeyCreated | None:
        """The record of a valid key that has the scope; None for any other key, and for none."""
        record = None if key is None else self._record(key)
        is_allowed = record is not None and Caller(record.id, frozenset(record.scopes)).has_scope(scope)
        return record if is_allowed else None

    def _record(self, key: str) -> KeyCreated | None:
        """The record of a valid key, compared in constant time."""
        parts, now = _KEY.fullmatch(key), self._clock()
        record = self.keys.get(parts[1]) if parts else None
        known = self._digests[record.id] if record else [(_UNKNOWN_DIGEST, -math.inf)]
        given = _digest(key)
        is_valid = False
        for digest, until in known:  # all of them, whichever is the right one
            is_valid |= hmac.compare_digest(given, digest) and now < until
        limits = record.limits if record else None
        has_expired = limits is not None and limits.expires is not None and now >= limits.expires
        return record if is_valid and not has_expired else None


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


@dataclass(frozen=True, slots=True)
class TokenGrant:
    """What a token allows: `subject` may send feedback of these names about `target` until `until`."""

    target: str  # the interaction
    subject: str  # salted hash
    names: tuple[str, ...]  # as `store.feedback.event_name` gives them: thumb, correction, remark, copy, …
    until: float  # seconds since the epoch


class FeedbackTokens:
    """Issues and checks tokens with the store's key."""

    def __init__(self, key: bytes):
        self._key = key

    @classmethod
    def for_store(cls, root: Path) -> FeedbackTokens:
        """The tokens of the store in a folder. Raises StoreError when its key cannot be read or written."""
        return cls(secret(root, "tokens"))

    def issue(self, grant: TokenGrant) -> str:
        """The token of a grant; equal grants have equal tokens."""
        return sign(self._key, [grant.target, grant.subject, grant.names, grant.until])

    def read(self, token: str, now: float) -> TokenGrant:
        """The grant of a token. Raises TokenError for one that this store did not issue or that has
        expired."""
        target, subject, names, until = read_signed(self._key, token, "feedback token", _REMEDY)
        if now >= until:
            raise TokenError("the feedback token has expired", f"{now - until:.0f} s ago", None, _REMEDY)
        return TokenGrant(target, subject, tuple(names), until)


class RateLimiter:
    """A token bucket for each name: `burst` requests at once, `rate` per second after that."""

    def __init__(
        self,
        rate: float,
        burst: int,
        clock: Callable[[], float] = time.monotonic,
        max_buckets: int = _MAX_BUCKETS,
    ):
        self._rate, self._burst, self._clock, self._max_buckets = rate, burst, clock, max_buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()  # name: tokens, and when

    def acquire(self, name: str) -> float:
        """Take a token: 0 where there was one, else the seconds until there is."""
        now = self._clock()
        tokens, updated = self._buckets.pop(name, (float(self._burst), now))
        tokens = min(self._burst, tokens + (now - updated) * self._rate)
        wait_s = 0.0 if tokens >= 1 else (1 - tokens) / self._rate
        self._buckets[name] = (tokens - 1 if wait_s == 0 else tokens), now
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        return wait_s

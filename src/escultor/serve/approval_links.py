"""Signed links with which one known person approves or rejects one waiting candidate, once, for some days."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Literal, NamedTuple

from escultor.errors import InputError, TokenError
from escultor.serve.auth import Keyring
from escultor.serve.signed_tokens import read_signed, sign
from escultor.store import Store
from escultor.store.cycles import RecordedCycle, change, record_event, recorded_cycle
from escultor.store.secrets import secret
from escultor.types import KeyCreated, KeyEvent, Scope

PATH = "/approvals/"
LINK_S = 3 * 86_400.0
_REMEDY = "escultor cycle approve, with your key"


class Approval(NamedTuple):
    """What a link opens: a waiting cycle, and the key of the person it was made for."""

    cycle: RecordedCycle
    person: KeyCreated


def approvers(store: Store, now: float) -> dict[str, KeyCreated]:
    """The keys, by id, that may approve now."""
    keys = Keyring(event for _, event in store.log.read(KeyEvent)).keys
    valid = {id: key for id, key in keys.items() if {Scope.APPROVE, Scope.ADMIN} & set(key.scopes)}
    ends = {id: key.limits.expires for id, key in valid.items() if key.limits and key.limits.expires}
    return {id: key for id, key in valid.items() if now < ends.get(id, math.inf)}


def approval_link(root: Path, base_url: str, cycle: str, key: str, now: float) -> str:
    """The address at which the holder of a key decides about a cycle, until LINK_S from now."""
    return f"{base_url.rstrip('/')}{PATH}{sign(_secret(root), [cycle, key, now + LINK_S])}"


def open_link(store: Store, token: str, now: float) -> Approval:
    """What a link's token opens. Raises TokenError for one that was changed or has expired, whose person may
    no longer approve, or whose cycle does not wait (any more)."""
    cycle, key, until = read_signed(_secret(store.root), token, "approval link", _REMEDY)
    if now >= until:
        raise TokenError("the approval link has expired", f"{now - until:.0f} s ago", None, _REMEDY)
    person = approvers(store, now).get(key)
    if person is None:
        raise TokenError("the person of this approval link may not approve any more", key)
    found = recorded_cycle(store, cycle)
    if found.state != "waiting":
        raise TokenError("this candidate does not wait for approval any more", found.state)
    return Approval(found, person)


def decide_by_link(
    store: Store, token: str, state: Literal["approved", "rejected"], reason: str
) -> RecordedCycle:
    """Approve or reject the candidate of a link. Raises TokenError as `open_link` does, and InputError where
    somebody else was quicker."""
    cycle, person = open_link(store, token, time.time())
    by = f"{person.name} (key {person.id}, by a signed link)"
    if not record_event(store, change(cycle, state, reason, by)):
        raise InputError("the cycle has changed meanwhile", recorded_cycle(store, cycle.id).state)
    return recorded_cycle(store, cycle.id)


def _secret(root: Path) -> bytes:
    return secret(root, "approvals")

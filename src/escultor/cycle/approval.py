"""Who approves a promotion: a person known by a key with the scope `approve`, whom the log then names."""

from __future__ import annotations

from escultor.errors import InputError
from escultor.serve.auth import Keyring
from escultor.store import Store
from escultor.types import KeyEvent, Scope

KEY_ENV = "ESCULTOR_APPROVAL_KEY"


def approver(store: Store, key: str | None, name: str | None = None) -> str:
    """The name of the person whose key this is and the key's id, as the log keeps them.

    Raises InputError unless `key` is a valid key of this store with the scope `approve`, and made for `name`
    where one is given.
    """
    holder = Keyring(event for _, event in store.log.read(KeyEvent)).holder(key, Scope.APPROVE)
    if holder is None:
        got = f"{KEY_ENV} is not set" if key is None else "a key that is unknown, revoked or may not approve"
        remedy = f"put the key that `escultor keys create NAME --scope approve` shows into {KEY_ENV}"
        raise InputError("an approval needs the key of a person who may approve", got, remedy=remedy)
    if name not in (None, holder.name):
        raise InputError("the key is another person's", name, holder.name)
    return f"{holder.name} (key {holder.id})"


def approver_of_promotion(store: Store, key: str | None) -> str | None:
    """Who orders a promotion by hand; None in a store without `has_approvers`: nobody needs it there.
    Raises InputError where one is needed and `key` is none that may approve."""
    return approver(store, key) if has_approvers(store) else None


def has_approvers(store: Store) -> bool:
    """Whether the store has ever given anyone the scope `approve`."""
    return any(Scope.APPROVE in getattr(event, "scopes", ()) for _, event in store.log.read(KeyEvent))

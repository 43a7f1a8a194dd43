"""Who approves a promotion: a person known by a key with the scope `approve`, whom the log then names."""

from __future__ import annotations

from escultor.config import Config
from escultor.errors import InputError
from escultor.ids import hash_value
from escultor.monitor.notify import Send, address, send_to
from escultor.serve.approval_links import LINK_S, approval_link, approvers
from escultor.serve.auth import Keyring
from escultor.store import Store
from escultor.store.cycles import RecordedCycle
from escultor.types import Alert, AlertDelivery, Estimate, KeyEvent, Scope

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


def ask_approvers(
    store: Store, config: Config, cycle: RecordedCycle, now: float, send: Send = send_to
) -> list[str]:
    """Send each person of `cycle.approvers` a link of their own to a waiting candidate, once, and return one
    line for each who could not be told: they are asked again at the next call."""
    keys, lines, asked = approvers(store, now).values(), [], cycle.last.id
    told = {delivery.receiver for _, delivery in store.log.read(AlertDelivery, target=asked)}
    for name, receiver in config.cycle.approvers.items():
        who = hash_value([name, receiver])
        key = next((key for key in keys if key.name == name), None)
        if who in told:
            continue
        if key is None:
            lines.append(f"{name} is asked to approve, and has no key of the scope `approve`")
            continue
        link = approval_link(store.root, str(config.cycle.public_url), cycle.id, key.id, now)
        text = f"{cycle.id} waits for {name}: {cycle.last.reason}. For {LINK_S / 86_400:g} days: {link}"
        try:
            send(receiver, [_alert(asked, now, text)])
        except OSError as error:
            lines.append(f"{name} could not be asked to approve: {address(receiver)}: {error}")
            continue
        store.log.append(AlertDelivery(f"delivery-{hash_value((asked, who))}", now, asked, who))
    return lines


def _alert(id: str, now: float, text: str) -> Alert:
    waits = Estimate("waiting", 1.0, 1.0, 1.0, 1)
    return Alert(id, now, "approval", "firing", estimate=waits, limit=0.0, message=text)

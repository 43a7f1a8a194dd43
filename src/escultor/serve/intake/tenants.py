"""Which feedback is a tenant's own: events under its ids, and about the rows of its keys.

A row names the key that asked; the keys of one tenant share their rows. The events of a tenant are kept
under ids that begin with a hash of its name, so that two tenants may use the same ids.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from escultor.ids import hash_value
from escultor.serve.intake.targets import answers_of
from escultor.store.log import Log
from escultor.types import Feedback, Interaction, PendingInteraction

Keys = Collection[str] | None  # ids of keys, "" for rows without one; None: every key, and none
_OF_A_TENANT = re.compile(r"(revoke-)?t[0-9a-f]{12}:")
NOT_OWN = "this answer was given to another tenant, so that feedback on it is another tenant's too"


def prefix_of(tenant: str) -> str:
    """What the ids of a tenant's events begin with; empty where there are no tenants."""
    return f"t{hash_value(tenant)[:12]}:" if tenant else ""


def shown_id(id: str, tenant: str) -> str:
    """The id of an event as its tenant knows it."""
    return id.replace(prefix_of(tenant), "", 1) if tenant else id


class Ownership:
    """Tells a tenant's rows and events from those of others."""

    def __init__(self, log: Log):
        self._log = log

    def keys_of(self, ids: Iterable[str]) -> dict[str, str]:
        """The keys that asked for those of these answers that the log knows. Raises StoreError."""
        ids = list(dict.fromkeys(ids))
        streams = self._log.raw_by_id(PendingInteraction, ids)
        rows = {id: body["interaction"] for id, body in streams.items()} | self._log.raw_by_id(
            Interaction, ids
        )
        return {id: str(row.get("tenant", "")) for id, row in rows.items()}

    def foreign(self, ids: Iterable[str], keys: Keys) -> set[str]:
        """The ids among these of answers in the log that other keys asked for."""
        return set() if keys is None else {id for id, key in self.keys_of(ids).items() if key not in keys}

    def owned(self, events: Iterable[Feedback], tenant: str, keys: Keys) -> list[Feedback]:
        """The events among these that belong to the tenant."""
        events = list(events)
        if keys is None:
            return events
        known = self.keys_of(id for event in events for id in answers_of(event))
        return [event for event in events if _is_owned(event, prefix_of(tenant), keys, known)]


def _is_owned(event: Feedback, prefix: str, keys: Collection[str], known: dict[str, str]) -> bool:
    about = [known.get(id) for id in answers_of(event)]
    if any(key is not None and key not in keys for key in about):
        return False
    if _OF_A_TENANT.match(event.id):
        return bool(prefix) and event.id.removeprefix("revoke-").startswith(prefix)
    # Events of browsers, and from before there were tenants: theirs to whom the answers were given.
    return all(key in keys for key in about) if "" not in keys else True

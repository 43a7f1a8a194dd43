"""Feedback under an application's own ids of its answers (`x-escultor-message`) lands on the logged rows."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from escultor.store.log import Log
from escultor.types import Choice, Feedback, Interaction, PendingInteraction

_OWN = re.compile(r"(chatcmpl|cmpl|msg|resp)-[0-9a-f]{24}(-\d+)?(-shadow)?")  # ids that the gateway made
NOT_SEEN = "nobody saw this answer: it was a candidate's in shadow"


class AnswerIds:
    """The ids of rows by the ids that applications gave them."""

    def __init__(self, log: Log):
        self._log = log

    def rows_of(self, ids: Iterable[str], keys: Collection[str] | None = None) -> dict[str, str]:
        """The ids of the rows for those ids that are an application's own; of several rows under one id,
        such as an answer that was asked for again, the last that is no task of the application's. Two
        applications may use the same ids: with `keys` only the rows of these are found. Raises StoreError
        when the store fails."""
        named = {id: self._row_of(id, keys) for id in set(ids) if not is_gateways(id)}
        return {id: row for id, row in named.items() if row is not None}

    def _row_of(self, id: str, keys: Collection[str] | None) -> str | None:
        if self._log.get(Interaction, id) is not None:
            return None
        rows = (row for _, row in self._log.read(Interaction, target=id))
        streams = (p.interaction for _, p in self._log.read(PendingInteraction, target=id))
        return _last_named(rows, id, keys) or _last_named(streams, id, keys)


def _last_named(rows: Iterable[Interaction], id: str, keys: Collection[str] | None) -> str | None:
    """The last row of these keys that an application gave this id."""
    last = None
    for row in rows:
        is_shown = row.arm != "shadow" and not row.task
        if row.message == id and is_shown and (keys is None or row.tenant in keys):
            last = row.id
    return last


def is_gateways(id: str) -> bool:
    """Whether an id has the form of those that the gateway makes."""
    return _OWN.fullmatch(id) is not None


def is_unseen(id: str) -> bool:
    """Whether an id is that of a candidate's answer in shadow, recorded or still to come."""
    return id.endswith("-shadow") and is_gateways(id)


def answers_of(event: Feedback) -> tuple[str, ...]:
    """The ids of the answers that an event is about."""
    return event.shown_order if isinstance(event, Choice) else (event.target,)


def renamed(event: Feedback, rows: Mapping[str, str]) -> Feedback:
    """The event about the rows instead of the applications' ids."""
    if isinstance(event, Choice):
        shown = tuple(rows.get(id, id) for id in event.shown_order)
        winner = None if event.winner is None else rows.get(event.winner, event.winner)
        return replace(event, shown_order=shown, winner=winner)
    return replace(event, target=rows.get(event.target, event.target))

"""Feedback intake: events are durable before they are acknowledged, and idempotent on their id.

Feedback on an answer that is not in the log is kept like any other: neither waits for the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from pydantic import BaseModel

from escultor.config import FeedbackIntake
from escultor.errors import DataError, Erased, IdTaken, InputError
from escultor.serve.intake.parse import FeedbackAuthor, ParsedEvent, parse, without_text
from escultor.serve.intake.targets import NOT_SEEN, AnswerIds, answers_of, is_gateways, is_unseen, renamed
from escultor.serve.intake.tenants import NOT_OWN, Keys, Ownership, prefix_of, shown_id
from escultor.serve.writer import Writer
from escultor.store import Store
from escultor.store.feedback import event_name, event_target, live, why_not_trained_on
from escultor.types import Choice, Feedback, Interaction, Rating, Revocation

MAX_PAGE = 1000  # events

# The outcome of an event, and its HTTP status.
Status = Literal["accepted", "refused", "conflict", "erased"]
HTTP_STATUS: dict[Status, int] = {"accepted": 202, "refused": 400, "conflict": 409, "erased": 410}


class IntakeResult(BaseModel):
    """The outcome of one event. `read_as` says how a rating was understood, `not_trained_on` why nothing is
    learnt from the event, `not_kept` which parts of it no record has a field for."""

    id: str | None  # the event is kept under it; None where it was refused
    status: Status
    error: str | None = None
    read_as: str | None = None
    not_trained_on: str | None = None
    not_kept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FeedbackPage:
    """Some of the events about one answer, in the order in which they were recorded."""

    known: bool  # whether the answer is in the log
    events: tuple[tuple[int, Feedback], ...]  # with their sequence numbers
    next: int | None  # the number that the next page begins after
    more: bool
    live: tuple[Feedback, ...]  # the events in force, of all about the answer, at most MAX_PAGE
    live_count: int


@dataclass(frozen=True, slots=True)
class EventReader:
    """Reads the events of one author as they come at one time. Picklable."""

    author: FeedbackAuthor
    settings: FeedbackIntake
    now: float
    keep_text: bool

    def read(self, bodies: Sequence[Any]) -> list[ParsedEvent | IntakeResult]:
        """Each event, or why it is refused. Raises InputError for more than a request may have."""
        if len(bodies) > self.settings.batch:
            raise InputError("too many events in one request", len(bodies), self.settings.batch)
        return [self._parsed(body) for body in bodies]

    def _parsed(self, body: Any) -> ParsedEvent | IntakeResult:
        try:
            parsed = parse(body, self.author, self.settings, self.now)
        except InputError as error:
            return IntakeResult(id=None, status="refused", error=str(error))
        return parsed if self.keep_text else without_text(parsed)


class Intake:
    """Adds, lists and withdraws the feedback of one store."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        settings: FeedbackIntake,
        clock: Callable[[], float] = time.time,
        *,
        keep_text: bool = True,
    ):
        """Without `keep_text` the text of corrections and remarks is not kept."""
        self._log, self._writer, self._settings, self.now = store.log, writer, settings, clock
        self._keep_text = keep_text
        self._ids, self.ownership = AnswerIds(store.log), Ownership(store.log)

    def reader(self, author: FeedbackAuthor) -> EventReader:
        """What reads the events of an author."""
        return EventReader(author, self._settings, self.now(), self._keep_text)

    async def add(
        self, outcomes: Sequence[ParsedEvent | IntakeResult], author: FeedbackAuthor
    ) -> list[IntakeResult]:
        """Keep events as their reader made them; the accepted ones are on disk when this returns. A refused
        one affects no other. Raises StoreError or Overloaded when the store cannot keep them now."""
        parsed = await self._about_rows(outcomes, author)
        ids = [id for each in parsed for id in answers_of(each.event)]
        why_not = dict.fromkeys(await asyncio.to_thread(self.ownership.foreign, ids, author.keys), NOT_OWN)
        why_not |= dict.fromkeys(filter(is_unseen, ids), NOT_SEEN)
        kept = [each for each in parsed if why_not.keys().isdisjoint(answers_of(each.event))]
        written = {id(p): result for p, result in zip(kept, await self._write(kept), strict=True)}
        await self._withdraw_late([event for p in kept for event in p.events], author.keys)
        for each in parsed:
            for reason in (why_not[answer] for answer in answers_of(each.event) if answer in why_not):
                written[id(each)] = IntakeResult(id=None, status="refused", error=reason)
        results = iter([_shown(written[id(each)], author) for each in parsed])
        return [o if isinstance(o, IntakeResult) else next(results) for o in outcomes]

    async def _withdraw_late(self, events: Sequence[Feedback], keys: Keys) -> None:
        """Revoke those of these written events whose answers another tenant imported meanwhile."""
        ids = [id for event in events for id in answers_of(event) if not is_gateways(id)]
        foreign = await asyncio.to_thread(self.ownership.foreign, ids, keys) if ids and keys else set()
        late = [event for event in events if not foreign.isdisjoint(answers_of(event))]
        if late:
            await self._writer.write(*map(_revocation, late))

    async def _about_rows(
        self, outcomes: Sequence[ParsedEvent | IntakeResult], author: FeedbackAuthor
    ) -> list[ParsedEvent]:
        """The parsed events, about the logged rows where they name answers by an application's own ids."""
        parsed = [outcome for outcome in outcomes if isinstance(outcome, ParsedEvent)]
        ids = [id for each in parsed for id in answers_of(each.event)]
        rows = await asyncio.to_thread(self._ids.rows_of, ids, author.keys)
        return [replace(each, event=renamed(each.event, rows)) for each in parsed] if rows else parsed

    async def withdraw(self, id: str, tenant: str = "", keys: Keys = None) -> Revocation | None:
        """Revoke an event of a tenant's own; None where there is none of this id. Doing it again changes
        nothing. The revocation has the time of its event, so that it ends that event and earlier ones of the
        same name, and none that came later. Raises DataError for a revocation, StoreError when the store
        fails."""
        event = await asyncio.to_thread(self._own_event, id, tenant, keys)
        if event is None:
            return None
        if isinstance(event, Revocation):
            remedy = "send again what should hold"
            raise DataError("a withdrawal cannot be withdrawn", event.id, "feedback of another kind", remedy)
        revocation = _revocation(event)
        await self._writer.write(revocation)
        return revocation

    async def withdraw_foreign(self, ids: Sequence[str], tenant: str, keys: Keys) -> None:
        """Revoke what other tenants said about answers under these ids before their own tenant brought them.
        Raises StoreError when the store fails."""
        if revocations := await asyncio.to_thread(self._foreign_events, ids, tenant, keys):
            await self._writer.write(*revocations)

    def _foreign_events(self, ids: Sequence[str], tenant: str, keys: Keys) -> list[Revocation]:
        events = [event for id in ids for _, event in self._log.read(Feedback, target=id)]
        own = {event.id for event in self.ownership.owned(events, tenant, keys)}
        foreign = {event.id: event for event in events if event.id not in own}
        return [_revocation(event) for event in foreign.values() if not isinstance(event, Revocation)]

    def _own_event(self, id: str, tenant: str, keys: Keys) -> Feedback | None:
        found = [self._log.get(Feedback, each) for each in dict.fromkeys((prefix_of(tenant) + id, id))]
        own = self.ownership.owned([event for event in found if event is not None], tenant, keys)
        return own[0] if own else None

    async def page(
        self, target: str, after: int, limit: int, tenant: str = "", keys: Keys = None
    ) -> FeedbackPage:
        """A tenant's own events about an answer (or under the target of a choice) after sequence number
        `after`."""
        return await asyncio.to_thread(
            self._page, target, after, min(limit, MAX_PAGE), tenant=tenant, keys=keys
        )

    def _page(self, target: str, after: int, limit: int, tenant: str, keys: Keys) -> FeedbackPage:
        target = self._ids.rows_of([target], keys).get(target, target)
        events = tuple(islice(self._log.read(Feedback, after, target=target), limit + 1))
        in_force = live(self.ownership.owned(self._all_about(target), tenant, keys))
        is_foreign = bool(self.ownership.foreign([target], keys))
        own = {event.id for event in self.ownership.owned([event for _, event in events], tenant, keys)}
        return FeedbackPage(
            known=not is_foreign and self._log.get(Interaction, target) is not None,
            events=tuple(each for each in events[:limit] if each[1].id in own),
            next=events[limit - 1][0] if len(events) > limit else None,
            more=len(events) > limit,
            live=tuple(islice(in_force.values(), MAX_PAGE)),
            live_count=len(in_force),
        )

    def owns_subject(self, subject: str, tenant: str, keys: Keys) -> bool:
        """Whether no record of this person is another tenant's."""
        if keys is None:
            return True
        rows = (row.tenant for _, row in self._log.read(Interaction, subject=subject))
        events = [event for _, event in self._log.read(Feedback, subject=subject)]
        return all(key in keys for key in rows) and self.ownership.owned(events, tenant, keys) == events

    def _all_about(self, target: str) -> Iterator[Feedback]:
        """All events about an answer, with the withdrawals of the choices it was part of."""
        choices = set()
        for _, event in self._log.read(Feedback, target=target):
            yield event
            if isinstance(event, Choice):
                choices.add(event_target(event))
        for choice in choices - {target}:
            yield from (event for _, event in self._log.read(Feedback, target=choice))

    async def _write(self, parsed: Sequence[ParsedEvent]) -> list[IntakeResult]:
        """Write all events together; where one of them cannot be kept, each by itself."""
        if not parsed:
            return []
        try:
            await self._writer.write(*(event for p in parsed for event in p.events))
        except (InputError, IdTaken, Erased):
            return list(await asyncio.gather(*(self._write_one(p) for p in parsed)))
        return [_accepted(p) for p in parsed]

    async def _write_one(self, parsed: ParsedEvent) -> IntakeResult:
        event = parsed.event
        try:
            await self._writer.write(*parsed.events)
        except Erased:
            error = "this answer, or this event, was erased on request"
            return IntakeResult(id=None, status="erased", error=error)
        except InputError as error:
            return IntakeResult(id=None, status="refused", error=str(error))
        except IdTaken:
            # A repetition is accepted: the same event, at whatever time where the client gave none.
            stored = [await asyncio.to_thread(self._log.get, Feedback, e.id) for e in parsed.events]
            both = zip(parsed.events, stored, strict=True)
            if not parsed.dated and all(old and replace(new, time=old.time) == old for new, old in both):
                return _accepted(parsed)
            problem = f"other feedback is kept under the id {event.id!r}; an id names one content for ever"
            return IntakeResult(id=event.id, status="conflict", error=problem)
        return _accepted(parsed)


def _revocation(event: Feedback) -> Revocation:
    return Revocation(
        id=f"revoke-{event.id}",
        time=event.time,
        target=event_target(event),
        subject=event.subject,
        name=event_name(event),
        source=event.source,
    )


def _shown(result: IntakeResult, author: FeedbackAuthor) -> IntakeResult:
    """The result under the id that the tenant knows."""
    texts = {"id": result.id, "error": result.error}
    return result.model_copy(update={k: v and shown_id(v, author.tenant) for k, v in texts.items()})


def _accepted(parsed: ParsedEvent) -> IntakeResult:
    event, read_as = parsed.event, None
    if isinstance(event, Rating):
        value = ("up" if event.value else "down") if isinstance(event.value, bool) else f"{event.value:g}"
        read_as = f"{event.name} {value}"
    reasons = dict.fromkeys(reason for e in parsed.events if (reason := why_not_trained_on(e)))
    return IntakeResult(
        id=event.id,
        status="accepted",
        read_as=read_as,
        not_trained_on="; ".join(reasons) or None,
        not_kept=parsed.not_kept,
    )

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
from escultor.serve.intake.targets import AnswerIds, answers_of, renamed
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
    more: bool
    live: tuple[Feedback, ...]  # the events in force, of all about the answer, at most MAX_PAGE
    live_count: int


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
        self._ids = AnswerIds(store.log)

    async def add(self, bodies: Sequence[Any], author: FeedbackAuthor) -> list[IntakeResult]:
        """Keep events; the accepted ones are on disk when this returns. A refused one affects no other.
        Raises InputError for more events than a request may have, StoreError or Overloaded when the store
        cannot keep them now."""
        if len(bodies) > self._settings.batch:
            raise InputError("too many events in one request", len(bodies), self._settings.batch)
        outcomes: list[ParsedEvent | IntakeResult] = []
        now = self.now()
        for body in bodies:
            try:
                parsed = parse(body, author, self._settings, now)
            except InputError as error:
                outcomes.append(IntakeResult(id=None, status="refused", error=str(error)))
            else:
                outcomes.append(parsed if self._keep_text else without_text(parsed))
        written = iter(await self._write(await self._about_rows(outcomes, author.tenant)))
        return [o if isinstance(o, IntakeResult) else next(written) for o in outcomes]

    async def _about_rows(
        self, outcomes: Sequence[ParsedEvent | IntakeResult], tenant: str | None
    ) -> list[ParsedEvent]:
        """The parsed events, about the logged rows where they name answers by an application's own ids."""
        parsed = [outcome for outcome in outcomes if isinstance(outcome, ParsedEvent)]
        ids = [id for each in parsed for id in answers_of(each.event)]
        rows = await asyncio.to_thread(self._ids.rows_of, ids, tenant)
        return [replace(each, event=renamed(each.event, rows)) for each in parsed] if rows else parsed

    async def withdraw(self, id: str) -> Revocation | None:
        """Revoke an event; None where there is none of this id. Doing it again changes nothing. The
        revocation has the time of its event, so that it ends that event and earlier ones of the same name,
        and none that came later. Raises DataError for a revocation, StoreError when the store fails."""
        event = await asyncio.to_thread(self._log.get, Feedback, id)
        if event is None:
            return None
        if isinstance(event, Revocation):
            remedy = "send again what should hold"
            raise DataError("a withdrawal cannot be withdrawn", id, "feedback of another kind", remedy)
        revocation = Revocation(
            id=f"revoke-{id}",
            time=event.time,
            target=event_target(event),
            subject=event.subject,
            name=event_name(event),
            source=event.source,
        )
        await self._writer.write(revocation)
        return revocation

    async def page(self, target: str, after: int, limit: int) -> FeedbackPage:
        """The events about an answer (or under the target of a choice) after sequence number `after`."""
        return await asyncio.to_thread(self._page, target, after, min(limit, MAX_PAGE))

    def _page(self, target: str, after: int, limit: int) -> FeedbackPage:
        target = self._ids.rows_of([target]).get(target, target)
        events = tuple(islice(self._log.read(Feedback, after, target=target), limit + 1))
        in_force = live(self._all_about(target))
        return FeedbackPage(
            known=self._log.get(Interaction, target) is not None,
            events=events[:limit],
            more=len(events) > limit,
            live=tuple(islice(in_force.values(), MAX_PAGE)),
            live_count=len(in_force),
        )

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

"""Taking in what people make of answers: durable before it is acknowledged, idempotent on id.

Feedback on an answer that is not in the log is taken in like any other; whoever folds the log later finds
both or one of them. Nothing waits for the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal

from escultor.config import FeedbackIntake
from escultor.errors import DataError, Erased, IdTaken, InputError
from escultor.serve.intake.parse import FeedbackAuthor, ParsedEvent, parse, without_text
from escultor.serve.writer import Writer
from escultor.store import Store
from escultor.store.feedback import live, name_of, target_of
from escultor.types import Choice, Feedback, Interaction, Revocation

MOST_SHOWN = 1000  # events of one page

# What became of an event, and the HTTP status that says so.
Status = Literal["accepted", "refused", "conflict", "erased"]
CODES: dict[Status, int] = {"accepted": 202, "refused": 400, "conflict": 409, "erased": 410}


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """What became of one event of a request. `id` is what it is kept under, None where it was refused."""

    status: Status
    id: str | None = None
    problem: str | None = None
    not_kept: tuple[str, ...] = ()  # parts of what was said that have no place

    def shown(self) -> dict[str, Any]:
        """As a client reads it."""
        said: dict[str, Any] = {"id": self.id, "status": self.status}
        said |= {"error": self.problem} if self.problem else {}
        return said | ({"not_kept": list(self.not_kept)} if self.not_kept else {})


@dataclass(frozen=True, slots=True)
class FeedbackPage:
    """Some of what was said about one answer, in the order it was recorded."""

    known: bool  # whether the answer is in the log
    events: tuple[tuple[int, Feedback], ...]
    more: bool
    live: tuple[Feedback, ...]  # what holds now, of all that was said and not of this page alone
    live_count: int


class Intake:
    """Takes in, shows and withdraws feedback of one store."""

    def __init__(
        self,
        store: Store,
        writer: Writer,
        settings: FeedbackIntake,
        clock: Callable[[], float] = time.time,
        *,
        keep_text: bool = True,
    ):
        """Without `keep_text` no word of corrections and remarks is kept."""
        self._log, self._writer, self._settings, self._clock = store.log, writer, settings, clock
        self._keep_text = keep_text

    def now(self) -> float:
        """What the clock says."""
        return self._clock()

    async def take(self, bodies: Sequence[Any], speaker: FeedbackAuthor) -> list[IntakeResult]:
        """Take in events; those that are accepted are on disk when this returns.

        One that cannot be kept keeps no other from being kept. Raises InputError for more events than
        a request may have, StoreError or Overloaded when the store cannot keep them now.
        """
        if len(bodies) > self._settings.batch:
            raise InputError("too many events in one request", len(bodies), self._settings.batch)
        results: list[IntakeResult] = [IntakeResult("refused")] * len(bodies)
        found: dict[int, ParsedEvent] = {}
        now = self._clock()
        for at, body in enumerate(bodies):
            try:
                parsed = parse(body, speaker, self._settings, now)
            except InputError as error:
                results[at] = IntakeResult("refused", None, str(error))
            else:
                found[at] = parsed if self._keep_text else without_text(parsed)
        for at, outcome in zip(found, await self._keep(list(found.values())), strict=True):
            results[at] = outcome
        return results

    async def withdraw(self, id: str) -> Revocation | None:
        """Record that an event holds no longer; None where there is none of this id.

        The revocation carries the time of what it withdraws, so that it ends that word and those before
        it, and none that was said later; doing it again changes nothing. Raises DataError for an
        event that is a revocation itself, StoreError when the store fails.
        """
        event = await asyncio.to_thread(self._log.get, Feedback, id)
        if event is None:
            return None
        if isinstance(event, Revocation):
            remedy = "say again what should hold"
            raise DataError("a withdrawal cannot be withdrawn", id, "feedback of another kind", remedy)
        about = (f"revoke-{id}", event.time, target_of(event), event.subject)
        revocation = Revocation(*about, name_of(event), source=event.source)
        await self._writer.write(revocation)
        return revocation

    async def about(self, target: str, after: int, limit: int) -> FeedbackPage:
        """What was said about an answer (or under the target of a choice), behind number `after`."""
        return await asyncio.to_thread(self._about, target, after, min(limit, MOST_SHOWN))

    def _about(self, target: str, after: int, limit: int) -> FeedbackPage:
        events = tuple(islice(self._log.read(Feedback, after, target=target), limit + 1))
        held = live(self._all_about(target))
        known = self._log.get(Interaction, target) is not None
        shown = tuple(islice(held.values(), MOST_SHOWN))
        return FeedbackPage(known, events[:limit], len(events) > limit, shown, len(held))

    def _all_about(self, target: str) -> Iterator[Feedback]:
        """All that was said about an answer, withdrawals of the choices it was part of included."""
        choices = set()
        for _, event in self._log.read(Feedback, target=target):
            yield event
            if isinstance(event, Choice):
                choices.add(target_of(event))
        for choice in choices - {target}:
            yield from (event for _, event in self._log.read(Feedback, target=choice))

    async def _keep(self, parsed: Sequence[ParsedEvent]) -> list[IntakeResult]:
        """Write all at once; where one of them cannot be kept, each by itself."""
        if not parsed:
            return []
        try:
            await self._writer.write(*(p.event for p in parsed))
        except (InputError, IdTaken, Erased):
            return list(await asyncio.gather(*(self._keep_one(p) for p in parsed)))
        return [IntakeResult("accepted", p.event.id, None, p.not_kept) for p in parsed]

    async def _keep_one(self, parsed: ParsedEvent) -> IntakeResult:
        event = parsed.event
        try:
            await self._writer.write(event)
        except Erased:
            return IntakeResult("erased", None, "this answer, or this event, was erased on request")
        except InputError as error:
            return IntakeResult("refused", None, str(error))
        except IdTaken:
            return await self._repeated(parsed)
        return IntakeResult("accepted", event.id, None, parsed.not_kept)

    async def _repeated(self, parsed: ParsedEvent) -> IntakeResult:
        """Whether what is there under the id says the same: where the client gave no time, whenever."""
        event = parsed.event
        there = await asyncio.to_thread(self._log.get, Feedback, event.id)
        if there is not None and not parsed.dated and replace(event, time=there.time) == there:
            return IntakeResult("accepted", event.id, None, parsed.not_kept)
        problem = f"other feedback is kept under the id {event.id!r}; an id names one content for ever"
        return IntakeResult("conflict", event.id, problem)

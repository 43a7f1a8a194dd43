"""Log first, answer second: rows of answers, durable before anything is delivered, or what a setting says.

What holds of a stream: its `PendingInteraction` is durable before its first piece is delivered, its row
before its last. If the process dies between, the row it carries is recorded by `recovery`:
prompt, version, arm and seed are known then, the pieces delivered are not, and the row says so: it ends
`interrupted`, which no other row does.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from escultor.config import Serve
from escultor.errors import EscultorError, StoreError
from escultor.ids import new_id
from escultor.serve.deployments import EnginePick
from escultor.serve.gateway.request_metadata import RequestMetadata
from escultor.serve.in_flight import AbortReason, InFlightCompletion
from escultor.serve.interactions import Placement, Request, interaction
from escultor.serve.subjects import SubjectHasher
from escultor.serve.writer import Writer
from escultor.store.redaction import redacted
from escultor.types import Interaction, PendingInteraction

logger = logging.getLogger(__name__)


class RequestLog:
    """Writes rows of answers, and counts what could not be written."""

    def __init__(
        self,
        writer: Writer,
        subjects: SubjectHasher,
        settings: Serve,
        clock: Callable[[], float] = time.time,
    ):
        self._writer, self._subjects, self._settings, self._clock = writer, subjects, settings, clock
        # Another process with this number on this machine is told apart by the random part.
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{new_id('gw')}"
        self.unlogged = 0  # answers delivered (or broken off) without a row, since the start

    def row(
        self,
        making: InFlightCompletion,
        pick: EnginePick,
        terms: RequestMetadata,
        broken: AbortReason = "error",
    ) -> Interaction:
        """The row of an answer as it stands; `broken` says why it has no end, where it has none."""
        settings = self._settings
        version = pick.held.version
        hourly = settings.hourly_price_usd if settings.upstream is None else 0.0  # whose machine computes
        outcome = making.outcome(broken, version, settings.prices, hourly)
        request = Request(
            making.messages,
            terms.subject,
            terms.skill,
            terms.lineage,
            terms.consent,
            terms.retain_until,
            making.id,
            terms.tenant,
        )
        placement = Placement(version, pick.arm, pick.propensity)
        made = interaction(request, placement, making.ask.sampling, outcome, self._clock())
        return made if settings.keep_text else self.redacted(made)

    def openings(
        self, makings: Sequence[InFlightCompletion], pick: EnginePick, terms: RequestMetadata
    ) -> list[PendingInteraction]:
        """What is to be recorded of answers of which nothing has come yet."""
        until = self._clock() + 2 * self._settings.answer_timeout_s
        return [
            PendingInteraction(self.owner, until, self.row(making, pick, terms, "interrupted"))
            for making in makings
        ]

    async def open(self, openings: Sequence[PendingInteraction]) -> None:
        """Record that answers are about to be streamed. Raises StoreError where that is refused."""
        if (error := await self._keep(openings)) is not None:
            logger.error("answers are streamed whose opening could not be recorded: %s", error)

    async def close(
        self, makings: Sequence[InFlightCompletion], pick: EnginePick, terms: RequestMetadata
    ) -> None:
        """Record answers that are done; they are on disk when this returns, together or not at all.

        Raises StoreError where they could not be kept and the setting is to refuse.
        """
        rows = [self.row(making, pick, terms) for making in makings]
        for making in makings:
            making.recorded = True
        if (error := await self._keep(rows)) is not None:
            self._missed(len(rows), error)

    def break_off(
        self,
        makings: Sequence[InFlightCompletion],
        pick: EnginePick,
        terms: RequestMetadata,
        why: AbortReason,
    ) -> None:
        """Record what there is of answers that will not be delivered to their end. Waits for nothing."""
        for making in makings:
            if not making.recorded:
                making.recorded = True
                try:
                    self._writer.submit(self.row(making, pick, terms, why)).add_done_callback(self._heard)
                except EscultorError as error:
                    self._missed(1, error)

    async def _keep(self, nouns: Sequence[object]) -> Exception | None:
        """Write nouns; why they were not written, where the setting is to answer nevertheless."""
        try:
            async with asyncio.timeout(self._settings.store_timeout_s):
                await self._writer.write(*nouns)
        except (EscultorError, TimeoutError) as error:
            if self._settings.on_store_failure == "refuse":
                logger.error("an answer could not be recorded, and is refused: %s", error)
                raise StoreError("the answer could not be recorded", error) from error
            return error
        return None

    def _heard(self, future: Future[list[int]]) -> None:
        if (error := future.exception()) is not None:
            self._missed(1, error)

    def _missed(self, count: int, error: BaseException) -> None:
        self.unlogged += count
        logger.error("%d answers could not be recorded: %s", count, error)

    def redacted(self, made: Interaction) -> Interaction:
        """The row without a word of what was said."""
        return redacted(made, self._subjects.subject)

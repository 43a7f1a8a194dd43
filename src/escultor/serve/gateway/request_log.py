"""Log first, answer second: rows of answers, on disk before anything is delivered.

Of a stream, the `PendingInteraction` is on disk before its first piece is delivered, and its row before its
last. If the process dies between, `Recovery` records the row that the pending record carries: prompt,
version, arm and seed are known then, the delivered pieces are not, and its finish reason is `interrupted`,
which no other row has.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from escultor.config import Serve
from escultor.errors import Erased, EscultorError, IdTaken, StoreError
from escultor.ids import new_id
from escultor.serve.gateway.metrics import AnswerMetrics
from escultor.serve.in_flight import AbortReason, InFlightCompletion
from escultor.serve.subjects import SubjectHasher
from escultor.serve.writer import Writer
from escultor.store.log import Log
from escultor.store.redaction import redact_record
from escultor.types import Interaction, Media, PendingInteraction, ToolDefinitions

logger = logging.getLogger(__name__)

LOOK_BACK_S = 7 * 86400.0  # a gateway that starts considers pending records up to this age


class RequestLog:
    """Writes the rows of answers, and counts those that could not be written."""

    def __init__(
        self,
        writer: Writer,
        subjects: SubjectHasher,
        settings: Serve,
        clock: Callable[[], float] = time.time,
    ):
        self._writer, self._subjects, self._settings, self._clock = writer, subjects, settings, clock
        self._upstreams = settings.upstream_versions
        self._prices = settings.prices | {
            id: each.price for id, each in self._upstreams.items() if each.price
        }
        # The random part distinguishes later processes that get the same number.
        self.owner = f"{socket.gethostname()}/{os.getpid()}/{new_id('gw')}"
        self.unlogged = 0  # answers delivered (or broken off) without a row, since the start
        self.metrics = AnswerMetrics()

    def row(self, completion: InFlightCompletion, aborted: AbortReason = "error") -> Interaction:
        """The row of an answer as it is now; `aborted` is its finish reason where it has no end."""
        settings = self._settings
        # What an upstream answers, another's machine computes.
        is_ours = settings.upstream is None and completion.draft.version not in self._upstreams
        hourly = settings.hourly_price_usd if is_ours else 0.0
        row = completion.interaction(aborted, self._clock(), self._prices, hourly)
        return row if settings.keep_text else self.redacted(row)

    def redacted(self, row: Interaction) -> Interaction:
        """The row without any text."""
        return redact_record(row, self._subjects.subject)

    def pending(self, completions: Sequence[InFlightCompletion]) -> list[object]:
        """The pending records of answers, as before their first pieces, and what they share with others."""
        until = self._clock() + 2 * self._settings.answer_timeout_s
        unanswered = [InFlightCompletion(c.request, c.draft) for c in completions]
        rows = [PendingInteraction(self.owner, until, self.row(c, "interrupted")) for c in unanswered]
        return [*self._shared(completions), *rows]

    def _shared(self, completions: Sequence[InFlightCompletion]) -> Iterable[ToolDefinitions | Media]:
        """The records that the rows of these answers name: written where the log does not hold them."""
        return {s.id: s for c in completions for s in c.shared if self._settings.keep_text}.values()

    async def record_pending(self, pending: Sequence[object]) -> None:
        """Record that answers are about to be streamed. Raises StoreError where that is refused."""
        if (error := await self._write(pending)) is not None:
            logger.error("answers are streamed whose pending records could not be written: %s", error)

    async def record(self, completions: Sequence[InFlightCompletion]) -> None:
        """Record finished answers; they are on disk when this returns, together or not at all. Raises
        StoreError where they could not be written and `serve.on_store_failure` is `refuse`."""
        rows = [self.row(completion) for completion in completions]
        for completion, row in zip(completions, rows, strict=True):
            completion.recorded = True
            self.metrics.count(row)
        if (error := await self._write([*self._shared(completions), *rows])) is not None:
            self._count_unlogged(len(rows), error)

    def record_aborted(self, completions: Sequence[InFlightCompletion], reason: AbortReason) -> None:
        """Record what there is of answers that will not be finished, without waiting for the disk."""
        for completion in completions:
            if not completion.recorded:
                completion.recorded = True
                try:
                    row = self.row(completion, reason)
                    self.metrics.count(row)
                    future = self._writer.submit(*self._shared([completion]), row)
                    future.add_done_callback(self._on_written)
                except EscultorError as error:
                    self._count_unlogged(1, error)

    async def _write(self, records: Sequence[object]) -> Exception | None:
        """Write records; the error, where `serve.on_store_failure` is `answer`."""
        try:
            async with asyncio.timeout(self._settings.store_timeout_s):
                await self._writer.write(*records)
        except (EscultorError, TimeoutError) as error:
            if self._settings.on_store_failure == "refuse":
                logger.error("an answer could not be recorded, and is refused: %s", error)
                raise StoreError("the answer could not be recorded", error) from error
            return error
        return None

    def _on_written(self, future: Future[list[int]]) -> None:
        if (error := future.exception()) is not None:
            self._count_unlogged(1, error)

    def _count_unlogged(self, count: int, error: BaseException) -> None:
        self.unlogged += count
        logger.error("%d answers could not be recorded: %s", count, error)


class Recovery:
    """Finds pending records without a row; each search starts behind those before which all have theirs."""

    def __init__(self, log: Log, writer: Writer, owner: str, clock: Callable[[], float] = time.time):
        """`owner` is this process, as its own pending records name it."""
        self._log, self._writer, self._owner, self._clock = log, writer, owner, clock
        self._after = 0  # up to this entry every pending record has its row

    def recover(self) -> int:
        """Record the rows of streams whose process is gone; how many there were. Idempotent. Whether a
        process of this machine lives is checked; a stream of another machine is lost when its time is over.
        Raises StoreError when the store fails."""
        now, end = self._clock(), self._log.last_seq()
        since = 0.0 if self._after else now - LOOK_BACK_S
        unfinished = self._log.unmatched(PendingInteraction, Interaction, since, self._after)
        lost = [p.interaction for _, p in unfinished if p.until < now or _is_gone(p.owner, self._owner)]
        recorded = 0
        for future in [self._writer.submit(row) for row in lost]:
            with suppress(IdTaken, Erased):  # it got its row, or was erased, since the search
                future.result()
                recorded += 1
        self._after = min((seq - 1 for seq, _ in unfinished), default=end)
        return recorded


def _is_gone(owner: str, own: str) -> bool:
    """Whether a process has ended, as far as this machine can know."""
    host, number, _ = owner.split("/", 2)
    if host != own.split("/", 2)[0] or owner == own or os.name == "nt":  # there `os.kill` would interrupt it
        return False
    if int(number) == os.getpid():
        return True  # the process that had this number before has ended: it is ours now
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it runs, under another user
        return False
    return False

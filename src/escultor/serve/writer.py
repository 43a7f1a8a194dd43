"""One thread that writes to the log for all requests: what waits goes into one transaction (group commit).

A transaction costs one sync of the disk however much it holds, so that many small concurrent appends would
wait for one another's syncs; together they wait for one. Law: what was awaited is on disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol

from escultor.errors import EscultorError, Overloaded, StoreError
from escultor.store.appending import AppendOutcome

BATCH = 256  # groups in one transaction at most
PROBE_S = 5.0  # after a failure, how often it is seen whether the store takes writes again
MAX_WAITING = 8192  # groups that may wait; the next one is refused


class Appender(Protocol):
    """What the writer writes to: a log, or the process that appends to it."""

    def append_each(self, groups: Sequence[Sequence[object]]) -> list[AppendOutcome]: ...
    def check_writable(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Group:
    """Records that are written together or not at all, and the future of their sequence numbers."""

    records: tuple[object, ...]
    future: Future[list[int]] = field(default_factory=Future)


class Writer:
    """Appends to one log from one thread, in the order of submission. Close it when done."""

    def __init__(self, log: Appender, waiting: int = MAX_WAITING, batch: int = BATCH):
        self._log, self._limit, self._batch = log, waiting, batch
        self._queue: deque[_Group] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.failed = 0  # groups that the store failed to write since the start
        self.is_failing = False  # whether the last write failed
        self._thread = threading.Thread(target=self._run, name="escultor-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Groups in the queue; those being written now are not counted."""
        return len(self._queue)

    def submit(self, *records: object) -> Future[list[int]]:
        """Queue a group of records; the future holds their sequence numbers once they are on disk.

        They are written whether the future is awaited or not. Raises Overloaded when the queue is full,
        StoreError after `close`. The future raises what `Log.append` raises for these records alone; where
        the store fails, all groups of the transaction fail.
        """
        group = _Group(records)
        group.future.set_running_or_notify_cancel()  # a cancelled waiter does not cancel the write
        with self._changed:
            if self._closing:
                raise StoreError("the writer of the log is closed", remedy="start the server again")
            if len(self._queue) >= self._limit:
                remedy = "try again later; the disk is slower than the requests"
                raise Overloaded("too many writes are waiting", len(self._queue), self._limit - 1, remedy)
            self._queue.append(group)
            self._changed.notify()
        return group.future

    async def write(self, *records: object) -> list[int]:
        """Append records; they are on disk when this returns their sequence numbers. Raises as `submit`."""
        return await asyncio.wrap_future(self.submit(*records))

    def close(self) -> None:
        """Write what waits, then stop the thread. Nothing is accepted any more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while not self._closing or self._queue:
            if batch := self._next():
                self._write(batch)
            elif self.is_failing:
                self._probe()

    def _probe(self) -> None:
        with suppress(EscultorError):
            self._log.check_writable()
            self.is_failing = False

    def _next(self) -> list[_Group]:
        """The groups that wait, oldest first; none when the writer is closed, or a probe is due."""
        with self._changed:
            if not self._queue and not self._closing:
                self._changed.wait(PROBE_S if self.is_failing else None)
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]

    def _write(self, batch: Sequence[_Group]) -> None:
        """Write one transaction; the fault of one group fails no other."""
        try:
            outcomes = self._log.append_each([group.records for group in batch])
        except BaseException as error:  # the thread must live: the error goes to those who wait
            self.failed, self.is_failing = self.failed + len(batch), True
            for group in batch:
                group.future.set_exception(error)
            return
        self.is_failing = False
        for group, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, EscultorError):
                group.future.set_exception(outcome)
            else:
                group.future.set_result(outcome)

"""One thread that writes to the log for everyone: whatever waits goes into one transaction (group commit).

A transaction costs a sync of the disk however much it holds, so that many small appends at once would
wait for one another; together they wait for one. Law: what was awaited is on disk.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from escultor.errors import EscultorError, Overloaded, StoreError
from escultor.store.log import Log

BATCH = 256  # items of one transaction at most
WAITING = 8192  # items that may wait; the next one is refused


@dataclass(frozen=True, slots=True)
class _Item:
    """Nouns that are kept together or not at all, and whoever waits for their sequence numbers."""

    nouns: tuple[object, ...]
    future: Future[list[int]] = field(default_factory=Future)


class Writer:
    """Appends to one log from one thread, in the order in which things were given. Close it when done."""

    def __init__(self, log: Log, waiting: int = WAITING, batch: int = BATCH):
        self._log, self._limit, self._batch = log, waiting, batch
        self._queue: deque[_Item] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self.failed = 0  # items that the store failed to keep since the start
        self._thread = threading.Thread(target=self._run, name="escultor-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Items that are not on disk yet, but for those being written now."""
        return len(self._queue)

    def submit(self, *nouns: object) -> Future[list[int]]:
        """Put nouns in line; the future holds their sequence numbers once they are on disk.

        They are written whether anyone waits or not. Raises Overloaded when too many wait already,
        StoreError after `close`. The future raises what `Log.append` raises for these nouns alone;
        where the store fails, all that were to be written with them fail too.
        """
        item = _Item(nouns)
        item.future.set_running_or_notify_cancel()  # a waiter that goes away takes nothing back
        with self._changed:
            if self._closing:
                raise StoreError("the writer of the log is closed", remedy="start the server again")
            if len(self._queue) >= self._limit:
                remedy = "ask again later; the disk is slower than what comes in"
                raise Overloaded("too much waits to be written", len(self._queue), self._limit - 1, remedy)
            self._queue.append(item)
            self._changed.notify()
        return item.future

    async def write(self, *nouns: object) -> list[int]:
        """Record nouns; they are on disk when this returns their sequence numbers. Raises as `submit`."""
        return await asyncio.wrap_future(self.submit(*nouns))

    def close(self) -> None:
        """Write what waits, then end. Nothing is taken in any more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while batch := self._next():
            self._write(batch)

    def _next(self) -> list[_Item]:
        """Whatever waits, oldest first; nothing once the writer is closed and all is written."""
        with self._changed:
            while not self._queue and not self._closing:
                self._changed.wait()
            return [self._queue.popleft() for _ in range(min(len(self._queue), self._batch))]

    def _write(self, batch: Sequence[_Item]) -> None:
        """One transaction; the fault of an item is its own."""
        try:
            outcomes = self._log.append_each([item.nouns for item in batch])
        except BaseException as error:  # the thread must live: whoever waits hears of it
            self.failed += len(batch)
            for item in batch:
                item.future.set_exception(error)
            return
        for item, outcome in zip(batch, outcomes, strict=True):
            if isinstance(outcome, EscultorError):
                item.future.set_exception(outcome)
            else:
                item.future.set_result(outcome)

"""Appends to the log in a process of its own.

In a thread of the server, a transaction asks for the interpreter some twenty times, and waits for the event
loop each time: 0.6 ms of work took 4 to 18 ms at p99. Beside it the interpreter is asked for twice.
"""

from __future__ import annotations

import gc
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache, partial
from typing import TypeVar

from escultor.errors import EngineFault, StoreError
from escultor.serve.side_process import SideProcess
from escultor.store.appending import AppendOutcome
from escultor.store.log import Log

T = TypeVar("T")


class LogProcess:
    """Appends to a log in another process, for one thread (the writer's). Close it when done."""

    def __init__(self, log: Log):
        self._name, self._pickled = log.name, pickle.dumps(log)
        self._process = SideProcess(niceness=0)
        self._process.start()

    def append_each(self, groups: Sequence[Sequence[object]]) -> list[AppendOutcome]:
        """As `Log.append_each`."""
        return self._call(partial(_append_each, self._pickled, groups))

    def check_writable(self) -> None:
        """As `Log.check_writable`."""
        self._call(partial(_check_writable, self._pickled))

    def _call(self, work: Callable[[], T]) -> T:
        """Tried twice; what the first process wrote before it was killed is not written again."""
        for _ in range(2):
            with suppress(EngineFault):
                return self._process.call_here(work)
        what = "the process that writes the log was killed twice"
        raise StoreError(what, self._name, remedy="see what ends processes, then try again")

    def close(self) -> None:
        """End the process."""
        self._process.close()


def _append_each(pickled: bytes, groups: Sequence[Sequence[object]]) -> list[AppendOutcome]:
    return _log(pickled).append_each(groups)


def _check_writable(pickled: bytes) -> None:
    _log(pickled).check_writable()


@cache
def _log(pickled: bytes) -> Log:
    """The log of this process, with connections of its own."""
    log = pickle.loads(pickled)  # noqa: S301  the server wrote it
    gc.freeze()  # what is loaded stays
    return log

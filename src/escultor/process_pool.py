"""Several processes at work on pieces, their results in the order of the pieces, however many they are."""

from __future__ import annotations

import gc
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from threading import Thread
from types import TracebackType
from typing import Any, TypeVar

from escultor.errors import FaultError

T = TypeVar("T")
R = TypeVar("R")
_SHARED: list[Any] = []  # in a worker: what every piece of work is given


def _share(value: Any) -> None:
    _SHARED[:] = [value]
    gc.freeze()  # what was imported is there to stay: not to be gone through for cycles again and again
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Waiting for work outlasts a parent that was killed, for ever: its end of the queue is held here too."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any, Any], Any], piece: Any) -> Any:
    return function(_SHARED[0], piece)


class ProcessPool:
    """Workers that all hold `shared`. One worker is this process itself; more are fresh processes (spawned,
    so that threads of this one do no harm)."""

    def __init__(self, workers: int, shared: Any):
        self.workers = workers or os.cpu_count() or 1
        self._shared = shared
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> ProcessPool:
        if self.workers > 1:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, _share, (self._shared,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def over(self, function: Callable[[Any, T], R], pieces: Iterable[T]) -> Iterator[R]:
        """`function(shared, piece)` of every piece, in their order; few are under way at a time.

        Raises FaultError where a worker was killed; what a piece raises is raised here.
        """
        if self._pool is None:
            yield from (function(self._shared, piece) for piece in pieces)
            return
        waiting: deque[Future[R]] = deque()
        try:
            for piece in pieces:
                waiting.append(self._pool.submit(_call, function, piece))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            remedy = (
                "free memory, then try again (curation: `workers: 1` needs less); a script of your own needs "
                'its start behind `if __name__ == "__main__":`; nothing was kept'
            )
            raise FaultError("a process at work on the data was killed", error, None, remedy) from error

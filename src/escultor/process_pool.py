"""A pool of processes that yields results in the order of the tasks, whatever their number."""

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
_SHARED: list[Any] = []  # in a worker: the value that every task is given


def _start_worker(shared: Any) -> None:
    _SHARED[:] = [shared]
    gc.freeze()  # imported objects stay: no use in searching them for cycles again and again
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker with its parent: one that waits on its queue would outlive a killed parent, because
    it holds the other end of the queue too."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any, Any], Any], task: Any) -> Any:
    return function(_SHARED[0], task)


class ProcessPool:
    """Workers that all hold `shared`. With one worker the tasks run in this process; more are new processes,
    spawned, so that threads of this one do no harm."""

    def __init__(self, workers: int, shared: Any):
        self.workers = workers or os.cpu_count() or 1
        self._shared = shared
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> ProcessPool:
        if self.workers > 1:
            context = get_context("spawn")
            self._pool = ProcessPoolExecutor(self.workers, context, _start_worker, (self._shared,))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def map(self, function: Callable[[Any, T], R], tasks: Iterable[T]) -> Iterator[R]:
        """`function(shared, task)` for every task, in their order; at most two a worker wait at a time.

        Raises FaultError if a worker was killed; an exception of a task is raised here.
        """
        if self._pool is None:
            yield from (function(self._shared, task) for task in tasks)
            return
        waiting: deque[Future[R]] = deque()
        try:
            for task in tasks:
                waiting.append(self._pool.submit(_call, function, task))
                if len(waiting) > 2 * self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            remedy = (
                "free memory and try again (curation: `workers: 1` needs less); a script of your own must "
                'start under `if __name__ == "__main__":`; nothing was kept'
            )
            raise FaultError("a worker process was killed", error, None, remedy) from error

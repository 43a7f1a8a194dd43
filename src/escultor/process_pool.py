"""A process pool that yields results in the order of the tasks."""

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
_SHARED: list[Any] = []  # in a worker: the value passed to every task


def usable_cpus() -> int:
    """The number of CPUs that this process may use; where the system does not tell, of all CPUs."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _start_worker(shared: Any) -> None:
    _SHARED[:] = [shared]
    gc.freeze()  # imported objects stay alive: the collector need not scan them
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent dies: while it waits on its queue it would outlive a killed parent,
    because it holds the other end of the queue too."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _call(function: Callable[[Any, Any], Any], task: Any) -> Any:
    return function(_SHARED[0], task)


class ProcessPool:
    """Workers that all hold `shared`. With one worker the tasks run in this process; more workers are spawned
    processes, which are safe with threads in this one."""

    def __init__(self, workers: int, shared: Any):
        self.workers = workers or usable_cpus()
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
        """Yield `function(shared, task)` for every task in order, with at most two tasks per worker queued.

        Raises FaultError if a worker was killed; a task's exception is raised here.
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
                "free memory and try again (curation: `workers: 1` needs less); start your own script "
                'under `if __name__ == "__main__":`; nothing was stored'
            )
            raise FaultError("a worker process was killed", error, None, remedy) from error

"""Work of one request (or the loading of one model) in a thread that ends when nobody waits for it.

A thread of Python cannot be killed, but an exception can be raised in it: a loop of Python, such as a chat
template that never ends, stops there. Calls into libraries end first, so that their input is bounded by size.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from escultor.errors import EngineFault

T = TypeVar("T")


class Interrupted(BaseException):
    """Raised in a thread whose result nobody waits for. No `except Exception` keeps it."""


async def run_interruptible(work: Callable[[], T], timeout_s: float, name: str) -> T:
    """The result of `work`, called in a daemon thread of its own, which is interrupted after `timeout_s` and
    when the caller is cancelled. Raises what `work` raises; TimeoutError; EngineFault for what is no
    Exception, such as the panic of a library written in Rust."""
    call = _ThreadedWork(work, asyncio.get_running_loop())
    threading.Thread(target=call.run, name=f"escultor-{name}", daemon=True).start()
    try:
        async with asyncio.timeout(timeout_s):
            return await call.future
    except BaseException:
        call.interrupt()
        raise


class _ThreadedWork(Generic[T]):
    """One call in a thread, and the future of its result."""

    def __init__(self, work: Callable[[], T], loop: asyncio.AbstractEventLoop):
        self._work, self._loop = work, loop
        self.future: asyncio.Future[T] = loop.create_future()
        self._lock = threading.Lock()
        self._thread: int | None = None  # while it works: another thread may get the same number later

    def run(self) -> None:
        with suppress(Interrupted):
            with self._lock:
                self._thread = threading.get_ident()
            try:
                self._deliver(self.future.set_result, self._work())
            except Interrupted:
                raise
            except Exception as error:
                self._deliver(self.future.set_exception, error)
            except BaseException as error:
                fault = EngineFault("a library failed", f"{type(error).__name__}: {str(error)[:200]}")
                self._deliver(self.future.set_exception, fault)

    def _deliver(self, deliver: Callable[[Any], None], value: Any) -> None:
        with self._lock:
            self._thread = None
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(lambda: self.future.done() or deliver(value))

    def interrupt(self) -> None:
        with self._lock:
            if self._thread is not None:
                thread, error = ctypes.c_ulong(self._thread), ctypes.py_object(Interrupted)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, error)

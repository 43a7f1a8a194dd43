"""A process beside the server, for work that would keep the interpreter from the event loop in a thread too.

`SIDE` is the one for what takes long in libraries that are written in C, such as parsing 8 MB of JSON: they
hold the interpreter's lock for tenths of a second. It is started with the first call, once for all gateways
of a server's process, and gives way to them (a lower priority). A process ends with the server, which holds
the other end of its pipe.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import pickle
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Timer
from typing import Any, TypeVar

from escultor.errors import EngineFault, FaultError

T = TypeVar("T")

_NICE = 5


class SideProcess:
    """Calls functions in another process, one after the other."""

    def __init__(self, niceness: int = _NICE) -> None:
        self._niceness = niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, "escultor-side")

    async def call(self, work: Callable[[], T], timeout_s: float) -> T:
        """The result of `work`; both have to be picklable. Raises its errors of this package, FaultError for
        others, TimeoutError, and EngineFault where the process was killed. A caller that is cancelled while
        it waits gives its turn away."""
        task, loop = pickle.dumps(work), asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._timed, task, timeout_s)

    def _timed(self, task: bytes, timeout_s: float) -> Any:
        process, late = self.start(), list[bool]()
        timer = Timer(timeout_s, lambda: (late.append(True), process.kill()))
        timer.start()
        try:
            return self._ask(task)
        except EngineFault:
            if late:
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()

    def call_here(self, work: Callable[[], T]) -> T:
        """As `call`, for the one thread that uses this process; it waits as long as the work takes."""
        return self._ask(pickle.dumps(work))

    def _ask(self, task: bytes) -> Any:
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(task)
            process.stdin.flush()
            is_done, value = pickle.load(process.stdout)  # noqa: S301  our own process wrote it
        except (OSError, EOFError, pickle.UnpicklingError):
            self.close()
            raise EngineFault("the process beside the server was killed", remedy="ask again") from None
        if is_done:
            return value
        raise value

    def start(self) -> subprocess.Popen[bytes]:
        """The process, which is started where it does not live."""
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            command = [sys.executable, "-P", "-m", "escultor.serve.side_process", str(self._niceness)]
            pipe = subprocess.PIPE
            atexit.register(self.close)
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
        return self._process

    def close(self) -> None:
        """End the process; the next call starts another."""
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):
                self._process.communicate()
            self._process = None
            atexit.unregister(self.close)


SIDE = SideProcess()


def _outcome(work: Callable[[], Any]) -> tuple[bool, Any]:
    try:
        return True, work()
    except BaseException as error:  # a library's panic is no Exception
        if type(error).__module__.startswith("escultor."):
            return False, error
        return False, FaultError("a call of the process beside the server failed", traceback.format_exc())


def main() -> None:
    """Answer the calls of the standard input until it ends."""
    received, sent, sys.stdout = sys.stdin.buffer, sys.stdout.buffer, sys.stderr
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # all of a service get it: the server still needs it
    if hasattr(os, "nice"):
        os.nice(int(sys.argv[1]))
    gc.freeze()
    while True:
        try:
            work = pickle.load(received)  # noqa: S301  the server wrote it
        except EOFError:
            return
        pickle.dump(_outcome(work), sent)
        sent.flush()


if __name__ == "__main__":
    main()

"""A process that reads large bodies. Parsing and checking 8 MB hold the interpreter's lock for tenths of a
second in libraries written in C, thread or not, and the event loop with every other caller would wait for it.

The process is started with the first large body, once for all gateways of a server's process, and gives way
to them (a lower priority). It ends with the server, which holds the other end of its pipe.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import os
import pickle
import subprocess
import sys
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from threading import Timer
from typing import Any, TypeVar

from escultor.errors import EngineFault, EscultorError, FaultError
from escultor.serve.wire.body_json import parsed_json, refuse_excess
from escultor.serve.wire.errors import ApiError

T = TypeVar("T")

_NICE = 5
BodyReader = Callable[[Any], T]  # of a parsed body; picklable, and so is what it returns


def read(data: bytes, max_depth: int, reader: BodyReader[T]) -> tuple[int, T]:
    """How many values a body holds, and what `reader` makes of it. Raises ApiError, and as `reader` does."""
    values = refuse_excess(data, max_depth)
    return values, reader(parsed_json(data))


class BodyProcess:
    """`read` in another process, one body after the other."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ThreadPoolExecutor(1, "escultor-bodies")

    async def read(
        self, data: bytes, max_depth: int, reader: BodyReader[T], timeout_s: float
    ) -> tuple[int, T]:
        """As `read`. Raises TimeoutError where it takes longer, EngineFault where the process was killed. A
        caller that is cancelled while its body waits gives its turn away."""
        task, loop = pickle.dumps((data, max_depth, reader)), asyncio.get_running_loop()
        is_read, value = await loop.run_in_executor(self._thread, self._ask, task, timeout_s)
        if is_read:
            return value
        raise value

    def _ask(self, task: bytes, timeout_s: float) -> tuple[bool, Any]:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        late: list[bool] = []
        timer = Timer(timeout_s, lambda: (late.append(True), process.kill()))
        timer.start()
        try:
            process.stdin.write(task)
            process.stdin.flush()
            return pickle.load(process.stdout)  # noqa: S301  our own process wrote it
        except (OSError, EOFError, pickle.UnpicklingError):
            self.close()
            if late:
                raise TimeoutError from None
            raise EngineFault("the process that reads large bodies was killed", remedy="ask again") from None
        finally:
            timer.cancel()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self.close()
        if self._process is None:
            command = [sys.executable, "-P", "-m", "escultor.serve.gateway.body_process"]
            pipe = subprocess.PIPE
            atexit.register(self.close)
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, start_new_session=True)
        return self._process

    def close(self) -> None:
        """End the process; the next body starts another."""
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):
                self._process.communicate()
            self._process = None


BODIES = BodyProcess()


def _outcome(task: tuple[bytes, int, BodyReader[Any]]) -> tuple[bool, Any]:
    try:
        return True, read(*task)
    except (ApiError, EscultorError) as error:
        return False, error
    except BaseException:  # a library's panic is no Exception
        return False, FaultError("a body could not be read", traceback.format_exc())


def main() -> None:
    """Answer the tasks of the standard input until it ends."""
    received, sent, sys.stdout = sys.stdin.buffer, sys.stdout.buffer, sys.stderr
    if hasattr(os, "nice"):
        os.nice(_NICE)
    gc.freeze()
    while True:
        try:
            task = pickle.load(received)  # noqa: S301  the server wrote it
        except EOFError:
            return
        pickle.dump(_outcome(task), sent)
        sent.flush()


if __name__ == "__main__":
    main()

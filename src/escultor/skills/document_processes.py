"""Files of others are read in processes of their own: one that hangs, grows or crashes costs a line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Timer

from escultor.errors import DataError
from escultor.process_pool import usable_cpus
from escultor.skills.documents import ReadDocument

CPU_LIMIT_S = 9  # of processor time, where the system can limit it: whatever else the machine does
TIME_LIMIT_S = 60.0  # by the clock, for what waits


class _ReadingProcess:
    """One process, started when it is first needed and again after it was ended."""

    def __init__(self, time_limit_s: float, cpu_limit_s: int) -> None:
        self._time_limit_s, self._cpu_limit_s = time_limit_s, cpu_limit_s
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path) -> ReadDocument:
        """The document in a file. Raises DataError with the reason where there is none."""
        if self._process is None or self._process.poll() is not None:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "escultor.skills.documents", str(self._cpu_limit_s)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                encoding="utf-8",
            )
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        expired = Event()

        def end() -> None:
            expired.set()
            process.kill()

        timer = Timer(self._time_limit_s, end)
        timer.start()
        try:
            process.stdin.write(json.dumps(str(path)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        if not line.endswith("\n"):
            raise DataError(f"{path} cannot be read", self._end(expired.is_set()), "a smaller or sound file")
        found = json.loads(line)
        if "fault" in found:
            raise DataError(found["fault"])
        return ReadDocument(**found["document"])

    def _end(self, is_expired: bool) -> str:
        """Why the process gave no answer; it is gone afterwards."""
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        code = self._process.poll()
        self.close()
        if is_expired:
            return f"reading it took more than {self._time_limit_s:g} s"
        if code is not None and -code == getattr(signal, "SIGXCPU", None):
            return f"reading it took more than {self._cpu_limit_s} s of processor time"
        return f"reading it crashed ({'no exit' if code is None else f'exit code {code}'})"

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(OSError):
                self._process.communicate()
            self._process = None


def read_documents(
    paths: Iterable[Path],
    workers: int = 0,
    time_limit_s: float = TIME_LIMIT_S,
    cpu_limit_s: int = CPU_LIMIT_S,
) -> Iterator[tuple[Path, ReadDocument | DataError]]:
    """Each file with its document, or why there is none, in order; at most two files per worker are ahead.
    `workers` 0: as many as there are CPUs."""
    number = workers or usable_cpus()
    processes = [_ReadingProcess(time_limit_s, cpu_limit_s) for _ in range(number)]
    free: SimpleQueue[_ReadingProcess] = SimpleQueue()
    for each in processes:
        free.put(each)

    def read(path: Path) -> ReadDocument | DataError:
        process = free.get()
        try:
            return process.read(path)
        except DataError as error:
            return error
        finally:
            free.put(process)

    waiting: deque[tuple[Path, Future[ReadDocument | DataError]]] = deque()
    with ThreadPoolExecutor(number) as pool:
        try:
            for path in paths:
                waiting.append((path, pool.submit(read, path)))
                if len(waiting) > 2 * number:
                    first, future = waiting.popleft()
                    yield first, future.result()
            for path, future in waiting:
                yield path, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
            for each in processes:
                each.close()

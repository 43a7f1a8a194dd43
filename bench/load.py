"""A load client on loopback, made so that it does not flatter what it measures.

    python bench/load.py URL [--rate 200 | --workers 32] [--seconds 10] [--body JSON | @FILE]

`--rate` is an open loop: requests leave at a constant rate whether or not answers come, and every latency
counts from the moment the request was due, so that a server that stalls is charged for all who would have
come meanwhile (no coordinated omission). `--workers` is a closed loop: each asks again when answered.
Prints one JSON object last. Quantiles come with 95 % intervals of their order statistics.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from scipy.stats import binom

BODY = '{"model": "escultor", "messages": [{"role": "user", "content": "Hello"}]}'
TIMEOUT_S = 30.0  # of one request; counted as an error
CONNECTIONS = 512  # at a time; who is due and finds none free waits, and his wait counts


@dataclass(frozen=True, slots=True)
class Reply:
    """`began_s` is when its request was due (open loop) or sent, by the loop's clock."""

    status: int
    body: bytes
    began_s: float
    sent_s: float
    first_s: float
    done_s: float


@dataclass
class Load:
    """What came of all requests of one run."""

    seconds: float = 0.0
    latency_ms: list[float] = field(default_factory=list)  # of those answered, by status 2xx
    first_ms: list[float] = field(default_factory=list)  # until the first byte
    late_ms: list[float] = field(default_factory=list)  # by which the client itself sent too late
    errors: Counter[str] = field(default_factory=Counter)
    said: dict[str, str] = field(default_factory=dict)  # by the first of each error

    @property
    def answered_per_s(self) -> float:
        return len(self.latency_ms) / self.seconds if self.seconds else 0.0

    def report(self) -> dict[str, Any]:
        """For people and for JSON."""
        return {
            "answered": len(self.latency_ms),
            "answered_per_s": self.answered_per_s,
            "errors": dict(self.errors),
            "errors_said": self.said,
            "latency_ms": quantiles(self.latency_ms),
            "first_byte_ms": quantiles(self.first_ms),
            "client_late_ms_p99": quantile(self.late_ms, 0.99)[0],
        }


def quantile(values: list[float], q: float) -> tuple[float, float, float]:
    """A quantile and the 95 % interval that order statistics give it, whatever the distribution."""
    if not values:
        return (float("nan"),) * 3
    ordered, n = np.sort(values), len(values)
    low, high = (int(np.clip(binom.ppf(p, n, q), 0, n - 1)) for p in (0.025, 0.975))
    return float(np.quantile(ordered, q)), float(ordered[low]), float(ordered[high])


def quantiles(values: list[float]) -> dict[str, Any]:
    if not values:
        return {}
    return {name: quantile(values, q) for name, q in (("p50", 0.5), ("p99", 0.99))} | {"max": max(values)}


class Connection(asyncio.Protocol):
    """One request at a time over one kept connection; understands lengths and chunks."""

    def __init__(self, gone: Callable[[Connection], None]):
        self._gone, self._answered = gone, None
        self._buffer, self._body, self._left, self._chunked = bytearray(), bytearray(), -1, False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.WriteTransport = transport  # type: ignore[assignment]
        self._loop = asyncio.get_running_loop()

    def ask(self, request: bytes, began_s: float) -> asyncio.Future[Reply]:
        self._answered = self._loop.create_future()
        self._began, self._sent, self._first = began_s, self._loop.time(), 0.0
        self._buffer, self._body, self._left, self._chunked = bytearray(), bytearray(), -1, False
        self._transport.write(request)
        return self._answered

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._first = self._first or self._loop.time()
        self._buffer += data
        if self._left < 0 and not self._head():
            return
        while self._chunked and self._chunk():
            pass
        if self._chunked:
            return
        self._take()
        if self._left == 0 and self._answered is not None:
            answered, self._answered = self._answered, None
            times = (self._began, self._sent, self._first, self._loop.time())
            if not answered.done():
                answered.set_result(Reply(self._status, bytes(self._body), *times))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(ConnectionResetError("closed before the answer was whole"))
        self._gone(self)

    def _head(self) -> bool:
        ends = self._buffer.find(b"\r\n\r\n")
        if ends < 0:
            return False
        head = bytes(self._buffer[:ends]).lower()
        del self._buffer[: ends + 4]
        self._status = int(head[9:12])
        self._chunked = b"transfer-encoding: chunked" in head
        _, _, length = head.partition(b"\r\ncontent-length:")
        self._left = 0 if self._chunked else int(length.split(b"\r\n", 1)[0] or 0)
        return True

    def _take(self) -> None:
        taken = self._buffer[: self._left]
        self._body += taken
        self._left -= len(taken)
        del self._buffer[: len(taken)]

    def _chunk(self) -> bool:
        """Take a whole chunk; False where more bytes must come. The empty one is the last."""
        ends = self._buffer.find(b"\r\n")
        if ends < 0:
            return False
        size = int(bytes(self._buffer[:ends]), 16)
        if len(self._buffer) < ends + size + 4:
            return False
        self._body += self._buffer[ends + 2 : ends + 2 + size]
        del self._buffer[: ends + size + 4]
        self._chunked = size > 0
        return True


class Client:
    """Kept connections to one server."""

    def __init__(self, url: str, headers: dict[str, str] | None = None):
        parts = urlsplit(url)
        self.host, self.port, self.path = parts.hostname or "127.0.0.1", parts.port or 80, parts.path or "/"
        self._free: list[Connection] = []
        self._room = asyncio.Semaphore(CONNECTIONS)
        self._headers = {"Host": f"{self.host}:{self.port}", "Content-Type": "application/json"} | (
            headers or {}
        )

    def request(self, body: bytes, path: str | None = None, method: str = "POST") -> bytes:
        headers = self._headers | {"Content-Length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"{method} {path or self.path} HTTP/1.1\r\n{lines}\r\n".encode() + body

    async def ask(self, request: bytes, began_s: float | None = None) -> Reply:
        """Send over a free connection, or a new one. Raises OSError or TimeoutError."""
        loop = asyncio.get_running_loop()
        began = loop.time() if began_s is None else began_s
        async with self._room:
            connection = self._free.pop() if self._free else None
            if connection is None:
                made = loop.create_connection(lambda: Connection(self._lost), self.host, self.port)
                _, connection = await made
            try:
                reply = await asyncio.wait_for(connection.ask(request, began), TIMEOUT_S)
            except BaseException:
                connection.close()
                raise
            self._free.append(connection)
        return reply

    def _lost(self, connection: Connection) -> None:
        if connection in self._free:
            self._free.remove(connection)

    def close(self) -> None:
        for connection in self._free:
            connection.close()


Requests = Callable[[int], bytes]  # the n-th request
Seen = Callable[[int, Reply], None]  # what a caller wants to know of the n-th


async def _one(
    client: Client, load: Load, n: int, request: bytes, due: float | None, seen: Seen | None
) -> None:
    try:
        reply = await client.ask(request, due)
    except (OSError, TimeoutError) as error:
        load.errors[type(error).__name__] += 1
        load.said.setdefault(type(error).__name__, str(error))
        return
    load.late_ms.append(1000 * (reply.sent_s - reply.began_s))
    if 200 <= reply.status < 300:
        load.latency_ms.append(1000 * (reply.done_s - reply.began_s))
        load.first_ms.append(1000 * (reply.first_s - reply.began_s))
    else:
        load.errors[str(reply.status)] += 1
        load.said.setdefault(str(reply.status), reply.body[:300].decode("utf-8", "replace"))
    if seen is not None:
        seen(n, reply)


async def open_loop(
    client: Client, requests: Requests, rate: float, seconds: float, seen: Seen | None = None
) -> Load:
    """Requests at a constant rate, however long answers take."""
    load, loop, tasks = Load(), asyncio.get_running_loop(), set()
    start = loop.time()
    for n in range(round(rate * seconds)):
        due = start + n / rate
        if (ahead := due - loop.time()) > 0:
            await asyncio.sleep(ahead)
        task = loop.create_task(_one(client, load, n, requests(n), due, seen))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.wait(tasks)
    load.seconds = loop.time() - start
    return load


async def closed_loop(
    client: Client, requests: Requests, workers: int, seconds: float, seen: Seen | None = None
) -> Load:
    """As many at a time as there are workers; each asks again when it was answered."""
    load, loop, sent = Load(), asyncio.get_running_loop(), iter(range(1 << 60))
    start = loop.time()

    async def work() -> None:
        while loop.time() < start + seconds:
            n = next(sent)
            await _one(client, load, n, requests(n), None, seen)

    await asyncio.gather(*(work() for _ in range(workers)))
    load.seconds = loop.time() - start
    return load


def run(work: Any) -> Any:
    """Run a coroutine on a loop whose clock is fine: `select` waits to the microsecond, epoll to the
    millisecond."""
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(work)


def rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    if isinstance(value, float):
        return float(f"{value:.4g}") if np.isfinite(value) else None
    return value


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("url")
    parser.add_argument("--rate", type=float, help="requests a second, open loop")
    parser.add_argument("--workers", type=int, default=32, help="closed loop, where no rate is given")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--body", default=BODY, help="of every request, or @FILE that holds it")
    parser.add_argument("--key-env", help="environment variable with an API key")
    given = parser.parse_args()
    if not urlsplit(given.url).hostname:
        parser.error(
            f"{given.url!r} names no host; give a URL such as http://127.0.0.1:8080/v1/chat/completions"
        )
    text = Path(given.body[1:]).read_text() if given.body.startswith("@") else given.body
    headers = {"Authorization": f"Bearer {os.environ[given.key_env]}"} if given.key_env else {}
    client = Client(given.url, headers)
    request = client.request(text.encode())

    async def work() -> Load:
        if given.rate:
            return await open_loop(client, lambda _: request, given.rate, given.seconds)
        return await closed_loop(client, lambda _: request, given.workers, given.seconds)

    load = run(work())
    asked = {"url": given.url, "rate": given.rate, "workers": None if given.rate else given.workers}
    print(json.dumps(rounded({"bench": "load", "date": time.strftime("%Y-%m-%d"), **asked, **load.report()})))


if __name__ == "__main__":
    main()

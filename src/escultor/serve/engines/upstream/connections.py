"""A bounded pool of connections to one upstream."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import httpx2

from escultor.errors import Overloaded

KEEP_ALIVE_S = 4.0  # of an idle connection; uvicorn's servers close theirs after 5 s


class ConnectionPool:
    """At most `limit` connections, each with a transport of its own.

    A transport's own pool examines every connection for every request; here it holds one.
    """

    def __init__(self, limit: int):
        self._limit, self._free = limit, asyncio.Semaphore(limit)
        self._context = httpx2.create_ssl_context()
        self._all: set[httpx2.AsyncHTTPTransport] = set()
        self._idle: deque[tuple[float, httpx2.AsyncHTTPTransport]] = deque()  # (idle since, …), latest last

    async def acquire(self, timeout_s: float) -> httpx2.AsyncHTTPTransport:
        """A connection for one user. Raises Overloaded where none becomes free in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            got = f"{self._limit} requests to it are under way"
            raise Overloaded("no connection to the upstream is free", got, None, "ask later") from error
        expired = []
        while self._idle and self._idle[0][0] < time.monotonic() - KEEP_ALIVE_S:
            expired.append(self._idle.popleft()[1])
        transport = self._idle.pop()[1] if self._idle else self._open()
        for old in expired:
            self._all.discard(old)
            await old.aclose()
        return transport

    def release(self, transport: httpx2.AsyncHTTPTransport) -> None:
        """Return a connection; it is still open if its last response was read to the end."""
        self._idle.append((time.monotonic(), transport))
        self._free.release()

    async def close(self) -> None:
        for transport in self._all:
            await transport.aclose()

    def _open(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEEP_ALIVE_S)
        transport = httpx2.AsyncHTTPTransport(verify=self._context, limits=limits)
        self._all.add(transport)
        return transport

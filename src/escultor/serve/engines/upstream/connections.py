"""The connections to an upstream: so many at most, kept while they are used."""

from __future__ import annotations

import asyncio
import time
from collections import deque

import httpx2

from escultor.errors import Overloaded

KEPT_S = 4.0  # an idle connection; uvicorn's servers close theirs after 5 s


class Connections:
    """So many connections at most, each with a transport of its own.

    A transport's own pool looks at every connection for every request; here it holds one.
    """

    def __init__(self, most: int):
        self._most, self._room = most, asyncio.Semaphore(most)
        self._context = httpx2.create_ssl_context()
        self._all: set[httpx2.AsyncHTTPTransport] = set()
        self._idle: deque[tuple[float, httpx2.AsyncHTTPTransport]] = deque()  # since when; last used last

    async def take(self, within_s: float) -> httpx2.AsyncHTTPTransport:
        """A connection that nobody else uses. Raises Overloaded where none becomes free in time."""
        try:
            async with asyncio.timeout(within_s):
                await self._room.acquire()
        except TimeoutError as error:
            full = f"{self._most} answers asked of it already"
            raise Overloaded("no connection to the upstream is free", full, None, "ask later") from error
        old = []
        while self._idle and self._idle[0][0] < time.monotonic() - KEPT_S:
            old.append(self._idle.popleft()[1])
        transport = self._idle.pop()[1] if self._idle else self._new()
        for each in old:
            self._all.discard(each)
            await each.aclose()
        return transport

    def give_back(self, transport: httpx2.AsyncHTTPTransport) -> None:
        """What was taken; its connection is open still if its last answer was read to the end."""
        self._idle.append((time.monotonic(), transport))
        self._room.release()

    async def close(self) -> None:
        for transport in self._all:
            await transport.aclose()

    def _new(self) -> httpx2.AsyncHTTPTransport:
        limits = httpx2.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=KEPT_S)
        transport = httpx2.AsyncHTTPTransport(verify=self._context, limits=limits)
        self._all.add(transport)
        return transport

"""Connections to an upstream: a pool of them, and what is read of addresses and headers."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from email.utils import parsedate_to_datetime

import httpx2

from escultor.errors import ConfigError, Overloaded

KEEP_ALIVE_S = 4.0  # of an idle connection; uvicorn's servers close theirs after 5 s
JSON_TYPE, EVENTS_TYPE = "application/json", "text/event-stream"


class ConnectionPool:
    """At most `limit` connections, each with a transport of its own. A transport's own pool examines every
    connection for every request; here it holds one."""

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


def unexpected_type(response: httpx2.Response) -> str | None:
    """The content type and encoding, where they are neither JSON nor events. Some servers send a stream
    where an answer in one piece was asked for, and the reverse: both are read."""
    kind, encoding = content_type(response), response.headers.get("content-encoding", "identity")
    if kind in (JSON_TYPE, EVENTS_TYPE) and encoding.lower() == "identity":
        return None
    got = f"{kind[:100] or 'no content type'} ({encoding[:100]})"
    return f"{got} instead of {JSON_TYPE} or {EVENTS_TYPE}"


def content_type(response: httpx2.Response) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_url(url: str) -> httpx2.URL:
    """The address all requests go to. Errors do not repeat the url: it may hold a password."""
    example = "such as http://127.0.0.1:8000/v1"
    try:
        base = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigError("upstream.url cannot be read", error, example) from None
    if base.userinfo or base.query or base.fragment or not base.host:
        got = "a user or password, a query, a fragment, or no host"
        remedy = "give a key through upstream.key_env"
        raise ConfigError("upstream.url is not an address alone", got, example, remedy)
    return base


def retry_after_s(headers: httpx2.Headers) -> float | None:
    """The seconds of a Retry-After header, a number or a date; None where it is neither."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def describe(error: Exception) -> str:
    return str(error) or type(error).__name__

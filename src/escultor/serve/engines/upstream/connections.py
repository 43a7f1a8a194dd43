"""Connections to an upstream: a pool of them, and what is read of addresses and headers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import aiohttp
import httpx2
from yarl import URL

from escultor.errors import ConfigError, Overloaded

KEEP_ALIVE_S = 4.0  # of an idle connection; uvicorn's servers close theirs after 5 s
JSON_TYPE, EVENTS_TYPE = "application/json", "text/event-stream"


class ConnectionPool:
    """At most `limit` connections, kept open between requests. Belongs to the event loop that uses it
    first."""

    def __init__(self, limit: int, headers: Mapping[str, str]):
        """`headers` are sent with every request, and no others."""
        self._limit, self._headers = limit, headers
        self._free = asyncio.Semaphore(limit)
        self._session: aiohttp.ClientSession | None = None

    async def acquire(self, timeout_s: float) -> aiohttp.ClientSession:
        """A client that may send one request. Raises Overloaded where no connection becomes free in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._free.acquire()
        except TimeoutError as error:
            got = f"{self._limit} requests to it are under way"
            raise Overloaded("no connection to the upstream is free", got, None, "ask later") from error
        if self._session is None:
            self._session = self._open()
        return self._session

    def release(self) -> None:
        """Let another request take the place of one that ended; where the response was read to its end, the
        connection stays open."""
        self._free.release()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0, keepalive_timeout=KEEP_ALIVE_S, ssl=httpx2.create_ssl_context()
            ),
            headers=self._headers,
            skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


def unexpected_type(response: aiohttp.ClientResponse) -> str | None:
    """The content type and encoding, where they are neither JSON nor events. Some servers send a stream
    where an answer in one piece was asked for, and the reverse: both are read."""
    kind, encoding = content_type(response), response.headers.get("content-encoding", "identity")
    if kind in (JSON_TYPE, EVENTS_TYPE) and encoding.lower() == "identity":
        return None
    got = f"{kind[:100] or 'no content type'} ({encoding[:100]})"
    return f"{got} instead of {JSON_TYPE} or {EVENTS_TYPE}"


def content_type(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("content-type", "").partition(";")[0].strip().lower()


def parse_url(url: str) -> URL:
    """The address all requests go to. Errors do not repeat the url: it may hold a password."""
    example = "such as http://127.0.0.1:8000/v1"
    try:
        base = URL(url)
    except ValueError as error:
        raise ConfigError("upstream.url cannot be read", error, example) from None
    if base.user or base.password or base.query_string or base.fragment or not base.host:
        got = "a user or password, a query, a fragment, or no host"
        remedy = "give a key through upstream.key_env"
        raise ConfigError("upstream.url is not an address alone", got, example, remedy)
    return base


def retry_after_s(headers: Mapping[str, str]) -> float | None:
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

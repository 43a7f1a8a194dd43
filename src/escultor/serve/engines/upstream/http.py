"""Requests to an upstream over HTTP: retries, timeouts, limits, and the meaning of its status codes.

A request is retried only before the first byte of its answer, and only where that is safe. It goes to the
configured address and nowhere else: redirects, proxies and cookies are ignored.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import NoReturn

import httpx2

from escultor.config import Upstream
from escultor.errors import ConfigError, EngineFault, EscultorError, InputError, Overloaded, UpstreamFault
from escultor.serve.engines.upstream.connections import ConnectionPool
from escultor.serve.engines.upstream.schema import error_message

BODY_LIMIT = 32 << 20  # bytes of an answer, streamed or not
ERROR_LIMIT = 64 << 10  # bytes read of an error's body
BACKOFF_S = 0.25  # before the first retry; doubles
MAX_BACKOFF_S = 8.0
DRAIN_S = 0.1  # to read what follows a stream's last event, so that its connection can be used again
RETRIED_STATUSES = (502, 503, 504)
CALLER_STATUSES = (400, 413, 415, 422)  # the request itself is at fault
REMEDIES = {
    401: "check the API key, see upstream.key_env",
    403: "check the API key, see upstream.key_env",
    404: "check upstream.url and upstream.model",
} | dict.fromkeys(range(300, 400), "give the address it points to as upstream.url")


@dataclass(frozen=True, slots=True)
class UpstreamRefusal:
    """Why there is no answer, and the least seconds to wait before a retry; None: a retry is not safe."""

    fault: EscultorError
    wait_s: float | None = None


class UpstreamHttp:
    """HTTP requests to one upstream. Belongs to the event loop that uses it first."""

    def __init__(self, settings: Upstream, key: str | None, backoff_s: float = BACKOFF_S):
        self.settings, self._key, self._backoff_s, self._closed = settings, key, backoff_s, False
        self._base, self._urls = _parse_url(settings.url), {}
        self._pool = ConnectionPool(settings.max_connections)
        self._headers = {
            "Host": self._base.netloc.decode("ascii"),
            "User-Agent": "escultor",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }
        if key is not None:
            self._headers["Authorization"] = f"Bearer {key}"

    async def close(self) -> None:
        self._closed = True
        await self._pool.close()

    async def post(self, path: str, data: bytes, streamed: bool, deadline: float) -> ResponseBody:
        """The body of a successful response of the requested content type, after as many attempts as needed.

        `deadline` is a time of the event loop. Raises InputError, Overloaded or UpstreamFault.
        """
        loop, attempt = asyncio.get_running_loop(), 0
        request = self._request(path, data, streamed)
        while True:
            self.check_open()
            result = await self._attempt(request, streamed, deadline)
            if isinstance(result, ResponseBody):
                return result
            if result.wait_s is None or attempt == self.settings.retries:
                raise result.fault
            pause = max(result.wait_s, min(self._backoff_s * 2**attempt, MAX_BACKOFF_S))
            pause *= 1 + random.random() / 2  # so that refused requests do not return all at once
            if loop.time() + pause >= deadline:
                raise result.fault
            await asyncio.sleep(pause)
            attempt += 1

    async def _attempt(
        self, request: httpx2.Request, streamed: bool, deadline: float
    ) -> ResponseBody | UpstreamRefusal:
        transport = await self._pool.acquire(self.settings.connect_timeout_s)
        result: ResponseBody | UpstreamRefusal | None = None
        try:
            result = await self._send(transport, request, streamed, deadline)
            return result
        finally:
            if not isinstance(result, ResponseBody):
                self._pool.release(transport)

    async def _send(
        self, transport: httpx2.AsyncHTTPTransport, request: httpx2.Request, streamed: bool, deadline: float
    ) -> ResponseBody | UpstreamRefusal:
        try:
            async with asyncio.timeout_at(deadline):
                response = await transport.handle_async_request(request)
        except TimeoutError:
            self.raise_deadline()
        except httpx2.ReadTimeout as error:
            self.raise_idle(error)
        except httpx2.TransportError as error:
            self.check_open()
            # Nothing of an answer has come: a retry costs at most what the upstream had computed.
            return UpstreamRefusal(UpstreamFault("the upstream cannot be reached", _describe(error)), 0.0)
        if response.status_code != 200:
            return await self._refusal(response, deadline)
        if (got := _unexpected_type(response, streamed)) is not None:
            await response.aclose()
            return UpstreamRefusal(UpstreamFault("the upstream answered with another content type", got))
        return ResponseBody(self, response, deadline, lambda: self._pool.release(transport))

    def _request(self, path: str, data: bytes, streamed: bool) -> httpx2.Request:
        if path not in self._urls:  # parsed once
            self._urls[path] = self._base.copy_with(path=self._base.path.rstrip("/") + path)
        connect_s, idle_s = self.settings.connect_timeout_s, self.settings.idle_timeout_s
        timeout = {"connect": connect_s, "write": idle_s, "read": idle_s if streamed else None}
        more = {"timeout": timeout}
        return httpx2.Request("POST", self._urls[path], headers=self._headers, content=data, extensions=more)

    async def _refusal(self, response: httpx2.Response, deadline: float) -> UpstreamRefusal:
        """The meaning of a status other than 200."""
        status, after_s = response.status_code, _retry_after_s(response.headers)
        message = error_message(await self._error_body(response, deadline))
        # Should the upstream repeat our key, nobody else sees it.
        message = message.replace(self._key, "…") if self._key else message
        got = f"{status}: {message}" if message else str(status)
        if status == 429:
            remedy = "ask again later" if after_s is None else f"ask again in {after_s:.0f} s"
            return UpstreamRefusal(Overloaded("the upstream has no capacity", got, None, remedy), after_s)
        if status in CALLER_STATUSES:
            return UpstreamRefusal(InputError("the model's server refuses the request", got))
        fault = UpstreamFault("the upstream does not answer", got, None, REMEDIES.get(status))
        return UpstreamRefusal(fault, (after_s or 0.0) if status in RETRIED_STATUSES else None)

    async def _error_body(self, response: httpx2.Response, deadline: float) -> bytes:
        """The first bytes of an error's body; failures to read it are ignored, since the status is known."""
        data = b""
        soon = asyncio.get_running_loop().time() + self.settings.connect_timeout_s
        with suppress(TimeoutError, httpx2.TransportError):
            async with asyncio.timeout_at(min(deadline, soon)):
                async for chunk in response.aiter_raw():
                    data += chunk
                    if len(data) >= ERROR_LIMIT:
                        break
        await response.aclose()
        return data[:ERROR_LIMIT]

    def raise_deadline(self) -> NoReturn:
        raise UpstreamFault("the upstream took too long", f"{self.settings.deadline_s:g} s, retries included")

    def raise_idle(self, cause: Exception) -> NoReturn:
        got = f"{self.settings.idle_timeout_s:g} s without a byte"
        raise UpstreamFault("the upstream fell silent", got) from cause

    def check_open(self) -> None:
        """Raises EngineFault after `close`."""
        if self._closed:
            raise EngineFault("the engine was closed", self.settings.model, None, "ask again")


class ResponseBody:
    """The bytes of a response, within limits of time and size. Close it when done."""

    def __init__(
        self, http: UpstreamHttp, response: httpx2.Response, deadline: float, release: Callable[[], None]
    ):
        self._http, self._response, self._deadline, self._release = http, response, deadline, release
        self._chunks: AsyncGenerator[bytes] = response.aiter_raw()
        self._size = 0

    async def read(self) -> bytes | None:
        """The next bytes; None at the end. Raises UpstreamFault; ConnectionError where it broke off."""
        try:
            async with asyncio.timeout_at(self._deadline):
                data = await anext(self._chunks, None)
        except TimeoutError:
            self._http.raise_deadline()
        except httpx2.ReadTimeout as error:
            self._http.raise_idle(error)
        except httpx2.TransportError as error:
            self._http.check_open()
            raise ConnectionError(_describe(error)) from error
        self._size += len(data or b"")
        if self._size > BODY_LIMIT:
            got = f"{self._size:,} bytes"
            raise UpstreamFault("the upstream's answer has no end", got, f"{BODY_LIMIT:,}")
        return data

    async def drain(self) -> None:
        """Read what follows the last event: a connection can be used again when all was read."""
        with suppress(TimeoutError, httpx2.TransportError):
            async with asyncio.timeout(DRAIN_S):
                async for _ in self._chunks:
                    pass

    async def close(self) -> None:
        """Close the connection unless all was read; this ends the upstream's work."""
        try:
            await self._chunks.aclose()
            await self._response.aclose()
        finally:
            self._release()


def _unexpected_type(response: httpx2.Response, streamed: bool) -> str | None:
    """The content type and encoding, where they are not the requested ones."""
    expected = "text/event-stream" if streamed else "application/json"
    content_type = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    encoding = response.headers.get("content-encoding", "identity").lower()
    if content_type == expected and encoding == "identity":
        return None
    return f"{content_type[:100] or 'no content type'} ({encoding[:100]}) instead of {expected}"


def _parse_url(url: str) -> httpx2.URL:
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


def _retry_after_s(headers: httpx2.Headers) -> float | None:
    """The seconds of a Retry-After header, a number or a date; None where it is neither."""
    value = headers.get("retry-after", "").strip()
    if value.isascii() and value.isdecimal():
        return float(value[:9])
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__

"""Asking a server behind over HTTP: attempts, time-outs, limits, and what its refusals mean.

An ask is tried again only before the first byte of its answer, and only where that is safe. It goes to the
configured address and nowhere else: no redirect, proxy or cookie is followed.
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
from escultor.serve.engines.upstream.connections import Connections
from escultor.serve.engines.upstream.sse import reason_of

BODY_LIMIT = 32 << 20  # bytes of an answer, streamed or not
REASON_LIMIT = 64 << 10  # bytes read of an error's own words
BACKOFF_S = 0.25  # before the first further attempt; doubles
LONGEST_BACKOFF_S = 8.0
LINGER_S = 0.1  # for what comes behind a stream's last event, so that its connection can be used again
AGAIN = (502, 503, 504)
CALLERS_FAULT = (400, 413, 415, 422)


@dataclass(frozen=True, slots=True)
class UpstreamRefusal:
    """Why there is no answer, and the seconds to wait at least before asking again; None: it is not safe."""

    fault: EscultorError
    wait_s: float | None = None


class UpstreamHttp:
    """The connections to one upstream. Belongs to the event loop that uses it first."""

    def __init__(self, settings: Upstream, key: str | None, backoff_s: float = BACKOFF_S):
        self.settings, self._key, self._backoff_s, self._closed = settings, key, backoff_s, False
        self._base, self._urls = _base(settings.url), {}
        self._connections = Connections(settings.max_connections)
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
        await self._connections.close()

    async def post(self, path: str, body: bytes, streamed: bool, until: float) -> ResponseBody:
        """What the upstream answers with, of the type asked for, after as many attempts as it takes.

        `until` is a time of the event loop. Raises InputError, Overloaded or UpstreamFault.
        """
        loop, attempt = asyncio.get_running_loop(), 0
        while True:
            self.refuse_closed()
            got = await self._attempt(path, body, streamed, until)
            if isinstance(got, ResponseBody):
                return got
            if got.wait_s is None or attempt == self.settings.retries:
                raise got.fault
            pause = max(got.wait_s, min(self._backoff_s * 2**attempt, LONGEST_BACKOFF_S))
            pause *= 1 + random.random() / 2  # so that all who were refused do not come back together
            if loop.time() + pause >= until:
                raise got.fault
            await asyncio.sleep(pause)
            attempt += 1

    async def _attempt(
        self, path: str, body: bytes, streamed: bool, until: float
    ) -> ResponseBody | UpstreamRefusal:
        transport = await self._connections.take(self.settings.connect_timeout_s)
        got: ResponseBody | UpstreamRefusal | None = None
        try:
            got = await self._answered(transport, self._request(path, body, streamed), streamed, until)
            return got
        finally:
            if not isinstance(got, ResponseBody):
                self._connections.give_back(transport)

    async def _answered(
        self, transport: httpx2.AsyncHTTPTransport, request: httpx2.Request, streamed: bool, until: float
    ) -> ResponseBody | UpstreamRefusal:
        try:
            async with asyncio.timeout_at(until):
                response = await transport.handle_async_request(request)
        except TimeoutError:
            self.late()
        except httpx2.ReadTimeout as error:
            self.silent(error)
        except httpx2.TransportError as error:
            self.refuse_closed()
            # Nothing of an answer has come: to ask again costs at most what the upstream had computed.
            return UpstreamRefusal(UpstreamFault("the upstream cannot be reached", _words(error)), 0.0)
        if response.status_code != 200:
            return await self._refusal(response, until)
        if (form := _other_form(response, streamed)) is not None:
            await response.aclose()
            return UpstreamRefusal(
                UpstreamFault("the upstream answered in another form than it was asked for", form)
            )
        return ResponseBody(self, response, until, lambda: self._connections.give_back(transport))

    def _request(self, path: str, body: bytes, streamed: bool) -> httpx2.Request:
        given = self.settings
        timeout = {
            "connect": given.connect_timeout_s,
            "write": given.idle_timeout_s,
            "read": given.idle_timeout_s if streamed else None,
        }
        if path not in self._urls:  # parsed once
            self._urls[path] = self._base.copy_with(path=self._base.path.rstrip("/") + path)
        more = {"timeout": timeout}
        return httpx2.Request("POST", self._urls[path], headers=self._headers, content=body, extensions=more)

    async def _refusal(self, response: httpx2.Response, until: float) -> UpstreamRefusal:
        """What a status other than 200 means."""
        status, after = response.status_code, _retry_after(response.headers)
        reason = reason_of(await self._beginning(response, until))
        # Should the upstream repeat our key, nobody else sees it.
        reason = reason.replace(self._key, "…") if self._key else reason
        said = f"{status}: {reason}" if reason else str(status)
        if status == 429:
            remedy = "ask again later" if after is None else f"ask again in {after:.0f} s"
            return UpstreamRefusal(Overloaded("the upstream has no room", said, None, remedy), after)
        if status in CALLERS_FAULT:
            return UpstreamRefusal(InputError("the model's server refuses the request", said))
        remedies = {
            401: "check the API key, see upstream.key_env",
            403: "check the API key, see upstream.key_env",
            404: "check upstream.url and upstream.model",
        } | dict.fromkeys(range(300, 400), "give the address it points to as upstream.url")
        fault = UpstreamFault("the upstream does not answer", said, None, remedies.get(status))
        return UpstreamRefusal(fault, (after or 0.0) if status in AGAIN else None)

    async def _beginning(self, response: httpx2.Response, until: float) -> bytes:
        """The first bytes of an error's body; whatever goes wrong there, the status is what matters."""
        read = b""
        soon = asyncio.get_running_loop().time() + self.settings.connect_timeout_s
        with suppress(TimeoutError, httpx2.TransportError):
            async with asyncio.timeout_at(min(until, soon)):
                async for data in response.aiter_raw():
                    read += data
                    if len(read) >= REASON_LIMIT:
                        break
        await response.aclose()
        return read[:REASON_LIMIT]

    def late(self) -> NoReturn:
        raise UpstreamFault("the upstream took too long", f"{self.settings.deadline_s:g} s, retries included")

    def silent(self, cause: Exception) -> NoReturn:
        raise UpstreamFault(
            "the upstream fell silent", f"{self.settings.idle_timeout_s:g} s without a byte"
        ) from cause

    def refuse_closed(self) -> None:
        if self._closed:
            raise EngineFault("the engine was closed", self.settings.model, None, "ask again")


class ResponseBody:
    """The bytes of a response, within the limits of time and size. Close it when done."""

    def __init__(self, http: UpstreamHttp, response: httpx2.Response, until: float, done: Callable[[], None]):
        self._http, self._response, self._until, self._done = http, response, until, done
        self._pieces: AsyncGenerator[bytes] = response.aiter_raw()
        self._size = 0

    async def read(self) -> bytes | None:
        """The next bytes; None at the end. Raises UpstreamFault; ConnectionError where it broke off."""
        try:
            async with asyncio.timeout_at(self._until):
                data = await anext(self._pieces, None)
        except TimeoutError:
            self._http.late()
        except httpx2.ReadTimeout as error:
            self._http.silent(error)
        except httpx2.TransportError as error:
            self._http.refuse_closed()
            raise ConnectionError(_words(error)) from error
        self._size += len(data or b"")
        if self._size > BODY_LIMIT:
            raise UpstreamFault(
                "the upstream's answer has no end", f"{self._size:,} bytes", f"{BODY_LIMIT:,}"
            )
        return data

    async def drain(self) -> None:
        """Read what is behind the last event: a connection is used again when all was read."""
        with suppress(TimeoutError, httpx2.TransportError):
            async with asyncio.timeout(LINGER_S):
                async for _ in self._pieces:
                    pass

    async def close(self) -> None:
        """Close the connection where there was more to come; this ends the upstream's work."""
        try:
            await self._pieces.aclose()
            await self._response.aclose()
        finally:
            self._done()


def _other_form(response: httpx2.Response, streamed: bool) -> str | None:
    """The content type, where it is not the one asked for."""
    wanted = "text/event-stream" if streamed else "application/json"
    got = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    packed = response.headers.get("content-encoding", "identity").lower()
    if got == wanted and packed == "identity":
        return None
    return f"{got[:100] or 'no content type'} ({packed[:100]}) instead of {wanted}"


def _base(url: str) -> httpx2.URL:
    """The address all requests go to. The url is not repeated in errors: it may hold a password."""
    like = "such as http://127.0.0.1:8000/v1"
    try:
        base = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise ConfigError("upstream.url cannot be read", error, like) from None
    if base.userinfo or base.query or base.fragment or not base.host:
        got = "a user or password, a query, a fragment, or no host"
        raise ConfigError(
            "upstream.url is not an address alone", got, like, "give a key through upstream.key_env"
        )
    return base


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds to wait, said as a number or as a date; None where it is neither."""
    said = headers.get("retry-after", "").strip()
    if said.isascii() and said.isdecimal():
        return float(said[:9])
    try:
        return max(0.0, parsedate_to_datetime(said).timestamp() - time.time())
    except (ValueError, TypeError):
        return None


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__

"""The engine of an OpenAI-compatible server: vLLM, llama.cpp's server, Ollama, a hosted model.

A request is retried only before the first byte of its answer, and only where that is safe. It goes to the
configured address and nowhere else: redirects, proxies and cookies are ignored.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import aiohttp
from pydantic_core import to_json
from yarl import URL

from escultor.config import Upstream
from escultor.errors import (
    ConfigError,
    EngineFault,
    EscultorError,
    UpstreamFault,
    UpstreamStatus,
)
from escultor.serve.engines.upstream.connections import (
    EVENTS_TYPE,
    ConnectionPool,
    content_type,
    describe,
    parse_url,
    retry_after_s,
    unexpected_type,
)
from escultor.serve.engines.upstream.replies import (
    ReplyParser,
    SseParser,
    is_chat,
    is_streamed,
    request_body,
)
from escultor.serve.engines.upstream.reply_json import error_details
from escultor.serve.protocol import EngineEvent, GenerationRequest

BODY_LIMIT = 32 << 20  # bytes of an answer, streamed or not
SENT_AT_ONCE = 64 << 10  # bytes of a request; a larger one leaves in pieces, and others have their turn
ERROR_LIMIT = 64 << 10  # bytes read of an error's body
BACKOFF_S = 0.25  # before the first retry; doubles
MAX_BACKOFF_S = 8.0
DRAIN_S = 0.1  # to read what follows a stream's last event, so that its connection can be used again
RETRIED_STATUSES = (502, 503, 504)
UNREACHABLE = "cannot be reached"
OUR_STATUSES = (401, 403, 407)  # our key is at fault, not the client's
PASSED_HEADERS = ("retry-after", "retry-after-ms")
REMEDIES = {
    401: "check the API key, see upstream.key_env",
    403: "check the API key, see upstream.key_env",
} | dict.fromkeys(range(300, 400), "give the address it points to as upstream.url")


@dataclass(frozen=True, slots=True)
class UpstreamRefusal:
    """Why there is no answer, and the least seconds to wait before a retry; None: a retry is not safe."""

    fault: EscultorError
    wait_s: float | None = None


class UpstreamEngine:
    """One model of one upstream. Belongs to the event loop that uses it first."""

    problem = None  # it can always be asked again

    def __init__(
        self, settings: Upstream, key: str | None = None, backoff_s: float = BACKOFF_S, version: str = ""
    ):
        """`version` is the name of its answers in the log; empty: the model's. Raises ConfigError for a url
        with more than an address."""
        self.settings, self.version = settings, version or settings.model
        self.trouble: str | None = None  # why the last answer failed, where that is the upstream's fault
        self.troubled_at = -math.inf  # of the monotonic clock
        self._key, self._backoff_s, self._closed = key, backoff_s, False
        self._base, self._urls = parse_url(settings.url), dict[str, URL]()
        headers = {
            "User-Agent": "escultor",
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
        }
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        self._pool = ConnectionPool(settings.max_connections, headers)

    async def stream(
        self, request: GenerationRequest, retries: int | None = None
    ) -> AsyncIterator[EngineEvent]:
        """The events of one answer, with at most `retries` further attempts (None: as in its settings).
        Closing the iterator closes the connection, which ends the work. Raises UpstreamStatus where the
        upstream refuses with a status of its own, InputError where the request cannot be sent, Overloaded
        where no connection is free, UpstreamFault where it hangs or sends a malformed reply."""
        deadline = asyncio.get_running_loop().time() + self.settings.deadline_s
        with self._noting_trouble():
            path = "/chat/completions" if is_chat(request) else "/completions"
            data = _as_json(request_body(request, self.settings.model))
            body = await self._post(path, data, is_streamed(request), deadline, retries)
            reply, sse = ReplyParser(request), SseParser()
            try:
                if not body.is_event_stream:
                    events = (*await reply.read(await body.read_all()), reply.end())
                    self.trouble = None
                    for event in events:
                        yield event
                    return
                # A stream whose answer is complete may end in any way.
                while not reply.done and (data := await body.read(reply.is_complete)) is not None:
                    for payload in filter(bytes.strip, sse.feed(data)):  # an empty one keeps alive
                        for event in await reply.read(payload):
                            yield event
                if reply.done:
                    await body.drain()
                end = reply.end()
                self.trouble = None
                yield end
            finally:
                body.close()

    async def ask_json(
        self, path: str, body: Mapping[str, Any], retries: int | None = None
    ) -> tuple[bytes, str]:
        """The reply to a request that is answered in one piece, and this version. Raises as `stream`."""
        deadline = asyncio.get_running_loop().time() + self.settings.deadline_s
        data = _as_json({**body, "model": self.settings.model})
        with self._noting_trouble():
            reply = await self._post(path, data, False, deadline, retries)
            try:
                answer = await reply.read_all()
            finally:
                reply.close()
            self.trouble = None
            return answer, self.version

    async def check(self) -> None:
        """See whether the upstream accepts a connection: what does not is in trouble, without being asked."""
        host, port = self._base.host, self._base.port
        try:
            async with asyncio.timeout(self.settings.connect_timeout_s):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            self._note(f"it {UNREACHABLE}: {describe(error)}")
        else:
            writer.close()
            if self.trouble is not None and UNREACHABLE in self.trouble:
                self.trouble = None

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """Remembers whether what runs in it failed by the fault of the upstream."""
        try:
            yield
        except UpstreamFault as error:
            if not isinstance(error, UpstreamStatus) or error.status >= 500:
                self._note(str(error))
            raise

    def _note(self, trouble: str) -> None:
        self.trouble, self.troubled_at = trouble, time.monotonic()

    async def close(self) -> None:
        """Close all connections; answers under way end in an EngineFault."""
        self._closed = True
        await self._pool.close()

    async def _post(
        self, path: str, data: bytes, streamed: bool, deadline: float, retries: int | None
    ) -> ResponseBody:
        """The body of a successful response of the requested content type, after as many attempts as needed.
        `deadline` is a time of the event loop. Raises InputError, Overloaded or UpstreamFault."""
        loop, attempt = asyncio.get_running_loop(), 0
        while True:
            self._check_open()
            result = await self._attempt(path, data, streamed, deadline)
            if isinstance(result, ResponseBody):
                return result
            if result.wait_s is None or attempt == (self.settings.retries if retries is None else retries):
                raise result.fault
            pause = max(result.wait_s, min(self._backoff_s * 2**attempt, MAX_BACKOFF_S))
            pause *= 1 + random.random() / 2  # so that refused requests do not return all at once
            if loop.time() + pause >= deadline:
                raise result.fault
            await asyncio.sleep(pause)
            attempt += 1

    async def _attempt(
        self, path: str, data: bytes, streamed: bool, deadline: float
    ) -> ResponseBody | UpstreamRefusal:
        if path not in self._urls:  # parsed once
            self._urls[path] = self._base.with_path(self._base.raw_path.rstrip("/") + path, encoded=True)
        connect_s, idle_s = self.settings.connect_timeout_s, self.settings.idle_timeout_s
        limits = aiohttp.ClientTimeout(sock_connect=connect_s, sock_read=idle_s if streamed else None)
        client = await self._pool.acquire(connect_s)
        body: ResponseBody | None = None
        try:
            async with self.time_limits(deadline) as limit:
                body_data = data if len(data) <= SENT_AT_ONCE else _SentBody(data, limit, idle_s, deadline)
                response = await client.post(
                    self._urls[path], data=body_data, timeout=limits, allow_redirects=False
                )
            if response.status != 200:
                return await self._refusal(response, deadline)
            if (got := unexpected_type(response)) is not None:
                response.close()
                return UpstreamRefusal(UpstreamFault("the upstream answered with another content type", got))
            body = ResponseBody(self, response, deadline, self._pool.release)
            return body
        except aiohttp.ClientError as error:
            # Nothing of an answer has come: a retry costs at most what the upstream had computed.
            return UpstreamRefusal(UpstreamFault(f"the upstream {UNREACHABLE}", describe(error)), 0.0)
        finally:
            if body is None:
                self._pool.release()

    @asynccontextmanager
    async def time_limits(self, deadline: float) -> AsyncIterator[asyncio.Timeout]:
        """Turns the end of the time for an answer, or for its next byte, into UpstreamFault, and any error of
        the connection after `close` into EngineFault. Yields the limit, which may be moved ahead of the
        deadline while a request is sent."""
        limit = asyncio.timeout_at(deadline)
        try:
            async with limit:
                yield limit
        except aiohttp.SocketTimeoutError as error:
            got = f"{self.settings.idle_timeout_s:g} s without a byte"
            raise UpstreamFault("the upstream fell silent", got) from error
        except aiohttp.ClientError:
            self._check_open()
            raise
        except TimeoutError:
            if (limit.when() or 0.0) < deadline:
                got = f"none of the request's bytes taken for {self.settings.idle_timeout_s:g} s"
                raise UpstreamFault("the upstream fell silent", got) from None
            got = f"{self.settings.deadline_s:g} s, retries included"
            raise UpstreamFault("the upstream took too long", got) from None

    async def _refusal(self, response: aiohttp.ClientResponse, deadline: float) -> UpstreamRefusal:
        """The meaning of a status other than 200. A refusal that is the client's to see keeps its status, and
        its word on when to try again; a busy server is asked again by the client, which knows what it can
        wait for."""
        status, after_s = response.status, retry_after_s(response.headers)
        message, code = error_details(await self._error_body(response, deadline))
        # Should the upstream repeat our key, nobody else sees it.
        message = message.replace(self._key, "…") if self._key else message
        if status in OUR_STATUSES or status < 400:
            got = f"{status}: {message}" if message else str(status)
            fault = UpstreamFault("the upstream does not answer", got, None, REMEDIES.get(status))
            return UpstreamRefusal(fault, None)
        headers = {name: response.headers[name] for name in PASSED_HEADERS if name in response.headers}
        fault = UpstreamStatus(
            message or f"the upstream answered {status}", status=status, code=code, headers=headers
        )
        return UpstreamRefusal(fault, (after_s or 0.0) if status in RETRIED_STATUSES else None)

    async def _error_body(self, response: aiohttp.ClientResponse, deadline: float) -> bytes:
        """The first bytes of an error's body; failures to read it are ignored, since the status is known."""
        data = b""
        soon = asyncio.get_running_loop().time() + self.settings.connect_timeout_s
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout_at(min(deadline, soon)):
                while len(data) < ERROR_LIMIT and (chunk := await response.content.readany()):
                    data += chunk
        response.close()
        return data[:ERROR_LIMIT]

    def _check_open(self) -> None:
        """Raises EngineFault after `close`."""
        if self._closed:
            raise EngineFault("the engine was closed", self.settings.model, None, "ask again")


class _SentBody(BytesIO):
    """A request that is sent piece by piece: the next has to be asked for within `idle_s` seconds."""

    def __init__(self, data: bytes, limit: asyncio.Timeout, idle_s: float, deadline: float):
        super().__init__(data)
        self._limit, self._idle_s, self._deadline, self._end = limit, idle_s, deadline, len(data)

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(SENT_AT_ONCE)
        soon = asyncio.get_running_loop().time() + self._idle_s
        with suppress(RuntimeError):  # the limit has ended: an answer came before all was sent
            self._limit.reschedule(self._deadline if self.tell() == self._end else min(self._deadline, soon))
        return piece


def open_upstream(settings: Upstream, environ: Mapping[str, str], version: str = "") -> UpstreamEngine:
    """The engine of an upstream, with the API key in the environment variable `settings.key_env`. Raises
    ConfigError when that variable holds no key, or the url more than an address."""
    if settings.key_env is None:
        return UpstreamEngine(settings, version=version)
    key = environ.get(settings.key_env, "").strip()
    if not key or not key.isascii() or not key.isprintable():
        raise ConfigError(
            "upstream.key_env names an environment variable that holds no key",
            settings.key_env,
            "a variable whose value is one line of ASCII",
            f"export {settings.key_env}=…, or leave key_env out",
        )
    return UpstreamEngine(settings, key, version=version)


def _as_json(body: Mapping[str, Any]) -> bytes:
    """A body as JSON: written four times as fast as by `json`, while all others wait."""
    try:
        return to_json(body)
    except ValueError:  # half a surrogate pair, which only an escape can send on
        return json.dumps(body).encode()


class ResponseBody:
    """The bytes of a response, within limits of time and size. Close it when done."""

    def __init__(
        self,
        engine: UpstreamEngine,
        response: aiohttp.ClientResponse,
        deadline: float,
        release: Callable[[], None],
    ):
        self._engine, self._response, self._deadline, self._release = engine, response, deadline, release
        self._size = 0
        self.is_event_stream = content_type(response) == EVENTS_TYPE

    async def read(self, may_break_off: bool = False) -> bytes | None:
        """The next bytes; None at the end, also where it breaks off and may. Raises UpstreamFault."""
        try:
            async with self._engine.time_limits(self._deadline):
                data = await self._response.content.readany()
        except aiohttp.ClientError as error:
            if may_break_off:
                return None
            raise UpstreamFault("the upstream's answer broke off", describe(error)) from error
        self._size += len(data)
        if self._size > BODY_LIMIT:
            got = f"{self._size:,} bytes"
            raise UpstreamFault("the upstream's answer has no end", got, f"{BODY_LIMIT:,}")
        return data or None

    async def read_all(self) -> bytes:
        """All bytes. Raises UpstreamFault."""
        parts = []
        while (data := await self.read()) is not None:
            parts.append(data)
        return b"".join(parts)

    async def drain(self) -> None:
        """Read what follows the last event: a connection can be used again when all was read."""
        with suppress(TimeoutError, aiohttp.ClientError):
            async with asyncio.timeout(DRAIN_S):
                while await self._response.content.readany():
                    pass

    def close(self) -> None:
        """Close the connection unless all was read; this ends the upstream's work."""
        self._response.close()
        self._release()

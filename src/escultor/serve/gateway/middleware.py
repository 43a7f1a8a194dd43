"""What every request passes: size, time and depth of its body, its id, and headers of every answer.

Whatever is raised further in becomes an answer in OpenAI's shape here, if none has begun.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from escultor.config import Serve
from escultor.ids import new_id
from escultor.serve.limits import too_deep
from escultor.serve.wire.errors import ApiError, refusal_of

logger = logging.getLogger(__name__)

T = TypeVar("T")

JSON = b"application/json"
PARSED = "escultor.json"  # where a request's scope holds its body, parsed
_ID = re.compile(rb"[A-Za-z0-9._-]{1,100}")
_ALWAYS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}


class Gone(Exception):
    """The client has hung up; nobody reads an answer."""


class RequestGuard:
    """ASGI middleware around everything."""

    def __init__(self, app: Any, settings: Serve):
        self._app, self._settings = app, settings
        self._most = int(settings.max_body_mb * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"")
        id = given if _ID.fullmatch(given) else new_id("req").encode()
        begun = False

        async def out(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = {name for name, _ in message["headers"]}
                more = [(name, value) for name, value in _ALWAYS.items() if name not in own]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", id), *more]}
            await send(message)

        try:
            receive = await self._checked(scope, headers, receive)
            await self._app(scope, receive, out)
        except (Gone, ClientDisconnect):
            logger.debug("request %s: the client hung up", id.decode())
        except Exception as error:
            refusal = refusal_of(error)
            if refusal.status >= 500:
                logger.error("request %s: %s", id.decode(), error, exc_info=refusal.code == "internal")
            if begun:
                raise
            await respond(refusal, out)

    async def _checked(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """A `receive` whose body is small enough; JSON is read whole and parsed before anything sees it."""
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._most:
            raise self._too_large()
        kind = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["method"] in ("GET", "HEAD", "OPTIONS") or kind != JSON:
            return self._counted(receive)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                body = await self._whole(self._counted(receive))
        except TimeoutError:
            raise self._too_slow() from None
        if too_deep(body, self._settings.max_depth):
            message = f"the JSON nests deeper than {self._settings.max_depth} brackets"
            raise ApiError(400, message, "invalid_json")
        try:
            scope[PARSED] = from_json(body, allow_inf_nan=False)
        except ValueError as error:
            raise ApiError(400, f"the body is not JSON: {error}", "invalid_json") from None
        return _replay(body, receive)

    async def _whole(self, receive: Receive) -> bytes:
        pieces = []
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            pieces.append(message.get("body", b""))
            if not message.get("more_body", False):
                return b"".join(pieces)

    def _counted(self, receive: Receive) -> Receive:
        """And one that does not fall silent: who sends piece by piece has `body_timeout_s` for each."""
        seen, more = 0, True

        async def counted() -> Message:
            nonlocal seen, more
            try:  # once the body is here, what may come is the end of the connection, whenever
                async with asyncio.timeout(self._settings.body_timeout_s if more else None):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            more = more and message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > self._most:
                raise self._too_large()
            return message

        return counted

    def _too_slow(self) -> ApiError:
        message = f"the body did not arrive within {self._settings.body_timeout_s:.0f} s"
        return ApiError(408, message, "timeout", headers={"Connection": "close"})

    def _too_large(self) -> ApiError:
        message = f"the body is larger than {self._settings.max_body_mb:g} MB"
        return ApiError(413, message, "request_too_large", headers={"Connection": "close"})


def parsed(request: Any) -> Any:
    """The JSON body of a request. Raises Refusal (415) where it was not sent as JSON.

    A web page may send other kinds anywhere without asking first; this one it may not.
    """
    if PARSED not in request.scope:
        raise ApiError(415, "the body has to be sent as Content-Type: application/json", "unsupported_media")
    return request.scope[PARSED]


async def respond(refusal: ApiError, send: Send) -> None:
    """Send an error as the whole answer."""
    body = to_json(refusal.body())
    headers = [(b"content-type", JSON), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in refusal.headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def unless_gone(receive: Receive, work: Awaitable[T]) -> T:
    """The result of some work, which is cancelled when the client hangs up. Raises Gone then."""
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_hung_up(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
        raise Gone
    finally:
        task.cancel()
        watch.cancel()


async def _hung_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the whole body once, then what comes."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay

"""Middleware for every request: size, time and depth of its body, its id, and the response's headers.

An exception becomes an error response in OpenAI's format here, if no response has begun.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from pydantic_core import from_json, to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from escultor.config import Serve
from escultor.ids import new_id
from escultor.serve.wire import anthropic
from escultor.serve.wire.errors import ApiError, to_api_error
from escultor.strict_json import check_finite

logger = logging.getLogger(__name__)

T = TypeVar("T")

JSON = b"application/json"
LINGER_S = 5.0  # how long the rest of a refused body is read and discarded
PARSED_BODY = "escultor.json"  # key of a request's scope
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # to the end where it is not closed
_BRACKET = re.compile(rb"[\[\]{}]")
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,100}")
_DEFAULT_HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cache-control": b"no-store",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
}


class ClientGone(Exception):
    """The client has disconnected; nobody reads the response."""


class RequestGuard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: Any, settings: Serve):
        self._app, self._settings = app, settings
        self._max_bytes = int(settings.max_body_mb * 1e6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "HEAD":  # as GET; the server sends no body
            scope = {**scope, "method": "GET"}
        headers = dict(scope["headers"])
        id = headers.get(b"x-request-id", b"")
        id = id if _REQUEST_ID.fullmatch(id) else new_id("req").encode()
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                present = {name for name, _ in message["headers"]}
                defaults = [item for item in _DEFAULT_HEADERS.items() if item[0] not in present]
                message = {**message, "headers": [*message["headers"], (b"x-request-id", id), *defaults]}
            await send(message)

        try:
            receive = await self._checked(scope, headers, receive)
            await self._app(scope, receive, send_with_headers)
        except (ClientGone, ClientDisconnect):
            logger.debug("request %s: the client disconnected", id.decode())
        except Exception as error:
            api_error = to_api_error(error)
            if api_error.status >= 500:
                logger.error("request %s: %s", id.decode(), error, exc_info=api_error.code == "internal")
            if has_begun:
                raise
            if api_error.headers.get("Connection") == "close":
                await self._answer_then_drain(api_error, scope, receive, send_with_headers)
            else:
                await error_response(api_error, scope["path"])(scope, receive, send_with_headers)

    async def _answer_then_drain(self, error: ApiError, scope: Scope, receive: Receive, send: Send) -> None:
        """Send an error whose connection closes, and discard what is left of the body for `LINGER_S` first.

        A socket that is closed with unread bytes in its buffer resets the connection, and the reset overtakes
        the response: the client would see a broken connection in place of the reason.
        """

        async def send_unfinished(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        await error_response(error, scope["path"])(scope, receive, send_unfinished)
        with suppress(TimeoutError):
            async with asyncio.timeout(LINGER_S):
                while (message := await receive())["type"] == "http.request" and message.get("more_body"):
                    pass
        await send({"type": "http.response.body", "body": b""})

    async def _checked(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        """A `receive` that enforces the limits; a JSON body is read whole and parsed here."""
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._max_bytes:
            raise self._too_large()
        media_type = headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if scope["method"] in ("GET", "HEAD", "OPTIONS") or media_type != JSON:
            return self._limited(receive)
        try:
            async with asyncio.timeout(self._settings.body_timeout_s):
                body = await Request(scope, self._limited(receive)).body()
        except TimeoutError:
            raise self._too_slow() from None
        if is_nested_deeper(body, self._settings.max_depth):
            message = f"the JSON nests deeper than {self._settings.max_depth} brackets"
            raise ApiError(400, message, "invalid_json")
        try:
            scope[PARSED_BODY] = from_json(body, allow_inf_nan=False)
            check_finite(body, scope[PARSED_BODY])
        except ValueError as error:
            raise ApiError(400, f"the body is not JSON: {error}", "invalid_json") from None
        return receive  # the body has been read, and routes use what was parsed

    def _limited(self, receive: Receive) -> Receive:
        """A `receive` that counts bytes and allows `body_timeout_s` for each piece of the body."""
        received, more_body = 0, True

        async def limited() -> Message:
            nonlocal received, more_body
            try:  # after the body only the end of the connection comes, at any time
                async with asyncio.timeout(self._settings.body_timeout_s if more_body else None):
                    message = await receive()
            except TimeoutError:
                raise self._too_slow() from None
            more_body = more_body and message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                raise self._too_large()
            return message

        return limited

    def _too_slow(self) -> ApiError:
        message = f"the body did not arrive within {self._settings.body_timeout_s:.0f} s"
        return ApiError(408, message, "timeout", headers={"Connection": "close"})

    def _too_large(self) -> ApiError:
        message = f"the body is larger than {self._settings.max_body_mb:g} MB"
        return ApiError(413, message, "request_too_large", headers={"Connection": "close"})


def is_nested_deeper(body: bytes, limit: int) -> bool:
    """Whether JSON text nests brackets deeper than the limit, found without parsing it."""
    if body.count(b"[") + body.count(b"{") <= limit:
        return False
    depth = 0
    for bracket in _BRACKET.finditer(_STRING.sub(b"", body)):
        depth += 1 if bracket[0] in b"[{" else -1
        if depth > limit:
            return True
    return False


def json_body(request: Any) -> Any:
    """The parsed JSON body of a request. Raises ApiError (415) where it was not sent as JSON. A web page may
    send other media types to any host without a CORS preflight; JSON it may not."""
    if PARSED_BODY not in request.scope:
        raise ApiError(415, "the body has to be sent as Content-Type: application/json", "unsupported_media")
    return request.scope[PARSED_BODY]


def json_response(data: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    return Response(to_json(data), status, headers, JSON.decode())


def error_response(error: ApiError, path: str) -> Response:
    """An error in the form of the API that the path belongs to."""
    body = anthropic.error_body(error) if path.startswith(anthropic.PATH) else error.body()
    return json_response(body, error.headers, error.status)


async def unless_disconnected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled when the client disconnects. Raises ClientGone then."""
    task = asyncio.ensure_future(work)
    watch = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
        raise ClientGone
    finally:
        task.cancel()
        watch.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Middleware for every request: the host it names, its id, and the response's headers.

An exception becomes an error response in OpenAI's format here, if no response has begun.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic_core import to_json
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from escultor.ids import new_id
from escultor.serve.gateway.bodies import HELD, JSON
from escultor.serve.wire import anthropic
from escultor.serve.wire.errors import ApiError, to_api_error

if TYPE_CHECKING:
    from escultor.serve.gateway.gateway import Gateway

logger = logging.getLogger(__name__)

T = TypeVar("T")

OPEN_PATHS = ("/health", "/static/", "/v1/feedback/t/", "/approvals/")  # they require no key
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
    """ASGI middleware around the whole application. It reads no body: routes do, once they know the caller
    (`gateway.bodies`)."""

    def __init__(self, app: Any, gateway: Gateway):
        self._app, self._gateway = app, gateway

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
            with ExitStack() as scope[HELD]:
                self._refuse_at_once(scope, headers)
                await self._app(scope, receive, send_with_headers)
        except (ClientGone, ClientDisconnect):
            logger.debug("request %s: the client disconnected", id.decode())
        except (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # a library's panic is no Exception
            api_error = to_api_error(error)
            if api_error.status >= 500:
                logger.error("request %s: %s", id.decode(), error, exc_info=api_error.code == "internal")
            if has_begun:
                raise
            await error_response(api_error, scope["path"])(scope, receive, send_with_headers)

    def _refuse_at_once(self, scope: Scope, headers: dict[bytes, bytes]) -> None:
        """Raise ApiError for a request under another host's name, and for one that ends in two ways."""
        if not scope["path"].startswith(OPEN_PATHS):
            self._gateway.check_host(scope["headers"])
        if b"content-length" in headers and b"transfer-encoding" in headers:
            # What one of two servers takes for the rest of a body, the other takes for the next request.
            message = "a request has Content-Length or Transfer-Encoding, not both"
            raise ApiError(400, message, "invalid_http", headers={"Connection": "close"})


def json_response(data: Any, headers: Mapping[str, str] | None = None, status: int = 200) -> Response:
    return Response(to_json(data), status, headers, JSON)


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

"""Server-sent events: a response in pieces, to a client that may be slow or disconnect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from escultor.serve.gateway.middleware import ClientGone, unless_disconnected
from escultor.serve.wire import responses
from escultor.serve.wire.errors import to_api_error

logger = logging.getLogger(__name__)


class EventStream(Response):
    """A response whose body is computed while it is sent.

    An exception before the first piece becomes the response's status; after it, a last event that holds the
    error. A client that disconnects, or reads a piece too slowly, cancels the work.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        lease: ExitStack,
        *,
        answer_timeout_s: float,
        send_timeout_s: float,
    ):
        """`lease` is closed after the last piece is sent."""
        super().__init__(headers={**headers, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._pieces, self._lease = pieces, lease
        self._answer_timeout_s, self._send_timeout_s = answer_timeout_s, send_timeout_s
        self._has_begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._lease:
            await unless_disconnected(receive, self._deliver(send))

    async def _deliver(self, send: Send) -> None:
        try:
            async with asyncio.timeout(self._answer_timeout_s), aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await self._send(send, piece)
        except ClientGone:
            raise
        except Exception as error:
            if not self._has_begun:
                raise
            logger.warning("a stream was broken off: %s", error)
            await self._send(send, responses.event(to_api_error(error).body()))
        await self._send(send, b"", is_last=True)

    async def _send(self, send: Send, piece: bytes, is_last: bool = False) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s):
                if not self._has_begun:
                    self._has_begun = True
                    start: dict[str, Any] = {"type": "http.response.start", "status": 200}
                    await send({**start, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
        except TimeoutError:
            raise ClientGone from None

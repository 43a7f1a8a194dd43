"""Server-sent events: an answer in pieces, to a client that may be slow or go away."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import ExitStack, aclosing
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from escultor.serve.gateway.middleware import Gone, unless_gone
from escultor.serve.wire import responses
from escultor.serve.wire.errors import refusal_of

logger = logging.getLogger(__name__)


class EventStream(Response):
    """A response whose body is made while it is sent.

    What is raised before the first piece becomes the answer's status; after it, a last event that holds
    the error. A client that hangs up, or takes a piece too slowly, ends the work.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        headers: Mapping[str, str],
        held: ExitStack,
        *,
        answer_timeout_s: float,
        send_timeout_s: float,
    ):
        super().__init__(headers={**headers, "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._held = held  # what is needed until the last piece is sent
        self._pieces, self._answer_s, self._send_s = pieces, answer_timeout_s, send_timeout_s
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await unless_gone(receive, self._deliver(send))

    async def _deliver(self, send: Send) -> None:
        try:
            async with asyncio.timeout(self._answer_s), aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await self._send(send, piece)
        except Gone:
            raise
        except Exception as error:
            refusal = refusal_of(error)
            if not self._begun:
                raise
            logger.warning("a stream was broken off: %s", error)
            await self._send(send, responses.event(refusal.body()))
        await self._send(send, b"", last=True)

    async def _send(self, send: Send, piece: bytes, last: bool = False) -> None:
        try:
            async with asyncio.timeout(self._send_s):
                if not self._begun:
                    self._begun = True
                    start: dict[str, Any] = {"type": "http.response.start", "status": 200}
                    await send({**start, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": piece, "more_body": not last})
        except TimeoutError:
            raise Gone from None

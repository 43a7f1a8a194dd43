"""HTTP/1.1 connections: limits on their time and their number.

A connection has `header_timeout_s` for a request's whole header and `body_timeout_s` for its body.
`max_connections` are held; with one more, the connection that has waited longest for a whole request is
refused with a status, so that slow clients displace each other, and prompt clients are answered.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import h11
from pydantic_core import to_json
from uvicorn.protocols.http.h11_impl import H11Protocol

from escultor.config import Serve
from escultor.serve.wire.errors import ApiError

_RECEIVED = 1 << 14  # bytes read from a connection at a time: chunks of one byte each take 20 ms to read
_LINGER_S = 2.0  # how long the rest of a body that nobody reads is discarded, so that its sender reads why
_REFUSED_S = 2.0  # the same for a refused connection


def send_at_once(transport: asyncio.BaseTransport) -> None:
    """Switch off Nagle's algorithm: a body, written after its header, would wait for the client's delayed
    acknowledgement, 40 ms. asyncio does so only for sockets that were made with the protocol number of TCP,
    and `socket.create_server` gives none."""
    connection = transport.get_extra_info("socket")
    if connection is not None and connection.family in (socket.AF_INET, socket.AF_INET6):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


class _TimedProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for headers and a limit on connections that wait for a request."""

    settings: Serve
    waiting: dict[Any, asyncio.TimerHandle]  # oldest first

    refused: dict[Any, asyncio.TimerHandle]  # told so, until they have read it; oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        send_at_once(transport)
        self._wait()
        if len(self.connections) - len(self.refused) > self.settings.max_connections:
            oldest = next(iter(self.waiting))  # this connection itself, where all others are being answered
            oldest._refuse()

    def data_received(self, data: bytes) -> None:
        if self in self.refused:
            return
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            if self._is_answering():
                self._wait_for_body()
        elif self._is_answering():
            self._stop_waiting()
        elif self not in self.waiting and not self.transport.is_closing():
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering() and not self.transport.is_closing():
            is_unread = self.conn.their_state is h11.SEND_BODY
            self._wait(_LINGER_S if is_unread else self.settings.keep_alive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        if (timer := self.refused.pop(self, None)) is not None:
            timer.cancel()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        body = to_json(ApiError(400, msg, "invalid_http").body())
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body)):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self._close_when_read()

    def _is_answering(self) -> bool:
        """Whether a request's header has arrived and its response is not complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self, seconds: float | None = None) -> None:
        self._stop_waiting()
        self.waiting[self] = self.loop.call_later(
            self.settings.header_timeout_s if seconds is None else seconds, self._drop
        )

    def _wait_for_body(self) -> None:
        """The middleware limits the body's time; until it is here, the connection may still be displaced."""
        if (timer := self.waiting.get(self)) is not None:
            timer.cancel()

    def _stop_waiting(self) -> None:
        if (timer := self.waiting.pop(self, None)) is not None:
            timer.cancel()

    def shutdown(self) -> None:
        if self in self.refused:
            self.transport.abort()
        else:
            super().shutdown()

    def _refuse(self) -> None:
        """Answer 503 in place of the application, and close once the client may have read it. A connection
        between two requests is closed as it would be later."""
        self._stop_waiting()
        if self.cycle is not None and self.cycle.response_complete and self.conn.their_state is h11.IDLE:
            self.transport.close()
            return
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(_REFUSAL)
        self._close_when_read()

    def _close_when_read(self) -> None:
        """Close once the client may have read what was written: what it still sends would reset the
        connection, and the reset overtake it."""
        self._stop_waiting()
        self.refused[self] = self.loop.call_later(_REFUSED_S, self.transport.abort)
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()
        if len(self.refused) > self.settings.max_connections:
            next(iter(self.refused)).transport.abort()

    def _drop(self) -> None:
        self._stop_waiting()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self.transport.write(_TOO_LATE)
            self.transport.close()
        else:
            self.transport.abort()


def _response(status: str, error: ApiError, more: str = "") -> bytes:
    body = to_json(error.body())
    head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{more}"
    return f"HTTP/1.1 {status}\r\n{head}connection: close\r\n\r\n".encode() + body


_REFUSAL = _response(
    "503 Service Unavailable",
    ApiError(503, "too many connections; try again later", "overloaded"),
    "retry-after: 1\r\n",
)
_TOO_LATE = _response("408 Request Timeout", ApiError(408, "the header did not arrive in time", "timeout"))


_PASSED_ON = "connection_made", "connection_lost", "pause_writing", "resume_writing", "eof_received"


class _BoundedReads(asyncio.BufferedProtocol):
    """Hands a protocol what arrives in pieces of at most `_RECEIVED` bytes, whatever event loop reads them: a
    body that waits for its turn holds little more than this. One buffer serves all connections, since what is
    read is copied out of it before anything else is read."""

    _buffer = memoryview(bytearray(_RECEIVED))

    def __init__(self, protocol: H11Protocol):
        self._receive = protocol.data_received
        for event in _PASSED_ON:
            setattr(self, event, getattr(protocol, event))

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._receive(bytes(self._buffer[:nbytes]))


def http_protocol(settings: Serve) -> Any:
    """What makes the protocol of each connection of one server. uvicorn instantiates a class, so that
    settings, and what the connections share, are its attributes."""
    shared = {"settings": settings, "waiting": {}, "refused": {}}
    kind = type("TimedProtocol", (_TimedProtocol,), shared)
    return lambda **given: _BoundedReads(kind(**given))

"""The server process: its socket, slow connections, and a shutdown that loses no answer.

A connection has `header_timeout_s` for a request's whole header and `body_timeout_s` for its body.
`max_connections` are held; with one more, the connection that has waited longest for a whole request is
closed without a response, so that slow clients displace each other, and prompt clients are answered.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import h11
import uvicorn
from pydantic_core import to_json
from uvicorn.protocols.http.h11_impl import H11Protocol

from escultor.config import Serve
from escultor.errors import InputError
from escultor.serve.wire.errors import ApiError

BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 means any free one. Raises InputError where the address cannot be used."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, proto)
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host}:{port} is not an address", error, "--host and --port") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        remedy = "choose another --port (0: any free one)"
        raise InputError(f"cannot listen on {host}:{port}", error, None, remedy) from error
    bound.set_inheritable(True)
    return bound


def run(app: Any, settings: Serve, bound: socket.socket) -> bool:
    """Serve until SIGTERM or SIGINT, then finish the answers in flight. Whether the server ever started."""
    config = uvicorn.Config(
        app,
        http=http_protocol(settings),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,  # a path may hold a token
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=settings.drain_s,
        backlog=BACKLOG,
    )
    server = _Server(config)
    asyncio.run(server.serve(sockets=[bound]))
    return server.started


class _Server(uvicorn.Server):
    """A uvicorn server that ends normally on a signal, without raising it again."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        old = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, old[number])


class _TimedProtocol(H11Protocol):
    """HTTP/1.1 with a time limit for headers and a limit on connections that wait for a request."""

    settings: Serve
    waiting: dict[Any, asyncio.TimerHandle]  # oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.settings.max_connections:
            oldest = next(iter(self.waiting))  # this connection itself, where all others are being answered
            oldest._drop()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            self._wait_for_body()
        elif self._is_answering():
            self._stop_waiting()
        elif self not in self.waiting and not self.transport.is_closing():
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._is_answering() and not self.transport.is_closing():
            self._wait(self.settings.keep_alive_s)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        body = to_json(ApiError(400, msg, "invalid_http").body())
        headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
        for event in (h11.Response(status_code=400, headers=headers), h11.Data(data=body)):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.write(self.conn.send(h11.EndOfMessage()) or b"")
        self.transport.close()

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

    def _drop(self) -> None:
        self._stop_waiting()
        self.transport.abort()


def http_protocol(settings: Serve) -> type[H11Protocol]:
    """The protocol class of one server: uvicorn instantiates it, so that settings are class attributes."""
    return type("TimedProtocol", (_TimedProtocol,), {"settings": settings, "waiting": {}})


def announce(host: str, bound: socket.socket, say: Callable[[str], None]) -> None:
    """Pass the line that says where the server listens to `say`."""
    name = f"[{host}]" if ":" in host else host
    say(f"listening on http://{name}:{bound.getsockname()[1]}/v1")

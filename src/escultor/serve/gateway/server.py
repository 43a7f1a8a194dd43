"""The server process: sockets, connections that wait too long, and an end that loses nothing.

Stated behaviour with slow clients: a connection has `header_timeout_s` for a request's whole header and
`body_timeout_s` for its body. `max_connections` are held; with one more, the connection that has waited
longest for a whole request is closed without an answer, so that those who only hold connections drive out one
another, and whoever asks promptly is answered.
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
    """A bound socket; port 0 takes a free one. Raises InputError where the address cannot be had."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, proto)
    except (OSError, UnicodeError) as error:
        raise InputError(f"the address {host}:{port} is none", error, "--host and --port") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        remedy = "choose another --port (0: any that is free)"
        raise InputError(f"cannot listen on {host}:{port}", error, None, remedy) from error
    bound.set_inheritable(True)
    return bound


def run(app: Any, settings: Serve, bound: socket.socket) -> bool:
    """Serve until SIGTERM or SIGINT; answers under way may end. Whether the server ever came up."""
    config = uvicorn.Config(
        app,
        http=_protocol(settings),
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
    """A server for which being told to stop is no fault: it ends as if it had been asked politely."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        old = {sign: signal.getsignal(sign) for sign in _SIGNALS}
        for sign in _SIGNALS:
            loop.add_signal_handler(sign, self.handle_exit, sign, None)
        try:
            yield
        finally:
            for sign in _SIGNALS:
                loop.remove_signal_handler(sign)
                signal.signal(sign, old[sign])


class _Patient(H11Protocol):
    """HTTP/1.1 that waits for a header only so long, and holds only so many connections that wait. Of each
    server a class of its own, since the library makes the connections."""

    settings: Serve
    waiting: dict[Any, asyncio.TimerHandle]  # oldest first

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > self.settings.max_connections:
            oldest = next(iter(self.waiting))  # this one, where all others are being answered
            oldest._give_up()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.SEND_BODY:
            self._wait_for_body()
        elif self._asks():
            self._stop_waiting()
        elif self not in self.waiting and not self.transport.is_closing():
            self._wait()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._asks() and not self.transport.is_closing():
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

    def _asks(self) -> bool:
        """Whether a request's header is here and its answer not yet complete."""
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self, seconds: float | None = None) -> None:
        self._stop_waiting()
        self.waiting[self] = self.loop.call_later(
            self.settings.header_timeout_s if seconds is None else seconds, self._give_up
        )

    def _wait_for_body(self) -> None:
        """A body has its time from the guard; until it is here, its connection may be driven out."""
        if (timer := self.waiting.get(self)) is not None:
            timer.cancel()

    def _stop_waiting(self) -> None:
        if (timer := self.waiting.pop(self, None)) is not None:
            timer.cancel()

    def _give_up(self) -> None:
        self._stop_waiting()
        self.transport.abort()


def _protocol(settings: Serve) -> type[H11Protocol]:
    return type("Patient", (_Patient,), {"settings": settings, "waiting": {}})


def announce(host: str, bound: socket.socket, say: Callable[[str], None]) -> None:
    """Say in one line where the server listens."""
    name = f"[{host}]" if ":" in host else host
    say(f"listening on http://{name}:{bound.getsockname()[1]}/v1")

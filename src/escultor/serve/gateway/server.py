"""Serving processes: one, or several that share a socket and a store, each with its own engines.

A shutdown loses no answer.
A connection has `header_timeout_s` for a request's whole header and `body_timeout_s` for its body.
`max_connections` are held; with one more, the connection that has waited longest for a whole request is
refused with a status, so that slow clients displace each other, and prompt clients are answered.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

import h11
import uvicorn
from pydantic_core import to_json
from uvicorn.protocols.http.h11_impl import H11Protocol

from escultor.config import Serve
from escultor.datasets.erasure import finish_erasures
from escultor.errors import EscultorError, FaultError, InputError
from escultor.serve.auth import Keyring
from escultor.serve.engine_loading import EngineSource, engine_loader
from escultor.serve.gateway.app import build
from escultor.serve.gateway.gateway import LOCAL, Gateway
from escultor.serve.gateway.server_log import log_readably
from escultor.serve.wire.errors import ApiError
from escultor.store import Store, open_store
from escultor.types import KeyEvent

BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_S = 0.2
_SWITCH_S = 0.0005  # of the interpreter between threads: what computes makes the event loop wait so long
_GRACE_S = 10.0  # beyond `drain_s`, the time for answers in flight
_RECEIVED = 1 << 16  # bytes read from a connection at a time
_LINGER_S = 2.0  # how long the rest of a body that nobody reads is discarded, so that its sender reads why
_REFUSED_S = 2.0  # the same for a refused connection


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 means any free one. Raises InputError where the address cannot be used."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise InputError(f"{host}:{port} is not an address", error, "--host and --port") from error
    try:
        dualstack = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        bound = socket.create_server(address, family=family, backlog=BACKLOG, dualstack_ipv6=dualstack)
    except OSError as error:
        remedy = "choose another --port (0: any free one)"
        raise InputError(f"cannot listen on {host}:{port}", error, None, remedy) from error
    bound.set_inheritable(True)
    return bound


def run(app: Any, settings: Serve, bound: socket.socket) -> bool:
    """Serve until SIGTERM or SIGINT, then finish the answers in flight. False where the server never started,
    and was not asked to stop."""
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
    try:
        asyncio.run(server.serve(sockets=[bound]))
    except asyncio.CancelledError:  # a signal came while the model was being loaded
        return server.should_exit
    return server.started


class _Server(uvicorn.Server):
    """A uvicorn server that ends normally on a signal, without raising it again, also while it starts."""

    starting: asyncio.Task[Any] | None = None

    def handle_exit(self, sig: int, frame: Any) -> None:
        super().handle_exit(sig, frame)
        if not self.started and self.starting is not None:
            self.starting.cancel()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop, self.starting = asyncio.get_running_loop(), asyncio.current_task()
        old = {number: signal.getsignal(number) for number in _SIGNALS}
        for number in _SIGNALS:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
                signal.signal(number, old[number])


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
        if hasattr(transport, "max_size"):  # a body that waits for its turn holds little more than this
            setattr(transport, "max_size", _RECEIVED)  # noqa: B010  no type states it
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
        self.refused[self] = self.loop.call_later(_REFUSED_S, self.transport.abort)
        self.transport.write(_REFUSAL)
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


def http_protocol(settings: Serve) -> type[H11Protocol]:
    """The protocol class of one server: uvicorn instantiates it, so that settings are class attributes."""
    return type("TimedProtocol", (_TimedProtocol,), {"settings": settings, "waiting": {}, "refused": {}})


def announce(host: str, bound: socket.socket, say: Callable[[str], None]) -> None:
    """Pass the line that says where the server listens to `say`."""
    name = f"[{host}]" if ":" in host else host
    say(f"listening on http://{name}:{bound.getsockname()[1]}/v1")


@dataclass(frozen=True)
class ServerStart:
    """The arguments of a serving process, sent to it."""

    store_url: str
    settings: Serve
    source: EngineSource


def require_keys(store: Store, host: str) -> None:
    """Raises InputError where other machines could reach a gateway that requires no key."""
    if host in LOCAL or host.startswith("127."):
        return
    if not Keyring(event for _, event in store.log.read(KeyEvent)).keys:
        raise InputError(
            "without API keys only this machine is served",
            f"--host {host}",
            "127.0.0.1, ::1 or localhost",
            "escultor keys create NAME, or leave --host out",
        )


def serve(start: ServerStart, bound: socket.socket, listening: Callable[[], None]) -> None:
    """Serve in this process until SIGTERM or SIGINT; `listening` is called when requests are accepted. Raises
    what kept the server from starting."""
    log_readably()
    sys.setswitchinterval(_SWITCH_S)
    with open_store(start.store_url) as store:
        finish_erasures(store)
        load, default, fixed = engine_loader(store, start.source, start.settings)
        gateway = Gateway(store, start.settings, load, default, fixed=fixed)

        def started() -> None:
            gc.freeze()  # what is loaded stays: no collection walks through it while answers are under way
            listening()

        app = build(gateway, started=started)
        if not run(app, start.settings, bound):
            raise app.state.failed or FaultError("the server did not start")


def serve_in_several(
    start: ServerStart, bound: socket.socket, workers: int, listening: Callable[[], None]
) -> None:
    """Serve in several processes. One that dies is started again. Raises FaultError where one does not start;
    the others are ended then."""
    context = multiprocessing.get_context("spawn")
    received: list[int] = []  # signals
    old = {each: signal.signal(each, lambda number, _: received.append(number)) for each in _SIGNALS}
    processes: list[tuple[SpawnProcess, Any]] = []

    def start_process() -> None:
        is_up = context.Event()
        process = context.Process(target=_work, args=(start, bound, is_up), daemon=False)
        process.start()
        processes.append((process, is_up))

    try:
        for _ in range(workers):
            start_process()
        announced = False
        while not received:
            wait([process.sentinel for process, _ in processes], _POLL_S)
            if not announced and all(is_up.is_set() for _, is_up in processes):
                announced = True
                listening()
            for process, is_up in [each for each in processes if not each[0].is_alive()]:
                processes.remove((process, is_up))
                if not is_up.is_set():
                    raise FaultError("a worker did not start", f"exit code {process.exitcode}")
                start_process()
    finally:
        _end([process for process, _ in processes], start.settings.drain_s)
        for number, handler in old.items():
            signal.signal(number, handler)


def _work(start: ServerStart, bound: socket.socket, is_up: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(start, bound, is_up.set)
    except EscultorError as error:
        raise SystemExit(str(error)) from error


def _end_with_parent() -> None:
    """End this process with its parent: a worker whose parent was killed would hold the port."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _end(processes: list[SpawnProcess], drain_s: float) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + drain_s + _GRACE_S
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()

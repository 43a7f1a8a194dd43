"""Serving processes: one, or several that share a socket and a store, each with its own engines.

A shutdown loses no answer.
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
from contextlib import closing, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

import uvicorn

from escultor.config import Serve
from escultor.datasets.erasure import finish_erasures
from escultor.errors import EscultorError, FaultError, InputError
from escultor.serve.auth import Keyring
from escultor.serve.engine_loading import EngineSource, engine_loader
from escultor.serve.gateway.app import build
from escultor.serve.gateway.gateway import LOCAL, Gateway
from escultor.serve.gateway.http_protocol import http_protocol
from escultor.serve.gateway.server_log import log_readably
from escultor.serve.log_process import LogProcess
from escultor.store import Store, open_store
from escultor.types import KeyEvent

BACKLOG = 2048
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_POLL_S = 0.2
_SWITCH_S = 0.0005  # of the interpreter between threads: what computes makes the event loop wait so long
_GRACE_S = 10.0  # beyond `drain_s`, the time for answers in flight


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
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop's where installed
            runner.run(server.serve(sockets=[bound]))
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
    with open_store(start.store_url) as store, closing(LogProcess(store.log)) as appender:
        finish_erasures(store)
        load, default, fixed = engine_loader(store, start.source, start.settings)
        gateway = Gateway(store, start.settings, load, default, fixed=fixed, appender=appender)

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

"""Processes that serve: one, or several that share a socket and a store, each with engines of its own."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

from escultor.config import Serve
from escultor.errors import EscultorError, FaultError, InputError
from escultor.serve.auth import Keyring
from escultor.serve.engine_loading import EngineSource, engines
from escultor.serve.gateway.app import build
from escultor.serve.gateway.gateway import LOCAL, Gateway
from escultor.serve.gateway.server import run
from escultor.store import Store, open_store
from escultor.types import KeyEvent

_LOOK_S = 0.2
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE_S = 10.0  # beyond what answers under way may take


@dataclass(frozen=True)
class ServerStart:
    """All that a serving process has to know; sent to it."""

    store_url: str
    settings: Serve
    source: EngineSource


def may_listen(store: Store, host: str) -> None:
    """Raises InputError where others could reach a gateway that asks for no key."""
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
    """Serve in this process until SIGTERM or SIGINT; `listening` is called when requests are taken.

    Raises what kept the server from coming up.
    """
    with open_store(start.store_url) as store:
        load, default, fixed = engines(store, start.source, start.settings)
        gateway = Gateway(store, start.settings, load, default, fixed=fixed)
        app = build(gateway, started=listening)
        if not run(app, start.settings, bound):
            raise app.state.failed or FaultError("the server did not come up")


def serve_in_several(
    start: ServerStart, bound: socket.socket, workers: int, listening: Callable[[], None]
) -> None:
    """Serve in several processes. One that dies is started again, unless it never came up.

    Raises FaultError where one does not come up; the others are ended then.
    """
    context = multiprocessing.get_context("spawn")
    told: list[int] = []
    old = {sign: signal.signal(sign, lambda number, _: told.append(number)) for sign in _SIGNALS}
    processes: list[tuple[SpawnProcess, Any]] = []

    def begin() -> None:
        up = context.Event()
        process = context.Process(target=_work, args=(start, bound, up), daemon=False)
        process.start()
        processes.append((process, up))

    try:
        for _ in range(workers):
            begin()
        announced = False
        while not told:
            wait([process.sentinel for process, _ in processes], _LOOK_S)
            if not announced and all(up.is_set() for _, up in processes):
                announced = True
                listening()
            for process, up in [each for each in processes if not each[0].is_alive()]:
                processes.remove((process, up))
                if not up.is_set():
                    raise FaultError("a worker did not come up", f"exit code {process.exitcode}")
                begin()
    finally:
        _end([process for process, _ in processes], start.settings.drain_s)
        for sign, handler in old.items():
            signal.signal(sign, handler)


def _work(start: ServerStart, bound: socket.socket, up: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        serve(start, bound, up.set)
    except EscultorError as error:
        raise SystemExit(str(error)) from error


def _end_with_parent() -> None:
    """A worker whose parent was killed would hold the port, and nobody could end it by name."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


def _end(processes: list[SpawnProcess], drain_s: float) -> None:
    for process in processes:
        process.terminate()
    until = time.monotonic() + drain_s + _GRACE_S
    for process in processes:
        process.join(max(0.0, until - time.monotonic()))
        if process.is_alive():
            process.kill()
            process.join()

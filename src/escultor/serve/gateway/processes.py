"""Serving processes: one, or several that share a socket and a store, each with its own engines."""

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
from escultor.serve.engine_loading import EngineSource, engine_loader
from escultor.serve.gateway.app import build
from escultor.serve.gateway.gateway import LOCAL, Gateway
from escultor.serve.gateway.server import run
from escultor.store import Store, open_store
from escultor.types import KeyEvent

_POLL_S = 0.2
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_GRACE_S = 10.0  # beyond `drain_s`, the time for answers in flight


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
    """Serve in this process until SIGTERM or SIGINT; `listening` is called when requests are accepted.

    Raises what kept the server from starting.
    """
    with open_store(start.store_url) as store:
        load, default, fixed = engine_loader(store, start.source, start.settings)
        gateway = Gateway(store, start.settings, load, default, fixed=fixed)
        app = build(gateway, started=listening)
        if not run(app, start.settings, bound):
            raise app.state.failed or FaultError("the server did not start")


def serve_in_several(
    start: ServerStart, bound: socket.socket, workers: int, listening: Callable[[], None]
) -> None:
    """Serve in several processes. One that dies is started again.

    Raises FaultError where one does not start; the others are ended then.
    """
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

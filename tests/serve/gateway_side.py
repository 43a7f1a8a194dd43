"""The gateway for tests: an engine with scripted answers, and a server in a thread on a free port."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import contextmanager

import uvicorn

from escultor.config import Serve
from escultor.serve.gateway.app import build
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.gateway.http_protocol import http_protocol
from escultor.serve.gateway.server import listen
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt, TokenLogprob
from escultor.store import open_store
from escultor.types import Deployment, Interaction, PendingInteraction, Usage

WORDS = ("Olá", " ", "wor", "ld", " é")


def token(text: str, logprob: float | None = -0.5) -> TokenLogprob:
    return TokenLogprob(
        text, text.encode(), logprob, ((text, text.encode(), logprob or 0.0), (".", b".", -3.0))
    )


class Fake:
    """An engine that answers with its words. `fail` is raised before piece number `at`; `gate`, if it is
    there, is waited for before every piece."""

    def __init__(self, version: str = "v1", words=WORDS, fail: Exception | None = None, at: int = 0):
        self.version, self.words, self.fail, self.at = version, words, fail, at
        self.gate: asyncio.Semaphore | None = None
        self.asks: list[GenerationRequest] = []
        self.under_way = self.cancelled = 0
        self.closed = False
        self.problem: str | None = None

    async def stream(self, ask: GenerationRequest) -> AsyncIterator[EngineEvent]:
        assert not self.closed
        self.asks.append(ask)
        self.under_way += 1
        try:
            prompt = ask.prompt if isinstance(ask.prompt, str) else "a b"
            if ask.echo:
                first, *rest = prompt.split(" ")
                tokens = (token(first, None), *(token(f" {word}") for word in rest))
                yield ScoredPrompt(prompt, tokens if ask.top_logprobs is not None else ())
            words = self.words[: ask.sampling.max_new_tokens]
            for k, word in enumerate(words):
                if self.gate is not None:
                    await self.gate.acquire()
                if self.fail is not None and k == self.at:
                    raise self.fail
                yield Delta(word, (token(word),) if ask.top_logprobs is not None else ())
            if self.fail is not None and self.at >= len(words):
                raise self.fail
            yield End("length" if len(words) < len(self.words) else "stop", Usage(7, len(words)), 0.36)
        except (asyncio.CancelledError, GeneratorExit):
            self.cancelled += 1
            raise
        finally:
            self.under_way -= 1

    async def close(self) -> None:
        assert not self.under_way, "closed while somebody was on it"
        self.closed = True


def deployment(champion="v1", candidate=None, share=0.0, previous=None, id="dep-0") -> Deployment:
    shares = {champion: 1 - share} | ({candidate: share} if share else {})
    named = {"champion": champion} | ({"candidate": candidate} if candidate else {})
    return Deployment(id, 1.0, shares, named | ({"previous": previous} if previous else {}), "a test")


class Running:
    """A server that runs; its store, its engines, and what the log holds of its answers."""

    def __init__(self, gateway: Gateway, engines: dict[str, Fake], url: str):
        self.gateway, self.engines, self.url = gateway, engines, url
        self.log = gateway.store.log
        self.loop: asyncio.AbstractEventLoop | None = None
        self.stop = lambda: None

    @property
    def engine(self) -> Fake:
        return next(iter(self.engines.values()))

    def rows(self) -> list[Interaction]:
        return [row for _, row in self.log.read(Interaction)]

    def pending(self) -> list[PendingInteraction]:
        return [pending for _, pending in self.log.read(PendingInteraction)]

    def until(self, what) -> None:
        """Wait until something holds; two minutes at most, on however busy a machine."""
        end = time.monotonic() + 120
        while not what():
            assert time.monotonic() < end, "the condition was never met"
            time.sleep(0.01)

    def release(self, count: int = 100) -> None:
        """Let held engines go on."""
        gates = [engine.gate for engine in self.engines.values() if engine.gate]
        for _ in range(count):
            for gate in gates:
                self.loop.call_soon_threadsafe(gate.release)


def gateway_of(root, *engines: Fake, holds: Deployment | None = None, **settings) -> tuple[Gateway, dict]:
    known = {engine.version: engine for engine in engines or (Fake(),)}

    async def load(version: str) -> Fake:
        return known[version]

    first = next(iter(known))
    store = open_store(str(root / "store"))
    settings = Serve.model_validate({"follow_s": 0.05, **settings})
    return Gateway(store, settings, load, holds or deployment(first), draw=lambda: 0.5), known


@contextmanager
def serving(root, *engines: Fake, **options):
    """A server of these engines; the first is the champion unless a deployment is given as `holds`."""
    gateway, known = gateway_of(root, *engines, **options)
    try:
        with running(gateway, known) as side:
            yield side
    finally:
        gateway.store.close()


@contextmanager
def running(gateway: Gateway, known: dict[str, Fake] | None = None):
    """A gateway's server, in a thread."""
    bound = listen("127.0.0.1", 0)
    side = Running(gateway, known or {}, f"http://127.0.0.1:{bound.getsockname()[1]}")
    up = threading.Event()

    def started() -> None:
        side.loop = asyncio.get_running_loop()
        up.set()

    app = build(gateway, started=started)
    server = uvicorn.Server(
        uvicorn.Config(app, http=http_protocol(gateway.settings), ws="none", lifespan="on", log_config=None)
    )
    side.stop = lambda: setattr(server, "should_exit", True)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    try:
        assert up.wait(60)
        side.until(lambda: server.started)
        yield side
    finally:
        side.stop()
        thread.join(20)
        assert not thread.is_alive()
        bound.close()

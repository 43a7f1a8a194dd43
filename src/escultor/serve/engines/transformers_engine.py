"""The engine of a model in this process: any architecture of transformers, adapters switched as it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from escultor.config import Serve
from escultor.errors import EngineFault, InputError, Overloaded, say
from escultor.model.hot_adapters import HotAdapters
from escultor.model.loaded import Loaded
from escultor.serve.engines.generation_state import Detokenizer
from escultor.serve.engines.worker import Job, Worker
from escultor.serve.protocol import End, EngineEvent, GenerationRequest


class LocalEngine:
    """Answers with a model's own weights, `settings.batch_size` at a time; see `serve.protocol.Engine`.

    At most `settings.queue` more may wait. To be closed: it holds a thread.
    """

    def __init__(self, loaded: Loaded, version: str, settings: Serve):
        self._version, self._settings = version, settings
        loaded.model.eval()
        self._voice = Detokenizer(loaded)
        self._adapters = HotAdapters(loaded)
        self._worker = Worker(loaded.model, self._adapters.use, settings.batch_size, settings.prefill_tokens)

    @property
    def version(self) -> str:
        return self._version

    @property
    def problem(self) -> str | None:
        over = self._worker.over
        return None if over is None else say(over.what, over.got)

    def stream(self, ask: GenerationRequest) -> AsyncIterator[EngineEvent]:
        return self.answer(ask, None)

    async def answer(self, ask: GenerationRequest, adapter: str | None) -> AsyncIterator[EngineEvent]:
        """The events of an answer with the weights of an adapter, or the model's own."""
        if self._worker.waiting >= self._settings.queue:
            raise Overloaded(
                "too many answers are waiting",
                self._settings.queue,
                remedy="ask again later, or raise serve.queue or serve.batch_size",
            )
        # Prepared in a thread: a long prompt or a large schema keeps no other answer waiting.
        utterance = await asyncio.to_thread(self._voice.utterance, ask)
        job = Job(utterance, adapter)
        self._worker.hand_in(job)
        try:
            while True:
                event = await job.heard()
                yield event
                if isinstance(event, End):
                    return
        finally:
            job.cancelled = True

    async def with_adapter(self, version: str, folder: Path) -> AdapterEngine:
        """Load an adapter (as peft writes it) beside the weights, while answers go on; its engine.

        Raises ModelError for an adapter that does not belong to this model, InputError where one of this
        version is loaded already, ConfigError where peft is not installed.
        """
        if version == self._version or version in self._adapters.names:
            raise InputError("a version is served once", version, remedy="close its engine first")
        # In a thread of its own, since it reads all of the base's files: answers go on meanwhile.
        await asyncio.to_thread(self._adapters.refuse_another_base, folder)
        await asyncio.wrap_future(self._worker.call(lambda: self._adapters.load(version, folder)))
        return AdapterEngine(self, version)

    async def without_adapter(self, version: str) -> None:
        """End the answers of an adapter and free its weights."""

        def work() -> None:
            self._worker.end_jobs_of(version, EngineFault("the engine is closed", version))
            self._adapters.unload(version)

        await asyncio.wrap_future(self._worker.call(work))

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.close)


class AdapterEngine:
    """The engine of one adapter. It shares thread, batch places and queue with the engine of its base."""

    def __init__(self, base: LocalEngine, version: str):
        self._base, self._version, self._closed = base, version, False

    @property
    def version(self) -> str:
        return self._version

    @property
    def problem(self) -> str | None:
        return self._base.problem

    async def stream(self, ask: GenerationRequest) -> AsyncIterator[EngineEvent]:
        if self._closed:
            raise EngineFault("the engine is closed", self._version)
        events = self._base.answer(ask, self._version)
        try:
            async for event in events:
                yield event
        finally:
            await events.aclose()  # type: ignore[attr-defined]

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._base.problem is None:  # else its weights went with the base's
                await self._base.without_adapter(self._version)

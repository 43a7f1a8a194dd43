"""The engine for any transformers architecture, with adapters loaded and unloaded while it runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from escultor.config import Serve
from escultor.errors import EngineFault, InputError, format_message
from escultor.model.hot_adapters import HotAdapters
from escultor.model.loaded import Loaded
from escultor.serve.engines.generation_state import Detokenizer, Job, QueueingEngine, check_queue
from escultor.serve.engines.worker import Worker
from escultor.serve.protocol import EngineEvent, GenerationRequest


class TransformersEngine(QueueingEngine):
    """Decodes `settings.batch_size` answers at a time with the model's own weights; an Engine. At most
    `settings.queue` more requests may wait. Close it when done: it owns a thread."""

    def __init__(self, loaded: Loaded, version: str, settings: Serve):
        super().__init__(Detokenizer(loaded), settings.prepare_timeout_s)
        self.version, self._settings = version, settings
        loaded.model.eval()
        self._adapters = HotAdapters(loaded)
        self._worker = Worker(loaded.model, self._adapters.use, settings.batch_size, settings.prefill_tokens)

    @property
    def problem(self) -> str | None:
        failure = self._worker.failure
        return None if failure is None else format_message(failure.what, failure.got)

    def check_capacity(self) -> None:
        waiting = self._worker.waiting + self.preparing
        check_queue(waiting, 0, self._settings.queue, "serve.queue or serve.batch_size")

    def submit(self, job: Job) -> None:
        self._worker.submit(job)

    def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        return self.generate(request, None)

    async def with_adapter(self, version: str, folder: Path) -> AdapterEngine:
        """Load an adapter (as peft writes it) beside the weights while answers go on; returns its engine.
        Raises ModelError for an adapter of another model, InputError where this version is loaded already,
        ConfigError where peft is not installed."""
        if version == self.version or version in self._adapters.names:
            raise InputError("a version is served once", version, remedy="close its engine first")
        # In a thread of its own, since it reads all of the base's files: answers go on meanwhile.
        await asyncio.to_thread(self._adapters.refuse_another_base, folder)
        await asyncio.wrap_future(self._worker.call(lambda: self._adapters.load(version, folder)))
        return AdapterEngine(self, version)

    async def without_adapter(self, version: str) -> None:
        """End the answers of an adapter and free its weights."""

        def unload() -> None:
            self._worker.fail_jobs(version, EngineFault("the engine is closed", version))
            self._adapters.unload(version)

        await asyncio.wrap_future(self._worker.call(unload))

    async def close(self) -> None:
        await asyncio.to_thread(self._worker.close)


class AdapterEngine:
    """The engine of one adapter. It shares thread, batch and queue with the engine of its base."""

    def __init__(self, base: TransformersEngine, version: str):
        self.version, self._base, self._closed = version, base, False

    @property
    def problem(self) -> str | None:
        return self._base.problem

    def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        if self._closed:
            raise EngineFault("the engine is closed", self.version)
        return self._base.generate(request, self.version)

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            if self._base.problem is None:  # otherwise its weights went with the base's
                await self._base.without_adapter(self.version)

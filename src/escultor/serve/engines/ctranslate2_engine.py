"""The fast engine on a processor: greedy answers by CTranslate2, others by the engine of the same weights.

CTranslate2 draws from one generator of random numbers for all answers and knows neither our guides nor the
scores of a prompt; what it could not do as asked is not given to it. Each answer is computed by one
thread from its beginning to its end, so that it never depends on another.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from escultor.config import Serve
from escultor.errors import EngineDown, EngineFault, Overloaded
from escultor.model.decoding import DecodedToken
from escultor.model.loaded import Loaded
from escultor.serve.engines.ctranslate2_model import converted, greedy, refuse_unless_equal
from escultor.serve.engines.generation_state import Detokenizer, GenerationState
from escultor.serve.engines.transformers_engine import LocalEngine
from escultor.serve.engines.worker import Job
from escultor.serve.protocol import End, EngineEvent, GenerationRequest


class FastEngine:
    """See the module and `serve.protocol.Engine`. `beside` is the folder of converted copies.

    Raises ModelError for a model that cannot be converted, or whose copy does not say what it says.
    """

    def __init__(self, loaded: Loaded, folder: Path, version: str, settings: Serve, beside: Path):
        copy = converted(folder, beside)
        from ctranslate2 import Generator

        self._threads = os.cpu_count() or 1
        make: Any = Generator
        self._generator = make(
            str(copy), compute_type="float32", inter_threads=self._threads, intra_threads=1
        )
        refuse_unless_equal(loaded, self._generator)
        self._loaded, self._settings, self._voice = loaded, settings, Detokenizer(loaded)
        self._other = LocalEngine(loaded, version, settings)
        self._pool = ThreadPoolExecutor(self._threads, "escultor-ctranslate2")
        self._jobs: set[_Job] = set()
        self._closed = False

    @property
    def version(self) -> str:
        return self._other.version

    @property
    def problem(self) -> str | None:
        return self._other.problem

    def stream(self, ask: GenerationRequest) -> AsyncIterator[EngineEvent]:
        return self._fast(ask) if self._can(ask) else self._other.stream(ask)

    def _can(self, ask: GenerationRequest) -> bool:
        plain = ask.schema is None and ask.top_logprobs is None and not ask.echo
        ids = bool(ask.prompt) and isinstance(ask.prompt[0], int)
        known = not ids or all(0 <= int(id) < len(self._loaded.tokenizer) for id in ask.prompt)  # type: ignore[arg-type]
        return plain and known and ask.sampling.temperature == 0 and ask.sampling.max_new_tokens > 0

    async def _fast(self, ask: GenerationRequest) -> AsyncIterator[EngineEvent]:
        if self._closed:
            raise EngineDown("the engine is closed", self.version)
        if len(self._jobs) >= self._threads + self._settings.queue:
            raise Overloaded(
                "too many answers are waiting",
                self._settings.queue,
                remedy="ask again later, or raise serve.queue",
            )
        job = _Job(await asyncio.to_thread(self._voice.utterance, ask))
        self._jobs.add(job)
        self._pool.submit(self._answer, job)
        try:
            while True:
                event = await job.heard()
                yield event
                if isinstance(event, End):
                    return
        finally:
            job.cancelled = True
            self._jobs.discard(job)

    def _answer(self, job: _Job) -> None:
        """In a thread of the pool: one answer, told step by step."""
        if job.cancelled:
            return
        row = job.utterance.row
        beside = min(self._threads, max(1, len(self._jobs)))  # among them the machine's seconds are shared
        began = time.perf_counter()

        def told(step: Any) -> bool:
            if not job.cancelled and not job.utterance.whole:
                row.count += 1
                if step.token_id in row.stops:
                    row.finish = "stop"
                elif row.count >= row.room:
                    row.finish = "length"
                row.compute_s = (time.perf_counter() - began) / beside
                job.tell(*job.utterance.take(DecodedToken(step.token_id)))
            return job.cancelled or job.utterance.whole

        try:
            asked = greedy(self._loaded, row.prompt, row.room, sorted(row.stops))
            self._generator.generate_batch(**asked, callback=told)
            if not job.utterance.whole and not job.cancelled:
                raise EngineFault("an answer ended before its end", f"{row.count} tokens")
        except BaseException as error:  # whatever it is: nobody else tells who waits
            job.tell(error if isinstance(error, EngineFault) else EngineFault("an answer failed", error))

    async def close(self) -> None:
        self._closed = True
        for job in list(self._jobs):
            job.cancelled = True
            job.tell(EngineDown("the engine is closed", self.version))
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)
        self._generator.unload_model()
        await self._other.close()


class _Job(Job):
    """An answer with a thread of its own, which tells its events one by one."""

    def __init__(self, utterance: GenerationState):
        super().__init__(utterance, None)

    def tell(self, *events: EngineEvent | Exception) -> None:
        try:
            for event in events:
                self.loop.call_soon_threadsafe(self.events.put_nowait, event)
        except RuntimeError:  # the loop is closed: nobody waits
            self.cancelled = True

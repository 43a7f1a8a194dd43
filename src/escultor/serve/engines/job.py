"""One queued generation, and what the engines of this process share: admission, preparation, streaming."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from escultor.errors import Overloaded
from escultor.serve.engines.generation_state import Detokenizer, GenerationState
from escultor.serve.protocol import End, EngineEvent, GenerationRequest


class Job:
    """A generation whose events a client on an event loop awaits. `adapter` None: the model's own weights."""

    def __init__(self, state: GenerationState, adapter: str | None):
        self.state, self.adapter = state, adapter
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[EngineEvent | Exception] = asyncio.Queue()
        self.cancelled = False  # the client has left
        self.ended = False
        self.has_sent = False  # any event yet


class QueueingEngine:
    """Base of engines that compute in threads: a subclass says when it is full and how a job is submitted."""

    def __init__(self, detokenizer: Detokenizer):
        self.detokenizer = detokenizer

    def check_capacity(self) -> None:
        """Raise Overloaded when the queue is full, EngineDown when the engine is closed."""
        raise NotImplementedError

    def submit(self, job: Job) -> None:
        raise NotImplementedError

    def release(self, job: Job) -> None:
        """Called when the client of a submitted job has left, with its answer or without."""

    async def generate(self, request: GenerationRequest, adapter: str | None) -> AsyncIterator[EngineEvent]:
        """The events of one answer. Closing the iterator cancels the job."""
        self.check_capacity()
        # Prepared in a thread: tokenizing a long prompt or compiling a large schema delays no other answer.
        job = Job(await asyncio.to_thread(self.detokenizer.prepare, request), adapter)
        self.submit(job)
        try:
            while True:
                event = await job.events.get()
                if isinstance(event, Exception):
                    raise event
                yield event
                if isinstance(event, End):
                    return
        finally:
            job.cancelled = True
            self.release(job)


def check_queue(waiting: int, free: int, queue: int, remedy: str) -> None:
    """Raise Overloaded when `waiting` requests fill the queue and the `free` places in front of it."""
    if waiting >= free + queue:
        raise Overloaded("too many requests are waiting", queue, remedy=f"ask again later, or raise {remedy}")

"""The thread that decodes: continuous batching, one token of every running job a step, with chunked prefill.

Event loops submit jobs through a queue and get events back, one call into each loop a step. A step that
fails ends the jobs of its batch and no others; should the thread itself end, it ends every job first.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from escultor.errors import EngineDown, EngineFault, EscultorError
from escultor.model.decoding import PREFILL_TOKENS, DecodedToken, Decoding, DecodingRow, JoinResult
from escultor.serve.engines.generation_state import Job
from escultor.serve.protocol import End, EngineEvent

logger = logging.getLogger(__name__)

SEND_INTERVAL_S = 0.01  # events within it are sent together: nobody reads faster, and loops wake less
IDLE_TOKENS = 512  # of prompts that are computed at a time where no answer waits: one may come
OLDEST_EVERY = 4  # chunks: of the prompts that came first; the others are of the shortest
SHORT = 64  # tokens: prompts up to it are of one length
REMEDY = "ask again in some seconds"

WorkerCall = tuple[Callable[[], Any], "Future[Any]"]
Drawn = list[tuple[DecodingRow, DecodedToken]]


@dataclass(eq=False)
class _Prefill:
    """Jobs whose prompts are being computed, of similar length: those that have no token yet, and the chunks
    to compute."""

    adapter: str | None
    pending: dict[DecodingRow, Job]
    chunks: Iterator[JoinResult | None]
    tokens: int  # of all of its prompts


class Worker:
    """Owns the model; decodes at most `max_rows` answers at a time."""

    def __init__(
        self, model: Any, use_adapter: Callable[[str | None], None], max_rows: int, prefill_tokens: int
    ):
        """`use_adapter` switches the model's weights. While answers are under way, `prefill_tokens` tokens of
        new prompts are computed between two of their tokens."""
        self.model, self.use_adapter = model, use_adapter
        self.max_rows, self.prefill_tokens = max_rows, prefill_tokens
        self._inbox: SimpleQueue[Job | WorkerCall | None] = SimpleQueue()  # None: close
        self._waiting: deque[Job] = deque()
        self._jobs: dict[DecodingRow, Job] = {}
        self._batches: dict[str | None, Decoding] = {}  # by adapter
        self._prefills: list[_Prefill] = []  # oldest first
        self._chunks = 0  # computed so far
        self._outbox: list[tuple[Job, EngineEvent | Exception]] = []
        self._sent_s = 0.0  # when the whole outbox was last sent
        self.failure: EngineDown | None = None  # why the thread has ended
        self._submit_lock = threading.Lock()  # nothing is submitted once `failure` is set
        self._thread = threading.Thread(target=self._run, name="escultor-decoding", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """The number of jobs that have not begun."""
        return self._inbox.qsize() + len(self._waiting)

    def submit(self, item: Job | WorkerCall) -> None:
        """Raises EngineDown when the thread has ended."""
        with self._submit_lock:
            if self.failure:
                raise _copy(self.failure)
            self._inbox.put(item)

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Run `work` in the thread between two steps; its result."""
        future: Future[Any] = Future()
        self.submit((work, future))
        return future

    def close(self) -> None:
        """End all jobs and the thread; returns when it has ended."""
        self._inbox.put(None)
        self._thread.join()

    def fail_jobs(self, adapter: str | None, fault: EngineFault) -> None:
        """End all jobs of an adapter, waiting ones included. To be run through `call`."""
        for job in self._waiting:
            if job.adapter == adapter:
                self._fail(job, fault)
        self._waiting = deque(job for job in self._waiting if not job.ended)
        self._fail_batch(adapter, fault)

    def _fail_batch(self, adapter: str | None, fault: EngineFault) -> None:
        for job in [job for job in self._jobs.values() if job.adapter == adapter]:
            self._fail(job, fault)
        self._jobs = {row: job for row, job in self._jobs.items() if not job.ended}
        self._prefills = [prefill for prefill in self._prefills if prefill.adapter != adapter]
        self._batches.pop(adapter, None)

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        failure = EngineDown("the engine is closed", remedy=REMEDY)
        try:
            while self._receive():
                self._step()
                self._send()
        except BaseException as error:
            # The error's text may contain anything: it goes to the log, only its type to the clients.
            logger.error("the decoding thread has failed", exc_info=error)
            failure = EngineDown("the decoding thread has failed", type(error).__name__, remedy=REMEDY)
        finally:
            self._finish(failure)

    def _finish(self, failure: EngineDown) -> None:
        with self._submit_lock:
            self.failure = failure
        while not self._inbox.empty():  # this thread alone reads it
            item = self._inbox.get()
            if isinstance(item, Job):
                self._waiting.append(item)
            elif item is not None:
                item[1].set_exception(_copy(failure))
        for job in (*self._waiting, *self._jobs.values()):
            self._fail(job, failure)
        self._waiting.clear()
        self._jobs.clear()
        self._prefills.clear()
        self._batches.clear()
        self._send()

    def _receive(self) -> bool:
        """Read the inbox, blocking while there is nothing to decode; False to close."""
        while True:
            try:
                item = self._inbox.get(block=not self._waiting and not self._jobs)
            except Empty:
                return True
            if item is None:
                return False
            if isinstance(item, Job):
                self._waiting.append(item)
            else:
                work, future = item
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)
                self._send()

    def _step(self) -> None:
        """Admit jobs, compute one chunk of their prompts, and one token of every job that was running."""
        self._drop_cancelled()
        running = [adapter for adapter, batch in self._batches.items() if batch.rows]
        self._admit()
        if self._prefills:
            prefill = self._next_prefill()
            self._decode(prefill.adapter, lambda _: self._prefill_chunk(prefill))
        for adapter in running:
            if adapter in self._batches and self._batches[adapter].rows:
                self._decode(adapter, lambda batch: batch.step())

    def _drop_cancelled(self) -> None:
        """Drop jobs without a client; prompts computed together are dropped when none of them has one."""
        if any(job.cancelled for job in self._waiting):  # they would keep others from being queued
            self._waiting = deque(job for job in self._waiting if not job.cancelled)
        self._prefills = [p for p in self._prefills if not all(job.cancelled for job in p.pending.values())]
        in_prefill = {row for prefill in self._prefills for row in prefill.pending}
        for row, job in list(self._jobs.items()):
            if job.cancelled and row not in in_prefill:
                if row in self._batches[job.adapter].rows:
                    self._batches[job.adapter].drop(row)
                del self._jobs[row]

    def _admit(self) -> None:
        """Start waiting jobs in order, as many as have room and may be computed at a time. Those of similar
        length are computed together: none waits for a prompt that is much longer than its own."""
        admitted: dict[tuple[str | None, int], dict[DecodingRow, Job]] = {}
        free, tokens = self.max_rows - len(self._jobs), sum(prefill.tokens for prefill in self._prefills)
        while self._waiting and free > 0 and tokens < PREFILL_TOKENS:
            job = self._waiting.popleft()
            row = job.state.row
            length = max(SHORT, len(row.prompt)).bit_length()
            admitted.setdefault((job.adapter, length), {})[row] = job
            self._jobs[row] = job
            self._batches.setdefault(job.adapter, Decoding(self.model))
            free, tokens = free - 1, tokens + len(row.prompt)
        for (adapter, _), jobs in admitted.items():
            chunks = self._batches[adapter].prefill(list(jobs), self._prefill_budget)
            self._prefills.append(_Prefill(adapter, jobs, chunks, sum(len(row.prompt) for row in jobs)))

    def _next_prefill(self) -> _Prefill:
        """The prompts of which the next chunk is: the shortest, and now and then those that came first."""
        self._chunks += 1
        if self._chunks % OLDEST_EVERY == 0:
            return self._prefills[0]
        return min(self._prefills, key=lambda prefill: prefill.tokens)

    def _prefill_budget(self) -> int:
        """The prompt tokens that may be computed before the next step, or the next look at what has come."""
        is_idle = not any(batch.rows for batch in self._batches.values())
        return max(self.prefill_tokens, IDLE_TOKENS) if is_idle else self.prefill_tokens

    def _prefill_chunk(self, prefill: _Prefill) -> Drawn:
        """Compute a chunk of prompts; the first tokens of those that it completes."""
        if (joined := next(prefill.chunks)) is None:
            return []
        with_token = {row for row, _ in joined.drawn}
        for row in joined.rows:
            job = prefill.pending.pop(row)
            self._outbox += [(job, event) for event in job.state.first_events()]
            if row not in with_token:  # it had no room for a token
                self._outbox += [(job, event) for event in job.state.last_events()]
                self._jobs.pop(row)
        if not prefill.pending:
            self._prefills.remove(prefill)
        return joined.drawn

    def _decode(self, adapter: str | None, work: Callable[[Decoding], Drawn]) -> None:
        """Run `work` on an adapter's batch and emit its tokens; if it fails, the batch and its jobs end."""
        batch = self._batches[adapter]
        try:
            self.use_adapter(adapter)
            drawn = work(batch)
        except Exception as error:
            known = isinstance(error, EscultorError)
            cause = error if known else f"{type(error).__name__}: {error}"
            self._fail_batch(adapter, EngineFault("a step failed", cause))
            return
        for row, token in drawn:
            self._emit(batch, self._jobs[row], token)

    def _emit(self, batch: Decoding, job: Job, token: DecodedToken) -> None:
        row = job.state.row
        try:
            events = job.state.add(token)
        except EngineFault as fault:
            self._fail(job, fault)
        else:
            self._outbox += [(job, event) for event in events]
            job.ended = bool(events) and isinstance(events[-1], End)
        if job.ended:
            del self._jobs[row]
            if row.finish is None:
                batch.drop(row)

    def _fail(self, job: Job, fault: EngineFault) -> None:
        job.ended = True
        self._outbox.append((job, _copy(fault)))

    def _send(self) -> None:
        """Send the events that are due, with one call into each event loop. A job's first and last events are
        due at once, others when SEND_INTERVAL_S have passed. Jobs of a closed loop are cancelled."""
        now = time.monotonic()
        if all_due := now - self._sent_s >= SEND_INTERVAL_S:
            self._sent_s = now
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, EngineEvent | Exception]]] = {}
        later: list[tuple[Job, EngineEvent | Exception]] = []
        for job, event in self._outbox:
            is_due = all_due or job.ended or not job.has_sent
            (by_loop.setdefault(job.loop, []) if is_due else later).append((job, event))
        self._outbox = later
        for loop, events in by_loop.items():
            for job, _ in events:
                job.has_sent = True
            try:
                loop.call_soon_threadsafe(_deliver, events)
            except RuntimeError:
                for job, _ in events:
                    job.cancelled = True


def _copy(fault: EngineFault) -> EngineFault:
    """The same fault for one client: a raised exception keeps every frame it passed through alive."""
    return type(fault)(fault.what, fault.got, fault.allowed, fault.remedy)


def _deliver(events: list[tuple[Job, EngineEvent | Exception]]) -> None:
    for job, event in events:
        job.events.put_nowait(event)

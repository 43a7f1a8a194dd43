"""The one thread that decodes: what has joined, a token of each at a time, whatever joins meanwhile.

The event loops hand jobs in through a queue and get events back, one call into each loop a step. A step that
fails ends the jobs it was for and no others; should the thread itself end, it ends every job first.
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
from escultor.serve.engines.generation_state import GenerationState
from escultor.serve.protocol import End, EngineEvent

logger = logging.getLogger(__name__)

SEND_S = 0.01  # pieces that come within it are told together: nobody reads so fast, and loops wake less


class Job:
    """An answer that somebody on an event loop waits for. `adapter` None: the model's own weights."""

    def __init__(self, utterance: GenerationState, adapter: str | None):
        self.utterance, self.adapter = utterance, adapter
        self.loop = asyncio.get_running_loop()
        self.events: asyncio.Queue[EngineEvent | Exception] = asyncio.Queue()
        self.cancelled = False  # nobody waits any more
        self.ended = False
        self.told = False  # anything yet

    async def heard(self) -> EngineEvent:
        """The next event. Raises what was told in its place."""
        event = await self.events.get()
        if isinstance(event, Exception):
            raise event
        return event


@dataclass
class _Joining:
    """Jobs whose prompts are being computed: those that are not in yet, and what computes the next piece."""

    adapter: str | None
    left: dict[DecodingRow, Job]
    pieces: Iterator[JoinResult | None]


WorkerCall = tuple[Callable[[], Any], "Future[Any]"]


class Worker:
    """Owns the model. `use` switches to an adapter's weights; `rows` answers are decoded at a time."""

    def __init__(self, model: Any, use: Callable[[str | None], None], rows: int, prefill: int):
        """While answers are under way, `prefill` tokens of new prompts are computed between two of theirs."""
        self.model, self.use, self.rows, self.prefill = model, use, rows, prefill
        self._inbox: SimpleQueue[Job | WorkerCall | None] = SimpleQueue()  # None: close
        self._waiting: deque[Job] = deque()
        self._jobs: dict[DecodingRow, Job] = {}
        self._batches: dict[str | None, Decoding] = {}
        self._joining: deque[_Joining] = deque()
        self._outbox: list[tuple[Job, EngineEvent | Exception]] = []
        self._sent_s = 0.0  # when all of it was last sent
        self._over: EngineDown | None = None
        self._gate = threading.Lock()  # nothing is handed in once it is over
        self._thread = threading.Thread(target=self._run, name="escultor-decoding", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many jobs have not begun."""
        return self._inbox.qsize() + len(self._waiting)

    @property
    def over(self) -> EngineDown | None:
        """Why the thread has ended, None while it goes on."""
        return self._over

    def hand_in(self, item: Job | WorkerCall) -> None:
        """Raises EngineDown when the thread has ended."""
        with self._gate:
            if self._over:
                raise _again(self._over)
            self._inbox.put(item)

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Do something with the model between two steps."""
        done: Future[Any] = Future()
        self.hand_in((work, done))
        return done

    def close(self) -> None:
        """End all jobs and the thread; returns when it has ended."""
        self._inbox.put(None)
        self._thread.join()

    def end_jobs_of(self, adapter: str | None, why: EngineFault) -> None:
        """End the jobs of an adapter, those that have not begun too. For calls made through `call` alone."""
        for job in [job for job in self._waiting if job.adapter == adapter]:
            self._end(job, why)
        self._waiting = deque(job for job in self._waiting if not job.ended)
        self._end_begun(adapter, why)

    def _end_begun(self, adapter: str | None, why: EngineFault) -> None:
        for job in [job for job in self._jobs.values() if job.adapter == adapter]:
            self._end(job, why)
        self._jobs = {row: job for row, job in self._jobs.items() if not job.ended}
        self._joining = deque(joining for joining in self._joining if joining.adapter != adapter)
        self._batches.pop(adapter, None)

    # --- in the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        why = EngineDown("the engine is closed", remedy="ask again in some seconds")
        try:
            while self._receive():
                self._turn()
                self._send()
        except BaseException as error:
            # What it says may hold anything; it is for the log, its kind for whoever waits.
            logger.error("the decoding thread has failed", exc_info=error)
            remedy = "ask again in some seconds"
            why = EngineDown("the decoding thread has failed", type(error).__name__, remedy=remedy)
        finally:
            self._finish(why)

    def _finish(self, why: EngineDown) -> None:
        with self._gate:
            self._over = why
        while True:
            try:
                item = self._inbox.get_nowait()
            except Empty:
                break
            if isinstance(item, Job):
                self._waiting.append(item)
            elif item is not None:
                item[1].set_exception(_again(why))
        for job in (*self._waiting, *self._jobs.values()):
            self._end(job, why)
        self._waiting.clear()
        self._jobs.clear()
        self._joining.clear()
        self._batches.clear()
        self._send()

    def _receive(self) -> bool:
        """Take in what was handed in, waiting for it where there is nothing to do; False to close."""
        idle = not self._waiting and not self._jobs
        while True:
            try:
                item = self._inbox.get(block=idle)
            except Empty:
                return True
            if item is None:
                return False
            if isinstance(item, Job):
                self._waiting.append(item)
            else:
                _do(*item)
                self._send()
            idle = not self._waiting and not self._jobs

    def _turn(self) -> None:
        """Let jobs in that there is room for, a piece of their prompts, and take a step with the others."""
        self._forget()
        live = [adapter for adapter, batch in self._batches.items() if batch.rows]
        if not self._joining:
            self._admit()
        if self._joining:
            joining = self._joining[0]
            self._attempt(joining.adapter, lambda _: self._join(joining))
        for adapter in live:
            if adapter in self._batches and self._batches[adapter].rows:
                self._attempt(adapter, lambda batch: batch.step())

    def _forget(self) -> None:
        """Let go of what nobody waits for; prompts that are computed together go together."""
        if any(job.cancelled for job in self._waiting):  # or they would keep others from waiting
            self._waiting = deque(job for job in self._waiting if not job.cancelled)
        self._joining = deque(j for j in self._joining if not all(job.cancelled for job in j.left.values()))
        joining = {row for each in self._joining for row in each.left}
        for row, job in [(r, j) for r, j in self._jobs.items() if j.cancelled and r not in joining]:
            if row in self._batches[job.adapter].rows:
                self._batches[job.adapter].drop(row)
            del self._jobs[row]

    def _admit(self) -> None:
        """The jobs that begin now, by adapter: in the order they came, as many as can be computed at once."""
        admitted: dict[str | None, dict[DecodingRow, Job]] = {}
        free, tokens = self.rows - len(self._jobs), 0
        while self._waiting and free > 0 and tokens < PREFILL_TOKENS:
            job = self._waiting.popleft()
            admitted.setdefault(job.adapter, {})[job.utterance.row] = job
            self._jobs[job.utterance.row] = job
            self._batches.setdefault(job.adapter, Decoding(self.model))
            free, tokens = free - 1, tokens + len(job.utterance.row.prompt)
        for adapter, jobs in admitted.items():
            pieces = self._batches[adapter].joining(list(jobs), self._most)
            self._joining.append(_Joining(adapter, jobs, pieces))

    def _most(self) -> int:
        """How many tokens of prompts may be computed before the next step: few where one is waited for."""
        return self.prefill if any(batch.rows for batch in self._batches.values()) else PREFILL_TOKENS

    def _join(self, joining: _Joining) -> list[tuple[DecodingRow, DecodedToken]]:
        """Compute a piece of prompts; the tokens drawn for those that are in with it."""
        if (joined := next(joining.pieces)) is None:
            return []
        begun = {row for row, _ in joined.drawn}
        for row in joined.rows:
            job = joining.left.pop(row)
            self._outbox += [(job, event) for event in job.utterance.opening()]
            if row not in begun:  # it had no room for a token
                self._outbox += [(job, event) for event in job.utterance.close()]
                self._jobs.pop(row)
        if not joining.left:
            self._joining.popleft()
        return joined.drawn

    def _attempt(
        self, adapter: str | None, work: Callable[[Decoding], list[tuple[DecodingRow, DecodedToken]]]
    ) -> None:
        """Do some work with a batch; if it fails, its jobs end, and the batch with them."""
        batch = self._batches[adapter]
        try:
            self.use(adapter)
            drawn = work(batch)
        except Exception as error:
            known = isinstance(error, EscultorError)
            why = EngineFault("a step failed", error if known else f"{type(error).__name__}: {error}")
            self._end_begun(adapter, why)
            return
        for row, token in drawn:
            self._tell(batch, self._jobs[row], row, token)

    def _tell(self, batch: Decoding, job: Job, row: DecodingRow, token: DecodedToken) -> None:
        try:
            events: list[EngineEvent] = job.utterance.take(token)
        except EngineFault as fault:
            self._end(job, fault)
        else:
            self._outbox += [(job, event) for event in events]
            job.ended = bool(events) and isinstance(events[-1], End)
        if job.ended:
            del self._jobs[row]
            if row.finish is None:
                batch.drop(row)

    def _end(self, job: Job, why: EngineFault) -> None:
        job.ended = True
        self._outbox.append((job, _again(why)))

    def _send(self) -> None:
        """One call into each event loop, with what is due; what a closed loop's jobs wanted, nobody wants.

        First and last pieces are due at once, the others when SEND_S have passed.
        """
        now = time.monotonic()
        if all_due := now - self._sent_s >= SEND_S:
            self._sent_s = now
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[Job, EngineEvent | Exception]]] = {}
        kept: list[tuple[Job, EngineEvent | Exception]] = []
        for job, event in self._outbox:
            due = all_due or job.ended or not job.told
            (by_loop.setdefault(job.loop, []) if due else kept).append((job, event))
        self._outbox = kept
        for loop, events in by_loop.items():
            for job, _ in events:
                job.told = True
            try:
                loop.call_soon_threadsafe(_deliver, events)
            except RuntimeError:
                for job, _ in events:
                    job.cancelled = True


def _again(why: EngineFault) -> EngineFault:
    """The same fault for one who waits: what is raised holds on to all that it was raised through."""
    return type(why)(why.what, why.got, why.allowed, why.remedy)


def _deliver(events: list[tuple[Job, EngineEvent | Exception]]) -> None:
    for job, event in events:
        job.events.put_nowait(event)


def _do(work: Callable[[], Any], done: Future[Any]) -> None:
    try:
        done.set_result(work())
    except Exception as error:
        done.set_exception(error)

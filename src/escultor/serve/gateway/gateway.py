"""The gateway: its parts and their life, who may use it, and how an answer is computed and recorded."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, aclosing, contextmanager, suppress
from dataclasses import replace

from starlette.requests import Request

from escultor.config import Serve
from escultor.config.serving import matches
from escultor.errors import EscultorError, InputError, Overloaded, UpstreamStatus
from escultor.serve import budgets
from escultor.serve.auth import Caller, FeedbackTokens, Keyring, RateLimiter, TokenGrant, key_of
from escultor.serve.deployments import SHADOW, Deployments, EnginePick, Load
from escultor.serve.engines.upstream.engine import UpstreamEngine
from escultor.serve.gateway.bodies import BodyBudget
from escultor.serve.gateway.request_log import Recovery, RequestLog
from escultor.serve.gateway.request_metadata import RequestMetadata
from escultor.serve.in_flight import InFlightCompletion, merged_events
from escultor.serve.intake.intake import Intake
from escultor.serve.intake.parse import DAY_S, TOKEN_NAMES
from escultor.serve.model_routes import ModelRoutes, check_upstreams
from escultor.serve.protocol import Delta, End
from escultor.serve.restart_policy import RestartPolicy
from escultor.serve.subjects import SubjectHasher
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import ParsedRequest
from escultor.serve.wire.responses import ResponseHead, ResponseStyle, StreamWriter
from escultor.serve.writer import Appender, Writer
from escultor.store import Store
from escultor.store.registry import CHAMPION
from escultor.types import Deployment, KeyEvent, Scope

logger = logging.getLogger(__name__)

RECOVER_S = 60.0  # between two searches for streams whose process is gone
CHECK_UPSTREAMS_S = 10.0  # between two looks at whether upstreams accept connections
PURGE_S = 3600.0  # between two searches for interactions whose retention is over
PURGE_ROWS = 20_000  # of the log that are searched at a time
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class Gateway:
    """One store behind OpenAI's protocol. `start` it in the event loop that it serves."""

    def __init__(
        self,
        store: Store,
        settings: Serve,
        load: Load,
        default: Deployment,
        *,
        fixed: bool = False,
        appender: Appender | None = None,
        draw: Callable[[], float] = random.random,
    ):
        """`default` is the deployment where the log has none, and always where it is `fixed`.
        `appender` writes to the store's log, which does so itself where there is none."""
        self.store, self.settings, self._draw = store, settings, draw
        self.subjects, self.tokens = SubjectHasher.for_store(store.root), FeedbackTokens.for_store(store.root)
        self.writer = Writer(appender or store.log)
        self.request_log = RequestLog(self.writer, self.subjects, settings)
        self.recovery = Recovery(store.log, self.writer, self.request_log.owner)
        self.intake = Intake(store, self.writer, settings.intake, keep_text=settings.keep_text)
        read = (lambda: None) if fixed else (lambda: store.log.last(Deployment))
        restarts = RestartPolicy(settings.reopen_attempts, settings.reopen_quiet_s)
        self.deployments = Deployments(read, load, default, settings.names, restarts)
        self.routes = ModelRoutes(settings, os.environ)
        self.bodies = BodyBudget(int(settings.body_budget_mb * 1e6))
        self.keys = Keyring()
        self.shadows_left_out = 0  # since the start, for lack of capacity
        self._key_events: list[KeyEvent] = []
        self._keys_seen = 0
        self._keys_thread = ThreadPoolExecutor(1, "escultor-keys")
        self._shadows: set[asyncio.Task[None]] = set()
        self._background: list[asyncio.Task[None]] = []
        self._search: asyncio.Task[int] | None = None
        rates = settings.rate_per_key, settings.rate_per_subject
        self._limiters = [RateLimiter(rate, settings.burst) if rate else None for rate in rates]

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load the deployment, then follow the log and purge it in the background. Raises what loading the
        champion raises."""
        await asyncio.to_thread(self._read_keys)
        await self.deployments.start()
        loops = self._follow_keys(), self._follow_deployments(), self._recover(), self._purge_expired()
        self._background = [asyncio.create_task(each) for each in (*loops, self._check_upstreams())]

    async def close(self) -> None:
        """Cancel shadow answers, free the engines, write what waits."""
        tasks = [*self._shadows, *self._background]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._search is not None:  # what it has found is written before the writer ends
            await asyncio.gather(self._search, return_exceptions=True)
        await self.deployments.close()
        await self.routes.close()
        await asyncio.to_thread(self.writer.close)
        self._keys_thread.shutdown(wait=False)

    async def _follow_keys(self) -> None:
        """By itself, in a thread of its own: nothing that is slow makes a revoked key valid for longer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(self.settings.follow_s)
            with _logged("keys could not be read"):
                await loop.run_in_executor(self._keys_thread, self._read_keys)

    async def _follow_deployments(self) -> None:
        while True:
            await asyncio.sleep(self.settings.follow_s)
            await self.deployments.follow()

    async def _recover(self) -> None:
        """The first search reads a week, so that requests are answered meanwhile."""
        while True:
            with _logged("the log could not be searched for streams that were cut off"):
                self._search = asyncio.create_task(asyncio.to_thread(self.recovery.recover))
                if recovered := await asyncio.shield(self._search):
                    logger.warning("%d streams that the end of their process cut off are recorded", recovered)
            await asyncio.sleep(RECOVER_S)

    @property
    def upstreams(self) -> list[UpstreamEngine]:
        """Every upstream that may be asked."""
        handles = self.deployments.active.engines.values()
        sole = [handle.engine for handle in handles if isinstance(handle.engine, UpstreamEngine)]
        named = {each.version: each for each in self.routes.upstreams.values()}
        return [*(each for each in sole if each.version not in named), *named.values()]

    async def _check_upstreams(self) -> None:
        while True:
            await asyncio.sleep(CHECK_UPSTREAMS_S)
            await check_upstreams(self.upstreams)

    async def _purge_expired(self) -> None:
        after = 0
        while True:
            with _logged("the log could not be purged"):
                after = await self._purge_behind(after)
            await asyncio.sleep(PURGE_S)

    async def _purge_behind(self, after: int) -> int:
        """Purge the log behind a number, and return the number to go on from. In pieces, with pauses: the
        first look is at the whole log, which a large one must be able to be closed during."""
        now, newest, kept = time.time(), await asyncio.to_thread(self.store.log.last_seq), None
        while after < newest:
            end = min(after + PURGE_ROWS, newest)
            began = time.monotonic()
            erasures, resume = await asyncio.to_thread(self.store.log.purge, now, after, end)
            if count := sum(erasure.counts["interaction"] for erasure in erasures):
                logger.info("%d interactions were purged: their retention was over", count)
            kept = resume if kept is None and resume < end else kept
            after = end
            await asyncio.sleep(time.monotonic() - began)
        return after if kept is None else kept

    def _read_keys(self) -> None:
        events = list(self.store.log.read(KeyEvent, after=self._keys_seen))
        if events:
            self._keys_seen = events[-1][0]
            self._key_events += [event for _, event in events]
            self.keys = Keyring(self._key_events)

    # --- access -------------------------------------------------------------------------------

    def authenticate(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> Caller:
        """The caller of a request that needs this scope. Raises ApiError (401, 403) as the keyring does."""
        return self.keys.authenticate(key_of(headers), scope)

    def check_host(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise ApiError (403), where there are no keys, for a request under another host's name, which a web
        page may have caused."""
        if self.keys.guarded:
            return
        host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "localhost")
        name = host if host.endswith("]") else host.rsplit(":", 1)[0]
        if name.lower() not in LOCAL:
            message = f"without keys (`escultor keys create`) only localhost is served, not {name[:80]!r}"
            raise ApiError(403, message, "host_not_allowed")

    def is_allowed(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> bool:
        """Whether the caller of a request has this scope."""
        try:
            self.check_host(headers := list(headers))
            self.authenticate(headers, scope)
        except ApiError:
            return False
        return True

    def limit_rate(self, key: str | None, subject: str | None) -> None:
        """Count a request against its key's and its subject's rate. Raises ApiError (429)."""
        for limiter, name, kind in zip(self._limiters, (key, subject), ("key", "subject"), strict=True):
            if limiter is not None and name is not None and (wait_s := limiter.acquire(name)):
                seconds = max(1, round(wait_s + 0.5))
                message = f"too many requests of this {kind}; try again in {seconds} s"
                headers = {"Retry-After": str(seconds)}
                raise ApiError(429, message, "rate_limit_exceeded", headers=headers)

    # --- answers ------------------------------------------------------------------------------

    def pick(self, parsed: ParsedRequest, metadata: RequestMetadata) -> EnginePick:
        """The engine for a request. Raises ApiError (404) for an unknown model."""
        subject = metadata.subject if metadata.named else None
        return self.deployments.pick(parsed.model, subject, self._draw())

    def models(self, caller: Caller) -> dict[str, str]:
        """Every model name that a request of this caller may give in full, and the version it means now."""
        own = self.deployments.models() if self.routes.pick(CHAMPION) is None else {}
        names = own | self.routes.models()
        return {name: version for name, version in names.items() if may_ask(caller, name)}

    async def check_limits(self, caller: Caller, model: str) -> dict[str, str]:
        """Headers that say what is left of the budgets of a caller's key. Raises ApiError: 403 for a model
        that the key may not ask for, 402 or 429 where a budget is used up."""
        if caller.limits is None:
            return {}
        if not may_ask(caller, model):
            message = f"this key may not ask for {model[:100]!r}; allowed: {', '.join(caller.limits.models)}"
            raise ApiError(403, message, "model_not_allowed", param="model")
        if not budgets.has_budget(caller.limits):
            return {}
        now = time.time()
        spent = await asyncio.to_thread(self.store.log.spending, caller.key or "", budgets.first_day(now))
        left = budgets.remaining(caller.limits, spent, now)
        budgets.refuse_spent(caller.limits, left, now)
        return budgets.budget_headers(left)

    def feedback_token(self, id: str, subject: str) -> str:
        """The token with which a browser may send feedback on an answer."""
        until = int(time.time() + self.settings.intake.token_days * DAY_S)
        return self.tokens.issue(TokenGrant(id, subject, TOKEN_NAMES, until))

    async def complete(self, completions: Sequence[InFlightCompletion], pick: EnginePick) -> None:
        """Compute answers; their rows are on disk when this returns. Raises what the engine raises,
        StoreError, and TimeoutError. When cancelled, it records what there is."""
        await self._compute(completions, pick)
        self._start_shadow(completions)

    async def _compute(self, completions: Sequence[InFlightCompletion], pick: EnginePick) -> None:
        try:
            async with asyncio.timeout(self.settings.answer_timeout_s):
                async with aclosing(merged_events(pick.handle.engine, completions)) as events:
                    async for _ in events:
                        pass
        except BaseException as error:
            self._record_aborted(completions, error)
            raise
        await self.request_log.record(completions)

    async def stream(
        self,
        completions: Sequence[InFlightCompletion],
        pick: EnginePick,
        style: ResponseStyle,
        head: ResponseHead,
    ) -> AsyncGenerator[bytes, None]:
        """The answers as server-sent events.

        The first chunk is yielded when the pending records are on disk, the last of an answer when its row
        is. Closing it cancels what is not finished, and records what there is. Raises as `complete`, at any
        time.
        """
        indices = {completion.id: k for k, completion in enumerate(completions)}
        writer: StreamWriter | None = None
        started: set[str] = set()
        try:
            async with aclosing(merged_events(pick.handle.engine, completions)) as events:
                async for completion, event in events:
                    if writer is None:  # with the first event: a request that is refused never began
                        await self.request_log.record_pending(self.request_log.pending(completions))
                        writer = style.writer(replace(head, model=completion.draft.version))
                    index = indices[completion.id]
                    if completion.id not in started:
                        started.add(completion.id)
                        if first := writer.first(index, completion):
                            yield first
                    if isinstance(event, Delta):
                        if piece := writer.delta(index, completion, event):
                            yield piece
                    elif isinstance(event, End):
                        await self.request_log.record([completion])
                        yield writer.last(index, completion)
        except BaseException as error:
            self._record_aborted(completions, error)
            raise
        assert writer is not None
        yield writer.end(completions)
        self._start_shadow(completions)

    def _record_aborted(self, completions: Sequence[InFlightCompletion], error: BaseException) -> None:
        """Record what there is, unless nothing began: the caller's fault, or a full queue."""
        is_refused = isinstance(error, UpstreamStatus) and error.status < 500
        if (is_refused or isinstance(error, InputError | Overloaded)) and not any(
            c.pieces for c in completions
        ):
            return
        is_timeout = time.perf_counter() - completions[0].started >= self.settings.answer_timeout_s
        has_left = isinstance(error, asyncio.CancelledError | GeneratorExit) and not is_timeout
        self.request_log.record_aborted(completions, "cancelled" if has_left else "error")

    # --- shadows ------------------------------------------------------------------------------

    def _start_shadow(self, completions: Sequence[InFlightCompletion]) -> None:
        """Let the candidate in shadow answer too, after the delivery and while there is capacity."""
        handle = self.deployments.active.shadow
        if handle is None or self._draw() >= self.settings.shadow:
            return
        if len(self._shadows) >= self.settings.shadow_in_flight:
            self.shadows_left_out += 1
            return
        pick = EnginePick(handle, SHADOW, self.settings.shadow)
        fields = {"version": handle.version, "arm": pick.arm, "propensity": pick.propensity}
        # Nobody saw it: it is no application's answer, and follows on none.
        fields |= {"message": "", "lineage": None}
        copies = [
            InFlightCompletion(
                replace(c.request, streamed=False),
                replace(c.draft, id=f"{c.id}-{SHADOW}", **fields),
                c.shared,
            )
            for c in completions
        ]
        lease = ExitStack()
        lease.enter_context(handle.in_use())
        task = asyncio.create_task(self._compute_shadow(copies, pick))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)
        task.add_done_callback(lambda _: lease.close())

    async def _compute_shadow(self, completions: Sequence[InFlightCompletion], pick: EnginePick) -> None:
        with suppress(EscultorError, TimeoutError):  # its row, if there is one, has the finish reason
            await self._compute(completions, pick)


def may_ask(caller: Caller, model: str) -> bool:
    """Whether a caller's key may ask for a model."""
    allowed = caller.limits.models if caller.limits else ()
    return not allowed or any(matches(pattern, model) for pattern in allowed)


@contextmanager
def _logged(failure: str) -> Iterator[None]:
    """Log an error of the store instead of raising it: the next round tries again."""
    try:
        yield
    except EscultorError as error:
        logger.warning("%s: %s", failure, error)


def admit(request: Request, scope: Scope) -> tuple[Gateway, Caller]:
    """The gateway and the caller of a request that needs this scope, counted against the caller's rate.
    Raises ApiError as `Gateway.authenticate` and `Gateway.limit_rate` do."""
    gateway: Gateway = request.app.state.gateway
    caller = gateway.authenticate(request.scope["headers"], scope)
    gateway.limit_rate(caller.key or (request.client.host if request.client else ""), None)
    return gateway, caller

"""The gateway: what it is made of, who may use it, and how an answer is given and recorded."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from typing import Any

from escultor.config import Serve
from escultor.errors import EscultorError, InputError, Overloaded
from escultor.serve.auth import Caller, Keyring, given_key
from escultor.serve.deployments import SHADOW, Deployments, EnginePick, Load
from escultor.serve.gateway.recovery import Recovery
from escultor.serve.gateway.request_log import RequestLog
from escultor.serve.gateway.request_metadata import RequestMetadata
from escultor.serve.in_flight import InFlightCompletion, produced
from escultor.serve.intake.intake import Intake
from escultor.serve.intake.parse import DAY_S
from escultor.serve.intake.tokens import FeedbackTokens, TokenGrant
from escultor.serve.limits import Buckets
from escultor.serve.protocol import Delta, End
from escultor.serve.restart_policy import RestartPolicy
from escultor.serve.subjects import SubjectHasher
from escultor.serve.wire import responses
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import ParsedRequest
from escultor.serve.wire.responses import ResponseStyle
from escultor.serve.writer import Writer
from escultor.store import Store
from escultor.types import Deployment, ImplicitEvent, KeyEvent, Scope

logger = logging.getLogger(__name__)

RECOVER_S = 60.0  # between two looks for streams whose process is gone
TOKEN_NAMES = ("thumb", "correction", "remark", *(event.value for event in ImplicitEvent))
LOCAL = frozenset({"localhost", "127.0.0.1", "[::1]", "::1"})


class Gateway:
    """One store, its deployments and whoever asks. `start` it in the event loop that it serves."""

    def __init__(
        self,
        store: Store,
        settings: Serve,
        load: Load,
        default: Deployment,
        *,
        fixed: bool = False,
        draw: Callable[[], float] = random.random,
    ):
        """`default` holds where the log has no deployment, and always where it is `fixed`."""
        self.store, self.settings, self._draw = store, settings, draw
        self.subjects, self.tokens = SubjectHasher.of(store.root), FeedbackTokens.of(store.root)
        self.writer = Writer(store.log)
        self.ledger = RequestLog(self.writer, self.subjects, settings)
        self.recovery = Recovery(store.log, self.writer, self.ledger.owner)
        self.intake = Intake(store, self.writer, settings.feedback, keep_text=settings.keep_text)
        read = (lambda: None) if fixed else (lambda: store.log.last(Deployment))
        reopening = RestartPolicy(settings.reopen_attempts, settings.reopen_quiet_s)
        self.deployments = Deployments(read, load, default, settings.names, reopening)
        self.keys = Keyring()
        self.shadows_left_out = 0  # since the start, for want of room
        self._key_events: list[KeyEvent] = []
        self._keys_seen = 0
        self._shadows: set[asyncio.Task[None]] = set()
        self._following: asyncio.Task[None] | None = None
        limits = settings.rate_per_key, settings.rate_per_subject
        self._buckets = [Buckets(rate, settings.burst) if rate else None for rate in limits]

    # --- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Load what holds and begin to follow the log. Raises what the loading of the champion raises."""
        await asyncio.to_thread(self._read_keys)
        lost = await asyncio.to_thread(self.recovery.look)
        if lost:
            logger.warning("%d streams that were cut by the end of their process are recorded", lost)
        await self.deployments.start()
        self._following = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """End shadow answers, free the engines, write what waits."""
        tasks = [*self._shadows, *([self._following] if self._following else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.deployments.close()
        await asyncio.to_thread(self.writer.close)

    async def _follow(self) -> None:
        last = time.monotonic()
        while True:
            await asyncio.sleep(self.settings.follow_s)
            await self.deployments.follow()
            try:
                await asyncio.to_thread(self._read_keys)
                if time.monotonic() - last > RECOVER_S:
                    last = time.monotonic()
                    await asyncio.to_thread(self.recovery.look)
            except EscultorError as error:
                logger.warning("the log could not be followed: %s", error)

    def _read_keys(self) -> None:
        new = list(self.store.log.read(KeyEvent, after=self._keys_seen))
        if new:
            self._keys_seen = new[-1][0]
            self._key_events += [event for _, event in new]
            self.keys = Keyring(self._key_events)

    # --- who, and how often -------------------------------------------------------------------

    def caller(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> Caller:
        """Who makes a request, if they may.

        Raises Refusal: 401 and 403 as the keyring says; without keys, 403 for a request that a web page
        had sent here under another host's name.
        """
        headers = list(headers)
        caller = self.keys.caller(given_key(headers), scope)
        if caller.key is None:
            host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "localhost")
            name = host if host.endswith("]") else host.rsplit(":", 1)[0]
            if name.lower() not in LOCAL:
                message = f"without API keys only localhost is served, not {name[:80]!r}"
                raise ApiError(403, message, "host_not_allowed")
        return caller

    def may(self, headers: Iterable[tuple[bytes, bytes]], scope: Scope) -> bool:
        """Whether who makes a request may do this too."""
        try:
            self.caller(headers, scope)
        except ApiError:
            return False
        return True

    def admit(self, key: str | None, subject: str | None) -> None:
        """Count a request against its key's and its subject's rate. Raises Refusal (429)."""
        for buckets, who, what in zip(self._buckets, (key or "", subject), ("key", "subject"), strict=True):
            if buckets is not None and who is not None and (wait := buckets.take(who)):
                seconds = max(1, round(wait + 0.5))
                message = f"too many requests of this {what}; ask again in {seconds} s"
                headers = {"Retry-After": str(seconds)}
                raise ApiError(429, message, "rate_limit_exceeded", headers=headers)

    # --- answers ------------------------------------------------------------------------------

    def pick(self, call: ParsedRequest, terms: RequestMetadata) -> EnginePick:
        """Who answers. Raises Refusal (404) for a model that is not there."""
        return self.deployments.pick(call.model, terms.subject if terms.named else None, self._draw())

    def token(self, id: str, terms: RequestMetadata) -> str:
        """The token with which a browser may judge an answer."""
        until = int(time.time() + self.settings.feedback.token_days * DAY_S)
        return self.tokens.issue(TokenGrant(id, terms.subject, TOKEN_NAMES, until))

    async def whole(
        self, makings: Sequence[InFlightCompletion], pick: EnginePick, terms: RequestMetadata
    ) -> None:
        """Compute answers; their rows are on disk when this returns.

        Raises what the engine raises, StoreError, and TimeoutError. Cancelled, it keeps what there is.
        """
        await self._computed(makings, pick, terms)
        self._shadow(makings, pick, terms)

    async def _computed(
        self, makings: Sequence[InFlightCompletion], pick: EnginePick, terms: RequestMetadata
    ) -> None:
        try:
            async with asyncio.timeout(self.settings.answer_timeout_s):
                async with aclosing(produced(pick.held.engine, makings)) as events:
                    async for _ in events:
                        pass
        except BaseException as error:
            self._broken(makings, pick, terms, error)
            raise
        await self.ledger.close(makings, pick, terms)

    async def stream(
        self,
        call: ParsedRequest,
        makings: Sequence[InFlightCompletion],
        pick: EnginePick,
        terms: RequestMetadata,
        head: dict[str, Any],
        style: ResponseStyle,
    ) -> AsyncGenerator[bytes, None]:
        """The answers' pieces as server-sent events.

        The first is given when the opening is on disk, the last of an answer when its row is. Closing
        it cancels what is not done, and keeps what there is. Raises as `whole`, at any time.
        """
        index = {making.id: k for k, making in enumerate(makings)}
        head = {**head, "usage": None} if call.include_usage else head
        openings = self.ledger.openings(makings, pick, terms)
        started: set[str] = set()
        try:
            async with aclosing(produced(pick.held.engine, makings)) as events:
                async for making, event in events:
                    if openings:  # recorded with the first event: what is refused was never begun
                        await self.ledger.open(openings)
                        openings = []
                    at = index[making.id]
                    if making.id not in started:
                        started.add(making.id)
                        if (first := style.first(at)) is not None:
                            yield responses.event({**head, "choices": [first]})
                    if isinstance(event, Delta):
                        yield responses.event({**head, "choices": [style.delta(at, making, event)]})
                    elif isinstance(event, End):
                        await self.ledger.close([making], pick, terms)
                        yield responses.event({**head, "choices": [style.last(at, making)]})
        except BaseException as error:
            self._broken(makings, pick, terms, error)
            raise
        if call.include_usage:
            total = responses.usage(makings, call.per_prompt)
            yield responses.event({**head, "choices": [], "usage": total})
        yield responses.DONE
        self._shadow(makings, pick, terms)

    def _broken(
        self,
        makings: Sequence[InFlightCompletion],
        pick: EnginePick,
        terms: RequestMetadata,
        error: BaseException,
    ) -> None:
        """Keep what there is, unless nothing was begun: a caller's fault, or no room."""
        if isinstance(error, InputError | Overloaded) and not any(m.pieces for m in makings):
            return
        left = isinstance(error, asyncio.CancelledError | GeneratorExit)
        if time.perf_counter() - makings[0].began >= self.settings.answer_timeout_s:
            left = False  # its time was over, and it was ended here
        self.ledger.break_off(makings, pick, terms, "cancelled" if left else "error")

    # --- shadows ------------------------------------------------------------------------------

    def _shadow(
        self, makings: Sequence[InFlightCompletion], pick: EnginePick, terms: RequestMetadata
    ) -> None:
        """Let the candidate answer too, unseen, after the answer was given and while there is room."""
        held = self.deployments.standing.shadow
        if held is None or self._draw() >= self.settings.shadow:
            return
        if len(self._shadows) >= self.settings.shadow_in_flight:
            self.shadows_left_out += 1
            return
        copies = [InFlightCompletion(replace(m.ask, streamed=False), f"{m.id}-{SHADOW}") for m in makings]
        unseen = EnginePick(held, SHADOW, self.settings.shadow)
        use = ExitStack()
        use.enter_context(held.used())
        task = asyncio.create_task(self._answer_unseen(copies, unseen, terms))
        self._shadows.add(task)
        task.add_done_callback(self._shadows.discard)
        task.add_done_callback(lambda _: use.close())

    async def _answer_unseen(
        self, makings: Sequence[InFlightCompletion], pick: EnginePick, terms: RequestMetadata
    ) -> None:
        with suppress(EscultorError, TimeoutError):  # its row, if there is one, says what became of it
            await self._computed(makings, pick, terms)

"""Answers in the making: what an engine has said of each so far, several at once, in the order they come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Literal, cast

from escultor.errors import EngineFault
from escultor.serve.interactions import Outcome, machine_cost_usd
from escultor.serve.protocol import (
    Delta,
    End,
    Engine,
    EngineEvent,
    GenerationRequest,
    ScoredPrompt,
    TokenLogprob,
)
from escultor.types import Message, Messages, Role, Usage

_AHEAD = 16  # events an engine may be ahead of the client
_BYTES_PER_TOKEN = 4  # of a prompt, where nobody counted

AbortReason = Literal["cancelled", "error", "interrupted"]  # why an answer has no end
Prices = dict[str, tuple[float, float]]


class InFlightCompletion:
    """One answer: its ask, and what has come of it so far."""

    def __init__(self, ask: GenerationRequest, id: str):
        self.ask, self.id = ask, id
        self.pieces: list[str] = []
        self.length = 0  # characters so far
        self.logprobs: list[TokenLogprob] = []
        self.scored: ScoredPrompt | None = None
        self.end: End | None = None
        self.recorded = False
        self.began = time.perf_counter()
        self.first: float | None = None  # when the first piece came

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    @property
    def messages(self) -> Messages:
        """The prompt as the log keeps it; of bare token ids nothing more is known than what they are."""
        prompt = self.ask.prompt
        if isinstance(prompt, str):
            return (Message(Role.USER, prompt),)
        if prompt and isinstance(prompt[0], int):
            scored = self.scored.text if self.scored else f"token ids: {' '.join(map(str, prompt))}"
            return (Message(Role.USER, scored),)
        return prompt  # type: ignore[return-value]

    def take(self, event: EngineEvent) -> None:
        """Note what the engine says."""
        if isinstance(event, Delta):
            if self.first is None:
                self.first = time.perf_counter()
            self.pieces.append(event.text)
            self.length += len(event.text)
            self.logprobs += event.logprobs
        elif isinstance(event, ScoredPrompt):
            self.scored = event
        else:
            self.end = event

    def outcome(
        self,
        broken: AbortReason,
        version: str,
        prices: Prices,
        hourly_price_usd: float,
    ) -> Outcome:
        """What came of it; `broken` says why there is no end, where there is none."""
        passed = time.perf_counter() - self.began
        usage = self.end.usage if self.end else self._estimate()
        # An answer that was broken off is charged with all the time it was under way.
        seconds = self.end.compute_s if self.end else passed
        if version in prices:
            price_in, price_out = prices[version]
            cost = (usage.prompt_tokens * price_in + usage.completion_tokens * price_out) / 1000
        else:
            cost = machine_cost_usd(seconds, hourly_price_usd)
        streamed = self.ask.streamed and self.first is not None
        ttft = 1000 * (self.first - self.began) if streamed and self.first else None
        reason = self.end.finish_reason if self.end else broken
        return Outcome(self.text, reason, usage, 1000 * passed, ttft, cost)

    def _estimate(self) -> Usage:
        """What an answer that was broken off has taken: a token for each piece, at least."""
        prompt = self.ask.prompt
        if isinstance(prompt, str) or not (prompt and isinstance(prompt[0], int)):
            size = sum(len(message.content.encode("utf-8", "replace")) for message in self.messages)
            size //= _BYTES_PER_TOKEN
        else:
            size = len(prompt)
        return Usage(size, max(len(self.logprobs), len(self.pieces)), estimated=True)


async def produced(
    engine: Engine, makings: Sequence[InFlightCompletion]
) -> AsyncGenerator[tuple[InFlightCompletion, EngineEvent], None]:
    """The events of several answers as they come, each noted in its making. Close it to cancel all.

    Raises what the engine raises, and EngineFault where it ends without saying so; the other answers
    are then cancelled.
    """
    if len(makings) == 1:
        async with aclosing(_events(engine, makings[0])) as events:
            async for event in events:
                yield makings[0], event
        return
    queue: asyncio.Queue[tuple[InFlightCompletion, EngineEvent | BaseException]] = asyncio.Queue(_AHEAD)
    tasks = [asyncio.create_task(_into(queue, engine, making)) for making in makings]
    try:
        left = len(makings)
        while left:
            making, event = await queue.get()
            if isinstance(event, BaseException):
                raise event
            left -= isinstance(event, End)
            yield making, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _events(engine: Engine, making: InFlightCompletion) -> AsyncGenerator[EngineEvent, None]:
    async with aclosing(cast("AsyncGenerator[EngineEvent, None]", engine.stream(making.ask))) as events:
        async for event in events:
            making.take(event)
            yield event
            if isinstance(event, End):
                return
    raise EngineFault("the engine ended an answer without an end", engine.version)


async def _into(
    queue: asyncio.Queue[tuple[InFlightCompletion, EngineEvent | BaseException]],
    engine: Engine,
    making: InFlightCompletion,
) -> None:
    try:
        async with aclosing(_events(engine, making)) as events:
            async for event in events:
                await queue.put((making, event))
    except Exception as error:  # raised where the events are read
        await queue.put((making, error))

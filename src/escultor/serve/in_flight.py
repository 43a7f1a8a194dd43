"""Completions in flight, from the draft of a row to its answer, and several merged into one stream.

The row of an answer is an `Interaction`, drafted when the request is read and completed by its answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Literal, cast

from escultor.errors import EngineFault
from escultor.ids import hash_value
from escultor.serve.assistant_message import AssistantMessage
from escultor.serve.protocol import (
    Delta,
    End,
    Engine,
    EngineEvent,
    GenerationRequest,
    ScoredPrompt,
    ServedBy,
    TokenLogprob,
)
from escultor.text.reasoning import THINK, ReasoningParser
from escultor.types import (
    Interaction,
    Media,
    Message,
    Messages,
    Role,
    Sampling,
    ToolDefinitions,
    Usage,
)

_QUEUED_EVENTS = 16  # events an engine may be ahead of the client
_LONGEST_EXTRA = 1 << 16  # characters
_BYTES_PER_TOKEN = 4  # of a prompt, where nobody counted

AbortReason = Literal["cancelled", "error", "interrupted"]  # why an answer has no end
Prices = dict[str, tuple[float, float]]  # version: USD per 1,000 tokens in, out


def draft_interaction(
    messages: Messages,
    *,
    id: str,
    subject: str,
    version: str,
    sampling: Sampling,
    skill: str = "chat",
    arm: str = "champion",
    **fields: Any,
) -> Interaction:
    """The row of a request that has no answer yet: empty, and `interrupted` until an answer completes it
    (`dataclasses.replace`). `fields` are further fields of `Interaction`: propensity (default 1), lineage,
    consent, retain_until, tenant."""
    return Interaction(
        id=id,
        time=0.0,
        skill=skill,
        subject=subject,
        version=version,
        arm=arm,
        propensity=fields.pop("propensity", 1.0),
        messages=messages,
        answer="",
        finish_reason="interrupted",
        sampling=sampling,
        usage=Usage(0, 0),
        latency_ms=0.0,
        ttft_ms=None,
        cost_usd=0.0,
        prompt_hash=hash_value(messages),
        **fields,
    )


def machine_cost_usd(compute_s: float, hourly_price_usd: float) -> float:
    """Cost in USD of `compute_s` seconds of a machine that costs `hourly_price_usd` an hour."""
    return compute_s * hourly_price_usd / 3600


def prompt_messages(prompt: Messages | str | tuple[int, ...]) -> Messages:
    """A prompt as the log keeps it; of token ids only the ids are known."""
    if isinstance(prompt, str):
        return (Message(Role.USER, prompt),)
    if _is_token_ids(prompt):
        return (Message(Role.USER, f"token ids: {' '.join(map(str, prompt))}"),)
    return cast("Messages", prompt)


class InFlightCompletion:
    """One answer under way: the request to the engine, the draft of its row, and what the engine produced."""

    def __init__(
        self, request: GenerationRequest, draft: Interaction, shared: tuple[ToolDefinitions | Media, ...] = ()
    ):
        """`shared` are the records that the row names, and may share with other rows."""
        self.request, self.draft, self.shared = request, draft, shared
        self.pieces: list[str] = []
        self.length = 0  # characters so far
        self.logprobs: list[TokenLogprob] = []
        self.message = AssistantMessage()
        self.scored_prompt: ScoredPrompt | None = None
        self.end: End | None = None
        self.recorded = False
        self.started = time.perf_counter()
        self.first_piece: float | None = None  # when the first piece came

    @property
    def id(self) -> str:
        return self.draft.id

    @property
    def text(self) -> str:
        """The answer so far."""
        return "".join(self.pieces)

    @property
    def finish_reason(self) -> str:
        """Of a finished answer, as a client reads it."""
        assert self.end is not None
        if self.end.finish_reason == "tool_calls" and self.message.has_function_call:
            return "function_call"
        return self.end.finish_reason

    def apply(self, event: EngineEvent) -> EngineEvent:
        """Add an event of the engine to the state; the event, its calls under the indexes of the message."""
        if isinstance(event, Delta):
            if self.first_piece is None:
                self.first_piece = time.perf_counter()
            self.pieces.append(event.text)
            self.length += len(event.text)
            self.logprobs += event.logprobs
            if event.fields:
                event = replace(event, fields=self.message.add(event.fields))
        elif isinstance(event, ScoredPrompt):
            self.scored_prompt = event
        elif isinstance(event, ServedBy):
            self.draft = replace(self.draft, version=event.version)
        else:
            self.end = event
        return event

    def interaction(
        self, aborted: AbortReason, now: float, prices: Prices, hourly_price_usd: float
    ) -> Interaction:
        """The row of the answer as it is now; `aborted` is its finish reason where the engine gave no end."""
        elapsed_s = time.perf_counter() - self.started
        usage = self.end.usage if self.end else self.estimated_usage()
        if self.draft.version in prices:
            price_in, price_out = prices[self.draft.version]
            cost_usd = (usage.prompt_tokens * price_in + usage.completion_tokens * price_out) / 1000
        else:
            # An answer that was broken off is charged with all the time it was under way.
            cost_usd = machine_cost_usd(self.end.compute_s if self.end else elapsed_s, hourly_price_usd)
        answer, reasoning = self._text_and_reasoning()
        row = replace(
            self.draft,
            time=now,
            answer=answer,
            finish_reason=self.end.finish_reason if self.end else aborted,
            usage=usage,
            latency_ms=1000 * elapsed_s,
            ttft_ms=1000 * (self.first_piece - self.started)
            if self.request.streamed and self.first_piece is not None
            else None,
            cost_usd=cost_usd,
            reasoning=reasoning,
            tool_calls=self.message.tool_calls,
            token_ids=self.end.token_ids if self.end else "",
            extras=self._extras(),
            usage_details=_json(self.end.usage_details) if self.end and self.end.usage_details else "",
        )
        if self.scored_prompt and _is_token_ids(self.request.prompt):
            messages = prompt_messages(self.scored_prompt.text)  # the engine decoded the ids
            row = replace(row, messages=messages, prompt_hash=hash_value(messages))
        return row

    def _text_and_reasoning(self) -> tuple[str, str]:
        """The answer and its reasoning, which some upstreams write into the text between `<think>` tags."""
        prompt, text, reasoning = self.request.prompt, self.text, self.message.reasoning
        if self.request.body is None or reasoning or isinstance(prompt, str) or _is_token_ids(prompt):
            return text, reasoning
        parser = ReasoningParser(THINK)
        thoughts, said = zip(parser.feed(text), parser.finish(), strict=True)
        return "".join(said), "".join(thoughts)

    def _extras(self) -> str:
        """JSON of what the reply held beside what the row has fields for."""
        own = self.message.extras
        extras = {**(self.end.fields if self.end else {}), **({"message": own} if own else {})}
        return _json(_without_long_texts(extras)) if extras else ""

    def estimated_usage(self) -> Usage:
        """Tokens of an answer that nobody counted: at least one for each piece."""
        if _is_token_ids(self.request.prompt):
            prompt_tokens = len(self.request.prompt)
        else:
            prompt_bytes = sum(len(m.content.encode("utf-8", "replace")) for m in self.draft.messages)
            prompt_tokens = prompt_bytes // _BYTES_PER_TOKEN
        return Usage(prompt_tokens, max(len(self.logprobs), len(self.pieces)), estimated=True)


async def merged_events(
    engine: Engine, completions: Sequence[InFlightCompletion]
) -> AsyncGenerator[tuple[InFlightCompletion, EngineEvent], None]:
    """Compute completions at the same time; their events as they come, each applied to its completion.
    Closing the generator cancels all. Raises what the engine raises, and EngineFault where a stream stops
    without an `End`; the other completions are then cancelled."""
    if len(completions) == 1:
        async with aclosing(_events(engine, completions[0])) as events:
            async for event in events:
                yield completions[0], event
        return
    queue: asyncio.Queue[tuple[InFlightCompletion, EngineEvent | BaseException]]
    queue = asyncio.Queue(_QUEUED_EVENTS)

    async def feed(completion: InFlightCompletion) -> None:
        try:
            async with aclosing(_events(engine, completion)) as events:
                async for event in events:
                    await queue.put((completion, event))
        except Exception as error:  # raised where the queue is read
            await queue.put((completion, error))

    tasks = [asyncio.create_task(feed(completion)) for completion in completions]
    try:
        unfinished = len(completions)
        while unfinished:
            completion, event = await queue.get()
            if isinstance(event, BaseException):
                raise event
            unfinished -= isinstance(event, End)
            yield completion, event
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _events(engine: Engine, completion: InFlightCompletion) -> AsyncGenerator[EngineEvent, None]:
    stream = cast("AsyncGenerator[EngineEvent, None]", engine.stream(completion.request))
    async with aclosing(stream) as events:
        async for event in events:
            yield completion.apply(event)
            if isinstance(event, End):
                return
    raise EngineFault("the engine stopped before the end of an answer", engine.version)


def _without_long_texts(value: Any) -> Any:
    """A value in which texts that only data can be (pictures and audio of the model's) are their length."""
    if isinstance(value, dict):
        return {key: _without_long_texts(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_without_long_texts(each) for each in value]
    is_long = isinstance(value, str) and len(value) > _LONGEST_EXTRA
    return f"[{len(value)} characters, not kept]" if is_long else value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _is_token_ids(prompt: Messages | str | tuple[int, ...]) -> bool:
    return not isinstance(prompt, str) and bool(prompt) and isinstance(prompt[0], int)

"""The engine protocol: the interface between the gateway and whatever computes answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from escultor.types import Messages, Sampling, Usage


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer (or of a scored prompt), its log-probability, and the likeliest alternatives.
    `logprob` is None for the first token of a scored prompt, which has no context; `top` holds (text, bytes,
    logprob), best first."""

    text: str
    bytes: bytes
    logprob: float | None
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to be computed. `prompt` is a conversation, raw text, or token ids.

    The sampling's `max_new_tokens` may exceed what the context has room for: the answer is then cut there.
    `schema` constrains decoding; an empty mapping allows any JSON object. `top_logprobs` None requests no
    log-probabilities, 0 those of the chosen tokens only. `echo` scores the prompt as well. An engine may
    return an answer that is not `streamed` in one piece. `body` is the client's own body, where an upstream
    gets what the client sent; an engine that computes itself gets none. `tools`
    is the JSON of the definitions of the tools that the model may call. `reasoning` is how much the model
    is to reason before its answer: see `escultor.text.reasoning.ReasoningModes`.
    """

    prompt: Messages | str | tuple[int, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()  # never part of the answer
    schema: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    echo: bool = False
    streamed: bool = True
    body: Mapping[str, Any] | None = None
    tools: str = ""
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer, whole characters only: the pieces joined are the answer. `fields` are what the
    message holds beside its text (calls of tools, reasoning), as the server sent it."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServedBy:
    """The version that answers, where several may: the first event then."""

    version: str


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """The log-probabilities of a prompt's tokens: the first event of a request with `echo`."""

    text: str
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The last event of every answer that was computed to its end."""

    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]
    usage: Usage
    compute_s: float  # seconds of this machine that the answer is charged with; 0 for an upstream
    usage_details: Mapping[str, Any] | None = None  # the counts as an upstream reported them
    token_ids: str = ""  # of the whole answer, its end included; see `escultor.text.served_ids`
    fields: Mapping[str, Any] = field(default_factory=dict)  # what else an upstream's reply held


EngineEvent = ServedBy | ScoredPrompt | Delta | End


class Engine(Protocol):
    """Computes answers of one model version. Many requests may run at once; each is independent."""

    @property
    def version(self) -> str:
        """The checkpoint's id, or the upstream's name for its model."""
        ...

    @property
    def problem(self) -> str | None:
        """Why the engine can compute no more answers; None while it works."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        """The events of one answer, as they are computed; closing the iterator cancels the work. Raises
        InputError (the caller's fault: prompt too long, schema that cannot be followed) before the first
        event, Overloaded when the queue is full, EngineFault or UpstreamFault at any time."""
        ...

    async def close(self) -> None:
        """Accept no more requests, end those under way, free the model."""
        ...

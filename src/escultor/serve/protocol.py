"""What every engine is: the one seam between the gateway and whatever computes answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from escultor.types import Messages, Sampling, Usage


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token of an answer (or, when a prompt is scored, of the prompt) and what else was likely.

    `logprob` is None for the first token of a scored prompt, which nothing precedes; `top` holds
    (text, bytes, logprob), best first.
    """

    text: str
    bytes: bytes
    logprob: float | None
    top: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One answer to be computed. `prompt` is a conversation, text as it stands, or token ids.

    `max_new_tokens` of the sampling may be more than the context leaves room for: the answer is
    then cut there. `schema` guides decoding: an empty mapping asks for any JSON object. `top_logprobs`
    None asks for none, 0 for those of the chosen tokens alone. `echo` scores the prompt as well.
    Where the answer is not `streamed` an engine may give it in one piece: nobody waits for the first.
    """

    prompt: Messages | str | tuple[int, ...]
    sampling: Sampling
    stop: tuple[str, ...] = ()  # never part of the answer
    schema: Mapping[str, Any] | None = None
    top_logprobs: int | None = None
    echo: bool = False
    streamed: bool = True


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer, whole characters only: pieces joined are the answer."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class ScoredPrompt:
    """What a prompt's own tokens are worth; comes first, and only where `echo` asked for it."""

    text: str
    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class End:
    """The last event of every answer that was computed to its end."""

    finish_reason: Literal["stop", "length"]
    usage: Usage
    compute_s: float  # seconds of the machine this answer is charged with; 0 for an upstream


EngineEvent = ScoredPrompt | Delta | End


class Engine(Protocol):
    """Computes answers of one model version. Many asks may run at once; each is independent."""

    @property
    def version(self) -> str:
        """The checkpoint's id, or the upstream's name for its model."""
        ...

    @property
    def problem(self) -> str | None:
        """Why no answer will come of it any more, None while all is well."""
        ...

    def stream(self, request: GenerationRequest) -> AsyncIterator[EngineEvent]:
        """The events of one answer, as they are computed; closing the iterator cancels the work.

        Raises InputError (a caller's fault: prompt too long, schema that cannot be followed) before
        the first event, Overloaded when nothing more is taken in, EngineFault or UpstreamFault at any time.
        """
        ...

    async def close(self) -> None:
        """Stop taking asks in, end those under way, free the model."""
        ...

"""What an OpenAI-compatible upstream's JSON must look like, and what its parts mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, Field, ValidationError

from escultor.errors import UpstreamFault
from escultor.serve.engines.upstream.sse import whole
from escultor.serve.protocol import TokenLogprob
from escultor.types import Usage

T = TypeVar("T", bound=BaseModel)
Finite = Annotated[float, Field(allow_inf_nan=False)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Likely(BaseModel):
    token: str
    logprob: Finite
    bytes: list[Byte] | None = None


class _Token(_Likely):
    top_logprobs: list[_Likely] = []


class _ChatLogprobs(BaseModel):
    content: list[_Token] | None = None


class MessageReply(BaseModel):
    content: str | None = None
    refusal: str | None = None  # in place of the content: what the model said, all the same


class ChatReplyChoice(BaseModel):
    index: int = 0
    delta: MessageReply | None = None  # of a stream
    message: MessageReply | None = None  # of an answer in one piece
    finish_reason: str | None = None
    logprobs: _ChatLogprobs | None = None


class _TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[Finite | None]
    top_logprobs: list[dict[str, Finite] | None] | None = None
    text_offset: list[int] | None = None


class TextReplyChoice(BaseModel):
    index: int = 0
    text: str
    finish_reason: str | None = None
    logprobs: _TextLogprobs | None = None


class ChatReply(BaseModel):
    choices: list[ChatReplyChoice]
    usage: Any = None


class TextReply(BaseModel):
    choices: list[TextReplyChoice]
    usage: Any = None


def shaped(shape: type[T], said: Any) -> T:
    try:
        return shape.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(str(part) for part in first["loc"])
        nonsense("it has not the shape of an answer", f"{at or 'the whole'}: {first['msg']}", error)


def nonsense(what: str, got: str, cause: Exception | None = None) -> NoReturn:
    raise UpstreamFault(f"the upstream answered nonsense: {what}", got) from cause


def usage_of(said: Any) -> Usage | None:
    """What the upstream counted; None where it did not, or where its counts can be none."""
    if not isinstance(said, dict):
        return None
    asked, answered = said.get("prompt_tokens"), said.get("completion_tokens")
    if type(asked) is not int or type(answered) is not int or min(asked, answered) < 0:
        return None
    return Usage(asked, answered)


def _likely(text: str, raw: Sequence[int] | None, logprob: float) -> tuple[str, bytes, float]:
    text = whole(text)
    return text, text.encode() if raw is None else bytes(raw), logprob


def chat_logprobs(said: _ChatLogprobs | None) -> tuple[TokenLogprob, ...]:
    found = (said.content or []) if said else []
    return tuple(
        TokenLogprob(
            *_likely(token.token, token.bytes, token.logprob),
            tuple(_likely(other.token, other.bytes, other.logprob) for other in token.top_logprobs),
        )
        for token in found
    )


def text_logprobs(said: _TextLogprobs | None) -> tuple[TokenLogprob, ...]:
    if said is None:
        return ()
    tops = said.top_logprobs or [None] * len(said.tokens)
    if not len(said.tokens) == len(said.token_logprobs) == len(tops):
        nonsense("logprobs of unequal lengths", f"{len(said.tokens)} tokens")
    made = []
    for text, logprob, top in zip(said.tokens, said.token_logprobs, tops, strict=True):
        best = sorted((top or {}).items(), key=lambda pair: -pair[1])
        likely = tuple(_likely(other, None, value) for other, value in best)
        made.append(TokenLogprob(whole(text), whole(text).encode(), logprob, likely))
    return tuple(made)

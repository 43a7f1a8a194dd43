"""The JSON of OpenAI-compatible replies: parsed leniently, checked, and turned into our own types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, Field, ValidationError

from escultor.errors import UpstreamFault
from escultor.serve.protocol import TokenLogprob
from escultor.strict_json import no_constant
from escultor.types import Usage

EXCERPT_LENGTH = 300  # characters of an upstream's own text that are passed on

T = TypeVar("T", bound=BaseModel)
Finite = Annotated[float, Field(allow_inf_nan=False)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Alternative(BaseModel):
    token: str
    logprob: Finite
    bytes: list[Byte] | None = None


class _Token(_Alternative):
    top_logprobs: list[_Alternative] = []


class _ChatLogprobs(BaseModel):
    content: list[_Token] | None = None


class MessageReply(BaseModel):
    content: str | None = None
    refusal: str | None = None  # in place of the content; also text of the model


class _Choice(BaseModel):
    index: int = 0
    finish_reason: str | None = None


class ChatReplyChoice(_Choice):
    delta: MessageReply | None = None  # of a stream
    message: MessageReply | None = None  # of an answer in one piece
    logprobs: _ChatLogprobs | None = None


class _TextLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[Finite | None]
    top_logprobs: list[dict[str, Finite] | None] | None = None
    text_offset: list[int] | None = None


class TextReplyChoice(_Choice):
    text: str
    logprobs: _TextLogprobs | None = None


class ChatReply(BaseModel):
    choices: list[ChatReplyChoice]
    usage: Any = None


class TextReply(BaseModel):
    choices: list[TextReplyChoice]
    usage: Any = None


def parse_json(payload: bytes) -> Any:
    """Raises UpstreamFault for what is not JSON."""
    try:
        return json.loads(payload.decode(), parse_constant=no_constant)
    except (ValueError, RecursionError) as error:
        got = excerpt(payload[:1000].decode("utf-8", "replace"))
        raise UpstreamFault("the upstream's reply is not JSON", got) from error


def validated(model: type[T], reply: Any) -> T:
    """The reply as `model`. Raises UpstreamFault where it does not match."""
    try:
        return model.model_validate(reply)
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        refuse_reply("not the expected structure", f"{path or 'the whole'}: {first['msg']}", error)


def refuse_reply(what: str, got: str, cause: Exception | None = None) -> NoReturn:
    raise UpstreamFault(f"the upstream's reply is malformed: {what}", got) from cause


def parse_usage(reply: Any) -> Usage | None:
    """The upstream's token counts; None where there are none, or impossible ones."""
    if not isinstance(reply, dict):
        return None
    counts = reply.get("prompt_tokens"), reply.get("completion_tokens")
    if any(type(count) is not int or count < 0 for count in counts):
        return None
    return Usage(*counts)  # type: ignore[arg-type]


def chat_logprobs(reply: _ChatLogprobs | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            *_alternative(token.token, token.bytes, token.logprob),
            tuple(_alternative(top.token, top.bytes, top.logprob) for top in token.top_logprobs),
        )
        for token in (reply and reply.content) or ()
    )


def text_logprobs(reply: _TextLogprobs | None) -> tuple[TokenLogprob, ...]:
    if reply is None:
        return ()
    tops = reply.top_logprobs or [None] * len(reply.tokens)
    if not len(reply.tokens) == len(reply.token_logprobs) == len(tops):
        refuse_reply("logprobs of unequal lengths", f"{len(reply.tokens)} tokens")
    logprobs = []
    for token, logprob, top in zip(reply.tokens, reply.token_logprobs, tops, strict=True):
        best_first = sorted((top or {}).items(), key=lambda pair: -pair[1])
        text = well_formed(token)
        alternatives = tuple(_alternative(other, None, value) for other, value in best_first)
        logprobs.append(TokenLogprob(text, text.encode(), logprob, alternatives))
    return tuple(logprobs)


def _alternative(token: str, data: Sequence[int] | None, logprob: float) -> tuple[str, bytes, float]:
    text = well_formed(token)
    return text, text.encode() if data is None else bytes(data), logprob


def error_message(body: bytes) -> str:
    """The text of an upstream's error, wherever its JSON has it, on one line."""
    text = body.decode("utf-8", "replace")
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        reply = None
    for key in ("error", "message", "detail"):
        if isinstance(reply, dict) and reply.get(key):
            reply = reply[key]
    return excerpt(reply if isinstance(reply, str) else text)


def excerpt(text: str) -> str:
    """The beginning of a text on one line."""
    line = " ".join(well_formed(text).split())
    return line if len(line) <= EXCERPT_LENGTH else f"{line[:EXCERPT_LENGTH]}…"


def well_formed(text: str) -> str:
    """Text with surrogate pairs joined, and single surrogates replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text

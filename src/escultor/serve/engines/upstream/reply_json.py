"""The JSON of an upstream's replies: parsed leniently, checked, and turned into our own types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from escultor.errors import UpstreamFault
from escultor.serve.protocol import TokenLogprob
from escultor.strict_json import NUMBERS
from escultor.types import Usage

_HEAD = frozenset(("id", "object", "created", "model", "error"))  # the gateway's own answer has them
EXCERPT_LENGTH = 300  # characters of an upstream's own text that are passed on

T = TypeVar("T", bound=BaseModel)
Finite = Annotated[float, Field(allow_inf_nan=False)]
Byte = Annotated[int, Field(ge=0, le=255)]


class _Alternative(BaseModel):
    token: str
    logprob: Finite
    bytes: list[Byte] | None = None


class _Token(_Alternative):
    top_logprobs: list[_Alternative] | None = None


class _ChatLogprobs(BaseModel):
    content: list[_Token] | None = None


class MessageReply(BaseModel):
    """A message or a piece of one: its content, and whatever else the server sends."""

    model_config = ConfigDict(extra="allow")

    role: Any = None
    content: Any = None  # text, or a list of parts

    @property
    def text(self) -> str:
        """The text of the content."""
        if isinstance(self.content, str):
            return self.content
        parts = self.content if isinstance(self.content, list) else []
        texts = [part.get("text") for part in parts if isinstance(part, dict)]
        return "".join(text for text in texts if isinstance(text, str))

    @property
    def fields(self) -> dict[str, Any]:
        """What it holds beside its role and its text; thoughts among the parts of a content are reasoning."""
        fields = {name: value for name, value in (self.model_extra or {}).items() if value is not None}
        if isinstance(self.content, list) and "reasoning_content" not in fields:
            thoughts = [part for part in self.content if isinstance(part, dict) and "thinking" in part]
            if text := "".join(_thinking(part["thinking"]) for part in thoughts):
                fields["reasoning_content"] = text
        return fields


def _thinking(value: Any) -> str:
    if isinstance(value, str):
        return value
    parts = value if isinstance(value, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


class _Choice(BaseModel):
    index: int | None = 0
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


class _Reply(BaseModel):
    model_config = ConfigDict(extra="allow")

    usage: Any = None

    @property
    def fields(self) -> dict[str, Any]:
        """What a server of its own kind adds to a reply: citations, search results, its provider."""
        extra = self.model_extra or {}
        return {name: value for name, value in extra.items() if name not in _HEAD and value is not None}


class ChatReply(_Reply):
    choices: list[ChatReplyChoice] | None = None  # none in what only counts tokens, or only keeps alive


class TextReply(_Reply):
    choices: list[TextReplyChoice]


def parse_json(payload: bytes) -> Any:
    """Raises UpstreamFault for what is not JSON."""
    try:
        return json.loads(payload.decode(), **NUMBERS)
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
    if not all(isinstance(count, int | float) and 0 <= count < 1 << 53 for count in counts):
        return None
    prompt, completion = (int(count) for count in counts if count is not None)
    return Usage(prompt, completion)


def chat_logprobs(reply: _ChatLogprobs | None) -> tuple[TokenLogprob, ...]:
    return tuple(
        TokenLogprob(
            *_alternative(token.token, token.bytes, token.logprob),
            tuple(_alternative(top.token, top.bytes, top.logprob) for top in token.top_logprobs or ()),
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


def well_formed_values(value: Any) -> Any:
    """A value of JSON in which every text is well-formed."""
    if isinstance(value, dict):
        return {well_formed(key): well_formed_values(each) for key, each in value.items()}
    if isinstance(value, list):
        return [well_formed_values(each) for each in value]
    return well_formed(value) if isinstance(value, str) else value


def _alternative(token: str, data: Sequence[int] | None, logprob: float) -> tuple[str, bytes, float]:
    text = well_formed(token)
    return text, text.encode() if data is None else bytes(data), logprob


# Why an answer ended, by the words of the servers that are not OpenAI's.
_FINISH_REASONS = {
    "stop": ("stop", "eos_token", "eos", "end_turn", "stop_sequence", "complete", "completed", "finish"),
    "length": ("length", "max_tokens", "max_output_tokens", "model_length"),
    "tool_calls": ("tool_calls", "tool_call", "tool_use", "function_call"),
    "content_filter": (
        "content_filter",
        "safety",
        "recitation",
        "refusal",
        "blocklist",
        "prohibited_content",
    ),
}
_REASON_OF = {word: reason for reason, words in _FINISH_REASONS.items() for word in words}
_UNFINISHED = ("error", "abort", "cancelled", "insufficient_system_resource")  # the answer is not all there


def finish_reason(word: str) -> Any:
    """OpenAI's finish reason for a server's word; None where the answer was not completed. An unknown word
    ends an answer as `stop` does."""
    word = word.lower()
    return None if word in _UNFINISHED else _REASON_OF.get(word, "stop")


def error_message(body: bytes) -> str:
    """The text of an upstream's error, wherever its JSON has it, on one line."""
    return error_details(body)[0]


def error_details(body: bytes) -> tuple[str, str]:
    """The text of an upstream's error, wherever its JSON has it, on one line, and its code where there is
    one."""
    text = body.decode("utf-8", "replace")
    try:
        reply = json.loads(text)
    except (ValueError, RecursionError):
        reply = None
    code: Any = None
    for key in ("error", "message", "detail"):
        if isinstance(reply, dict):
            code = reply.get("code") or code
            reply = reply.get(key) or reply
    is_code = isinstance(code, str) and code.isascii() and code.isprintable()
    return excerpt(reply if isinstance(reply, str) else text), code[:100] if is_code else ""


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

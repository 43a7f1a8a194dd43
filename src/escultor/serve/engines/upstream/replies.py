"""The request body an OpenAI-compatible upstream gets, and the events of its reply.

The JSON of replies is parsed leniently, checked, and turned into our own types.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from escultor.errors import InputError, UpstreamFault
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt, TokenLogprob
from escultor.strict_json import no_constant
from escultor.types import Message, Usage

BYTES_PER_TOKEN = 4  # of text, roughly: assumed where the upstream does not count
EXCERPT_LENGTH = 300  # characters of an upstream's own text that are passed on
EVENT_LIMIT = 1 << 20  # bytes of one event; a normal one holds a token and its alternatives
DONE = b"[DONE]"  # the data after the last event of a stream

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


class ChatReply(BaseModel):
    choices: list[ChatReplyChoice] | None = None  # none in what only counts tokens, or only keeps alive
    usage: Any = None


class TextReply(BaseModel):
    choices: list[TextReplyChoice]
    usage: Any = None


def is_chat(request: GenerationRequest) -> bool:
    """Whether the prompt is a conversation; text and token ids go to another path."""
    return (
        isinstance(request.prompt, tuple) and bool(request.prompt) and isinstance(request.prompt[0], Message)
    )


def is_streamed(request: GenerationRequest) -> bool:
    """Whether the upstream is asked to stream; a scored prompt comes in one piece."""
    return request.streamed and not request.echo


def request_body(request: GenerationRequest, model: str) -> dict[str, Any]:
    """The JSON body of the request: the client's own where it is there, with the upstream's name of the model
    and, of a stream, the counts of its tokens, which the log and budgets need. Raises InputError for what the
    protocol cannot express."""
    chat = is_chat(request)
    if request.body is not None:
        body = {**request.body, "model": model}
        if is_streamed(request):
            options = body.get("stream_options")
            body["stream_options"] = {**(options if isinstance(options, dict) else {}), "include_usage": True}
        else:
            body.pop("stream", None)
            body.pop("stream_options", None)
        return body
    if not request.prompt:
        raise InputError("the prompt is empty", None, "text, token ids or messages")
    if chat and request.echo:
        raise InputError("a conversation cannot be scored by an upstream", None, "text or token ids")
    sampling = request.sampling
    body: dict[str, Any] = {
        "model": model,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "max_tokens": sampling.max_new_tokens,
        "seed": sampling.seed,
    }
    if chat:
        messages = [m for m in request.prompt if isinstance(m, Message)]
        body["messages"] = [{"role": m.role.value, "content": m.content} for m in messages]
    else:
        body["prompt"] = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
    if request.echo:
        body["echo"] = True
    if request.stop:
        body["stop"] = list(request.stop)
    if request.schema is not None:
        named = {"name": "answer", "schema": dict(request.schema), "strict": True}
        kind = {"type": "json_schema", "json_schema": named} if request.schema else {"type": "json_object"}
        body["response_format"] = kind
    if (top := request.top_logprobs) is not None:
        body |= {"logprobs": True, "top_logprobs": top} if chat else {"logprobs": top}
    if is_streamed(request):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


class ReplyParser:
    """Turns the payloads of one reply into events."""

    def __init__(self, request: GenerationRequest):
        self._request = request
        self._pieces: list[str] = []
        self._surrogate = ""  # the first half of a character whose second half is in the next payload
        self._n_logprobs = 0  # tokens of the answer that came with log-probabilities
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._usage_details: dict[str, Any] | None = None
        self._has_calls = False
        self.done = False  # whether the upstream has marked the end of its stream

    @property
    def is_complete(self) -> bool:
        """Whether the upstream has said why it stopped: nothing of the answer is missing."""
        return self._finish is not None

    def feed(self, payload: bytes) -> list[EngineEvent]:
        """The events of one payload of a stream, or of the whole body of an unstreamed reply. Raises
        UpstreamFault for a malformed payload, InputError where log-probabilities were requested and the
        upstream begins to answer without them."""
        if payload.strip() == DONE:
            self.done = True
            return []
        data = parse_json(payload)
        if isinstance(data, dict) and data.get("error"):
            raise UpstreamFault("the upstream gave up on an answer", error_message(payload))
        reply = validated(ChatReply if is_chat(self._request) else TextReply, data)
        if (usage := parse_usage(reply.usage)) is not None:
            self._usage, self._usage_details = usage, reply.usage
        choices = reply.choices or []
        if len(choices) > 1 or any(choice.index for choice in choices):
            refuse_reply("one answer was requested", f"{len(choices)} choices")
        return [event for choice in choices for event in self._events(choice)]

    def end(self) -> End:
        """The last event. Raises UpstreamFault where the answer broke off or is not what was requested."""
        if self._surrogate:
            self._pieces.append(well_formed(self._surrogate))
        answer = "".join(self._pieces)
        if self._finish is None:
            raise UpstreamFault("the upstream's answer broke off", f"after {len(answer)} characters")
        reason = finish_reason(self._finish)
        if reason is None:
            got = f"finish_reason {excerpt(self._finish)!r}"
            raise UpstreamFault("the upstream did not complete its answer", got)
        if reason == "stop" and self._has_calls:
            reason = "tool_calls"
        if self._request.schema is not None and reason == "stop":
            try:
                json.loads(answer)
            except (ValueError, RecursionError) as error:
                raise UpstreamFault(
                    "the upstream did not follow response_format",
                    excerpt(answer),
                    "JSON",
                    "use an upstream with guided decoding",
                ) from error
        usage = self._usage or self._estimated_usage()
        return End(reason, usage, 0.0, self._usage_details)

    def _events(self, choice: ChatReplyChoice | TextReplyChoice) -> list[EngineEvent]:
        if isinstance(choice, ChatReplyChoice):
            message = choice.delta or choice.message or MessageReply()
            fields = message.fields
            self._has_calls = self._has_calls or bool(fields.get("tool_calls") or fields.get("function_call"))
            events = self._delta(message.text, chat_logprobs(choice.logprobs), fields)
        elif self._request.echo:
            events = self._scored_prompt(choice)
        else:
            events = self._delta(choice.text, text_logprobs(choice.logprobs))
        self._finish = choice.finish_reason or self._finish
        return events

    def _delta(
        self, text: str, logprobs: tuple[TokenLogprob, ...], fields: dict[str, Any] | None = None
    ) -> list[EngineEvent]:
        text, self._surrogate = self._surrogate + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._surrogate = text[:-1], text[-1]
        text = well_formed(text)
        self._n_logprobs += len(logprobs)
        if text and self._request.top_logprobs is not None and not self._n_logprobs:
            raise InputError(
                "log-probabilities were requested, and this model's server gives none",
                remedy="ask without logprobs",
            )
        self._pieces.append(text)
        return [Delta(text, logprobs, fields or {})] if text or logprobs or fields else []

    def _scored_prompt(self, choice: TextReplyChoice) -> list[EngineEvent]:
        """The prompt's own tokens, then those of the answer: the upstream sends both in one list. Which
        tokens are the prompt's follows from the upstream's count of completion tokens, else from the text
        offsets, else from the prompt's length."""
        prompt, tokens = self._request.prompt, text_logprobs(choice.logprobs)
        if isinstance(prompt, str) and not choice.text.startswith(prompt):
            raise InputError("this model's server does not echo prompts", remedy="ask without echo")
        n_answer = min(self._usage.completion_tokens, len(tokens)) if self._usage else None
        offsets = choice.logprobs.text_offset if choice.logprobs else None
        if isinstance(prompt, str):
            cut = len(prompt)  # in characters
            if n_answer is None and offsets:
                n_prompt = sum(offset < cut for offset in offsets)
            else:
                n_prompt = len(tokens) - (n_answer or 0)
        else:
            n_prompt = len(prompt) if n_answer is None else len(tokens) - n_answer
            cut = offsets[n_prompt] if offsets and n_prompt < len(offsets) else len(choice.text)
        scored = ScoredPrompt(well_formed(choice.text[:cut]), tokens[:n_prompt])
        return [scored, *self._delta(choice.text[cut:], tokens[n_prompt:])]

    def _estimated_usage(self) -> Usage:
        prompt = self._request.prompt
        texts = [prompt] if isinstance(prompt, str) else [m.content for m in prompt if isinstance(m, Message)]
        n_prompt = _estimated_tokens(texts) if texts else len(prompt)
        return Usage(n_prompt, self._n_logprobs or _estimated_tokens(self._pieces), estimated=True)


def _estimated_tokens(texts: Iterable[str]) -> int:
    return -(-sum(len(text.encode(errors="replace")) for text in texts) // BYTES_PER_TOKEN)


class SseParser:
    """Server-sent events out of the bytes of a stream, however they were cut."""

    def __init__(self) -> None:
        self._line: list[bytes] = []  # pieces of a line whose end has not arrived
        self._data: list[bytes] = []  # data lines of an event whose end has not arrived
        self._size = 0  # bytes of both

    def feed(self, data: bytes) -> list[bytes]:
        """The data of the events that these bytes complete. Raises UpstreamFault for an endless event."""
        self._line.append(data)
        self._size += len(data)
        events: list[bytes] = []
        if b"\n" in data or b"\r" in data:
            lines = b"".join(self._line).splitlines(keepends=True)
            # The LF after a line's CR may not have arrived yet.
            self._line = [] if lines[-1].endswith(b"\n") else [lines.pop()]
            for line in lines:
                if stripped := line.rstrip(b"\r\n"):
                    name, _, value = stripped.partition(b":")
                    if name == b"data":
                        self._data.append(value.removeprefix(b" "))
                elif self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            self._size = sum(map(len, self._line)) + sum(map(len, self._data))
        if self._size > EVENT_LIMIT:
            raise UpstreamFault(
                "an event of the upstream's stream has no end",
                f"{self._size:,} bytes so far",
                f"{EVENT_LIMIT:,} bytes",
            )
        return events


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
    if not all(isinstance(count, int | float) and 0 <= count < 1 << 53 for count in counts):
        return None
    prompt, completion = (int(count) for count in counts if count is not None)
    return Usage(prompt, completion)


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

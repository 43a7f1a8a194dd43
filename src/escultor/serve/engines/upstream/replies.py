"""The request body an OpenAI-compatible upstream gets, and the events of its reply."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

from escultor.data.row_messages import message_row
from escultor.errors import InputError, UpstreamFault
from escultor.serve.engines.upstream.reply_json import (
    ChatReply,
    ChatReplyChoice,
    MessageReply,
    TextReply,
    TextReplyChoice,
    chat_logprobs,
    error_message,
    excerpt,
    finish_reason,
    parse_json,
    parse_usage,
    refuse_reply,
    text_logprobs,
    validated,
    well_formed,
    well_formed_values,
)
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt, TokenLogprob
from escultor.serve.side_process import SIDE
from escultor.types import Message, Usage

BYTES_PER_TOKEN = 4  # of text, roughly: assumed where the upstream does not count
EVENT_LIMIT = 16 << 20  # bytes of one event: a token and its alternatives, or a picture
_EFFORTS = {"on": "medium", "auto": "medium"}  # as OpenAI has them
DONE = b"[DONE]"  # the data after the last event of a stream
LARGE = 1 << 16  # bytes of a payload that another process parses
MAX_VALUES = 300_000  # of one payload
MAX_CALLS = 1024  # of tools, in an answer
PARSE_S = 30.0


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
        body["messages"] = [_sent(message) for message in messages]
        if request.tools:
            body["tools"] = json.loads(request.tools)
        if request.reasoning:
            body["reasoning_effort"] = _EFFORTS.get(request.reasoning, request.reasoning)
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


def _sent(message: Message) -> dict[str, Any]:
    return {key: value for key, value in message_row(message).items() if key != "weight"}


class ReplyParser:
    """Turns the payloads of one reply into events."""

    def __init__(self, request: GenerationRequest):
        self._request, self._is_chat = request, is_chat(request)
        self._pieces: list[str] = []
        self._surrogate = ""  # the first half of a character whose second half is in the next payload
        self._n_logprobs = 0  # tokens of the answer that came with log-probabilities
        self._finish: str | None = None
        self._usage: Usage | None = None
        self._usage_details: dict[str, Any] | None = None
        self._fields: dict[str, Any] = {}  # of the reply as a whole
        self._has_calls = self._has_halves = False
        self._calls: set[str] = set()  # the indexes and ids of calls of tools
        self.done = False  # whether the upstream has marked the end of its stream

    @property
    def is_complete(self) -> bool:
        """Whether the upstream has said why it stopped: nothing of the answer is missing."""
        return self._finish is not None

    async def read(self, payload: bytes) -> list[EngineEvent]:
        """As `feed`; a large payload is parsed in another process."""
        if len(payload) <= LARGE:
            return self.feed(payload)
        return self._take(
            payload, await SIDE.call(partial(_parsed, payload, self._is_chat, MAX_VALUES), PARSE_S)
        )

    def feed(self, payload: bytes) -> list[EngineEvent]:
        """The events of one payload of a stream, or of the whole body of an unstreamed reply. Raises
        UpstreamFault for a malformed payload, InputError where log-probabilities were requested and the
        upstream begins to answer without them."""
        return self._take(payload, _parsed(payload, self._is_chat))

    def _take(self, payload: bytes, reply: ChatReply | TextReply | None) -> list[EngineEvent]:
        if reply is None:
            self.done = True
            return []
        # Halves of a character: those of the text are joined, others replaced.
        self._has_halves = b"\\ud" in payload or b"\\uD" in payload
        if (usage := parse_usage(reply.usage)) is not None:
            self._usage, self._usage_details = usage, self._clean(reply.usage)
        self._fields |= self._clean(reply.fields)
        return [event for choice in reply.choices or [] for event in self._events(choice)]

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
        return End(reason, usage, 0.0, self._usage_details, fields=self._fields)

    def _events(self, choice: ChatReplyChoice | TextReplyChoice) -> list[EngineEvent]:
        if isinstance(choice, ChatReplyChoice):
            message = choice.delta or choice.message or MessageReply()
            fields = self._clean(message.fields)
            self._count_calls(fields.get("tool_calls"))
            self._has_calls = self._has_calls or bool(fields.get("tool_calls") or fields.get("function_call"))
            events = self._delta(message.text, chat_logprobs(choice.logprobs), fields)
        elif self._request.echo:
            events = self._scored_prompt(choice)
        else:
            events = self._delta(choice.text, text_logprobs(choice.logprobs))
        self._finish = choice.finish_reason or self._finish
        if choice.finish_reason == "" and isinstance(choice, ChatReplyChoice) and choice.message is not None:
            self._finish = "stop"  # an answer in one piece that ends without a word for it
        return events

    def _count_calls(self, pieces: Any) -> None:
        """Raises UpstreamFault for more calls of tools than an answer may have."""
        named = (piece for piece in pieces if isinstance(piece, dict)) if isinstance(pieces, list) else ()
        self._calls.update(f"{str(piece.get('index'))[:20]} {str(piece.get('id'))[:100]}" for piece in named)
        if len(self._calls) > 2 * MAX_CALLS:  # later pieces of a call may come without its id
            refuse_reply("it calls too many tools", f"more than {MAX_CALLS}")

    def _clean(self, value: Any) -> Any:
        return well_formed_values(value) if self._has_halves else value

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


def _parsed(payload: bytes, is_chat: bool, most: float = math.inf) -> ChatReply | TextReply | None:
    """The reply in a payload; None for the mark after the last. Raises UpstreamFault, also for more than
    `most` values, which the event loop would have to go through."""
    if payload.strip() == DONE:
        return None
    data = parse_json(payload)
    if most < math.inf and (number := _number(data)) > most:
        remedy = "ask for a stream, or for fewer top_logprobs"
        raise UpstreamFault("the upstream's reply holds too much", f"{number} values", most, remedy)
    if isinstance(data, dict) and (data.get("error") or data.get("object") == "error"):
        raise UpstreamFault("the upstream gave up on an answer", error_message(payload))
    choices = data.get("choices") if isinstance(data, dict) else None
    if isinstance(choices, list) and len(choices) > 1:
        refuse_reply("one answer was requested", f"{len(choices)} choices")
    reply = validated(ChatReply if is_chat else TextReply, data)
    if any(choice.index for choice in reply.choices or ()):
        refuse_reply("one answer was requested", "a choice with another index than 0")
    return reply


def _number(value: Any) -> int:
    """How many values a value of JSON holds."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + sum(map(_number, inside))


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

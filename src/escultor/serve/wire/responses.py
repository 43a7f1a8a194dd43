"""Responses in OpenAI's format, whole and streamed: functions from completions to JSON."""

from __future__ import annotations

from codecs import getincrementaldecoder
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import to_json

from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.protocol import Delta, TokenLogprob
from escultor.serve.wire.errors import ApiError

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": keep-alive\n\n"  # a comment, which clients skip


def event(data: Any, name: str = "") -> bytes:
    """One server-sent event, of a name where it has one."""
    named = f"event: {name}\n".encode() if name else b""
    return named + b"data: " + to_json(data) + b"\n\n"


def _head(head: ResponseHead, kind: str) -> dict[str, Any]:
    """The fields that every response and chunk of OpenAI's begins with."""
    fields = {"id": head.id, "object": kind, "created": head.created, "model": head.model}
    return {**fields, "system_fingerprint": head.model}


def usage(completions: Sequence[InFlightCompletion], per_prompt: int) -> dict[str, Any]:
    """Token counts of a request: each prompt counted once, however many answers it has."""
    ends = [completion.end for completion in completions]
    if len(ends) == 1 and ends[0] and ends[0].usage_details:  # as the upstream reports them, with details
        return dict(ends[0].usage_details)
    prompt = sum(end.usage.prompt_tokens for end in ends[::per_prompt] if end)
    completed = sum(end.usage.completion_tokens for end in ends if end)
    return {"prompt_tokens": prompt, "completion_tokens": completed, "total_tokens": prompt + completed}


def usage_detail(completion: InFlightCompletion, group: str, name: str) -> int | None:
    """One of the counts that an upstream reports beside the totals; None where it does not."""
    details = (completion.end and completion.end.usage_details) or {}
    counts = details.get(group)
    count = counts.get(name) if isinstance(counts, dict) else None
    return int(count) if isinstance(count, int | float) else None


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """What every response begins with: its id, the time, the version that answers, and how many answers one
    prompt has."""

    id: str
    created: int  # seconds since the epoch
    model: str
    per_prompt: int = 1
    include_usage: bool = False  # of a stream


class StreamWriter(Protocol):
    """Writes the events of one streamed response; each method returns the bytes to send, perhaps none."""

    def first(self, index: int, completion: InFlightCompletion) -> bytes:
        """Before the first piece of an answer."""
        ...

    def delta(self, index: int, completion: InFlightCompletion, delta: Delta) -> bytes: ...

    def last(self, index: int, completion: InFlightCompletion) -> bytes:
        """At the end of an answer, whose row is on disk."""
        ...

    def end(self, completions: Sequence[InFlightCompletion]) -> bytes:
        """At the end of the response."""
        ...


class ResponseStyle(Protocol):
    """The form of the responses of one endpoint; `prefix` begins their ids."""

    prefix: str

    def whole(self, head: ResponseHead, completions: Sequence[InFlightCompletion]) -> dict[str, Any]:
        """The body of a response that is not streamed."""
        ...

    def writer(self, head: ResponseHead) -> StreamWriter: ...

    def error(self, error: ApiError) -> bytes:
        """The event of an error in the middle of a stream."""
        ...


class OpenAIStyle:
    """Responses that are lists of choices."""

    prefix: str
    kind: str  # the `object` of a whole response
    chunk: str  # and of a chunk of a stream

    def choice(self, index: int, completion: InFlightCompletion) -> dict[str, Any]:
        """A whole choice."""
        raise NotImplementedError

    def first(self, index: int) -> dict[str, Any] | None:
        """The choice of a chunk before the first piece of an answer."""
        raise NotImplementedError

    def delta(self, index: int, completion: InFlightCompletion, delta: Delta) -> dict[str, Any]:
        """The choice of a chunk with a piece of an answer."""
        raise NotImplementedError

    def last(self, index: int, completion: InFlightCompletion) -> dict[str, Any]:
        """The choice of a chunk at the end of an answer."""
        raise NotImplementedError

    def whole(self, head: ResponseHead, completions: Sequence[InFlightCompletion]) -> dict[str, Any]:
        choices = [self.choice(k, completion) for k, completion in enumerate(completions)]
        given = {**_reply_fields(completions[0]), **_head(head, self.kind)}
        return {**given, "choices": choices, "usage": usage(completions, head.per_prompt)}

    def writer(self, head: ResponseHead) -> StreamWriter:
        return _ChunkWriter(self, head)

    def error(self, error: ApiError) -> bytes:
        return event(error.body())


def _reply_fields(completion: InFlightCompletion) -> Mapping[str, Any]:
    """What an upstream's reply held that the gateway does not know: passed on."""
    return completion.end.fields if completion.end else {}


class _ChunkWriter:
    """The chunks of a stream of choices."""

    def __init__(self, style: OpenAIStyle, head: ResponseHead):
        self._style, self._head = style, head
        self._start = _head(head, style.chunk) | ({"usage": None} if head.include_usage else {})

    def first(self, index: int, completion: InFlightCompletion) -> bytes:
        choice = self._style.first(index)
        return b"" if choice is None else self._chunk(choice)

    def delta(self, index: int, completion: InFlightCompletion, delta: Delta) -> bytes:
        return self._chunk(self._style.delta(index, completion, delta))

    def last(self, index: int, completion: InFlightCompletion) -> bytes:
        given = _reply_fields(completion)
        return event({**given, **self._start, "choices": [self._style.last(index, completion)]})

    def end(self, completions: Sequence[InFlightCompletion]) -> bytes:
        if not self._head.include_usage:
            return DONE
        total = usage(completions, self._head.per_prompt)
        return event({**self._start, "choices": [], "usage": total}) + DONE

    def _chunk(self, choice: dict[str, Any]) -> bytes:
        return event({**self._start, "choices": [choice]})


class ChatStyle(OpenAIStyle):
    """Choices of /v1/chat/completions."""

    prefix, kind, chunk = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, completion: InFlightCompletion) -> dict[str, Any]:
        own = completion.message
        text = completion.text or (None if own.tool_calls else "")  # OpenAI's content beside calls alone
        message = {"role": "assistant", "content": text, "refusal": None, **own.fields()}
        logprobs = _wanted_logprobs(completion, completion.logprobs)
        return _choice(index, {"message": message}, logprobs, completion.finish_reason)

    def first(self, index: int) -> dict[str, Any] | None:
        return _choice(index, {"delta": {"role": "assistant", "content": ""}})

    def delta(self, index: int, completion: InFlightCompletion, delta: Delta) -> dict[str, Any]:
        logprobs = _wanted_logprobs(completion, delta.logprobs)
        content = {"content": delta.text} if delta.text or not delta.fields else {}
        return _choice(index, {"delta": {**content, **delta.fields}}, logprobs)

    def last(self, index: int, completion: InFlightCompletion) -> dict[str, Any]:
        return _choice(index, {"delta": {}}, None, completion.finish_reason)


class CompletionStyle(OpenAIStyle):
    """Choices of /v1/completions."""

    prefix, kind, chunk = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, completion: InFlightCompletion) -> dict[str, Any]:
        """A whole choice; with `echo` the prompt comes first, in the text and in the tokens."""
        scored = completion.scored_prompt
        tokens = [*(scored.logprobs if scored else ()), *completion.logprobs]
        text = (scored.text if scored else "") + completion.text
        top = completion.request.top_logprobs
        # Some vocabularies put a blank before a text, which is in its first token alone.
        extra = bool(tokens) and tokens[0].text.startswith(" ") and not text.startswith(" ")
        logprobs = None if top is None else completion_logprobs(tokens, -int(extra), top)
        return _choice(index, {"text": text}, logprobs, completion.finish_reason)

    def first(self, index: int) -> dict[str, Any] | None:
        return None

    def delta(self, index: int, completion: InFlightCompletion, delta: Delta) -> dict[str, Any]:
        top, offset = completion.request.top_logprobs, completion.length - len(delta.text)
        logprobs = None if top is None else completion_logprobs(delta.logprobs, offset, top)
        return _choice(index, {"text": delta.text}, logprobs)

    def last(self, index: int, completion: InFlightCompletion) -> dict[str, Any]:
        return _choice(index, {"text": ""}, None, completion.finish_reason)


CHAT, COMPLETION = ChatStyle(), CompletionStyle()


def _choice(
    index: int, content: dict[str, Any], logprobs: Any = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, **content, "logprobs": logprobs, "finish_reason": finish_reason}


def _wanted_logprobs(completion: InFlightCompletion, tokens: Sequence[TokenLogprob]) -> dict[str, Any] | None:
    return None if completion.request.top_logprobs is None else chat_logprobs(tokens)


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """Log-probabilities in the chat format: a list of tokens, each with its likeliest alternatives."""
    return {
        "content": [
            {
                "token": token.text,
                "logprob": token.logprob,
                "bytes": list(token.bytes),
                "top_logprobs": [
                    {"token": text, "logprob": logprob, "bytes": list(data)}
                    for text, data, logprob in token.top
                ],
            }
            for token in tokens
        ],
        "refusal": None,
    }


def completion_logprobs(tokens: Sequence[TokenLogprob], offset: int, top: int) -> dict[str, Any]:
    """Log-probabilities in the completions format: columns. `offset` is the first token's position in the
    text, in characters.

    `top_logprobs` of each position include the chosen token, so that a client can compare it with the
    greatest to see whether it was greedy; they are None for the first token of a prompt.
    """
    return {
        "tokens": [_name(token.text, token.bytes) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_top(token, top) for token in tokens],
        "text_offset": [max(0, offset + begin) for begin in _begins(tokens)],
    }


def _begins(tokens: Sequence[TokenLogprob]) -> Iterator[int]:
    """Where each token begins in the text of all, in characters; a part of one begins where it does."""
    decoder, begin = getincrementaldecoder("utf-8")("replace"), 0
    for token in tokens:
        yield begin
        begin += len(decoder.decode(token.bytes))


def _top(token: TokenLogprob, top: int) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    top_tokens = {_name(text, data): logprob for text, data, logprob in token.top[:top]}
    return {**top_tokens, _name(token.text, token.bytes): token.logprob}


def _name(text: str, data: bytes) -> str:
    """A token as a key: its text, or its bytes where those are not whole characters."""
    is_text = text.encode("utf-8", "replace") == data
    return text if is_text else "bytes:" + "".join(f"\\x{b:02x}" for b in data)

"""Answers as OpenAI's clients read them: whole, and in pieces. Functions from makings to what is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from pydantic_core import to_json

from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.protocol import Delta, TokenLogprob

DONE = b"data: [DONE]\n\n"


def event(data: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + to_json(data) + b"\n\n"


def head(id: str, kind: str, created: int, model: str) -> dict[str, Any]:
    """What every answer and piece begins with."""
    return {"id": id, "object": kind, "created": created, "model": model, "system_fingerprint": model}


def usage(makings: Sequence[InFlightCompletion], per_prompt: int) -> dict[str, int]:
    """Tokens of a request: each prompt counted once, however many answers it has."""
    ends = [making.end for making in makings]
    prompt = sum(end.usage.prompt_tokens for end in ends[::per_prompt] if end)
    completion = sum(end.usage.completion_tokens for end in ends if end)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion,
        "total_tokens": prompt + completion,
    }


class ResponseStyle(Protocol):
    """How one of the two endpoints writes its choices."""

    prefix: str  # of ids
    whole: str  # what a whole answer calls itself
    piece: str  # what a piece of one calls itself

    def choice(self, index: int, making: InFlightCompletion) -> dict[str, Any]:
        """A whole answer."""
        ...

    def first(self, index: int) -> dict[str, Any] | None:
        """What goes before the first piece of an answer."""
        ...

    def delta(self, index: int, making: InFlightCompletion, delta: Delta) -> dict[str, Any]:
        """A piece, as it came."""
        ...

    def last(self, index: int, making: InFlightCompletion) -> dict[str, Any]:
        """What says that an answer has ended."""
        ...


class ChatStyle:
    """/v1/chat/completions"""

    prefix, whole, piece = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, making: InFlightCompletion) -> dict[str, Any]:
        assert making.end is not None
        return {
            "index": index,
            "message": {"role": "assistant", "content": making.text, "refusal": None},
            "logprobs": chat_logprobs(making.logprobs) if making.ask.top_logprobs is not None else None,
            "finish_reason": making.end.finish_reason,
        }

    def first(self, index: int) -> dict[str, Any]:
        return _chat_piece(index, {"role": "assistant", "content": ""})

    def delta(self, index: int, making: InFlightCompletion, delta: Delta) -> dict[str, Any]:
        wanted = making.ask.top_logprobs is not None
        logprobs = chat_logprobs(delta.logprobs) if wanted else None
        return _chat_piece(index, {"content": delta.text}, logprobs)

    def last(self, index: int, making: InFlightCompletion) -> dict[str, Any]:
        assert making.end is not None
        return _chat_piece(index, {}, finish_reason=making.end.finish_reason)


class CompletionStyle:
    """/v1/completions"""

    prefix, whole, piece = "cmpl", "text_completion", "text_completion"

    def choice(self, index: int, making: InFlightCompletion) -> dict[str, Any]:
        """With `echo` the prompt goes first, in the text and in the tokens."""
        assert making.end is not None
        scored = making.scored
        tokens = [*(scored.logprobs if scored else ()), *making.logprobs]
        text = (scored.text if scored else "") + making.text
        top = making.ask.top_logprobs
        logprobs = None if top is None else completion_logprobs(tokens, 0, top)
        return _completion_piece(index, text, logprobs, making.end.finish_reason)

    def first(self, index: int) -> None:
        return None

    def delta(self, index: int, making: InFlightCompletion, delta: Delta) -> dict[str, Any]:
        top, offset = making.ask.top_logprobs, making.length - len(delta.text)
        logprobs = None if top is None else completion_logprobs(delta.logprobs, offset, top)
        return _completion_piece(index, delta.text, logprobs)

    def last(self, index: int, making: InFlightCompletion) -> dict[str, Any]:
        assert making.end is not None
        return _completion_piece(index, "", None, making.end.finish_reason)


CHAT, COMPLETION = ChatStyle(), CompletionStyle()


def chat_logprobs(tokens: Sequence[TokenLogprob]) -> dict[str, Any]:
    """A list of tokens, each with its likeliest rivals."""
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
    """Columns, as the older form has them. `offset` is the first token's place in the text, in characters.

    The likeliest of each place stand with the chosen token itself, so that whoever compares it with
    their greatest can tell whether it was greedy; the first token of a prompt has neither.
    """
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [_name(token.text, token.bytes) for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [_top(token, top) for token in tokens],
        "text_offset": offsets,
    }


def _top(token: TokenLogprob, top: int) -> dict[str, float] | None:
    if token.logprob is None:
        return None
    likely = {_name(text, data): logprob for text, data, logprob in token.top[:top]}
    return {**likely, _name(token.text, token.bytes): token.logprob}


def _name(text: str, data: bytes) -> str:
    """A token as a key: one that is no whole character is told from the others by its bytes."""
    return (
        text if text.encode("utf-8", "replace") == data else "bytes:" + "".join(f"\\x{b:02x}" for b in data)
    )


def _chat_piece(
    index: int, delta: dict[str, str], logprobs: Any = None, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}


def _completion_piece(
    index: int, text: str, logprobs: Any, finish_reason: str | None = None
) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

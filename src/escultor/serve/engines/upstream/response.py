"""What an OpenAI-compatible upstream is asked, and the events that its answer amounts to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from escultor.errors import InputError, UpstreamFault
from escultor.serve.engines.upstream.schema import (
    ChatReply,
    ChatReplyChoice,
    MessageReply,
    TextReply,
    TextReplyChoice,
    chat_logprobs,
    nonsense,
    shaped,
    text_logprobs,
    usage_of,
)
from escultor.serve.engines.upstream.sse import DONE, excerpt, json_of, reason_of, whole
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt, TokenLogprob
from escultor.types import Message, Usage

BYTES_PER_TOKEN = 4  # of text, roughly: what is assumed where the upstream does not count


def is_chat(ask: GenerationRequest) -> bool:
    """Whether the prompt is a conversation; text and token ids go another way."""
    return isinstance(ask.prompt, tuple) and bool(ask.prompt) and isinstance(ask.prompt[0], Message)


def in_pieces(ask: GenerationRequest) -> bool:
    """Whether the upstream is asked to stream; a scored prompt comes whole."""
    return ask.streamed and not ask.echo


def request_of(ask: GenerationRequest, model: str) -> dict[str, Any]:
    """The JSON body that asks an upstream. Raises InputError for what its protocol cannot say."""
    chat = is_chat(ask)
    if not ask.prompt:
        raise InputError("the prompt is empty", None, "text, token ids or messages")
    if chat and ask.echo:
        raise InputError("a conversation cannot be scored by an upstream", None, "text or token ids")
    drawn = ask.sampling
    body: dict[str, Any] = {
        "model": model,
        "temperature": drawn.temperature,
        "top_p": drawn.top_p,
        "max_tokens": drawn.max_new_tokens,
        "seed": drawn.seed,
    }
    if chat:
        body["messages"] = [{"role": m.role.value, "content": m.content} for m in _messages(ask)]
    else:
        body["prompt"] = ask.prompt if isinstance(ask.prompt, str) else list(ask.prompt)
    if ask.echo:
        body["echo"] = True
    if ask.stop:
        body["stop"] = list(ask.stop)
    if ask.schema is not None:
        named = {"name": "answer", "schema": dict(ask.schema), "strict": True}
        kind = {"type": "json_schema", "json_schema": named} if ask.schema else {"type": "json_object"}
        body["response_format"] = kind
    if ask.top_logprobs is not None:
        body |= (
            {"logprobs": True, "top_logprobs": ask.top_logprobs} if chat else {"logprobs": ask.top_logprobs}
        )
    if in_pieces(ask):
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


class UpstreamAnswer:
    """One answer of an upstream, told payload by payload; gives the events they amount to."""

    def __init__(self, ask: GenerationRequest):
        self._ask = ask
        self._text: list[str] = []
        self._half = ""  # of a character whose other half is in the next piece
        self._logprobs = 0  # how many tokens of the answer came with theirs
        self._finish: str | None = None
        self._usage: Usage | None = None
        self.done = False  # whether the upstream said that nothing more comes

    @property
    def finished(self) -> bool:
        """Whether the upstream said why it stopped: all of the answer is here."""
        return self._finish is not None

    def piece(self, payload: bytes) -> list[EngineEvent]:
        """The events of a stream's payload, or of the body of an answer in one piece.

        Raises UpstreamFault for what is no answer, InputError where log-probabilities were asked for
        and the upstream, which gives none, has not begun to answer.
        """
        if payload.strip() == DONE:
            self.done = True
            return []
        said = json_of(payload)
        if isinstance(said, dict) and said.get("error"):
            raise UpstreamFault("the upstream gave up on an answer", reason_of(payload))
        part = shaped(ChatReply if is_chat(self._ask) else TextReply, said)
        self._usage = usage_of(part.usage) or self._usage
        if len(part.choices) > 1 or any(choice.index for choice in part.choices):
            nonsense("one answer was asked for", f"{len(part.choices)} choices")
        return [event for choice in part.choices for event in self._events(choice)]

    def end(self) -> End:
        """The last event. Raises UpstreamFault where the answer broke off or is not what was asked for."""
        if self._half:
            self._text.append(whole(self._half))
        if self._finish is None:
            raise UpstreamFault(
                "the upstream's answer broke off in the middle", f"{len(self._said)} characters"
            )
        if self._finish not in ("stop", "length"):
            raise UpstreamFault(
                "the upstream did not answer to the end", f"finish_reason {excerpt(self._finish)!r}"
            )
        if self._ask.schema is not None and self._finish == "stop":
            try:
                json.loads(self._said)
            except (ValueError, RecursionError) as error:
                raise UpstreamFault(
                    "the upstream did not follow response_format",
                    excerpt(self._said),
                    "JSON",
                    "use an upstream with guided decoding",
                ) from error
        return End(self._finish, self._usage or self._estimate(), 0.0)

    @property
    def _said(self) -> str:
        return "".join(self._text)

    def _events(self, choice: ChatReplyChoice | TextReplyChoice) -> list[EngineEvent]:
        if isinstance(choice, TextReplyChoice) and self._ask.echo:
            events = self._scored(choice)
        else:
            if isinstance(choice, TextReplyChoice):
                text, logprobs = choice.text, text_logprobs(choice.logprobs)
            else:
                said = choice.delta or choice.message or MessageReply()
                text = said.content or said.refusal or ""
                logprobs = chat_logprobs(choice.logprobs)
            events = self._delta(text, logprobs)
        if events and self._finish is not None:
            nonsense("an answer goes on behind its end", excerpt(str(events)))
        self._finish = choice.finish_reason or self._finish
        return events

    def _delta(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> list[EngineEvent]:
        text, self._half = self._half + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        text = whole(text)
        self._logprobs += len(logprobs)
        if text and self._ask.top_logprobs is not None and not self._logprobs:
            raise InputError(
                "log-probabilities were asked for, and this model's server gives none",
                remedy="ask without logprobs",
            )
        self._text.append(text)
        return [Delta(text, logprobs)] if text or logprobs else []

    def _scored(self, choice: TextReplyChoice) -> list[EngineEvent]:
        """The prompt's own tokens, then those of the answer: the upstream gives both in one row."""
        prompt, tokens = self._ask.prompt, text_logprobs(choice.logprobs)
        if isinstance(prompt, str) and not choice.text.startswith(prompt):
            raise InputError("this model's server does not echo prompts", remedy="ask without echo")
        own = min(self._usage.completion_tokens, len(tokens)) if self._usage else None
        offsets = choice.logprobs.text_offset if choice.logprobs else None
        if isinstance(prompt, str):
            cut = len(prompt)
            at = sum(o < cut for o in offsets) if own is None and offsets else len(tokens) - (own or 0)
        else:
            at = len(tokens) - own if own is not None else len(prompt)
            cut = offsets[at] if offsets and at < len(offsets) else len(choice.text)
        events: list[EngineEvent] = [ScoredPrompt(whole(choice.text[:cut]), tokens[:at])]
        return events + self._delta(choice.text[cut:], tokens[at:])

    def _estimate(self) -> Usage:
        prompt = self._ask.prompt
        if isinstance(prompt, str) or is_chat(self._ask):
            texts = [prompt] if isinstance(prompt, str) else [m.content for m in _messages(self._ask)]
            asked = _tokens_of(texts)
        else:
            asked = len(prompt)
        return Usage(asked, self._logprobs or _tokens_of(self._text), estimated=True)


def _messages(ask: GenerationRequest) -> list[Message]:
    return [m for m in ask.prompt if isinstance(m, Message)]


def _tokens_of(texts: Iterable[str]) -> int:
    return -(-sum(len(text.encode(errors="replace")) for text in texts) // BYTES_PER_TOKEN)

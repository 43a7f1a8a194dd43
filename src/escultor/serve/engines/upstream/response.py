"""The request body an OpenAI-compatible upstream gets, and the events its reply amounts to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from escultor.errors import InputError, UpstreamFault
from escultor.serve.engines.upstream import schema
from escultor.serve.engines.upstream.sse import DONE
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, ScoredPrompt, TokenLogprob
from escultor.types import Message, Usage

BYTES_PER_TOKEN = 4  # of text, roughly: assumed where the upstream does not count


def is_chat(request: GenerationRequest) -> bool:
    """Whether the prompt is a conversation; text and token ids go to another path."""
    return (
        isinstance(request.prompt, tuple) and bool(request.prompt) and isinstance(request.prompt[0], Message)
    )


def is_streamed(request: GenerationRequest) -> bool:
    """Whether the upstream is asked to stream; a scored prompt comes in one piece."""
    return request.streamed and not request.echo


def request_body(request: GenerationRequest, model: str) -> dict[str, Any]:
    """The JSON body of the request. Raises InputError for what the protocol cannot express."""
    chat = is_chat(request)
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
        body["messages"] = [{"role": m.role.value, "content": m.content} for m in _messages(request)]
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
        self.done = False  # whether the upstream has marked the end of its stream

    @property
    def is_complete(self) -> bool:
        """Whether the upstream has said why it stopped: nothing of the answer is missing."""
        return self._finish is not None

    def feed(self, payload: bytes) -> list[EngineEvent]:
        """The events of one payload of a stream, or of the whole body of an unstreamed reply.

        Raises UpstreamFault for a malformed payload, InputError where log-probabilities were requested and
        the upstream begins to answer without them.
        """
        if payload.strip() == DONE:
            self.done = True
            return []
        data = schema.parse_json(payload)
        if isinstance(data, dict) and data.get("error"):
            raise UpstreamFault("the upstream gave up on an answer", schema.error_message(payload))
        reply = schema.validated(schema.ChatReply if is_chat(self._request) else schema.TextReply, data)
        self._usage = schema.parse_usage(reply.usage) or self._usage
        if len(reply.choices) > 1 or any(choice.index for choice in reply.choices):
            schema.refuse_reply("one answer was requested", f"{len(reply.choices)} choices")
        return [event for choice in reply.choices for event in self._events(choice)]

    def end(self) -> End:
        """The last event. Raises UpstreamFault where the answer broke off or is not what was requested."""
        if self._surrogate:
            self._pieces.append(schema.well_formed(self._surrogate))
        answer = "".join(self._pieces)
        if self._finish is None:
            raise UpstreamFault("the upstream's answer broke off", f"after {len(answer)} characters")
        if self._finish not in ("stop", "length"):
            got = f"finish_reason {schema.excerpt(self._finish)!r}"
            raise UpstreamFault("the upstream did not complete its answer", got)
        if self._request.schema is not None and self._finish == "stop":
            try:
                json.loads(answer)
            except (ValueError, RecursionError) as error:
                raise UpstreamFault(
                    "the upstream did not follow response_format",
                    schema.excerpt(answer),
                    "JSON",
                    "use an upstream with guided decoding",
                ) from error
        return End(self._finish, self._usage or self._estimated_usage(), 0.0)

    def _events(self, choice: schema.ChatReplyChoice | schema.TextReplyChoice) -> list[EngineEvent]:
        if isinstance(choice, schema.ChatReplyChoice):
            message = choice.delta or choice.message or schema.MessageReply()
            text = message.content or message.refusal or ""
            events = self._delta(text, schema.chat_logprobs(choice.logprobs))
        elif self._request.echo:
            events = self._scored_prompt(choice)
        else:
            events = self._delta(choice.text, schema.text_logprobs(choice.logprobs))
        if events and self._finish is not None:
            schema.refuse_reply("an answer goes on after its end", schema.excerpt(str(events)))
        self._finish = choice.finish_reason or self._finish
        return events

    def _delta(self, text: str, logprobs: tuple[TokenLogprob, ...]) -> list[EngineEvent]:
        text, self._surrogate = self._surrogate + text, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._surrogate = text[:-1], text[-1]
        text = schema.well_formed(text)
        self._n_logprobs += len(logprobs)
        if text and self._request.top_logprobs is not None and not self._n_logprobs:
            raise InputError(
                "log-probabilities were requested, and this model's server gives none",
                remedy="ask without logprobs",
            )
        self._pieces.append(text)
        return [Delta(text, logprobs)] if text or logprobs else []

    def _scored_prompt(self, choice: schema.TextReplyChoice) -> list[EngineEvent]:
        """The prompt's own tokens, then those of the answer: the upstream sends both in one list.

        Which tokens are the prompt's follows from the upstream's count of completion tokens,
        else from the text offsets, else from the prompt's length.
        """
        prompt, tokens = self._request.prompt, schema.text_logprobs(choice.logprobs)
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
        scored = ScoredPrompt(schema.well_formed(choice.text[:cut]), tokens[:n_prompt])
        return [scored, *self._delta(choice.text[cut:], tokens[n_prompt:])]

    def _estimated_usage(self) -> Usage:
        prompt = self._request.prompt
        if isinstance(prompt, str):
            n_prompt = _estimated_tokens([prompt])
        elif is_chat(self._request):
            n_prompt = _estimated_tokens(m.content for m in _messages(self._request))
        else:
            n_prompt = len(prompt)
        return Usage(n_prompt, self._n_logprobs or _estimated_tokens(self._pieces), estimated=True)


def _messages(request: GenerationRequest) -> list[Message]:
    return [m for m in request.prompt if isinstance(m, Message)]


def _estimated_tokens(texts: Iterable[str]) -> int:
    return -(-sum(len(text.encode(errors="replace")) for text in texts) // BYTES_PER_TOKEN)

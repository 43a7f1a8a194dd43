"""Requests that an upstream answers: read for the log, and sent on as the client wrote them.

The gateway interprets `model`, `messages` (or `prompt`), `stream`, `n`, the user's name and `metadata`. All
else goes through, whether this project knows it or not; what the upstream does not take, it refuses itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from escultor.config import Serve
from escultor.serve.assistant_message import AssistantMessage
from escultor.serve.protocol import GenerationRequest
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.media import MediaBox
from escultor.serve.wire.requests import MAX_CHOICES, ParsedRequest
from escultor.serve.wire.tools import compact, tool_definitions
from escultor.strict_json import whole_numbers
from escultor.types import Message, Messages, Role, Sampling, ToolDefinitions

METADATA_PREFIX = "escultor_"
_ROLES = {role.value: role for role in Role} | {"function": Role.TOOL, "model": Role.ASSISTANT}
_TOOLS = ("tools", "functions")
# Keys of a body that are logged elsewhere, or name a person.
_LOGGED_ELSEWHERE = frozenset(
    ("model", "messages", "prompt", "input", "user", "safety_identifier", "stream", *_TOOLS)
)


def parse_forwarded_chat(body: Any, settings: Serve) -> ParsedRequest:
    """The request in a body of /v1/chat/completions. Raises ApiError where the gateway cannot read it."""
    given = _object(body)
    messages = _field(given, "messages", list, "a list of messages")
    if not messages:
        raise ApiError(400, "`messages` is empty", "invalid_value", param="messages")
    box = MediaBox(int(settings.media_mb * 1e6))
    prompt = tuple(to_message(each, index, box) for index, each in enumerate(messages))
    top = given.get("top_logprobs") or 0
    wants_logprobs = given.get("logprobs") is True and isinstance(top, int)
    parsed = _parsed(given, [(prompt, given)], top_logprobs=top if wants_logprobs else None)
    ignored = (f"{box.left_out} media beyond serve.media_mb",) if box.left_out else ()
    return replace(parsed, media=tuple(box.media.values()), ignored=ignored)


def parse_forwarded_completion(body: Any, settings: Serve) -> ParsedRequest:
    """The request in a body of /v1/completions. Raises ApiError where it lacks what the gateway needs."""
    given = _object(body)
    prompts = _inputs(given, "prompt")
    if given.get("echo") and given.get("stream"):
        raise ApiError(400, "echo is not implemented for streams; leave out one of both", param="echo")
    top, echo = given.get("logprobs"), given.get("echo") is True
    each_body = [(p if isinstance(p, str) else tuple(p), {**given, "prompt": p}) for p in prompts]
    return _parsed(given, each_body, top_logprobs=top if type(top) is int else None, echo=echo)


def parse_embedding(body: Any) -> ParsedRequest:
    """The request in a body of /v1/embeddings. Its prompt says how much is embedded, and not what: that is in
    the log as a conversation already, or a document of the application's. Raises ApiError where the gateway
    cannot read it."""
    given = _object(body)
    inputs = _inputs(given, "input")
    unit = "characters" if isinstance(inputs[0], str) else "tokens"
    prompt = (Message(Role.USER, f"[{len(inputs)} inputs, {sum(map(len, inputs))} {unit}]"),)
    return _parsed({**given, "n": None, "stream": None, "stream_options": None}, [(prompt, given)])


def to_message(value: Any, index: int, box: MediaBox) -> Message:
    """A message of a body for the log; the data of its media goes into the box. Raises ApiError for one that
    is not an object with a role."""
    role = value.get("role") if isinstance(value, dict) else None
    if not isinstance(role, str):
        raise ApiError(400, f"`messages.{index}` has no role", "invalid_value", param="messages")
    content, parts, media = value.get("content"), "", ()
    if not isinstance(content, str):
        content, media = box.take(content)
    if isinstance(content, list):
        texts = [
            part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"
        ]
        if len(texts) < len(content):
            parts = compact(content)
        content = "".join(text for text in texts if isinstance(text, str))
    elif not isinstance(content, str):
        content, parts = "", compact(content) if content is not None else ""
    own = AssistantMessage()
    own.add({name: field for name, field in value.items() if name not in ("role", "content", "name")})
    name, call_id = value.get("name"), value.get("tool_call_id")
    return Message(
        _ROLES.get(role.lower(), Role.USER),
        content,
        reasoning=own.reasoning,
        tool_calls=own.tool_calls,
        tool_call_id=call_id if isinstance(call_id, str) else "",
        name=name if isinstance(name, str) else "",
        parts=parts,
        media=media,
    )


def _parsed(
    given: dict[str, Any],
    prompts: Sequence[tuple[Messages | str | tuple[int, ...], dict[str, Any]]],
    **options: Any,
) -> ParsedRequest:
    count = _field(given, "n", int, "a whole number", 1)
    if not 1 <= count * len(prompts) <= MAX_CHOICES:
        message = f"{len(prompts)} prompts times n = {count} answers; allowed: 1 to {MAX_CHOICES}"
        raise ApiError(400, message, "invalid_value", param="n")
    stream = _field(given, "stream", bool, "true or false", False)
    stream_options = _field(given, "stream_options", dict, "an object", {})
    metadata = _field(given, "metadata", dict, "an object", {})
    own = {k: v for k, v in metadata.items() if k.startswith(METADATA_PREFIX) and isinstance(v, str)}
    sampling = _sampling(given)
    generations = [
        GenerationRequest(
            prompt,
            sampling,
            streamed=stream,
            body=_body(body, metadata, own, seed_offset=k, count=count),
            **options,
        )
        for prompt, body in prompts
        for k in range(count)
    ]
    user = given.get("safety_identifier") or given.get("user")
    return ParsedRequest(
        model=_field(given, "model", str, "the name of a model"),
        generations=tuple(generations),
        per_prompt=count,
        stream=stream,
        include_usage=stream_options.get("include_usage") is True,
        user=str(user) if isinstance(user, str | int) and not isinstance(user, bool) else None,
        metadata=own,
        store=given.get("store") is not False,
        tools=_tools(given),
        parameters=_parameters(given, own),
    )


def _body(
    body: dict[str, Any], metadata: Mapping[str, Any], own: Mapping[str, str], *, seed_offset: int, count: int
) -> dict[str, Any]:
    """What is sent on: the client's body without the gateway's own metadata. Several answers to one prompt
    are asked for one by one, so that each is a row of its own; a seed that was given differs among them."""
    sent = dict(body)
    if own:
        sent["metadata"] = {key: value for key, value in metadata.items() if key not in own}
        if not sent["metadata"]:
            del sent["metadata"]
    if count > 1:
        del sent["n"]
        if type(sent.get("seed")) is int:
            sent["seed"] += seed_offset
    return sent


def _sampling(given: Mapping[str, Any]) -> Sampling:
    """What the request says of sampling; where it says nothing, OpenAI's defaults (the server's may differ),
    and 0 for an answer of any length."""

    def number(name: str, default: float) -> float:
        value = given.get(name)
        return float(value) if isinstance(value, int | float) and abs(value) < 1e9 else default

    limit = number("max_completion_tokens", number("max_tokens", 0))
    seed = given.get("seed")
    seed = seed if isinstance(seed, int) and abs(seed) < 1 << 63 else 0
    return Sampling(number("temperature", 1.0), number("top_p", 1.0), int(limit), int(seed))


def _tools(given: Mapping[str, Any]) -> ToolDefinitions | None:
    tools = next((given[name] for name in _TOOLS if given.get(name)), None)
    return None if tools is None else tool_definitions(tools)


def _parameters(given: Mapping[str, Any], own: Mapping[str, str]) -> str:
    kept = {key: value for key, value in given.items() if key not in _LOGGED_ELSEWHERE and value is not None}
    if own:
        kept["metadata"] = {k: v for k, v in given["metadata"].items() if k not in own}
    kept = {key: value for key, value in kept.items() if value not in ({}, [])}
    return compact(kept) if kept else ""


def _inputs(body: dict[str, Any], name: str) -> list[Any]:
    """The texts and lists of token ids in a parameter that gives one or several. Raises ApiError."""
    value = body.get(name)
    value = [whole_numbers(each) for each in whole_numbers(value)] if isinstance(value, list) else value
    inputs: list[Any] = value if isinstance(value, list) and not _is_ids(value) else [value]
    if not inputs or not all(isinstance(each, str) or _is_ids(each) for each in inputs):
        raise ApiError(400, f"`{name}` is not text, token ids or a list of them", param=name)
    return inputs


def _is_ids(prompt: Any) -> bool:
    return isinstance(prompt, list) and bool(prompt) and all(type(i) is int and i >= 0 for i in prompt)


def _object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not an object (a dictionary)", "invalid_value")
    return body


def _field(given: Mapping[str, Any], name: str, kind: type, allowed: str, default: Any = None) -> Any:
    value = given.get(name)
    if value is None and default is not None:
        return default
    if value is None:
        raise ApiError(400, f"`{name}`: Field required", "missing_required_parameter", param=name)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ApiError(400, f"`{name}` is not {allowed}", "invalid_value", param=name)
    return value

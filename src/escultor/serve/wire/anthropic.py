"""Anthropic's Messages API over the chat path: bodies to OpenAI's, answers and errors back.

What OpenAI's form has no place for is named, not silently dropped: a block that changes the prompt is
refused, a parameter without effect (`thinking` budgets) is reported back, and so are tools that Anthropic's
servers run or their models know, beside others; alone they are refused. `cache_control` changes no answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json

from escultor.serve.assistant_message import reasoning_piece
from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.protocol import Delta
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.responses import ResponseHead, event, usage_detail
from escultor.strict_json import strict_loads, whole_numbers
from escultor.types import ToolCall

PATH = "/v1/messages"
PREFIX = "msg"
BYTES_PER_TOKEN = 4  # of a prompt, where nobody counts its tokens
STOP_REASONS = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
# Parameters that go on under the same name, and those under another.
_SAME = ("model", "max_tokens", "temperature", "top_p", "top_k", "stream")
_EFFORTS = {"disabled": "none", "enabled": "auto", "adaptive": "auto"}  # by the type of `thinking`
_KNOWN = frozenset(
    (*_SAME, "system", "messages", "tools", "tool_choice", "stop_sequences", "metadata", "output_config")
)
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
}


def chat_body(body: Any, is_forwarded: bool = True) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body of /v1/chat/completions that asks the same, and the parameters that have no effect there:
    `thinking` has one on weights of one's own, where the request is not forwarded. Raises ApiError for what
    cannot be asked."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not an object (a dictionary)", "invalid_value")
    body = whole_numbers(body)
    if type(body.get("max_tokens")) is not int or body["max_tokens"] < 1:
        raise ApiError(400, "`max_tokens`: a whole number from 1 on is required", param="max_tokens")
    if not isinstance(body.get("model"), str) or not body["model"]:
        raise ApiError(400, "`model`: the name of a model is required", param="model")
    messages = _list(body.get("messages"), "messages")
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    chat["messages"] = [
        *_system(body.get("system")),
        *(m for each in enumerate(messages) for m in _turn(*each)),
    ]
    if body.get("stop_sequences"):
        chat["stop"] = body["stop_sequences"]
    left_out: list[str] = []
    if body.get("tools"):
        chat["tools"], left_out = _tools(_list(body["tools"], "tools"))
        chat |= _tool_choice(body.get("tool_choice"), {each["function"]["name"] for each in chat["tools"]})
    metadata = body.get("metadata")
    if isinstance(metadata, dict):
        if metadata.get("user_id") is not None:
            chat["user"] = str(metadata["user_id"])
        if own := {k: v for k, v in metadata.items() if k.startswith("escultor_")}:
            chat["metadata"] = own
    ignored = {name for name in body.keys() - _KNOWN if body[name] is not None}
    chat |= _format(body.get("output_config"), ignored)
    if not is_forwarded and "thinking" in ignored:
        ignored.discard("thinking")
        chat["reasoning_effort"], unused = _effort(body["thinking"])
        ignored |= unused
    return chat, (*sorted(ignored), *left_out)


def estimated_tokens(body: Any) -> int:
    """The tokens of a prompt, estimated from its bytes: what computes it elsewhere is not asked."""
    chat, _ = chat_body({**body, "max_tokens": 1} if isinstance(body, dict) else body)
    prompt = to_json([chat["messages"], chat.get("tools", [])])
    return max(1, -(-len(prompt) // BYTES_PER_TOKEN))


def error_body(error: ApiError) -> dict[str, Any]:
    """An error in Anthropic's form."""
    kind = _ERROR_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.body()["error"]["message"]}}


# --- requests ---------------------------------------------------------------------------------


def _system(system: Any) -> list[dict[str, Any]]:
    if not system:
        return []
    text = (
        system if isinstance(system, str) else [_part(block, "system") for block in _list(system, "system")]
    )
    return [{"role": "system", "content": _content(text)}]


def _turn(index: int, message: Any) -> list[dict[str, Any]]:
    """The messages of OpenAI's for one of Anthropic's: results of tools are messages of their own."""
    role = message.get("role") if isinstance(message, dict) else None
    if role not in ("user", "assistant", "system"):
        raise ApiError(400, f"`messages.{index}.role`: user or assistant is required", param="messages")
    content = message.get("content")
    if isinstance(content, str):
        return [{"role": role, "content": content}]
    name = f"messages.{index}.content"
    blocks = _list(content, name)
    if not all(isinstance(block, dict) for block in blocks):
        raise ApiError(400, f"`{name}` holds a block that is not an object", param="messages")
    return _assistant(blocks, name) if role == "assistant" else _user(role, blocks, name)


def _user(role: str, blocks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    parts: list[dict[str, Any]] = []
    for block in blocks:
        if block.get("type") == "tool_result":
            result = block.get("content") or ""
            texts = result if isinstance(result, str) else [_part(b, name) for b in _list(result, name)]
            id = str(block.get("tool_use_id", ""))
            turns.append({"role": "tool", "tool_call_id": id, "content": _content(texts)})
        else:
            parts.append(_part(block, name))
    return [*turns, {"role": role, "content": _content(parts)}] if parts else turns


def _assistant(blocks: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    parts, calls, thoughts = [], [], []
    for block in blocks:
        kind = block.get("type")
        if kind == "tool_use":
            function = {"name": block.get("name"), "arguments": json.dumps(block.get("input") or {})}
            calls.append({"id": str(block.get("id", "")), "type": "function", "function": function})
        elif kind == "thinking":
            thoughts.append(str(block.get("thinking", "")))
        elif kind != "redacted_thinking":  # encrypted for the server that wrote it
            parts.append(_part(block, name))
    turn: dict[str, Any] = {"role": "assistant", "content": _content(parts) if parts else None}
    if calls:
        turn["tool_calls"] = calls
    elif not parts:
        turn["content"] = ""
    if thoughts:
        turn["reasoning_content"] = "\n".join(thoughts)
    return [turn]


def _part(block: Any, name: str) -> dict[str, Any]:
    """A part of OpenAI's content. Raises ApiError for a block that has no such part."""
    kind = block.get("type") if isinstance(block, dict) else None
    if kind == "text" and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    if kind == "tool_reference":  # what a search among tools found: all of them are offered already
        return {"type": "text", "text": str(block.get("tool_name", ""))}
    source = block.get("source") if isinstance(block, dict) else None
    if kind in ("image", "document") and isinstance(source, dict):
        if kind == "document" and source.get("type") == "text":
            return {"type": "text", "text": str(source.get("data", ""))}
        url = source.get("url")
        if source.get("type") == "base64":
            url = f"data:{source.get('media_type')};base64,{source.get('data')}"
        if isinstance(url, str):
            file = {
                "type": "file",
                "file": {"filename": str(block.get("title") or "document"), "file_data": url},
            }
            return {"type": "image_url", "image_url": {"url": url}} if kind == "image" else file
    message = f"`{name}` holds a block that cannot be sent on: {str(kind)[:40]!r}"
    raise ApiError(400, message, "invalid_value", param=name.partition(".")[0])


def _content(content: str | list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    """Parts as they are; text alone as one text, which every server reads."""
    if isinstance(content, str) or any(part["type"] != "text" for part in content):
        return content
    return "\n".join(part["text"] for part in content)


def _tools(tools: list[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The client's own tools as functions, and the others. Raises ApiError where there are only others."""
    functions, left_out = [], []
    for at, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise ApiError(400, f"`tools.{at}` has no name", "invalid_value", param="tools")
        if "input_schema" not in tool:
            left_out.append(f"tools.{at} ({tool.get('type', tool['name'])})"[:60])
            continue
        function = {"name": tool["name"], "parameters": tool["input_schema"]}
        function |= {name: tool[name] for name in ("description", "strict") if tool.get(name)}
        functions.append({"type": "function", "function": function})
    if not functions:
        message = f"{left_out[0]} is not a tool of the client's: a name and an input_schema are required"
        raise ApiError(400, message, "invalid_value", param="tools")
    return functions, left_out


def _tool_choice(choice: Any, names: set[str]) -> dict[str, Any]:
    if choice is None:
        return {}
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind == "tool" and choice.get("name") in names:
        chosen: Any = {"type": "function", "function": {"name": choice["name"]}}
    elif kind in ("auto", "any", "none"):
        chosen = "required" if kind == "any" else kind
    else:
        message = "`tool_choice`: auto, any, none, or one of the client's tools is required"
        raise ApiError(400, message, "invalid_value", param="tool_choice")
    parallel = choice.get("disable_parallel_tool_use")
    return {"tool_choice": chosen} | ({"parallel_tool_calls": False} if parallel else {})


def _format(config: Any, ignored: set[str]) -> dict[str, Any]:
    """The form of the answer that `output_config` asks for; the names of its other keys are added to
    `ignored`. Raises ApiError for another form than a schema."""
    if config is None:
        return {}
    form = config.get("format") if isinstance(config, dict) else config
    if form is not None and not (
        isinstance(form, dict) and form.get("type") == "json_schema" and isinstance(form.get("schema"), dict)
    ):
        message = "`output_config.format`: an object of the type json_schema with a `schema` is required"
        raise ApiError(400, message, "invalid_value", param="output_config")
    ignored |= {f"output_config.{name}" for name in config.keys() - {"format"}}
    if form is None:
        return {}
    schema = {"name": "output", "schema": form["schema"], "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _effort(thinking: Any) -> tuple[str, set[str]]:
    """The effort that `thinking` asks for, and what of it has no effect: a template knows no budgets."""
    kind = thinking.get("type") if isinstance(thinking, dict) else None
    if not isinstance(kind, str) or kind not in _EFFORTS:
        raise ApiError(400, f"`thinking.type`: {', '.join(_EFFORTS)} is required", param="thinking")
    return _EFFORTS[kind], {f"thinking.{name}" for name in thinking.keys() - {"type", "display"}}


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ApiError(400, f"`{name}`: a list that is not empty is required", param=name.partition(".")[0])
    return value


# --- responses --------------------------------------------------------------------------------


class MessagesStyle:
    """Responses of /v1/messages."""

    prefix = PREFIX

    def whole(self, head: ResponseHead, completions: Sequence[InFlightCompletion]) -> dict[str, Any]:
        (completion,) = completions
        own = completion.message
        blocks: list[dict[str, Any]] = []
        if own.reasoning:
            blocks.append({"type": "thinking", "thinking": own.reasoning, "signature": ""})
        if text := completion.text + own.refusal:
            blocks.append({"type": "text", "text": text})
        blocks += [_tool_use(call) for call in own.tool_calls]
        reason = _stop_reason(completion)
        return {**_message(head), "content": blocks, "stop_reason": reason, "usage": _usage(completion)}

    def writer(self, head: ResponseHead) -> MessagesWriter:
        return MessagesWriter(head)

    def error(self, error: ApiError) -> bytes:
        return event(error_body(error), "error")


class MessagesWriter:
    """The events of a streamed message: blocks one after the other. The first call under way is streamed;
    calls beside it, which blocks cannot interleave, follow whole."""

    def __init__(self, head: ResponseHead):
        self._head = head
        self._block = ""  # the kind of the block under way
        self._count = 0  # blocks begun
        self._is_call_streamed: bool | None = None  # the first call; None: there was none yet
        self._held: list[tuple[str, str]] = []  # texts and thoughts that came while a call was under way

    def first(self, index: int, completion: InFlightCompletion) -> bytes:
        message = {**_message(self._head), "content": [], "usage": {"input_tokens": 0, "output_tokens": 0}}
        return self._event("message_start", message=message)

    def delta(self, index: int, completion: InFlightCompletion, delta: Delta) -> bytes:
        data, fields = b"", delta.fields
        thought, refusal = reasoning_piece(fields), fields.get("refusal")
        said = delta.text + (refusal if isinstance(refusal, str) else "")
        for kind, text in (("thinking", thought), ("text", said)):
            if not text:
                continue
            if self._block == "tool_use":
                self._held.append((kind, text))
            else:
                data += self._said(kind, text)
        for call in fields.get("tool_calls") or ():
            data += self._call(call)
        return data

    def last(self, index: int, completion: InFlightCompletion) -> bytes:
        parts = [self._end_block(), *(self._said(kind, text) for kind, text in self._held)]
        for call in completion.message.tool_calls[bool(self._is_call_streamed) :]:
            parts += self._end_block(), self._begin("tool_use", {**_tool_use(call), "input": {}})
            parts.append(self._piece(type="input_json_delta", partial_json=call.arguments))
        data = b"".join((*parts, self._end_block()))
        delta = {"stop_reason": _stop_reason(completion), "stop_sequence": None}
        return data + self._event("message_delta", delta=delta, usage=_usage(completion))

    def end(self, completions: Sequence[InFlightCompletion]) -> bytes:
        return self._event("message_stop")

    def _said(self, kind: str, text: str) -> bytes:
        """A piece of a text or of thoughts."""
        if kind == "text":
            return self._begin(kind, {"type": kind, "text": ""}) + self._piece(type="text_delta", text=text)
        data = self._begin(kind, {"type": kind, "thinking": "", "signature": ""})
        return data + self._piece(type="thinking_delta", thinking=text)

    def _call(self, call: dict[str, Any]) -> bytes:
        """A piece of the first call; the others follow whole, at the end, and so does one whose first piece
        does not say what is called."""
        function, data = call.get("function"), b""
        if call["index"] or not isinstance(function, dict):
            return b""
        if self._is_call_streamed is None:
            self._is_call_streamed = bool(call.get("id") and function.get("name"))
            if self._is_call_streamed:
                named = {"id": str(call["id"]), "name": str(function["name"])}
                data = self._begin("tool_use", {"type": "tool_use", **named, "input": {}})
        arguments = function.get("arguments")
        if not self._is_call_streamed or not isinstance(arguments, str) or not arguments:
            return data
        return data + self._piece(type="input_json_delta", partial_json=arguments)

    def _begin(self, kind: str, block: dict[str, Any]) -> bytes:
        if self._block == kind:
            return b""
        data = self._end_block()
        self._block, self._count = kind, self._count + 1
        return data + self._event("content_block_start", index=self._count - 1, content_block=block)

    def _end_block(self) -> bytes:
        if not self._block:
            return b""
        self._block = ""
        return self._event("content_block_stop", index=self._count - 1)

    def _piece(self, **delta: str) -> bytes:
        return self._event("content_block_delta", index=self._count - 1, delta=delta)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        return event({"type": name, **fields}, name)


def _message(head: ResponseHead) -> dict[str, Any]:
    fixed = {"type": "message", "role": "assistant", "stop_reason": None, "stop_sequence": None}
    return {"id": head.id, "model": head.model, **fixed}


def _stop_reason(completion: InFlightCompletion) -> str:
    is_refusal = completion.finish_reason == "stop" and completion.message.refusal
    return "refusal" if is_refusal else STOP_REASONS.get(completion.finish_reason, "end_turn")


def _tool_use(call: ToolCall) -> dict[str, Any]:
    """A call as a block; arguments that are not an object of JSON stand under `arguments` as they came."""
    try:
        given = strict_loads(call.arguments or "{}")
    except ValueError:
        given = None
    input = given if isinstance(given, dict) else {"arguments": call.arguments}
    return {"type": "tool_use", "id": call.id, "name": call.name, "input": input}


def _usage(completion: InFlightCompletion) -> dict[str, int]:
    assert completion.end is not None
    usage, cached = completion.end.usage, usage_detail(completion, "prompt_tokens_details", "cached_tokens")
    fresh = max(0, usage.prompt_tokens - (cached or 0))  # Anthropic counts what was cached apart
    counts = {"input_tokens": fresh, "output_tokens": usage.completion_tokens}
    return counts if cached is None else counts | {"cache_read_input_tokens": cached}


MESSAGES = MessagesStyle()

"""OpenAI's Responses API over the chat path: bodies to chat completions, answers and events back.

An earlier response is continued from the log (`previous_response_id`). Items that only OpenAI's servers can
read are refused; parameters without a place in a chat completion are reported back. Tools: `responses_tools`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from escultor.serve.assistant_message import reasoning_piece
from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.protocol import Delta
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.responses import ResponseHead, event, usage_detail
from escultor.serve.wire.responses_tools import ClientTools, call_of, client_tools, tool_choice
from escultor.types import ToolCall

PATH = "/v1/responses"
PREFIX = "resp"
# Parameters that go on under the same name.
_SAME = ("model", "temperature", "top_p", "stream", "user", "safety_identifier", "metadata", "store")
_SAME_IF_TOOLS = ("parallel_tool_calls",)
_KNOWN = frozenset(
    (*_SAME, *_SAME_IF_TOOLS, "input", "instructions", "tools", "tool_choice", "max_output_tokens", "text")
) | {"reasoning", "previous_response_id", "include", "truncation", "top_logprobs"}
_TEXT_PARTS = ("input_text", "output_text", "text")
# What an item begins with in a stream, by its type.
_EMPTY_PARTS = {
    "message": {"type": "output_text", "text": "", "annotations": []},
    "refusal": {"type": "refusal", "refusal": ""},
}
_EMPTY_ITEMS: dict[str, dict[str, Any]] = {
    "reasoning": {"summary": []},
    "message": {"content": []},
    "function_call": {"arguments": ""},
    "custom_tool_call": {"input": ""},
}
_EMPTY = (None, [], {}, "disabled", "auto")


def chat_body(
    body: Any,
    is_forwarded: bool = True,
    *,
    tools: ClientTools | None = None,
    earlier: Sequence[dict[str, Any]] = (),
    parent: str = "",
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The body of /v1/chat/completions that asks the same, after the `earlier` messages of the response
    `parent`, and the parameters that have no effect there, forwarded or not. `tools` are those of the body,
    where they were read before. Raises ApiError for what cannot be asked."""
    if not isinstance(body, dict):
        raise ApiError(400, "the body is not an object (a dictionary)", "invalid_value")
    given = body.get("input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    if not isinstance(items, list) or not items:
        raise ApiError(400, "`input`: text, or a list of items, is required", param="input")
    chat: dict[str, Any] = {name: body[name] for name in _SAME if body.get(name) is not None}
    system = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    chat["messages"] = [*system, *earlier, *_merged(_item(item, i) for i, item in enumerate(items))]
    if not isinstance(chat.get("metadata", {}), dict):
        raise ApiError(400, "`metadata` is not an object", "invalid_value", param="metadata")
    if parent:
        chat["metadata"] = {**chat.get("metadata", {}), "escultor_parent": parent}
    if body.get("max_output_tokens") is not None:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    tools = tools or client_tools(body)
    if tools.functions:
        chat["tools"] = tools.functions
        chat |= {name: body[name] for name in _SAME_IF_TOOLS if body.get(name) is not None}
        if body.get("tool_choice") is not None:
            chat |= tool_choice(body["tool_choice"], tools)
    if isinstance(reasoning := body.get("reasoning"), dict) and reasoning.get("effort"):
        chat["reasoning_effort"] = reasoning["effort"]
    chat |= _format(body.get("text"))
    ignored = [name for name in body.keys() - _KNOWN if body[name] not in _EMPTY]
    ignored += [name for name in ("include", "truncation") if body.get(name) not in _EMPTY]
    return chat, (*sorted(ignored), *tools.left_out)


# --- requests ---------------------------------------------------------------------------------


def _item(item: Any, index: int) -> dict[str, Any]:
    """The message of a chat for one item. Raises ApiError for an item that has none."""
    kind = item.get("type", "message") if isinstance(item, dict) else None
    if kind == "message" and isinstance(item.get("role"), str):
        return {"role": item["role"], "content": _content(item.get("content"), index)}
    if kind in ("function_call", "custom_tool_call"):
        return {"role": "assistant", "content": None, "tool_calls": [call_of(item)]}
    if kind in ("function_call_output", "custom_tool_call_output"):
        content = _content(item.get("output"), index)
        return {"role": "tool", "tool_call_id": str(item.get("call_id", "")), "content": content}
    if kind == "reasoning":
        lists = [each for each in (item.get("content"), item.get("summary")) if isinstance(each, list)]
        texts = [str(part.get("text", "")) for parts in lists for part in parts if isinstance(part, dict)]
        return {"role": "assistant", "content": None, "reasoning_content": "\n".join(texts)}
    message = f"`input.{index}` is an item that cannot be asked here: {str(kind)[:40]!r}"
    raise ApiError(400, message, "invalid_value", param="input")


def _merged(messages: Any) -> list[dict[str, Any]]:
    """Items of one turn of the assistant (reasoning, text, calls) as the one message that they are."""
    merged: list[dict[str, Any]] = []
    for message in messages:
        last = merged[-1] if merged else None
        if message["role"] != "assistant" or last is None or last["role"] != "assistant":
            merged.append(message)
        elif message.get("tool_calls"):
            last.setdefault("tool_calls", []).extend(message["tool_calls"])
        elif last["content"] is None and not last.get("tool_calls"):
            last["content"] = message["content"]  # after its reasoning
        else:
            merged.append(message)
    return [m for m in merged if m.get("content") is not None or m.get("tool_calls")]


def _content(content: Any, index: int) -> Any:
    if isinstance(content, str):
        return content
    parts = [_part(part, index) for part in content] if isinstance(content, list) else []
    if not parts:
        raise ApiError(400, f"`input.{index}.content`: text or a list of parts is required", param="input")
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(part: Any, index: int) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in _TEXT_PARTS and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if kind == "refusal":
        return {"type": "text", "text": str(part.get("refusal", ""))}
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return {"type": "image_url", "image_url": {"url": part["image_url"]}}
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        file = {"filename": str(part.get("filename") or "file"), "file_data": part["file_data"]}
        return {"type": "file", "file": file}
    message = f"`input.{index}` holds a part that cannot be sent on: {str(kind)[:40]!r}"
    raise ApiError(400, message, "invalid_value", param="input")


def _format(text: Any) -> dict[str, Any]:
    form = text.get("format") if isinstance(text, dict) else None
    if not isinstance(form, dict) or form.get("type") in (None, "text"):
        return {}
    if form["type"] == "json_schema":
        schema = {key: value for key, value in form.items() if key != "type" and value is not None}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}
    return {"response_format": {"type": form["type"]}}


# --- responses --------------------------------------------------------------------------------


class ResponsesStyle:
    """Responses of /v1/responses to a request with these tools."""

    prefix = PREFIX

    def __init__(self, tools: ClientTools):
        self._tools = tools
        self._writer: ResponsesWriter | None = None  # of the stream, once it has begun

    def whole(self, head: ResponseHead, completions: Sequence[InFlightCompletion]) -> dict[str, Any]:
        (completion,) = completions
        return _response(head, completion, _output(completion, self._tools))

    def writer(self, head: ResponseHead) -> ResponsesWriter:
        self._writer = ResponsesWriter(head, self._tools)
        return self._writer

    def error(self, error: ApiError) -> bytes:
        detail = {key: error.body()["error"][key] for key in ("code", "message", "param")}
        if self._writer is None:
            return event({"type": "error", "sequence_number": 0, **detail}, "error")
        return self._writer.failed(detail)


class ResponsesWriter:
    """The events of a streamed response: items, and the deltas of each."""

    def __init__(self, head: ResponseHead, tools: ClientTools):
        self._head, self._tools, self._number = head, tools, 0
        self._items: dict[str, int] = {}  # output index by kind, of a call also its index in the stream
        self._free_text: set[str] = set()  # calls whose argument is known when its JSON is whole

    def first(self, index: int, completion: InFlightCompletion) -> bytes:
        response = {**_frame(self._head), "status": "in_progress", "output": [], "usage": None}
        return self._event("created", response=response) + self._event("in_progress", response=response)

    def delta(self, index: int, completion: InFlightCompletion, delta: Delta) -> bytes:
        data, fields = b"", delta.fields
        thought = reasoning_piece(fields)
        if thought:
            data += self._begin("reasoning", {"type": "reasoning", "summary": []})
            data += self._piece("reasoning", "reasoning_summary_text.delta", delta=thought, summary_index=0)
        if delta.text:
            data += self._begin("message", {"type": "message", "role": "assistant", "content": []})
            data += self._piece(
                "message", "output_text.delta", delta=delta.text, content_index=0, logprobs=[]
            )
        if isinstance(refusal := fields.get("refusal"), str) and refusal:
            data += self._begin("refusal", {"type": "message", "role": "assistant", "content": []})
            data += self._piece("refusal", "refusal.delta", delta=refusal, content_index=0)
        calls = fields.get("tool_calls")
        for call in calls or ():
            if isinstance(function := call.get("function"), dict):
                data += self._call(call, function)
        return data

    def last(self, index: int, completion: InFlightCompletion) -> bytes:
        """The end of every item, and the response as a whole."""
        output = _output(completion, self._tools)
        # What the stream did not show yet begins here.
        parts = [self._begin(key, item | _EMPTY_ITEMS[item["type"]]) for key, item in output.items()]
        response = _response(self._head, completion, {key: output[key] for key in self._items})
        for at, item in enumerate(response["output"]):
            parts += self._item_done(at, item), self._event("output_item.done", output_index=at, item=item)
        kind = "completed" if response["status"] == "completed" else "incomplete"
        return b"".join((*parts, self._event(kind, response=response)))

    def end(self, completions: Sequence[InFlightCompletion]) -> bytes:
        return b""

    def failed(self, detail: dict[str, Any]) -> bytes:
        """The end of a stream that broke off: some clients read the one event, some the other."""
        error = {"code": "server_error", "message": detail["message"]}
        response = {**_frame(self._head), "status": "failed", "output": [], "usage": None, "error": error}
        return self._event("error", **detail) + self._event("failed", response=response)

    def _call(self, call: dict[str, Any], function: dict[str, Any]) -> bytes:
        key = f"call {call['index']}"
        named = ToolCall(str(call.get("id") or ""), str(function.get("name") or ""), "")
        item = self._tools.call_item(named)
        if key not in self._items and item["type"] != "function_call":
            self._free_text.add(key)
        data = self._begin(key, item)
        arguments = function.get("arguments")
        if key in self._free_text or not isinstance(arguments, str) or not arguments:
            return data
        return data + self._piece(key, "function_call_arguments.delta", delta=arguments)

    def _begin(self, key: str, item: dict[str, Any]) -> bytes:
        if key in self._items:
            return b""
        at = self._items[key] = len(self._items)
        item = {"id": f"item_{at}", "status": "in_progress", **item}
        data = self._event("output_item.added", output_index=at, item=item)
        if key in _EMPTY_PARTS:
            data += self._piece(key, "content_part.added", content_index=0, part=_EMPTY_PARTS[key])
        elif key == "reasoning":
            part = {"type": "summary_text", "text": ""}
            data += self._piece(key, "reasoning_summary_part.added", summary_index=0, part=part)
        return data

    def _piece(self, key: str, name: str, **fields: Any) -> bytes:
        at = self._items[key]
        return self._event(name, item_id=f"item_{at}", output_index=at, **fields)

    def _item_done(self, at: int, item: dict[str, Any]) -> bytes:
        """The events at the end of an item before its own."""
        kind, common = item["type"], {"item_id": item["id"], "output_index": at}
        if kind == "function_call":
            arguments = {"name": item["name"], "arguments": item["arguments"]}
            return self._event("function_call_arguments.done", **common, **arguments)
        if kind == "custom_tool_call":
            given = self._event("custom_tool_call_input.delta", **common, delta=item["input"])
            return given + self._event("custom_tool_call_input.done", **common, input=item["input"])
        if kind == "reasoning":
            (part,) = item["summary"]
            common["summary_index"] = 0
            done = self._event("reasoning_summary_text.done", **common, text=part["text"])
            return done + self._event("reasoning_summary_part.done", **common, part=part)
        (part,) = item["content"]
        common["content_index"] = 0
        if part["type"] == "refusal":
            done = self._event("refusal.done", **common, refusal=part["refusal"])
        else:
            done = self._event("output_text.done", **common, text=part["text"], logprobs=[])
        return done + self._event("content_part.done", **common, part=part)

    def _event(self, name: str, /, **fields: Any) -> bytes:
        kind = name if name == "error" else f"response.{name}"
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return event(data, data["type"])


def _frame(head: ResponseHead) -> dict[str, Any]:
    fixed = {"object": "response", "error": None, "incomplete_details": None, "metadata": {}}
    more = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "instructions": None}
    return {"id": head.id, "created_at": head.created, "model": head.model, **fixed, **more}


def _output(completion: InFlightCompletion, tools: ClientTools) -> dict[str, dict[str, Any]]:
    """The items of an answer, by the names that a stream knows them under."""
    own, output = completion.message, {}
    if own.reasoning:
        summary = [{"type": "summary_text", "text": own.reasoning}]
        output["reasoning"] = {"type": "reasoning", "summary": summary}
    if own.refusal:
        part = {"type": "refusal", "refusal": own.refusal}
        output["refusal"] = {"type": "message", "role": "assistant", "content": [part]}
    if completion.text or not (own.tool_calls or own.refusal):
        part = {"type": "output_text", "text": completion.text, "annotations": [], "logprobs": []}
        output["message"] = {"type": "message", "role": "assistant", "content": [part]}
    return output | {f"call {at}": tools.call_item(call) for at, call in enumerate(own.tool_calls)}


def _response(
    head: ResponseHead, completion: InFlightCompletion, output: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    is_whole = completion.finish_reason in ("stop", "tool_calls", "function_call")
    status = "completed" if is_whole else "incomplete"
    reasons = {"length": "max_output_tokens", "content_filter": "content_filter"}
    reason = None if is_whole else {"reason": reasons.get(completion.finish_reason, "content_filter")}
    items = [{"id": f"item_{at}", "status": status, **item} for at, item in enumerate(output.values())]
    fields = {"status": status, "output": items, "usage": _usage(completion), "incomplete_details": reason}
    return {**_frame(head), **fields}


def _usage(completion: InFlightCompletion) -> dict[str, Any]:
    assert completion.end is not None
    usage = completion.end.usage
    cached = usage_detail(completion, "prompt_tokens_details", "cached_tokens") or 0
    thought = usage_detail(completion, "completion_tokens_details", "reasoning_tokens") or 0
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }

"""Tools of OpenAI's Responses API as functions of a chat completion, and calls of them back as items.

A chat completion knows functions alone. A tool in a namespace becomes the function `NAMESPACE__NAME`, a tool
that takes free text a function of one text. Tools that a provider runs itself (web search, a code
interpreter) cannot be called here: beside others they are left out and named, alone they are refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from escultor.serve.wire.errors import ApiError
from escultor.types import ToolCall

_INPUT = "input"  # the one argument of a tool that takes free text
_FREE_TEXT = {"type": "object", "properties": {_INPUT: {"type": "string"}}, "required": [_INPUT]}
_CALLED = ("function", "custom")


@dataclass(frozen=True, slots=True)
class ClientTools:
    """The tools of one request."""

    functions: Sequence[dict[str, Any]] = ()  # as a chat completion has them
    tools: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # by function: type, name, namespace
    left_out: tuple[str, ...] = ()

    def call_item(self, call: ToolCall) -> dict[str, Any]:
        """The item of an answer for a call."""
        tool = self.tools.get(call.name, {"type": "function", "name": call.name})
        item = {**tool, "call_id": call.id}
        if tool["type"] == "function":
            return item | {"type": "function_call", "arguments": call.arguments}
        return item | {"type": "custom_tool_call", _INPUT: _free_text(call.arguments)}


def client_tools(body: Any) -> ClientTools:
    """The tools that a body offers. Raises ApiError for one that cannot be read, for two of one name, and
    where nothing but a provider's own tools is offered."""
    given = body.get("tools") if isinstance(body, dict) else None
    if not given:
        return ClientTools()
    if not isinstance(given, list):
        raise ApiError(400, "`tools` is not a list", "invalid_value", param="tools")
    functions, tools, left_out = [], {}, []
    for at, tool in enumerate(given):
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str):
            raise _refused(f"`tools.{at}` is not a tool with a `type`")
        inside = tool.get("tools") if kind == "namespace" else [tool]
        if kind not in (*_CALLED, "namespace"):
            left_out.append(f"tools.{at} ({kind[:40]})")
            continue
        for each in inside if isinstance(inside, list) else [None]:
            function, named = _function(each, tool.get("name") if kind == "namespace" else None, at)
            if function["name"] in tools:
                raise _refused(f"`tools` holds two of the name {function['name'][:100]!r}")
            tools[function["name"]] = named
            functions.append({"type": "function", "function": function})
    if left_out and not functions:
        raise _refused(f"{left_out[0]} is not a function of the client's; other tools run elsewhere")
    return ClientTools(functions, tools, tuple(left_out))


def tool_choice(choice: Any, offered: ClientTools) -> dict[str, Any]:
    """The choice in a chat completion's form, and the tools where it allows only some of them. Raises
    ApiError for a tool that cannot be called here."""
    if not isinstance(choice, dict):
        return {"tool_choice": choice}
    if choice.get("type") == "allowed_tools":
        named = choice.get("tools")
        names = {_chosen(each) for each in named} if isinstance(named, list) else set()
        kept = [each for each in offered.functions if each["function"]["name"] in names]
        return {"tool_choice": choice.get("mode", "auto"), "tools": kept} if kept else {"tool_choice": "none"}
    return {"tool_choice": {"type": "function", "function": {"name": _chosen(choice)}}}


def call_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """The call of a chat's message for an item of an earlier answer."""
    arguments = item.get("arguments", "")
    if item.get("type") == "custom_tool_call":
        arguments = json.dumps({_INPUT: item.get(_INPUT, "")})
    function = {"name": _function_name(item.get("name"), item.get("namespace")), "arguments": arguments}
    return {"id": str(item.get("call_id", "")), "type": "function", "function": function}


def _function(tool: Any, namespace: Any, at: int) -> tuple[dict[str, Any], dict[str, str]]:
    kind = tool.get("type") if isinstance(tool, dict) else None
    name = tool.get("name") if isinstance(tool, dict) else None
    if kind not in _CALLED or not isinstance(name, str) or not isinstance(namespace, str | None):
        raise _refused(f"`tools.{at}` is not a function of the client's, or has no name")
    named = {"type": kind, "name": name} | ({"namespace": namespace} if namespace is not None else {})
    function = {key: value for key, value in tool.items() if key != "type" and value is not None}
    if kind == "custom":
        form = json.dumps(function.pop("format", None) or {"type": "text"})
        description = f"{function.get('description') or ''}\nThe format of the input: {form}".strip()
        function |= {"description": description, "parameters": _FREE_TEXT}
    return {**function, "name": _function_name(name, namespace)}, named


def _chosen(choice: Any) -> str:
    kind = choice.get("type") if isinstance(choice, dict) else None
    name = choice.get("name") if isinstance(choice, dict) else None
    if kind not in _CALLED or not isinstance(name, str):
        message = f"`tool_choice` names no tool of the client's: {str(kind)[:40]!r}"
        raise ApiError(400, message, "invalid_value", param="tool_choice")
    return _function_name(name, choice.get("namespace"))


def _function_name(name: Any, namespace: Any) -> Any:
    return f"{namespace}__{name}" if namespace and isinstance(namespace, str) else name


def _free_text(arguments: str) -> str:
    """The text that a call of a free-text tool gives; where a model wrote no JSON, what it wrote."""
    try:
        given = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    text = given.get(_INPUT) if isinstance(given, dict) else given
    return text if isinstance(text, str) else arguments


def _refused(message: str) -> ApiError:
    return ApiError(400, message, "invalid_value", param="tools")

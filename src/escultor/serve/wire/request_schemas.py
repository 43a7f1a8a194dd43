"""JSON schemas of what the models' validators demand of several keys together, for the OpenAPI document."""

from __future__ import annotations

from typing import Any


def _given_with(name: str, other: str) -> dict[str, Any]:
    """A parameter that has an effect only where another is true."""
    is_unset = {"properties": {name: {"type": "null"}}}
    return {"anyOf": [is_unset, {"properties": {other: {"const": True}}, "required": [other]}]}


def _not_both(values: list[Any], *names: str) -> dict[str, Any]:
    """At most one of these parameters has another value than these."""
    return {"anyOf": [{"properties": {name: {"enum": values}}} for name in names]}


_NO_CALLS = {"properties": {"tool_calls": {"anyOf": [{"type": "null"}, {"maxItems": 0, "type": "array"}]}}}
_CALLS = {"properties": {"tool_calls": {"minItems": 1, "type": "array"}}, "required": ["tool_calls"]}
_SAYS = {"properties": {"content": {"not": {"type": "null"}}}, "required": ["content"]}
_IS_ASSISTANT = {"properties": {"role": {"const": "assistant"}}}
_ECHO = {"properties": {"echo": {"const": True}}, "required": ["echo"]}
_ONE_PROMPT = {"properties": {"prompt": {"anyOf": [{"type": "string"}, {"items": {"type": "integer"}}]}}}

MESSAGE: dict[str, Any] = {"anyOf": [_SAYS, _CALLS], "allOf": [{"anyOf": [_NO_CALLS, _IS_ASSISTANT]}]}
CHAT: dict[str, Any] = {
    "allOf": [
        _given_with("stream_options", "stream"),
        _given_with("top_logprobs", "logprobs"),
        _not_both([None], "max_tokens", "max_completion_tokens"),
        _not_both([None], "reasoning_effort", "chat_template_kwargs"),
    ]
}
COMPLETION: dict[str, Any] = {
    "allOf": [
        _given_with("stream_options", "stream"),
        _not_both([None, False], "echo", "stream"),
        {"anyOf": [{"properties": {"max_tokens": {"not": {"const": 0}}}}, _ECHO]},
        {"anyOf": [{"properties": {"n": {"enum": [None, 1]}}}, _ONE_PROMPT]},
    ]
}

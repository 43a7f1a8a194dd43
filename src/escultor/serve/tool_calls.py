"""Calls of tools by our own models: in the events of an answer, and as a schema that constrains one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, cast

from escultor.errors import InputError
from escultor.serve.protocol import Delta, End, EngineEvent, GenerationRequest, TokenLogprob
from escultor.text.tool_calls import ToolCallParser, tool_names


async def with_tool_calls(
    events: AsyncIterator[EngineEvent], request: GenerationRequest
) -> AsyncIterator[EngineEvent]:
    """The events of an answer, in which calls of the request's tools are calls instead of text."""
    definitions = json.loads(request.tools)
    parser, logprobs = ToolCallParser(tool_names(definitions), definitions), []
    async with aclosing(cast("Any", events)) as source:
        async for event in source:
            if isinstance(event, Delta):
                logprobs += event.logprobs
                if event.fields:
                    yield replace(event, text="", logprobs=())
                for delta in _deltas(*parser.feed(event.text), logprobs):
                    yield delta
                    logprobs = []
            elif isinstance(event, End):
                for delta in _deltas(*parser.finish(), logprobs):
                    yield delta
                    logprobs = []
                if logprobs:
                    yield Delta("", tuple(logprobs))
                called = parser.count and event.finish_reason == "stop"
                yield replace(event, finish_reason="tool_calls") if called else event
            else:
                yield event


def _deltas(content: str, calls: list[dict[str, Any]], logprobs: list[TokenLogprob]) -> Iterator[Delta]:
    if content or calls:
        yield Delta(content, tuple(logprobs), {"tool_calls": calls} if calls else {})


def call_schema(tools: list[Any], name: str | None) -> dict[str, Any]:
    """The JSON schema of a call of the tool `name`, or of any. Raises InputError for an unknown name."""
    functions = [tool.get("function", tool) for tool in tools]
    chosen = [function for function in functions if name in (None, function["name"])]
    if not chosen:
        raise InputError("`tool_choice` names no tool of this request", name, tool_names(tools))
    calls = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": function.get("parameters") or {"type": "object"},
            },
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for function in chosen
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}

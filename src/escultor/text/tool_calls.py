"""Calls of tools in the text of a model: as each family writes them, to OpenAI's deltas.

    <tool_call>{"name": …, "arguments": …}</tool_call>     Hermes, Qwen, SmolLM; tags inside: Qwen3-Coder, GLM
    [TOOL_CALLS][{"name": …, "arguments": …}, …]           Mistral; [TOOL_CALLS]NAME[ARGS]{…} since version 11
    {"name": …, "parameters": …}                           Llama 3, and whatever a schema constrains
    <|channel|>commentary to=functions.NAME <|constrain|>json<|message|>{…}<|call|>        gpt-oss
    <|tool_call_begin|>functions.NAME:0<|tool_call_argument_begin|>{…}<|tool_call_end|>    Kimi-K2

The marks of a family may be control tokens that the text does not show; the JSON alone is recognised then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from escultor.errors import InputError
from escultor.ids import new_id
from escultor.text.call_forms import read_calls

CALL_END = "</tool_call>"
_CLOSERS = {  # by opener
    "<tool_call>": CALL_END,
    "[TOOL_CALLS]": "[TOOL_CALLS]",  # begins the next
    "<|python_tag|>": "",
    "<|tool_call|>": "",
    "<|tool_call_start|>": "<|tool_call_end|>",
    "<|tool_call_begin|>": "<|tool_call_end|>",
    "<｜tool▁call▁begin｜>": "<｜tool▁call▁end｜>",
    "<|channel|>commentary to=functions.": "<|call|>",
    "to=functions.": "<|call|>",
}
_AROUND = (  # several calls
    *("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    *("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
)
_MARKS = tuple(dict.fromkeys((*_CLOSERS, *filter(None, _CLOSERS.values()), *_AROUND)))
_MARK = re.compile("|".join(re.escape(mark) for mark in _MARKS))
_BEGINNINGS = sorted({mark[:n] for mark in _MARKS for n in range(1, len(mark))}, key=len, reverse=True)
_FIRST_OF_JSON = ("{", "[")


class ToolCallParser:
    """Splits a text that comes in pieces into content and calls of the tools with these names. What begins
    like a call is held until it is whole; what turns out not to be one is content. Every character is looked
    at a bounded number of times, however the text is cut."""

    def __init__(self, names: Sequence[str], definitions: Any = ()):
        self._names, self._types = frozenset(names), _types_of(definitions)
        self._undecided = ""  # the last characters, which may be the beginning of a mark
        self._opener = ""  # of the call that is being read
        self._held: list[str] = []  # the body of that call, or a text that may be JSON
        self._is_json = False  # whether what is held, outside of a call, begins like JSON
        self._has_content = False
        self.count = 0  # calls so far

    def feed(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        """The content and the calls that this piece completes."""
        text = self._undecided + text
        self._undecided = next((each for each in _BEGINNINGS if text.endswith(each)), "")
        text = text[: len(text) - len(self._undecided)]
        content: list[str] = []
        calls: list[dict[str, Any]] = []
        start = 0
        for mark in _MARK.finditer(text):
            content.append(self._read(text[start : mark.start()]))
            start = mark.end()
            if self._opener and mark[0] == _CLOSERS[self._opener]:
                body = self._release()
                found = self._calls(body)
                calls += found
                content.append("" if found else self._shown(self._opener + body + mark[0]))
                self._opener = mark[0] if found and mark[0] in _CLOSERS else ""
            elif mark[0] in _AROUND and not self._opener:
                continue
            elif not self._opener and mark[0] in _CLOSERS:
                content.append(self._shown(self._release()))
                self._opener = mark[0]
            else:
                content.append(self._read(mark[0]))
        content.append(self._read(text[start:]))
        return "".join(content), calls

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """The content and the calls that are left at the end of the text."""
        content = self._read(self._undecided)
        self._undecided = ""
        body = self._release()
        calls = self._calls(body)
        shown = "" if calls else self._shown(self._opener + body)
        self._opener = ""
        return content + shown, calls

    def _read(self, text: str) -> str:
        """Add a text without marks; what of it is content already."""
        if not text:
            return ""
        if self._opener or self._is_json:
            self._held.append(text)
            return ""
        if self._has_content:
            return self._shown(text)
        first = text.lstrip()[:1]
        if not first or first in _FIRST_OF_JSON:  # blanks, or what may be a call without marks
            self._held.append(text)
            self._is_json = bool(first)
            return ""
        return self._shown(self._release() + text)

    def _release(self) -> str:
        """The text that was held back; nothing is held any longer."""
        held, self._is_json = "".join(self._held), False
        self._held.clear()
        return held

    def _shown(self, text: str) -> str:
        """Text of the content; blanks between calls are none."""
        if self.count and not text.strip():
            return ""
        self._has_content = self._has_content or bool(text.strip())
        return text

    def _calls(self, body: str) -> list[dict[str, Any]]:
        """The calls that a text is, as deltas of OpenAI's stream; none where it is anything else."""
        found = read_calls(body, self._types) if body.strip() else []
        calls: list[dict[str, Any]] = []
        for name, arguments in found:
            if name not in self._names:
                return []
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            function = {"name": name, "arguments": text}
            index = self.count + len(calls)
            calls.append({"index": index, "id": new_id("call"), "type": "function", "function": function})
        self.count += len(calls)
        return calls


def _types_of(definitions: Any) -> dict[str, dict[str, Any]]:
    """By name of a tool the types of its parameters, as far as its definition tells them."""
    types: dict[str, dict[str, Any]] = {}
    for tool in definitions or ():
        function = tool.get("function", tool)
        parameters = function.get("parameters") or {}
        fields = parameters.get("properties") if isinstance(parameters, dict) else None
        if isinstance(fields, dict):
            own = {key: value.get("type") for key, value in fields.items() if isinstance(value, dict)}
            types[function["name"]] = own
    return types


def calls_in(text: str, tools: str) -> list[tuple[str, str]]:
    """The calls of tools in a whole answer, as names and JSON texts of arguments; `tools` is the JSON text of
    their definitions."""
    definitions = json.loads(tools)
    parser = ToolCallParser(tool_names(definitions), definitions)
    found = parser.feed(text)[1] + parser.finish()[1]
    return [(call["function"]["name"], call["function"]["arguments"]) for call in found]


def written_call(name: str, arguments: str) -> str:
    """A call as the text that `calls_in` reads."""
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}</tool_call>"


def tool_names(tools: Any) -> list[str]:
    """The names of tools in OpenAI's definitions. Raises InputError for a definition without one."""
    names = []
    for position, tool in enumerate(tools if isinstance(tools, list) else []):
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str) or not name:
            got = json.dumps(tool)[:80]
            raise InputError(
                f"`tools.{position}` names no function", got, "OpenAI's definition of a function"
            )
        names.append(name)
    return names

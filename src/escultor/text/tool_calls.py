"""Calls of tools in the text of a model: as each family writes them, to OpenAI's deltas.

    <tool_call>{"name": …, "arguments": …}</tool_call>     Hermes, Qwen, SmolLM
    [TOOL_CALLS][{"name": …, "arguments": …}, …]           Mistral
    {"name": …, "parameters": …}                           Llama 3, and whatever a schema constrains

The marks of a family may be control tokens that the text does not show; the JSON alone is recognised then.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from escultor.errors import InputError
from escultor.ids import new_id
from escultor.strict_json import strict_loads

CALL_END = "</tool_call>"
_CLOSERS = {"<tool_call>": CALL_END, "[TOOL_CALLS]": "", "<|python_tag|>": ""}  # by opener
_MARKS = (*_CLOSERS, CALL_END)
_MARK = re.compile("|".join(re.escape(mark) for mark in _MARKS))
_BEGINNINGS = sorted({mark[:n] for mark in _MARKS for n in range(1, len(mark))}, key=len, reverse=True)
_FIRST_OF_JSON = ("{", "[")
_ARGUMENTS = ("arguments", "parameters")


class ToolCallParser:
    """Splits a text that comes in pieces into content and calls of the tools with these names. What begins
    like a call is held until it is whole; what turns out not to be one is content. Every character is looked
    at a bounded number of times, however the text is cut."""

    def __init__(self, names: Sequence[str]):
        self._names = frozenset(names)
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
                self._opener = ""
            elif not self._opener and mark[0] in _CLOSERS:
                content.append(self._shown(self._release()))
                self._opener = mark[0]
            else:
                content.append(self._read(mark[0]))
        content.append(self._read(text[start:]))
        return "".join(content), calls

    def finish(self) -> tuple[str, list[dict[str, Any]]]:
        """What is held at the end of the text."""
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
        """What is held, which is no longer."""
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
        """The calls in JSON, as deltas of OpenAI's stream; none where it is anything else."""
        try:
            parsed = strict_loads(body)
        except ValueError:
            return []
        given = parsed if isinstance(parsed, list) else [parsed]
        calls = []
        for each in given:
            name = each.get("name") if isinstance(each, dict) else None
            key = next((key for key in _ARGUMENTS if isinstance(each, dict) and key in each), None)
            if name not in self._names or key is None:
                return []
            arguments = each[key]
            text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
            function = {"name": name, "arguments": text}
            index = self.count + len(calls)
            calls.append({"index": index, "id": new_id("call"), "type": "function", "function": function})
        self.count += len(calls)
        return calls


def calls_in(text: str, tools: str) -> list[tuple[str, str]]:
    """The calls of tools in a whole answer, as names and JSON texts of arguments; `tools` is the JSON text of
    their definitions."""
    parser = ToolCallParser(tool_names(json.loads(tools)))
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

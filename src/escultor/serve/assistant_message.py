"""The assistant's message of an answer, put together from the pieces of a stream: text, reasoning, calls.

A server's own fields (annotations, audio, signatures of thinking) are carried as they come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from escultor.types import ToolCall

# Fields with the model's reasoning, by server; where a piece has several, they hold the same text.
REASONING = ("reasoning_content", "reasoning", "thinking")
_JOINED = (*REASONING, "refusal")  # fields whose pieces are parts of one text
MAX_CALLS = 1024  # of one answer


class AssistantMessage:
    """What an answer holds beside its text."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._calls: list[dict[str, Any]] = []
        self._at: dict[Any, int] = {}  # where the call with an index of the stream stands now
        self.function_call: dict[str, Any] | None = None  # OpenAI's form before `tool_calls`
        self._other: dict[str, Any] = {}

    def add(self, fields: Mapping[str, Any]) -> None:
        """Add the fields of one piece of a stream, or of a whole message."""
        for name, value in fields.items():
            if value is None:
                continue
            if name == "tool_calls" and isinstance(value, list):
                for position, call in enumerate(value):
                    self._add_call(position, call)
            elif name == "function_call" and isinstance(value, Mapping):
                self.function_call = _joined(self.function_call or {}, value)
            elif name in _JOINED and isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            else:
                self._add_other(name, value)

    @property
    def reasoning(self) -> str:
        """The model's reasoning: the first field that holds any."""
        return next((text for name in REASONING if (text := "".join(self._texts.get(name, ())))), "")

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        calls = [(call.get("id"), call.get("function") or call.get("custom")) for call in self._calls]
        if self.function_call is not None:
            calls.append(("", self.function_call))
        return tuple(
            ToolCall(str(id or ""), str((made or {}).get("name") or ""), _arguments(made or {}))
            for id, made in calls
        )

    def fields(self) -> dict[str, Any]:
        """The fields of the whole message beside `role` and `content`."""
        fields: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._calls:
            fields["tool_calls"] = [dict(call) for call in self._calls]
        if self.function_call is not None:
            fields["function_call"] = self.function_call
        return fields | self._other

    def _add_call(self, position: int, piece: Any) -> None:
        """Join a piece to its call. Servers differ: an index may be missing, or be 0 for every call; a piece
        with another id, or with a name where the call has its own, begins a call."""
        if not isinstance(piece, Mapping):
            return
        index = piece.get("index", position)
        at = self._at.get(index) if isinstance(index, int | str) else None
        current = self._calls[at] if at is not None else None
        if current is None or _begins_another(current, piece):
            if len(self._calls) >= MAX_CALLS:
                return
            self._at[index if isinstance(index, int | str) else position] = len(self._calls)
            current = {"id": None, "type": "function"}
            self._calls.append(current)
        for name, value in piece.items():
            if name in ("function", "custom") and isinstance(value, Mapping):
                current[name] = _joined(current.get(name) or {}, value)
            elif name != "index" and value not in (None, ""):
                current[name] = value

    def _add_other(self, name: str, value: Any) -> None:
        """A field of the server's own: lists grow by their pieces, of anything else the last holds."""
        before = self._other.get(name)
        both_lists = isinstance(before, list) and isinstance(value, list)
        self._other[name] = [*before, *value] if both_lists else value  # type: ignore[misc]


def _begins_another(call: Mapping[str, Any], piece: Mapping[str, Any]) -> bool:
    id, made = piece.get("id"), piece.get("function")
    if not id or call.get("id") in (None, id):
        return False
    return isinstance(made, Mapping) and bool(made.get("name"))


def _joined(call: Mapping[str, Any], piece: Mapping[str, Any]) -> dict[str, Any]:
    """A function with a piece added: texts of arguments are joined, a name stands once."""
    joined = dict(call)
    for name, value in piece.items():
        if name in ("arguments", "input") and isinstance(value, str):
            before = joined.get(name)
            joined[name] = (before if isinstance(before, str) else "") + value
        elif value is not None:
            joined[name] = value
    return joined


def _arguments(made: Mapping[str, Any]) -> str:
    given = made.get("arguments", made.get("input", ""))
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)

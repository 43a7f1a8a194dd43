"""The assistant's message of an answer, put together from the pieces of a stream: text, reasoning, calls.

A server's own fields (annotations, audio, signatures of thinking) are carried as they come.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from escultor.data.row_messages import REASONING
from escultor.types import ToolCall

_JOINED = (*REASONING, "refusal")  # fields whose pieces are parts of one text
_TEXTS = ("arguments", "input")  # of a called function; theirs are joined too


class AssistantMessage:
    """What an answer holds beside its text."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._calls: list[_ToolCallParts] = []
        self._at: dict[Any, int] = {}  # where the call with an index of the stream stands now
        self._function_call: _CalledFunction | None = None  # OpenAI's form before `tool_calls`
        self._other: dict[str, Any] = {}
        self._own_lists: set[str] = set()  # names of lists in `_other` that are made here, and may grow

    def add(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Add the fields of one piece of a stream, or of a whole message. Returns them with every piece of a
        call under the index that the call has in this message, whatever index the server gave."""
        added = dict(fields)
        for name, value in fields.items():
            if value is None:
                continue
            if name == "tool_calls":
                pieces = value if isinstance(value, list) else []
                added[name] = [self._add_call(k, p) for k, p in enumerate(pieces) if isinstance(p, Mapping)]
            elif name == "function_call" and isinstance(value, Mapping):
                added[name] = value = _with_text(value)
                self._function_call = self._function_call or _CalledFunction()
                self._function_call.add(value)
            elif name in _JOINED and isinstance(value, str):
                self._texts.setdefault(name, []).append(value)
            else:
                self._add_other(name, value)
        return added

    @property
    def has_function_call(self) -> bool:
        """Whether a function is called in OpenAI's form before `tool_calls`."""
        return self._function_call is not None

    @property
    def reasoning(self) -> str:
        """The model's reasoning: the first field that holds any."""
        return next((text for name in REASONING if (text := "".join(self._texts.get(name, ())))), "")

    @property
    def tool_calls(self) -> tuple[ToolCall, ...]:
        calls = [(call.fields["id"], call.called.whole()) for call in self._calls]
        if self._function_call is not None:
            calls.append(("", self._function_call.whole()))
        return tuple(
            ToolCall(str(id or ""), str(called.get("name") or ""), _arguments(called)) for id, called in calls
        )

    @property
    def refusal(self) -> str:
        """What the model says in place of an answer that it refuses."""
        return "".join(self._texts.get("refusal", ()))

    @property
    def extras(self) -> dict[str, Any]:
        """What the message holds that no field of a row has a place for."""
        return self._other | ({"refusal": self.refusal} if self.refusal else {})

    def fields(self) -> dict[str, Any]:
        """The fields of the whole message beside `role` and `content`."""
        fields: dict[str, Any] = {name: "".join(pieces) for name, pieces in self._texts.items()}
        if self._calls:
            fields["tool_calls"] = [{**call.fields, call.kind: call.called.whole()} for call in self._calls]
        if self._function_call is not None:
            fields["function_call"] = self._function_call.whole()
        return fields | self._other

    def _add_call(self, position: int, piece: Mapping[str, Any]) -> dict[str, Any]:
        """Join a piece to its call; the piece under the call's index. Servers differ: an index may be
        missing, or be 0 for every call; a piece that `_ToolCallParts.ends_before` begins another."""
        if isinstance(function := piece.get("function"), Mapping):
            piece = {**piece, "function": _with_text(function)}
        given = piece.get("index")
        key = given if isinstance(given, int | str) else position
        at = self._at.get(key)
        if at is None or self._calls[at].ends_before(piece):
            at = self._at[key] = len(self._calls)
            self._calls.append(_ToolCallParts())
        self._calls[at].add(piece)
        return {**piece, "index": at}

    def _add_other(self, name: str, value: Any) -> None:
        """A field of the server's own: lists grow by their pieces, of anything else the last holds."""
        if not isinstance(value, list):
            self._other[name] = value
            self._own_lists.discard(name)
        elif name in self._own_lists:
            self._other[name] += value
        else:
            self._other[name] = list(value)
            self._own_lists.add(name)


class _CalledFunction:
    """A function, or a custom tool, that is called; the text it is given comes in pieces."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._pieces: dict[str, list[str]] = {}

    def add(self, piece: Mapping[str, Any]) -> None:
        for name, value in piece.items():
            if name in _TEXTS and isinstance(value, str):
                self._pieces.setdefault(name, []).append(value)
            elif value not in (None, ""):
                self._fields[name] = value

    @property
    def is_whole(self) -> bool:
        """Whether it has a name, and arguments that may be all there."""
        return bool(self._fields.get("name")) and self._last().rstrip().endswith("}")

    def whole(self) -> dict[str, Any]:
        return self._fields | {name: "".join(pieces) for name, pieces in self._pieces.items()}

    def _last(self) -> str:
        return next((pieces[-1] for pieces in self._pieces.values()), "")


class _ToolCallParts:
    """One call of a tool."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {"id": None, "type": "function"}  # beside what is called
        self.kind, self.called = "function", _CalledFunction()

    def add(self, piece: Mapping[str, Any]) -> None:
        for name, value in piece.items():
            if name in ("function", "custom"):
                if isinstance(value, Mapping):
                    self.kind = name
                    self.called.add(value)
            elif name != "index" and value not in (None, ""):
                self.fields[name] = value

    def ends_before(self, piece: Mapping[str, Any]) -> bool:
        """Whether a piece under the same index begins another call: it names a function, and has another id,
        or neither has one and the arguments here are whole."""
        called, id, own = piece.get("function"), piece.get("id"), self.fields["id"]
        if not isinstance(called, Mapping) or not called.get("name"):
            return False
        return id != own if id and own else not id and not own and self.called.is_whole


def reasoning_piece(fields: Mapping[str, Any]) -> str:
    """The reasoning in the fields of one piece of a stream; fields that both hold it hold the same."""
    texts = (fields.get(name) for name in REASONING)
    return next((text for text in texts if isinstance(text, str) and text), "")


def _with_text(function: Mapping[str, Any]) -> dict[str, Any]:
    """A called function whose arguments are a text, as clients read them: some servers send an object."""
    given = function.get("arguments")
    text = "" if given is None else json.dumps(given, ensure_ascii=False)
    return {**function, "arguments": given if isinstance(given, str) else text}


def _arguments(called: Mapping[str, Any]) -> str:
    given = called.get("arguments", called.get("input", ""))
    return given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)

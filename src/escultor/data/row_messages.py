"""The messages, answers and tools of a row of JSON, in OpenAI's form, as records and back.

A key whose value is null counts as absent: tables with one schema for all rows fill what a row lacks with
nulls.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from typing import Any

from escultor.errors import format_message
from escultor.strict_json import JsonObject, strict_loads
from escultor.types import Message, Messages, Role, ToolCall

SHAPES = (
    "{text}, {prompt, completion}, {messages}, {prompt, chosen, rejected}, or {prompt, completion} or"
    " {messages} with {label}"
)
CALL = '{"id": TEXT, "type": "function", "function": {"name": TEXT, "arguments": TEXT}}'
_ROLES = {**{str(role): role for role in Role}, "function": Role.TOOL}
_PLAIN = {"role", "content"}
REASONING = ("reasoning_content", "reasoning", "thinking")  # DeepSeek and vLLM, OpenRouter, Ollama
_LEARNT = (  # keys of a turn that say whether it is learnt, in the order of precedence
    *("weight", "train", "loss", "training", "train_on_turn", "loss_weight", "loss_mask", "trainable"),
    "learn",
)
_GOOD = "1 true yes good up thumbs_up thumbsup like liked chosen accepted positive desirable correct"
_BAD = "0 -1 false no bad down thumbs_down thumbsdown dislike disliked rejected negative undesirable wrong"
_GOOD += " upvote upvoted helpful sim bom boa certo correto correta positivo gostei si sí bueno"
_BAD += " downvote downvoted unhelpful não nao ruim errado errada incorreto negativo não_gostei malo"
_LABELS = dict.fromkeys((*_GOOD.split(), "👍"), True)
_LABELS |= dict.fromkeys((*_BAD.split(), "incorrect", "👎"), False)
_TEXTS = frozenset((*REASONING, "tool_call_id", "name", "refusal", "token_ids"))
_KEYS = _TEXTS | _PLAIN | {"tool_calls", "function_call", *_LEARNT}
_TEXT_PARTS = ("text", "input_text", "output_text")


class Fault(Exception):
    """A row is broken; the arguments are the parts of an error message."""

    def __str__(self) -> str:
        return format_message(*self.args)


class Skip(Exception):
    """A sound row is left out; the argument is the reason under which it is counted."""


def short(value: object) -> str:
    """A value for an error message, on one line of at most 80 characters."""
    try:
        text = ascii(value[:100] if isinstance(value, str | list) else value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def given(value: JsonObject) -> JsonObject:
    """The keys of an object that are not null."""
    return {key: each for key, each in value.items() if each is not None}


def label_of(value: Any) -> bool:
    """A verdict as true (a good answer) or false: also 1 and 0 or -1, as numbers or text, and the words that
    people have for them. Raises Fault for others."""
    if isinstance(value, bool):
        return value
    key = str(int(value)) if isinstance(value, float) and value in (-1, 0, 1) else str(value).strip().lower()
    if isinstance(value, int | float | str) and (key := re.sub(r"[\s-](?!\d)", "_", key)) in _LABELS:
        return _LABELS[key]
    raise Fault("`label` is of the wrong type", short(value), "true or 1 (a good answer), false or 0")


def turn_weight(turn: JsonObject, key: str) -> int | None:
    """Whether the turn at `key` is learnt (1, 0), by whatever key of it says so; None where none does. Raises
    Fault for a weight between, and for `mask`, written for what is learnt and for what is not."""
    if turn.get("mask") is not None:
        remedy = "name it `weight`: 1 for turns that are learnt, 0 for the others"
        raise Fault(f"`{key}.mask` can be read both ways", short(turn["mask"]), "`weight`", remedy)
    if turn.get("train_detail") or turn.get("training_detail"):
        what, remedy = f"`{key}.train_detail` marks parts of a turn", "give the turn a `weight`, or split it"
        raise Fault(what, None, "turns learnt whole or not at all", remedy)
    value = next((turn[key] for key in _LEARNT if turn.get(key) is not None), None)
    if isinstance(value, str) and value.strip().lower() in ("true", "false", "0", "1"):
        value = value.strip().lower() in ("true", "1")
    if value is not None and not isinstance(value, bool | int | float):
        raise Fault(f"`{key}.weight` is of the wrong type", short(value), "0 or 1, true or false")
    if value not in (None, 0, 1):
        remedy = "give the whole row a `weight`"
        raise Fault(f"`{key}.weight` is neither 0 nor 1", short(value), "0 (not learnt) or 1", remedy)
    return None if value is None else int(value)


def field_of(row: JsonObject, key: str) -> Any:
    """A value that a row must have. Raises Fault where the key is missing, Skip where it is null."""
    value = row.get(key)
    if value is None:
        if key in row:
            raise Skip(f"empty {key}")
        raise Fault(f"`{key}` is missing", short(sorted(row)), SHAPES)
    return value


def text_of(row: JsonObject, key: str, name: str = "") -> str:
    """A text that a row must have; see `field_of`."""
    value = field_of(row, key)
    if not isinstance(value, str):
        raise Fault(f"`{name or key}` is of the wrong type", short(value), "text")
    return value


def messages_of(value: Any, key: str, counts: Counter[str], learnt: bool = False) -> Messages:
    """Messages; a text is one of the user. An assistant's message without a `weight` of its own is `learnt`
    as given here. Keys that are not used are counted."""
    if isinstance(value, str):
        return (Message(Role.USER, value),)
    if not isinstance(value, list):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text or a list of messages")
    return tuple([_message(each, key, i, counts, learnt) for i, each in enumerate(value)])


def answer_of(row: JsonObject, key: str, prompt: Messages, counts: Counter[str]) -> Messages:
    """An answer as messages of which the last is the assistant's: a text, a message, or messages, which may
    come after the repeated prompt. Of several, all of the assistant's are `learnt` unless their weight is 0.
    """
    value = field_of(row, key)
    if isinstance(value, str):
        return (Message(Role.ASSISTANT, value, learnt=True),)
    messages = messages_of([value] if isinstance(value, dict) else value, key, counts, learnt=True)
    if without_marks(messages[: len(prompt)]) == without_marks(prompt):
        messages = messages[len(prompt) :]
    if not messages or {messages[0].role, messages[-1].role} != {Role.ASSISTANT}:
        got = short([str(message.role) for message in messages])
        allowed = "text, one message of role assistant, or the row's prompt followed by one"
        raise Fault(f"`{key}` is not an answer to the prompt", got, allowed)
    if not messages[-1].learnt:
        raise Skip(f"{key} of weight 0")
    return messages


def without_marks(messages: Messages) -> Messages:
    """Messages of which none is learnt."""
    return tuple(replace(m, learnt=False) if m.learnt else m for m in messages)


def is_empty(answer: Message) -> bool:
    """Whether an answer has neither text nor calls."""
    return not (answer.tool_calls or answer.content.strip())


def tools_of(row: JsonObject) -> str:
    """The JSON text of a row's tool definitions; empty without any. `tools` is a list or its JSON text;
    `functions`, OpenAI's older key, holds their functions."""
    value = row.get("tools")
    if isinstance(value, str):
        try:
            value = strict_loads(value) if value.strip() else None
        except ValueError as error:
            raise Fault("`tools` is not JSON", short(value), "a list of definitions or its text") from error
    if value is None and isinstance(row.get("functions"), list):
        value = [{"type": "function", "function": each} for each in row["functions"]]
    if value is None:
        return ""
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise Fault("`tools` is of the wrong type", short(value), "a list of definitions or its JSON text")
    definitions = [each for each in map(_without_nulls, value) if each]
    return json.dumps(definitions, ensure_ascii=False) if definitions else ""


def message_row(message: Message) -> JsonObject:
    """The JSON object of a message, from which `messages_of` restores it."""
    row: JsonObject = {"role": str(message.role), "content": message.content}
    if message.reasoning:
        row["reasoning_content"] = message.reasoning
    if message.tool_calls:
        row["tool_calls"] = [
            {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        row["tool_call_id"] = message.tool_call_id
    if message.name:
        row["name"] = message.name
    if message.token_ids:
        row["token_ids"] = message.token_ids
    if message.learnt:
        row["weight"] = 1
    return row


# --- one message ------------------------------------------------------------------------------


def _message(value: Any, list_key: str, at: int, counts: Counter[str], learnt: bool) -> Message:
    name = value.get("role") if isinstance(value, dict) else None
    role = _ROLES.get(name) if isinstance(name, str) else None
    if role is not None and len(value) == 2 and isinstance(content := value.get("content"), str):
        return Message(role, content, learnt=learnt and role is Role.ASSISTANT)
    key = f"{list_key}[{at}]"
    if name is None:
        raise Fault(f"`{key}` is not a message", short(value), '{"role": TEXT, "content": TEXT, ...}')
    if role is None:
        raise Fault(f"`{key}` has an unknown role", short(name), list(_ROLES))
    present = given(value)
    for other in present.keys() & {"audio", "parts"}:  # of OpenAI's answers, and of logged messages
        raise Skip(f"content that is no text: {other}")
    for other in present.keys() - _KEYS:
        counts[f"key not used: messages.{other}"] += 1
    texts = {each: text_of(present, each, f"{key}.{each}") for each in _TEXTS & present.keys()}
    calls = _tool_calls(present, key)
    if "content" not in value and not calls:
        raise Fault(f"`{key}.content` is missing", short(value), "text, or tool_calls")
    return Message(
        role,
        _content(present.get("content", ""), f"{key}.content") or texts.get("refusal", ""),
        reasoning=next((texts[each] for each in REASONING if texts.get(each)), ""),
        tool_calls=calls,
        tool_call_id=texts.get("tool_call_id", ""),
        name=texts.get("name", ""),
        token_ids=texts.get("token_ids", ""),
        learnt=_is_learnt(present, key, role, counts, learnt),
    )


def _content(value: Any, key: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text or a list of parts")
    return "".join(_part(each, f"{key}[{i}]") for i, each in enumerate(value))


def _part(value: Any, key: str) -> str:
    """The text of a part. Raises Skip for a part that is no text: without it the row has another meaning."""
    if isinstance(value, str):
        return value
    kind = value.get("type", "text") if isinstance(value, dict) else None
    if isinstance(kind, str) and kind not in _TEXT_PARTS:
        raise Skip(f"content that is no text: {kind[:40]}")
    if kind is None or not isinstance(value.get("text"), str):
        raise Fault(f"`{key}` is not a part of a message", short(value), '{"type": "text", "text": TEXT}')
    return value["text"]


def _is_learnt(message: JsonObject, key: str, role: Role, counts: Counter[str], default: bool) -> bool:
    weight = turn_weight(message, key)
    if role is not Role.ASSISTANT:
        if weight:
            counts[f"weight of a message not used: {role}"] += 1
        return False
    return default if weight is None else bool(weight)


def _tool_calls(message: JsonObject, key: str) -> tuple[ToolCall, ...]:
    """The calls of a message; `function_call` is OpenAI's older key for a single one."""
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list):
        raise Fault(f"`{key}.tool_calls` is of the wrong type", short(calls), "a list of calls")
    if not calls and "function_call" in message:
        calls = [{"function": message["function_call"]}]
    return tuple(_tool_call(each, f"{key}.tool_calls[{i}]") for i, each in enumerate(calls))


def _tool_call(value: Any, key: str) -> ToolCall:
    """A call; one without the wrapping `function` is read too, as templates take both."""
    function = (value.get("function") or value) if isinstance(value, dict) else None
    if not isinstance(function, dict) or "name" not in function:
        raise Fault(f"`{key}` is not a call of a tool", short(value), CALL)
    arguments = function.get("arguments")
    if not isinstance(arguments, str):
        arguments = json.dumps({} if arguments is None else _without_nulls(arguments), ensure_ascii=False)
    return ToolCall(str(value.get("id") or ""), text_of(function, "name", f"{key}.function.name"), arguments)


def _without_nulls(value: Any) -> Any:
    """An object without its null keys, at any depth. Raises Fault for one that is nested too deeply."""
    try:
        if isinstance(value, dict):
            return {k: _without_nulls(v) for k, v in value.items() if v is not None}
        return [_without_nulls(each) for each in value] if isinstance(value, list) else value
    except RecursionError as error:
        raise Fault("a value is nested too deeply", type(value).__name__, "JSON of some depth") from error

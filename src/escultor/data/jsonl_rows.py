"""One row of JSON as a training item and back, checked strictly and without guessing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

from escultor.errors import format_message
from escultor.ids import hash_value
from escultor.strict_json import JsonObject, no_constant
from escultor.types import (
    Consent,
    Document,
    Example,
    Message,
    Messages,
    Origin,
    Pair,
    Role,
    RowKind,
    ToolCall,
    UnpairedExample,
)

TrainingItem = Document | Example | Pair | UnpairedExample
KINDS: tuple[RowKind, ...] = get_args(RowKind)
KEYS: dict[RowKind, frozenset[str]] = {
    "document": frozenset(("text", "id", "origin")),
    "example": frozenset(("prompt", "completion", "messages", "id", "weight", "origin")),
    "pair": frozenset(("prompt", "chosen", "rejected", "id", "weight", "flip_rate", "origin")),
    "unpaired": frozenset(("prompt", "completion", "label", "id", "weight", "origin")),
}
SHAPES = "{text}, {prompt, completion}, {messages}, {prompt, chosen, rejected} or {prompt, completion, label}"
TYPE_OF_KIND: dict[RowKind, type[TrainingItem]] = {
    "document": Document,
    "example": Example,
    "pair": Pair,
    "unpaired": UnpairedExample,
}
FIELD_OF_KEY = {"completion": "response", "label": "desirable"}  # keys that items name otherwise
MESSAGE_TEXTS = frozenset(("content", "reasoning_content", "tool_call_id", "name"))
MESSAGE_KEYS = MESSAGE_TEXTS | {"role", "tool_calls", "weight"}
MAX_WEIGHT = 1e30  # and its inverse is the least: both are finite and not 0 as float32


class Fault(Exception):
    """A row is broken; the arguments are the parts of an error message."""

    def __str__(self) -> str:
        return format_message(*self.args)


class Skip(Exception):
    """A sound row is left out; the argument is the reason under which it is counted."""


def build(kind: RowKind, row: JsonObject, counts: Counter[str], where: str) -> TrainingItem:
    """The item of a row. `where` becomes its origin if it has none; keys that are not used are counted.

    Raises Fault for a broken row, Skip for one with nothing to learn.
    """
    item = _BUILDERS[kind](row, counts, where)
    for key in row.keys() - KEYS[kind]:
        counts[f"key not used: {key}"] += 1
    return item


def kind_of_row(row: JsonObject) -> RowKind | None:
    """The kind of a row by its keys; None if it is of none."""
    keys = row.keys()
    if keys >= {"chosen", "rejected"}:
        return "pair"
    if keys >= {"prompt", "completion", "label"}:
        return "unpaired"
    if "messages" in keys or keys >= {"prompt", "completion"}:
        return "example"
    return "document" if "text" in keys else None


def decode(line: bytes) -> JsonObject:
    """The JSON object of a line. Stricter than `json`: no NaN, no repeated keys, no lone surrogates.

    Raises Fault for anything else.
    """
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        got = f"byte {line[error.start]:#04x} at byte {error.start + 1} of the line"
        raise Fault("the line is not UTF-8", got, "UTF-8", "save the file as UTF-8") from error
    try:
        row = json.loads(text, object_pairs_hook=_object, parse_constant=no_constant)
        # Only an escape can be a lone surrogate, which UTF-8 cannot encode.
        is_unicode = "\\u" not in text or _is_unicode(json.dumps(row, ensure_ascii=False))
    except (ValueError, RecursionError) as error:
        is_syntax = isinstance(error, json.JSONDecodeError)
        message = f"{error.msg.removesuffix(' at')} at column {error.colno}" if is_syntax else error
        remedy = None if line.endswith(b"\n") else "the last line seems cut short; copy the file again"
        raise Fault("the line is not JSON", message, "one JSON object on each line", remedy) from error
    if not isinstance(row, dict):
        raise Fault("the row is not an object", short(row), SHAPES, "write one JSON object on each line")
    if not is_unicode:
        got = "half of a surrogate pair written as \\ud800 … \\udfff"
        raise Fault("the row has an invalid escape", got, "Unicode text", "correct the escape")
    return row


def _object(pairs: list[tuple[str, Any]]) -> JsonObject:
    unique = dict(pairs)
    if len(unique) < len(pairs):
        repeated = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        raise Fault("the row gives a key twice", short(repeated), "each key once", "remove one")
    return unique


# --- rows -------------------------------------------------------------------------------------


def _document(row: JsonObject, counts: Counter[str], where: str) -> Document:
    text = _text(row, "text")
    if not text.strip():
        raise Skip("empty text")
    return Document(_id(row, ["document", text]), text, _origin(row, "document", where))


def _example(row: JsonObject, counts: Counter[str], where: str) -> Example:
    if "messages" in row:
        if extra := row.keys() & {"prompt", "completion"}:
            remedy = "give either"
            raise Fault("the row has two shapes", sorted({"messages", *extra}), SHAPES, remedy)
        prompt, response = _last_answer(row["messages"], counts)
    else:
        prompt = _messages(_field(row, "prompt"), "prompt")
        response = _answer(row, "completion", prompt)
    _refuse_empty(prompt, completion=response)
    weight = _weight(row)
    id = _id(row, ["example", prompt, response, weight])
    return Example(id, prompt, response, _origin(row, "example", where), weight)


def _pair(row: JsonObject, counts: Counter[str], where: str) -> Pair:
    if "prompt" not in row and isinstance(row.get("chosen"), list) and len(row["chosen"]) > 1:
        prompt = _messages(row["chosen"], "chosen")[:-1]
    else:
        prompt = _messages(_field(row, "prompt"), "prompt")
    chosen, rejected = _answer(row, "chosen", prompt), _answer(row, "rejected", prompt)
    _refuse_empty(prompt, chosen=chosen, rejected=rejected)
    if chosen == rejected:
        raise Skip("chosen equals rejected")
    weight, flip_rate = _weight(row), _number(row, "flip_rate", 0.0)
    if not 0 <= flip_rate < 0.5:
        raise Fault("`flip_rate` is out of range", flip_rate, "0 to below 0.5; from 0.5 on swap the sides")
    id, origin = _id(row, ["pair", prompt, chosen, rejected, weight, flip_rate]), _origin(row, "pair", where)
    return Pair(id, prompt, chosen, rejected, origin=origin, weight=weight, flip_rate=flip_rate)


def _unpaired(row: JsonObject, counts: Counter[str], where: str) -> UnpairedExample:
    prompt = _messages(_field(row, "prompt"), "prompt")
    response = _answer(row, "completion", prompt)
    _refuse_empty(prompt, completion=response)
    label, weight = _field(row, "label"), _weight(row)
    if not isinstance(label, bool):
        raise Fault("`label` is of the wrong type", short(label), "true (a good answer) or false")
    # "judged" was the name of this kind when ids were first made: the same content keeps its id.
    id, origin = _id(row, ["judged", prompt, response, label, weight]), _origin(row, "unpaired", where)
    return UnpairedExample(id, prompt, response, label, origin=origin, weight=weight)


_BUILDERS: dict[RowKind, Callable[[JsonObject, Counter[str], str], TrainingItem]] = {
    "document": _document,
    "example": _example,
    "pair": _pair,
    "unpaired": _unpaired,
}


def _last_answer(value: Any, counts: Counter[str]) -> tuple[Messages, str]:
    if not isinstance(value, list):
        raise Fault("`messages` is not a list", short(value), "a list of messages")
    messages = _messages(value, "messages")
    last = max((i for i, message in enumerate(messages) if message.role is Role.ASSISTANT), default=None)
    if last is None:
        got = short([str(message.role) for message in messages])
        raise Fault("`messages` has no answer", got, "at least one message of role assistant")
    if more := len(messages) - last - 1:
        counts["messages after the last answer left out"] += more
    return messages[:last], messages[last].content


def _answer(row: JsonObject, key: str, prompt: Messages) -> str:
    """An answer: text, or one message of the assistant, which may come after the repeated prompt."""
    value = _field(row, key)
    if isinstance(value, str):
        return value
    messages = _messages(value, key)
    if not messages or messages[-1].role is not Role.ASSISTANT or messages[:-1] not in ((), prompt):
        got = short([str(message.role) for message in messages])
        allowed = "text, one message of role assistant, or the row's prompt followed by one"
        raise Fault(f"`{key}` is not an answer to the prompt", got, allowed)
    return messages[-1].content


def _messages(value: Any, key: str, learnt: bool = False) -> Messages:
    """Messages; an assistant's one without a `weight` of its own is `learnt` as given here."""
    if isinstance(value, str):
        return (Message(Role.USER, value),)
    if not isinstance(value, list):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text or a list of messages")
    return tuple(_message(each, f"{key}[{i}]", learnt) for i, each in enumerate(value))


def _message(value: Any, key: str, learnt: bool) -> Message:
    if not isinstance(value, dict) or not {"role"} <= value.keys() <= MESSAGE_KEYS:
        allowed = f'{{"role": ..., "content": TEXT}} and, where they apply, {sorted(MESSAGE_KEYS)}'
        raise Fault(f"`{key}` is not a message", short(value), allowed)
    if value["role"] not in list(Role):
        raise Fault(f"`{key}` has an unknown role", short(value["role"]), [str(role) for role in Role])
    role, given = Role(value["role"]), {name: v for name, v in value.items() if v is not None}
    calls = tuple(_tool_call(each, f"{key}.tool_calls[{i}]") for i, each in enumerate(_list(given, key)))
    texts = {name: _text(given, name, f"{key}.{name}") for name in MESSAGE_TEXTS & given.keys()}
    if "content" not in given and not calls:
        raise Fault(f"`{key}.content` is missing", short(value), "text, or tool_calls")
    return Message(
        role,
        texts.get("content", ""),
        reasoning=texts.get("reasoning_content", ""),
        tool_calls=calls,
        tool_call_id=texts.get("tool_call_id", ""),
        name=texts.get("name", ""),
        learnt=role is Role.ASSISTANT and _number(given, "weight", float(learnt)) > 0,
    )


def _list(message: JsonObject, key: str) -> list[Any]:
    calls = message.get("tool_calls", [])
    if not isinstance(calls, list):
        raise Fault(f"`{key}.tool_calls` is of the wrong type", short(calls), "a list of calls")
    return calls


def _tool_call(value: Any, key: str) -> ToolCall:
    function = value.get("function") if isinstance(value, dict) else None
    if not isinstance(function, dict):
        allowed = '{"id": TEXT, "type": "function", "function": {"name": TEXT, "arguments": TEXT}}'
        raise Fault(f"`{key}` is not a call of a tool", short(value), allowed)
    arguments = function.get("arguments", "{}")
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return ToolCall(str(value.get("id") or ""), _text(function, "name", f"{key}.function.name"), text)


def message_row(message: Message) -> JsonObject:
    """The JSON object of a message, in OpenAI's form, from which `build` restores it."""
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.tool_calls
    ]
    extra = {
        "reasoning_content": message.reasoning,
        "tool_calls": calls,
        "tool_call_id": message.tool_call_id,
        "name": message.name,
        "weight": int(message.learnt),
    }
    row = {"role": str(message.role), "content": message.content}
    return row | {name: value for name, value in extra.items() if value}


def _field(row: JsonObject, key: str) -> Any:
    if key not in row:
        raise Fault(f"`{key}` is missing", short(sorted(row)), SHAPES)
    return row[key]


def _text(row: JsonObject, key: str, name: str = "") -> str:
    value = _field(row, key)
    if not isinstance(value, str):
        raise Fault(f"`{name or key}` is of the wrong type", short(value), "text")
    return value


def _number(row: JsonObject, key: str, default: float) -> float:
    value = row.get(key, default)
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise Fault(f"`{key}` is of the wrong type", short(value), "a finite number")


def _weight(row: JsonObject) -> float:
    weight = _number(row, "weight", 1.0)
    if weight <= 0:
        raise Fault("`weight` is too small", weight, "a number above 0", "leave the row out")
    if not 1 / MAX_WEIGHT <= weight <= MAX_WEIGHT:  # 0 or infinite once it is a float32
        raise Fault("`weight` is out of range", weight, f"{1 / MAX_WEIGHT:g} to {MAX_WEIGHT:g}")
    return weight


def _id(row: JsonObject, content: list[object]) -> str:
    """The id of a row; without one, the hash of its content."""
    if "id" not in row:
        return hash_value(content)
    if not _text(row, "id"):
        raise Fault("`id` is empty", None, "text that is not empty", "leave it out")
    return row["id"]


def _origin(row: JsonObject, kind: RowKind, where: str) -> Origin:
    """The origin that an exported row states; otherwise the place it is imported from.

    Raises Skip for a row whose origin does not allow training.
    """
    if "origin" not in row:
        return Origin((where,), f"import/{kind}/1")
    value = row["origin"]
    try:
        parents, rule, consent = value["parents"], value["rule"], Consent(value["consent"])
        is_valid = value.keys() == {"parents", "rule", "consent"} and isinstance(rule, str)
    except (KeyError, TypeError, ValueError, AttributeError):
        is_valid, parents, rule, consent = False, (), "", Consent.NONE
    if not is_valid or not isinstance(parents, list) or not all(isinstance(p, str) for p in parents):
        allowed = f"{{parents: list of text, rule: text, consent: {' | '.join(Consent)}}}"
        raise Fault("`origin` cannot be read", short(value), allowed, "leave it out")
    if consent is not Consent.TRAIN:
        raise Skip(f"no consent to train: {consent}")
    return Origin(tuple(parents), rule, consent)


def _refuse_empty(prompt: Messages, **answers: str) -> None:
    if not any(message.content.strip() for message in prompt):
        raise Skip("empty prompt")
    for name, text in answers.items():
        if not text.strip():
            raise Skip(f"empty {name}")


def row_of(item: TrainingItem) -> JsonObject:
    """The row of an item, from which `build` restores it."""
    if not isinstance(item, Document | Example | Pair | UnpairedExample):
        raise TypeError(f"a {type(item).__name__} is not a training item")
    origin = {"parents": list(item.origin.parents), "rule": item.origin.rule, "consent": item.origin.consent}
    if isinstance(item, Document):
        return {"text": item.text, "id": item.id, "origin": origin}
    prompt = [message_row(message) for message in item.prompt]
    if isinstance(item, Pair):
        answers = {"chosen": item.chosen, "rejected": item.rejected, "flip_rate": item.flip_rate}
    elif isinstance(item, Example):
        answers = {"completion": item.response}
    else:
        answers = {"completion": item.response, "label": item.desirable}
    return {"prompt": prompt, **answers, "id": item.id, "origin": origin, "weight": item.weight}


def short(value: object) -> str:
    """A value for an error message, on one line of at most 80 characters."""
    try:
        text = ascii(value[:100] if isinstance(value, str | list) else value)
    except RecursionError:
        text = f"a deeply nested {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

"""One line of JSON to one noun and back: what a row may say, checked strictly and without guessing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from typing import Any, get_args

from escultor.errors import say
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
WEIGHT_LIMIT = 1e30  # and its inverse


class Fault(Exception):
    """Why a row is broken: the parts of a message."""

    def __str__(self) -> str:
        return say(*self.args)


class Skip(Exception):
    """Why a row is left out: a reason to count."""


def build(kind: RowKind, row: dict[str, Any], counts: Counter[str], where: str) -> TrainingItem:
    """The noun that a row says; `where` names it as its own origin. Adds to `counts` what is not used.

    Raises Fault for a row that is broken, Skip for one that teaches nothing.
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


def decode(line: bytes) -> dict[str, Any]:
    """The JSON object of a line; strict where `json` is not (NaN, keys given twice, half characters)."""
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        at = f"byte {line[error.start]:#04x} at byte {error.start + 1} of the line"
        raise Fault("the line is not UTF-8", at, "UTF-8", "save the file as UTF-8") from error
    try:
        row = json.loads(text, object_pairs_hook=_object, parse_constant=no_constant)
        written = json.dumps(row, ensure_ascii=False) if "\\u" in text else ""
    except (ValueError, RecursionError) as error:
        got: object = error
        if isinstance(error, json.JSONDecodeError):
            got = f"{error.msg.removesuffix(' at')} at column {error.colno}"
        remedy = None if line.endswith(b"\n") else "the last line seems cut short; copy the file again"
        raise Fault("the line is not JSON", got, "one JSON object on each line", remedy) from error
    if not isinstance(row, dict):
        raise Fault("the row is no object", short(row), SHAPES, "write one JSON object on each line")
    if not _is_unicode(written):
        got = "half of a surrogate pair written as \\ud800 … \\udfff"
        raise Fault("the row holds what is no character", got, "Unicode text", "correct the escape")
    return row


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = [key for key, n in Counter(key for key, _ in pairs).items() if n > 1]
        raise Fault("the row gives a key twice", short(twice), "each key once", "remove one")
    return found


# --- rows -------------------------------------------------------------------------------------


def _document(row: dict[str, Any], counts: Counter[str], where: str) -> Document:
    text = _text(row, "text")
    if not text.strip():
        raise Skip("empty text")
    return Document(_id(row, "document", text), text, _origin(row, "document", where))


def _example(row: dict[str, Any], counts: Counter[str], where: str) -> Example:
    if "messages" in row:
        if extra := row.keys() & {"prompt", "completion"}:
            remedy = "give either"
            raise Fault("the row has two shapes", sorted({"messages", *extra}), SHAPES, remedy)
        prompt, response = _last_answer(row["messages"], counts)
    else:
        prompt = _said(_field(row, "prompt"), "prompt")
        response = _answer(row, "completion", prompt)
    _refuse_empty(prompt, completion=response)
    weight = _weight(row)
    id = _id(row, "example", prompt, response, weight)
    return Example(id, prompt, response, _origin(row, "example", where), weight)


def _pair(row: dict[str, Any], counts: Counter[str], where: str) -> Pair:
    if "prompt" not in row and isinstance(row.get("chosen"), list) and len(row["chosen"]) > 1:
        prompt = _said(row["chosen"], "chosen")[:-1]
    else:
        prompt = _said(_field(row, "prompt"), "prompt")
    chosen, rejected = _answer(row, "chosen", prompt), _answer(row, "rejected", prompt)
    _refuse_empty(prompt, chosen=chosen, rejected=rejected)
    if chosen == rejected:
        raise Skip("chosen equals rejected")
    weight, flip_rate = _weight(row), _number(row, "flip_rate", 0.0)
    if not 0 <= flip_rate < 0.5:
        raise Fault("`flip_rate` is out of range", flip_rate, "0 up to, but not, 0.5: else swap the sides")
    id = _id(row, "pair", prompt, chosen, rejected, weight, flip_rate)
    return Pair(id, prompt, chosen, rejected, _origin(row, "pair", where), weight, flip_rate)


def _unpaired(row: dict[str, Any], counts: Counter[str], where: str) -> UnpairedExample:
    prompt = _said(_field(row, "prompt"), "prompt")
    response = _answer(row, "completion", prompt)
    _refuse_empty(prompt, completion=response)
    label, weight = _field(row, "label"), _weight(row)
    if not isinstance(label, bool):
        raise Fault("`label` is of the wrong type", short(label), "true (a good answer) or false")
    # The name that this kind had when ids were first made: the same content keeps its id.
    id = _id(row, "judged", prompt, response, label, weight)
    return UnpairedExample(id, prompt, response, label, _origin(row, "unpaired", where), weight)


_BUILDERS: dict[RowKind, Callable[[dict[str, Any], Counter[str], str], TrainingItem]] = {
    "document": _document,
    "example": _example,
    "pair": _pair,
    "unpaired": _unpaired,
}


def _last_answer(value: Any, counts: Counter[str]) -> tuple[Messages, str]:
    if not isinstance(value, list):
        raise Fault("`messages` is no list", short(value), "a list of messages")
    said = _said(value, "messages")
    at = max((i for i, message in enumerate(said) if message.role is Role.ASSISTANT), default=None)
    if at is None:
        got = short([str(message.role) for message in said])
        raise Fault("`messages` holds no answer", got, "one of role assistant at least")
    if more := len(said) - at - 1:
        counts["messages after the last answer left out"] += more
    return said[:at], said[at].content


def _answer(row: dict[str, Any], key: str, prompt: Messages) -> str:
    """An answer: text, or one message of the assistant, which may follow the repeated prompt."""
    value = _field(row, key)
    if isinstance(value, str):
        return value
    said = _said(value, key)
    if not said or said[-1].role is not Role.ASSISTANT or said[:-1] not in ((), prompt):
        got = short([str(message.role) for message in said])
        allowed = "text, one message of role assistant, or the row's prompt followed by one"
        raise Fault(f"`{key}` is no answer to the prompt", got, allowed)
    return said[-1].content


def _said(value: Any, key: str) -> Messages:
    if isinstance(value, str):
        return (Message(Role.USER, value),)
    if not isinstance(value, list):
        raise Fault(f"`{key}` is of the wrong type", short(value), "text or a list of messages")
    return tuple(_message(each, f"{key}[{i}]") for i, each in enumerate(value))


def _message(value: Any, key: str) -> Message:
    if not isinstance(value, dict) or not value.keys() == {"role", "content"}:
        raise Fault(f"`{key}` is no message", short(value), '{"role": ..., "content": TEXT} and no other key')
    if value["role"] not in list(Role):
        raise Fault(f"`{key}` has an unknown role", short(value["role"]), [str(role) for role in Role])
    return Message(Role(value["role"]), _text(value, "content", f"{key}.content"))


def _field(row: dict[str, Any], key: str) -> Any:
    if key not in row:
        raise Fault(f"`{key}` is missing", short(sorted(row)), SHAPES)
    return row[key]


def _text(row: dict[str, Any], key: str, name: str = "") -> str:
    value = _field(row, key)
    if not isinstance(value, str):
        raise Fault(f"`{name or key}` is of the wrong type", short(value), "text")
    return value


def _number(row: dict[str, Any], key: str, default: float) -> float:
    value = row.get(key, default)
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:
        pass
    raise Fault(f"`{key}` is of the wrong type", short(value), "a finite number")


def _weight(row: dict[str, Any]) -> float:
    weight = _number(row, "weight", 1.0)
    if weight <= 0:
        raise Fault("`weight` is too small", weight, "a number above 0", "leave the row out")
    if not 1 / WEIGHT_LIMIT <= weight <= WEIGHT_LIMIT:  # 0 or infinite once it is a float32
        raise Fault("`weight` is out of range", weight, f"{1 / WEIGHT_LIMIT:g} to {WEIGHT_LIMIT:g}")
    return weight


def _id(row: dict[str, Any], *content: object) -> str:
    if "id" not in row:
        return hash_value(content)
    if not _text(row, "id"):
        raise Fault("`id` is empty", None, "text that is not empty", "leave it out")
    return row["id"]


def _origin(row: dict[str, Any], kind: RowKind, where: str) -> Origin:
    """The origin that an exported row keeps; any other comes from here."""
    if "origin" not in row:
        return Origin((where,), f"import/{kind}/1")
    value = row["origin"]
    try:
        parents, rule, consent = value["parents"], value["rule"], Consent(value["consent"])
        known = value.keys() == {"parents", "rule", "consent"} and isinstance(rule, str)
    except (KeyError, TypeError, ValueError, AttributeError):
        known, parents, rule, consent = False, (), "", Consent.NONE
    if not known or not isinstance(parents, list) or not all(isinstance(p, str) for p in parents):
        allowed = f"{{parents: list of text, rule: text, consent: {' | '.join(Consent)}}}"
        raise Fault("`origin` cannot be read", short(value), allowed, "leave it out")
    return Origin(tuple(parents), rule, consent)


def _refuse_empty(prompt: Messages, **answers: str) -> None:
    if not any(message.content.strip() for message in prompt):
        raise Skip("empty prompt")
    for name, text in answers.items():
        if not text.strip():
            raise Skip(f"empty {name}")


def row_of(item: TrainingItem) -> dict[str, Any]:
    """The row of an item, with all that `build` needs to make it again."""
    if not isinstance(item, Document | Example | Pair | UnpairedExample):
        raise TypeError(f"a {type(item).__name__} among others")
    origin = {"parents": list(item.origin.parents), "rule": item.origin.rule, "consent": item.origin.consent}
    about = {"id": item.id, "origin": origin}
    if isinstance(item, Document):
        return {"text": item.text, **about}
    prompt = [{"role": message.role, "content": message.content} for message in item.prompt]
    about = {**about, "weight": item.weight}
    if isinstance(item, Example):
        return {"prompt": prompt, "completion": item.response, **about}
    if isinstance(item, UnpairedExample):
        return {"prompt": prompt, "completion": item.response, "label": item.desirable, **about}
    sides = {"chosen": item.chosen, "rejected": item.rejected, "flip_rate": item.flip_rate}
    return {"prompt": prompt, **sides, **about}


def short(value: object) -> str:
    """What was got, on one line of bounded length."""
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

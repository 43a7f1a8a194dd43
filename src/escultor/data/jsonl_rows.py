"""One row of JSON as a training item and back, checked strictly and without guessing."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any, get_args

from escultor.data.row_messages import (
    SHAPES,
    Fault,
    Skip,
    answer_of,
    field_of,
    is_empty,
    label_of,
    message_row,
    messages_of,
    short,
    text_of,
    tools_of,
    without_marks,
)
from escultor.data.verdicts import is_against, is_unwanted, reason_to_leave_out, verdict_key
from escultor.ids import hash_value
from escultor.strict_json import NUMBERS, JsonObject
from escultor.types import (
    NO_EXTRAS,
    AnswerExtras,
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
    answer_message,
)

TrainingItem = Document | Example | Pair | UnpairedExample
KINDS: tuple[RowKind, ...] = get_args(RowKind)
_COMMON = frozenset(("prompt", "tools", "functions", "id", "weight", "origin"))
KEYS: dict[RowKind, frozenset[str]] = {
    "document": frozenset(("text", "id", "origin")),
    "example": _COMMON | {"completion", "messages", "label"},
    "pair": _COMMON | {"chosen", "rejected", "flip_rate"},
    "unpaired": _COMMON | {"completion", "messages", "label"},
}
TYPE_OF_KIND: dict[RowKind, type[TrainingItem]] = {
    "document": Document,
    "example": Example,
    "pair": Pair,
    "unpaired": UnpairedExample,
}
MAX_WEIGHT = 1e30  # and its inverse is the least: both are finite and not 0 as float32


def build(kind: RowKind, row: JsonObject, counts: Counter[str], where: str) -> TrainingItem:
    """The item of a row. `where` becomes its origin if it has none; keys that are not used are counted.

    Raises Fault for a broken row, Skip for one with nothing to learn.
    """
    others = row.keys() - KEYS[kind]
    if others and (reason := reason_to_leave_out(others, row, kind)):
        raise Skip(reason)
    item = _BUILDERS[kind](row, counts, where)
    for key in others:
        if row[key] is not None:
            counts[f"key not used: {key}"] += 1
    return item


def kind_of_row(row: JsonObject) -> RowKind | None:
    """The kind of a row by its keys; None if it is of none."""
    keys = {key for key, value in row.items() if value is not None}
    if keys >= {"chosen", "rejected"}:
        return "pair"
    if "messages" in keys or keys >= {"prompt", "completion"}:
        return "unpaired" if "label" in keys else "example"
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
        row = json.loads(text, object_pairs_hook=_object, **NUMBERS)
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
    text = text_of(row, "text")
    if not text.strip():
        raise Skip("empty text")
    return Document(_id(row, ["document", text]), text, _origin(row, "document", where))


def _example(row: JsonObject, counts: Counter[str], where: str) -> Example:
    if row.get("label") is not None and not label_of(row["label"]):
        raise Skip("label is false: not an answer to learn")
    if key := verdict_key(row):
        if is_against(key):
            raise Skip(f"`{key}` is true: not an answer to learn")
        raise Fault(
            f"the row has a verdict: `{key}`", short(row[key]), "`label`", f"rename `{key}`, or remove it"
        )
    if row.get("messages") is not None:
        prompt, answer = _conversation(row, counts)
    else:
        prompt = messages_of(field_of(row, "prompt"), "prompt", counts)
        *steps, answer = answer_of(row, "completion", prompt, counts)
        prompt = (*prompt, *steps)
    _refuse_empty(prompt, completion=answer)
    weight, tools, extras = _weight(row), tools_of(row), extras_of(answer)
    id = _id(row, ["example", prompt, answer.content, weight, *_beside(tools, extras)])
    origin = _origin(row, "example", where)
    return Example(id, prompt, answer.content, origin, weight=weight, tools=tools, extras=extras)


def _pair(row: JsonObject, counts: Counter[str], where: str) -> Pair:
    chosen = row.get("chosen")
    if row.get("prompt") is None and isinstance(chosen, list) and len(chosen) > 1:
        prompt = messages_of(chosen, "chosen", counts)[:-1]
    else:
        prompt = messages_of(field_of(row, "prompt"), "prompt", counts)
    sides = {side: _judged_answer(row, side, prompt, counts) for side in ("chosen", "rejected")}
    prompt = without_marks(prompt)
    _refuse_empty(prompt, **sides)
    chosen, rejected = sides["chosen"].content, sides["rejected"].content
    weight, flip_rate, tools = _weight(row), _number(row, "flip_rate", 0.0), tools_of(row)
    extras, rejected_extras = map(extras_of, sides.values())
    if (chosen, *_meaning(extras)) == (rejected, *_meaning(rejected_extras)):
        raise Skip("chosen equals rejected")
    if not 0 <= flip_rate < 0.5:
        raise Fault("`flip_rate` is out of range", flip_rate, "0 to below 0.5; from 0.5 on swap the sides")
    content = ["pair", prompt, chosen, rejected, weight, flip_rate]
    return Pair(
        _id(row, [*content, *_beside(tools, extras, rejected_extras)]),
        prompt,
        chosen,
        rejected,
        origin=_origin(row, "pair", where),
        weight=weight,
        flip_rate=flip_rate,
        tools=tools,
        chosen_extras=extras,
        rejected_extras=rejected_extras,
    )


def _unpaired(row: JsonObject, counts: Counter[str], where: str) -> UnpairedExample:
    if row.get("messages") is not None:
        prompt, answer = _conversation(row, counts)
    else:
        prompt = messages_of(field_of(row, "prompt"), "prompt", counts)
        answer = _judged_answer(row, "completion", prompt, counts)
    prompt = without_marks(prompt)
    _refuse_empty(prompt, completion=answer)
    field_of(row, "label")
    label, weight, tools, extras = label_of(row["label"]), _weight(row), tools_of(row), extras_of(answer)
    # "judged" was the name of this kind when ids were first made: the same content keeps its id.
    id = _id(row, ["judged", prompt, answer.content, label, weight, *_beside(tools, extras)])
    origin = _origin(row, "unpaired", where)
    return UnpairedExample(
        id, prompt, answer.content, label, origin=origin, weight=weight, tools=tools, extras=extras
    )


_BUILDERS: dict[RowKind, Callable[[JsonObject, Counter[str], str], TrainingItem]] = {
    "document": _document,
    "example": _example,
    "pair": _pair,
    "unpaired": _unpaired,
}


def _conversation(row: JsonObject, counts: Counter[str]) -> tuple[Messages, Message]:
    """The messages before the last answer that is to be learnt, and this answer."""
    if extra := [key for key in ("prompt", "completion") if row.get(key) is not None]:
        raise Fault("the row has two shapes", sorted({"messages", *extra}), SHAPES, "give either")
    value = row["messages"]
    if not isinstance(value, list):
        raise Fault("`messages` is not a list", short(value), "a list of messages")
    messages = messages_of(value, "messages", counts, learnt=True)
    answers = [i for i, message in enumerate(messages) if message.role is Role.ASSISTANT]
    if not answers:
        got = short([str(message.role) for message in messages])
        raise Fault("`messages` has no answer", got, "at least one message of role assistant")
    unwanted = {i for i in answers if len(value[i]) > 2 and messages[i].learnt and is_unwanted(value[i])}
    empty = unwanted | {i for i in answers if is_empty(messages[i])}
    marked = [i for i in answers if messages[i].learnt]
    learnt = [i for i in marked if i not in empty] if empty else marked
    if not learnt:
        raise Skip("every answer is empty, of weight 0 or bad")
    last = learnt[-1]
    for reason, n in (
        ("turns of weight 0", len(answers) - len(marked)),
        ("turns not learnt for what is said of them", len(unwanted)),
        ("empty turns not learnt", len(marked) - len(learnt) - len(unwanted)),
        ("messages after the last answer left out", len(messages) - last - 1),
    ):
        if n:
            counts[reason] += n
    prompt = messages[:last]
    if empty:
        prompt = tuple(replace(m, learnt=False) if i in empty else m for i, m in enumerate(prompt))
    return prompt, messages[last]


def _judged_answer(row: JsonObject, key: str, prompt: Messages, counts: Counter[str]) -> Message:
    """An answer that is judged as a whole. Raises Skip for one of several messages."""
    *steps, answer = answer_of(row, key, prompt, counts)
    if steps:
        raise Skip(f"{key} of several messages")
    return answer


def extras_of(answer: Message) -> AnswerExtras:
    """What an answer holds beside its text."""
    if answer.reasoning or answer.tool_calls or answer.token_ids:
        return AnswerExtras(answer.reasoning, answer.tool_calls, answer.token_ids)
    return NO_EXTRAS


def _meaning(extras: AnswerExtras) -> tuple[object, ...]:
    """What tells two answers of equal text apart; it leaves out the token ids that were served."""
    return extras.reasoning, extras.tool_calls


def _beside(tools: str, *extras: AnswerExtras) -> list[object]:
    """What the id of an item hashes beside its texts: nothing, for an item of texts alone."""
    return [[tools, *extras]] if tools or any(each is not NO_EXTRAS for each in extras) else []


def _number(row: JsonObject, key: str, default: float) -> float:
    value = row.get(key)
    if value is None:
        return default
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
    if row.get("id") is None:
        return hash_value(content)
    if not text_of(row, "id"):
        raise Fault("`id` is empty", None, "text that is not empty", "leave it out")
    return row["id"]


def _origin(row: JsonObject, kind: RowKind, where: str) -> Origin:
    """The origin that an exported row states; otherwise the place it is imported from.

    Raises Skip for a row whose origin does not allow training.
    """
    if row.get("origin") is None:
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


def _refuse_empty(prompt: Messages, **answers: Message) -> None:
    if all(is_empty(message) for message in prompt):
        raise Skip("empty prompt")
    for name, answer in answers.items():
        if is_empty(answer):
            raise Skip(f"empty {name}")


def row_of(item: TrainingItem) -> JsonObject:
    """The row of an item, from which `build` restores it."""
    if not isinstance(item, Document | Example | Pair | UnpairedExample):
        raise TypeError(f"a {type(item).__name__} is not a training item")
    parents, consent = list(item.origin.parents), str(item.origin.consent)
    origin = {"parents": parents, "rule": item.origin.rule, "consent": consent}
    if isinstance(item, Document):
        return {"text": item.text, "id": item.id, "origin": origin}
    row: JsonObject = {"prompt": [message_row(message) for message in item.prompt]}
    if isinstance(item, Pair):
        row["chosen"] = _answer_row(item.chosen, item.chosen_extras)
        row["rejected"] = _answer_row(item.rejected, item.rejected_extras)
        row["flip_rate"] = item.flip_rate
    else:
        row["completion"] = _answer_row(item.response, item.extras)
        if isinstance(item, UnpairedExample):
            row["label"] = item.desirable
    tools = {"tools": item.tools} if item.tools else {}
    return row | tools | {"id": item.id, "origin": origin, "weight": item.weight}


def item_of(kind: RowKind, row: JsonObject) -> TrainingItem:
    """The item of a row that `row_of` wrote, without checks."""
    origin = Origin(tuple(row["origin"]["parents"]), row["origin"]["rule"], Consent(row["origin"]["consent"]))
    if kind == "document":
        return Document(row["id"], row["text"], origin)
    prompt = messages_of(row["prompt"], "prompt", Counter())
    rest = {"origin": origin, "weight": row.get("weight", 1.0), "tools": row.get("tools", "")}
    if kind == "pair":
        chosen, chosen_extras = _answer_parts(row["chosen"])
        rejected, rejected_extras = _answer_parts(row["rejected"])
        extras = {"chosen_extras": chosen_extras, "rejected_extras": rejected_extras}
        return Pair(
            row["id"], prompt, chosen, rejected, flip_rate=row.get("flip_rate", 0.0), **extras, **rest
        )
    response, rest["extras"] = _answer_parts(row["completion"])
    if kind == "example":
        return Example(row["id"], prompt, response, **rest)
    return UnpairedExample(row["id"], prompt, response, row["label"], **rest)


def _answer_parts(value: str | list[JsonObject]) -> tuple[str, AnswerExtras]:
    if isinstance(value, str):
        return value, NO_EXTRAS
    (answer,) = messages_of(value, "answer", Counter())
    return answer.content, extras_of(answer)


def _answer_row(text: str, extras: AnswerExtras) -> str | list[JsonObject]:
    return text if extras is NO_EXTRAS or extras == NO_EXTRAS else [message_row(answer_message(text, extras))]


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True

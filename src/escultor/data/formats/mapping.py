"""A map from a file's columns to ours, given by the user for a format that is not in the table."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from escultor.data.formats import instructions as ask
from escultor.data.formats import preferences as prefer
from escultor.data.formats.chat import conversation
from escultor.data.formats.table import Convert, RowFormat
from escultor.data.jsonl_rows import Fault, short
from escultor.errors import InputError
from escultor.strict_json import JsonObject

TARGETS = (
    *("prompt", "completion", "chosen", "rejected", "label", "messages", "text"),
    *("system", "context", "history", "tools", "id", "weight"),
)
_SHAPES: tuple[tuple[frozenset[str], str, Convert], ...] = (
    (frozenset(("prompt", "chosen", "rejected")), "pair", prefer.preference("prompt")),
    (frozenset(("chosen", "rejected")), "pair", prefer.implicit),
    (frozenset(("messages", "label")), "unpaired", conversation),
    (frozenset(("messages",)), "example", conversation),
    (frozenset(("prompt", "completion", "label")), "unpaired", ask.asked("prompt", "completion", "context")),
    (frozenset(("prompt", "completion")), "example", ask.asked("prompt", "completion", "context")),
    (frozenset(("text",)), "document", ask.canonical),
)
_NO_TEXT = re.compile(
    r"(?:^|[_.-])(?:id|ids|at|time|date|name|key|kind|type|model|source|url|lang|split)$", re.I
)
_SPEAKERS = {"role", "from", "speaker", "author", "sender"}
_PROMPT = re.compile(
    r"prompt|question|instru[ck]|query|input|user|ask|problem|title|source|document|article|human"
    r"|^q$|pergunta|pregunta|entrada|entrée|frage|eingabe|domanda|问题|問題|質問|질문",
    re.I,
)
_ANSWER = re.compile(
    r"answer|response|output|completion|reply|solution|target|assistant|body|summary|bot"
    r"|^a$|respo?st|respuesta|sa[ií]da|salida|sortie|ausgabe|r[ée]ponse|antwort|risposta|回答|答案|回复|답변",
    re.I,
)


def parse_map(text: str) -> dict[str, str]:
    """`prompt=question,completion=answer` as the columns by the names they are given. Columns inside objects
    are named with dots. Raises InputError for another name, a name twice, or names that make no row."""
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    columns = {target.strip(): column.strip() for target, _, column in pairs}
    if len(columns) < len(pairs) or not all(columns.values()) or columns.keys() - set(TARGETS):
        raise InputError("--map cannot be read", repr(text), f"NAME=COLUMN,… with {', '.join(TARGETS)}")
    if not any(names <= columns.keys() for names, _, _ in _SHAPES):
        shapes = "; ".join(", ".join(sorted(names)) for names, _, _ in _SHAPES)
        raise InputError("--map makes no row", ", ".join(columns), shapes)
    return columns


def mapped(columns: Mapping[str, str]) -> RowFormat:
    """The format of a file whose columns are named by a map."""
    _, becomes, convert = next(shape for shape in _SHAPES if shape[0] <= columns.keys())

    def convert_mapped(row: JsonObject) -> JsonObject | list[JsonObject]:
        values = {target: _column(row, name) for target, name in columns.items()}
        if all(value is None for value in values.values()):
            raise Fault("the row has none of the columns of the map", short(sorted(row)), [*columns.values()])
        return convert(values)

    return RowFormat("map", (frozenset(columns.values()),), becomes, convert_mapped)


def _column(row: JsonObject, name: str) -> Any:
    value: Any = row
    for part in (name,) if name in row else name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def propose_map(rows: Sequence[JsonObject]) -> str | None:
    """The map that is likely for rows of an unknown format, by the names and lengths of their texts: a
    proposal to a person, never used by itself. None where nothing is likely."""
    lengths: dict[str, int] = {}
    lists: list[str] = []
    for row in rows:
        for key, value in row.items():
            if isinstance(value, str) and not _NO_TEXT.search(key):
                lengths[key] = lengths.get(key, 0) + len(value)
            elif isinstance(value, list) and value and _is_turn(value[0]):
                lists.append(key)
    if lists and _PROMPT.search(lists[0]) and (answer := next(filter(_ANSWER.search, lengths), None)):
        return f"prompt={lists[0]},completion={answer}"
    if lists:
        return f"messages={max(set(lists), key=lists.count)}"
    answers = [key for key in lengths if _ANSWER.search(key)] or sorted(lengths, key=lambda k: -lengths[k])
    prompts = [key for key in lengths if _PROMPT.search(key) and key != answers[0]]
    prompts = prompts or [key for key in lengths if key not in answers[:1]]
    if not answers:
        return None
    return f"prompt={prompts[0]},completion={answers[0]}" if prompts else f"text={answers[0]}"


def _is_turn(value: Any) -> bool:
    return isinstance(value, dict) and not _SPEAKERS.isdisjoint(value)

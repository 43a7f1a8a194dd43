"""Training items in the formats of other programs. A format is one function and one row of `FORMATS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from escultor.data.jsonl_rows import TrainingItem, row_of
from escultor.data.row_messages import message_row, without_marks
from escultor.data.shared_formats import alpaca, sharegpt
from escultor.errors import DataError, InputError
from escultor.store.files import atomic_write
from escultor.strict_json import JsonObject
from escultor.types import (
    NO_EXTRAS,
    AnswerExtras,
    Document,
    Example,
    Messages,
    Pair,
    Role,
    UnpairedExample,
    answer_message,
)

GROUP_ROWS = 10_000  # of a Parquet row group


def _messages(messages: Messages) -> list[JsonObject]:
    return [message_row(message) for message in without_marks(messages)]


def _answer(text: str, extras: AnswerExtras) -> list[JsonObject]:
    return [message_row(answer_message(text, replace(extras, token_ids="")))]


def _sides(item: Pair) -> tuple[list[JsonObject], list[JsonObject]]:
    return _answer(item.chosen, item.chosen_extras), _answer(item.rejected, item.rejected_extras)


def _tools(tools: str) -> JsonObject:
    return {"tools": json.loads(tools)} if tools else {}


def _conversation(item: Example) -> JsonObject:
    """A conversation as a whole; answers that are not to be learnt have weight 0."""
    rows = _messages(item.prompt)
    for row, message in zip(rows, item.prompt, strict=True):
        if message.role is Role.ASSISTANT and not message.learnt:
            row["weight"] = 0
    return {"messages": [*rows, *_answer(item.response, item.extras)], **_tools(item.tools)}


def _trl(item: TrainingItem) -> JsonObject:
    """TRL's conversational types: language modelling, prompt-completion, preference, unpaired preference."""
    if isinstance(item, Document):
        return {"text": item.text}
    if isinstance(item, Example) and any(message.learnt for message in item.prompt):
        return _conversation(item)
    row = {"prompt": _messages(item.prompt), **_tools(item.tools)}
    if isinstance(item, Pair):
        chosen, rejected = _sides(item)
        return row | {"chosen": chosen, "rejected": rejected}
    row["completion"] = _answer(item.response, item.extras)
    return row | {"label": item.desirable} if isinstance(item, UnpairedExample) else row


def _openai(item: TrainingItem) -> JsonObject:
    """OpenAI's fine-tuning formats: chat messages, and preferences with one message a side."""
    if isinstance(item, Example):
        return _conversation(item)
    if isinstance(item, Pair):
        chosen, rejected = _sides(item)
        return {
            "input": {"messages": _messages(item.prompt), **_tools(item.tools)},
            "preferred_output": chosen,
            "non_preferred_output": rejected,
        }
    kind = type(item).__name__.lower()
    what = f"OpenAI's fine-tuning has no format for a {kind}"
    raise DataError(what, kind, "examples and pairs", "use --format trl or jsonl")


def _shared(item: TrainingItem) -> JsonObject:
    """An item as `escultor.data.shared_formats` takes it."""
    if isinstance(item, Document):
        return {"text": item.text}
    if isinstance(item, Example):
        return _conversation(item)
    row = {"messages": _messages(item.prompt), **_tools(item.tools)}
    if isinstance(item, Pair):
        return row | dict(zip(("chosen", "rejected"), _sides(item), strict=True))
    return row | {
        "messages": [*row["messages"], *_answer(item.response, item.extras)],
        "label": item.desirable,
    }


def _parquet(item: TrainingItem) -> JsonObject:
    """A row of ours with answers as messages: a column is of one type, whether or not an answer has calls."""
    row = row_of(item)
    for key in row.keys() & {"completion", "chosen", "rejected"}:
        if isinstance(row[key], str):
            row[key] = _answer(row[key], NO_EXTRAS)
    return row


FORMATS: dict[str, Callable[[TrainingItem], JsonObject]] = {
    "jsonl": row_of,
    "parquet": _parquet,
    "trl": _trl,
    "openai": _openai,
    "alpaca": lambda item: alpaca(_shared(item)),
    "sharegpt": lambda item: sharegpt(_shared(item)),
}
ARRAYS = ("alpaca", "sharegpt")  # which are files of one JSON array


def export(items: Iterable[TrainingItem], format: str, out: Path) -> int:
    """Write items to a file, whole or not at all; returns how many. Memory holds one row group at most.

    Raises InputError for an unknown format or if pyarrow is not installed, DataError for items that a format
    cannot express, StoreError if the disk refuses.
    """
    if format not in FORMATS:
        raise InputError("no such format", repr(format), ", ".join(FORMATS))
    rows = map(FORMATS[format], items)
    with atomic_write(out) as draft:
        if format == "parquet":
            return _write_parquet(rows, draft)
        return _write_json(rows, draft, is_array=format in ARRAYS and out.suffix != ".jsonl")


def _write_json(rows: Iterator[JsonObject], path: Path, is_array: bool) -> int:
    """Write rows one a line, as an array or not."""
    count, between = 0, b",\n" if is_array else b"\n"
    with path.open("wb") as file:
        file.write(b"[\n" if is_array else b"")
        for row in rows:
            file.write((between if count else b"") + json.dumps(row, ensure_ascii=False).encode())
            count += 1
        file.write((b"\n" if count else b"") + (b"]\n" if is_array else b""))
    return count


def _write_parquet(rows: Iterator[JsonObject], path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        remedy = "pip install 'escultor[data]'"
        raise InputError("Parquet needs pyarrow", "it is not installed", None, remedy) from error
    count, writer = 0, None
    try:
        while group := list(islice(rows, GROUP_ROWS)):
            writer = writer or pyarrow.parquet.ParquetWriter(path, _parquet_schema(pyarrow, group[0]))
            writer.write_table(pyarrow.Table.from_pylist(group, schema=writer.schema))
            count += len(group)
    finally:
        if writer:
            writer.close()
    return count


def _parquet_schema(pyarrow: Any, row: JsonObject) -> Any:
    """The schema of rows like this one, whether or not they have tools and calls."""
    text, number = pyarrow.string(), pyarrow.float64()
    function = pyarrow.struct({"name": text, "arguments": text})
    call = pyarrow.struct({"id": text, "type": text, "function": function})
    named = {"reasoning_content": text, "tool_calls": pyarrow.list_(call), "tool_call_id": text, "name": text}
    message = pyarrow.struct({"role": text, "content": text, **named, "weight": pyarrow.int64()})
    origin = pyarrow.struct({"parents": pyarrow.list_(text), "rule": text, "consent": text})
    types = {
        **dict.fromkeys(("prompt", "completion", "chosen", "rejected"), pyarrow.list_(message)),
        **dict.fromkeys(("text", "tools", "id"), text),
        **dict.fromkeys(("flip_rate", "weight"), number),
        "label": pyarrow.bool_(),
        "origin": origin,
    }
    keys = row.keys() | ({"tools"} if "prompt" in row else set())
    return pyarrow.schema({key: type_ for key, type_ in types.items() if key in keys})

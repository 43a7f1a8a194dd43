"""Training items in the formats of other programs. A format is one function and one row of `FORMATS`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from escultor.data.jsonl_rows import TrainingItem, row_of
from escultor.errors import DataError, InputError
from escultor.store.files import atomic_write
from escultor.types import Document, Example, Messages, Pair, UnpairedExample

GROUP_ROWS = 10_000  # of a Parquet row group


def _messages(messages: Messages) -> list[dict[str, str]]:
    return [{"role": str(m.role), "content": m.content} for m in messages]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _trl(item: TrainingItem) -> dict[str, Any]:
    """TRL's conversational types: language modelling, prompt-completion, preference, unpaired preference."""
    if isinstance(item, Document):
        return {"text": item.text}
    prompt = {"prompt": _messages(item.prompt)}
    if isinstance(item, Pair):
        return prompt | {"chosen": _answer(item.chosen), "rejected": _answer(item.rejected)}
    if isinstance(item, UnpairedExample):
        return prompt | {"completion": _answer(item.response), "label": item.desirable}
    return prompt | {"completion": _answer(item.response)}


def _openai(item: TrainingItem) -> dict[str, Any]:
    """OpenAI's fine-tuning formats: chat messages, and preferences with one message a side."""
    if isinstance(item, Example):
        return {"messages": [*_messages(item.prompt), *_answer(item.response)]}
    if isinstance(item, Pair):
        return {
            "input": {"messages": _messages(item.prompt)},
            "preferred_output": _answer(item.chosen),
            "non_preferred_output": _answer(item.rejected),
        }
    kind = type(item).__name__.lower()
    what = f"OpenAI's fine-tuning has no format for a {kind}"
    raise DataError(what, kind, "examples and pairs", "use --format trl or jsonl")


FORMATS: dict[str, Callable[[TrainingItem], dict[str, Any]]] = {
    "jsonl": row_of,
    "parquet": row_of,
    "trl": _trl,
    "openai": _openai,
}


def export(items: Iterable[TrainingItem], format: str, out: Path) -> int:
    """Write items to a file, whole or not at all; returns how many. Memory holds one row group at most.

    Raises InputError for an unknown format or if pyarrow is not installed, DataError for items that a format
    cannot express, StoreError if the disk refuses.
    """
    if format not in FORMATS:
        raise InputError("no such format", repr(format), ", ".join(FORMATS))
    rows = map(FORMATS[format], items)
    with atomic_write(out) as draft:
        return _write_parquet(rows, draft) if format == "parquet" else _write_jsonl(rows, draft)


def _write_jsonl(rows: Iterator[dict[str, Any]], path: Path) -> int:
    count = 0
    with path.open("wb") as file:
        for row in rows:
            count += 1
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return count


def _write_parquet(rows: Iterator[dict[str, Any]], path: Path) -> int:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        remedy = "pip install 'escultor[parquet]'"
        raise InputError("Parquet needs pyarrow", "it is not installed", None, remedy) from error
    count, writer = 0, None
    try:
        while group := list(islice(rows, GROUP_ROWS)):
            table = pyarrow.Table.from_pylist(group, schema=writer.schema if writer else None)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            count += len(group)
    finally:
        if writer:
            writer.close()
    return count

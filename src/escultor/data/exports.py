"""Datasets in the shapes that other programs read. A format is one function and one line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from escultor.data.jsonl_rows import TrainingItem, row_of
from escultor.datasets.curation.rows import CurationRow
from escultor.errors import DataError, InputError
from escultor.store.files import whole
from escultor.types import Document, Example, Messages, Pair, UnpairedExample

PARQUET_ROWS = 10_000  # in a row group


def _said(messages: Messages) -> list[dict[str, str]]:
    return [{"role": str(m.role), "content": m.content} for m in messages]


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _trl(item: TrainingItem) -> dict[str, Any]:
    """TRL's conversational types: language modelling, prompt-completion, preference, unpaired preference."""
    if isinstance(item, Document):
        return {"text": item.text}
    prompt = {"prompt": _said(item.prompt)}
    if isinstance(item, Pair):
        return prompt | {"chosen": _answer(item.chosen), "rejected": _answer(item.rejected)}
    if isinstance(item, UnpairedExample):
        return prompt | {"completion": _answer(item.response), "label": item.desirable}
    return prompt | {"completion": _answer(item.response)}


def _openai(item: TrainingItem) -> dict[str, Any]:
    """The fine-tuning formats of OpenAI: chat messages, and preferences with one message a side."""
    if isinstance(item, Example):
        return {"messages": [*_said(item.prompt), *_answer(item.response)]}
    if isinstance(item, Pair):
        return {
            "input": {"messages": _said(item.prompt)},
            "preferred_output": _answer(item.chosen),
            "non_preferred_output": _answer(item.rejected),
        }
    kind = type(item).__name__.lower()
    raise DataError(
        f"OpenAI's fine-tuning has no format for a {kind}",
        kind,
        "examples and pairs",
        "use --format trl or jsonl",
    )


FORMATS: dict[str, Callable[[TrainingItem], dict[str, Any]]] = {
    "jsonl": row_of,
    "parquet": row_of,
    "trl": _trl,
    "openai": _openai,
}


def export(rows: Iterator[CurationRow], format: str, out: Path) -> int:
    """Write rows, whole or not at all; how many. Memory holds a row group at most.

    Raises InputError for an unknown format or when pyarrow is not installed, DataError for items that a
    format cannot say, StoreError when the disk refuses.
    """
    if format not in FORMATS:
        raise InputError("no such format", repr(format), ", ".join(FORMATS))
    made = (FORMATS[format](row.item) for row in rows)
    with whole(out) as draft:
        return _parquet(made, draft) if format == "parquet" else _jsonl(made, draft)


def _jsonl(made: Iterator[dict[str, Any]], path: Path) -> int:
    count = 0
    with path.open("wb") as file:
        for row in made:
            count += 1
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return count


def _parquet(made: Iterator[dict[str, Any]], path: Path) -> int:
    from itertools import islice

    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            "Parquet needs pyarrow", "it is not installed", None, "pip install 'escultor[parquet]'"
        ) from error
    count, writer = 0, None
    try:
        while group := list(islice(made, PARQUET_ROWS)):
            schema = writer.schema if writer else None
            table = pyarrow.Table.from_pylist(group, schema=schema)
            writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema)
            writer.write_table(table)
            count += len(group)
    finally:
        if writer:
            writer.close()
    return count

"""Formats of other programs' files: how one is recognised, and what is imported of it.

They become a JSONL file of rows to train on; files of interactions and feedback are read by `events`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from escultor.data.importers import conversations
from escultor.data.importers.json_values import values_of
from escultor.data.jsonl import MAX_PROBLEMS, ImportReport, Reader, write_jsonl
from escultor.data.jsonl_rows import Fault, Skip, TrainingItem, decode, kind_of_row, short
from escultor.errors import DataError
from escultor.strict_json import JsonObject
from escultor.types import RowKind

ROWS: dict[str, Callable[[JsonObject], JsonObject]] = {
    "openai-chat": lambda row: row,  # as ours
    "openai-preference": conversations.openai_preference,
    "trl": lambda row: row,  # its columns are ours
    "sharegpt": conversations.sharegpt,
}
FORMATS = tuple(ROWS)
# The format of a file is the first whose keys its first value has.
_KEYS_OF_FORMAT: tuple[tuple[str, set[str]], ...] = (
    ("sharegpt", {"conversations"}),
    ("openai-preference", {"input", "preferred_output"}),
    ("trl", {"chosen", "rejected"}),
    ("trl", {"prompt", "completion"}),
    ("openai-chat", {"messages"}),
    ("trl", {"text"}),
)


def format_of(path: Path) -> str:
    """The format of a file, by the keys of its first value. Raises DataError if no format has them."""
    for line, value in values_of(path):
        try:
            row = decode(value)
        except Fault as fault:
            raise DataError(f"{path}:{line}: {fault}") from fault
        for name, keys in _KEYS_OF_FORMAT:
            if row.keys() >= keys:
                return name
        remedy = "name it with --format"
        raise DataError(f"{path}:{line}: the format is not known", short(sorted(row)), FORMATS, remedy)
    raise DataError(f"{path} holds nothing", "an empty file", FORMATS)


# --- rows ---------------------------------------------------------------------------------------


def import_rows(path: Path, name: str, out: Path) -> ImportReport:
    """Write a file's rows as rows of ours, all of one kind, whole or not at all.

    Raises DataError with the first broken lines, or if nothing is left to learn from.
    """
    convert = ROWS[name]
    kinds: Iterator[RowKind | None] = (_kind(convert, value) for _, value in values_of(path))
    kind = next(filter(None, kinds), None)
    if kind is None:
        raise DataError(f"{path} holds no row of format {name}", None, "one row at least", "check --format")
    reader = Reader(path, kind, convert)
    write_jsonl(out, _items(reader, path))
    return reader.report


def _kind(convert: Callable[[JsonObject], JsonObject], value: bytes) -> RowKind | None:
    """The kind of a value's row; None if it is broken, which is reported when the rows are read."""
    try:
        return kind_of_row(convert(decode(value)))
    except (Fault, Skip):
        return None


def _items(reader: Reader, path: Path) -> Iterator[TrainingItem]:
    kept = 0
    for line, value in values_of(path):
        reader.add(line, value)
        if len(reader.problems) >= MAX_PROBLEMS:
            break
        if reader.items:
            kept += 1
            yield reader.items.pop()
    if reader.problems or not kept:
        reader.contents()  # raises the error that lists the problems

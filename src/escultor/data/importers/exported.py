"""What `interactions export` and `feedback export` write, read back as it was."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from escultor.data.importers.interactions import parse_interaction
from escultor.data.importers.session import ImportedRecord, ImportSession
from escultor.data.jsonl_rows import Fault, short
from escultor.strict_json import JsonObject
from escultor.types import Feedback, Interaction

_TYPES: dict[str, Any] = {each.__name__.lower(): each for each in (Interaction, *get_args(Feedback))}
MAX_FIGURE = 1e12  # sums of many must stay finite


def parse(row: JsonObject, session: ImportSession) -> Iterator[ImportedRecord]:
    """The record of an exported line, or the interaction of a row that another program wrote. Raises Fault
    for a line that was changed beyond its type."""
    if not is_exported(row):
        yield parse_interaction(row, session.subject_of)
        return
    fields = {key: value for key, value in row.items() if key not in ("seq", "type")}
    if unknown := fields.keys() - {field.name for field in dataclasses.fields(_TYPES[row["type"]])}:
        raise Fault("the export has keys that this version does not know", sorted(unknown), None, "upgrade")
    if not all(math.isfinite(figure) and abs(figure) <= MAX_FIGURE for figure in _figures(fields)):
        raise Fault("a figure is out of range", None, f"up to {MAX_FIGURE:g}")
    try:
        yield _reader(row["type"]).validate_python(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise Fault(f"`{key}`: {problem['msg']}", short(problem["input"]), "as the export wrote it") from None


def is_exported(row: JsonObject) -> bool:
    """Whether a row is a line of an export."""
    return (
        isinstance(row.get("type"), str) and row["type"] in _TYPES and row.keys() >= {"id", "time", "subject"}
    )


def is_interaction(row: JsonObject) -> bool:
    """Whether a row is an interaction, of an export or of another program."""
    return row.get("type") == "interaction" or row.keys() >= {"messages", "answer", "version"}


def _figures(value: Any) -> Iterator[float]:
    """The numbers within a value, whole or not."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _figures(inner)


@cache
def _reader(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_TYPES[name])

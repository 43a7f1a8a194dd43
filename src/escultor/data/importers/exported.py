"""What `interactions export` and `feedback export` write, read back as it was."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, get_args

from pydantic import TypeAdapter, ValidationError

from escultor.data.importers.interactions import parse_interaction
from escultor.data.importers.session import ImportSession
from escultor.data.jsonl_rows import Fault, short
from escultor.strict_json import JsonObject
from escultor.types import Feedback, Interaction

_TYPES: dict[str, Any] = {each.__name__.lower(): each for each in get_args(Feedback)}


def interactions(row: JsonObject, session: ImportSession) -> Iterator[Interaction]:
    """The interaction of a row, which need not be an export of ours."""
    yield parse_interaction({k: v for k, v in row.items() if k not in ("seq", "type")}, session.subject_of)


def feedback(row: JsonObject, session: ImportSession) -> Iterator[Feedback]:
    """The event of an exported line. Raises Fault for one that was changed beyond its type."""
    fields = {key: value for key, value in row.items() if key not in ("seq", "type")}
    if not is_feedback(row):
        raise Fault("the event has no known type", short(row.get("type")), list(_TYPES))
    try:
        yield _reader(row["type"]).validate_python(fields)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(map(str, problem["loc"]))
        raise Fault(f"`{key}`: {problem['msg']}", None, "an event as `feedback export` writes it") from None


def is_feedback(row: JsonObject) -> bool:
    """Whether a row is a line of `feedback export`."""
    return (
        isinstance(row.get("type"), str) and row["type"] in _TYPES and {"id", "time", "subject"} <= row.keys()
    )


@cache
def _reader(name: str) -> TypeAdapter[Any]:
    return TypeAdapter(_TYPES[name])

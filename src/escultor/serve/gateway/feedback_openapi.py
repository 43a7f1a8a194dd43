"""What the OpenAPI document says of feedback, imports and erasure."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from escultor.data.importers.interactions import ExternalInteraction
from escultor.serve.intake.forms import FORM
from escultor.serve.wire.errors import ErrorBody


class IntakeReply(BaseModel):
    """What became of an event; `not_kept` are parts of it that have no place."""

    id: str | None
    status: Literal["accepted", "refused", "conflict", "erased"]
    error: str | None = None
    not_kept: list[str] = []


class IntakeBatchReply(BaseModel):
    """What became of the events of a batch, in their order."""

    accepted: int
    refused: int
    results: list[IntakeReply]


class EventReply(BaseModel):
    """An event as it is kept."""

    id: str
    kind: Literal["rating", "choice", "correction", "remark", "implicit", "revocation"]
    time: float
    subject: str
    source: str
    target: str
    name: str
    value: bool | float | None = None
    text: str | None = None
    shown_order: list[str] | None = None
    winner: str | None = None


class EventsReply(BaseModel):
    """What was said about an answer, in the order recorded; `live` is what holds now of all of it."""

    target: str
    known: bool
    data: list[EventReply]
    has_more: bool
    next: int | None
    live: list[EventReply]
    live_count: int


class LineProblem(BaseModel):
    line: int
    error: str


class ImportReply(BaseModel):
    """How many calls of an import are kept now; the first hundred problems."""

    accepted: int
    refused: int
    problems: list[LineProblem]


class NamedArtifact(BaseModel):
    name: str


class MadeDataset(NamedArtifact):
    hash: str
    rows: int


class MadeCheckpoint(NamedArtifact):
    id: str
    how: str


class UnknownCheckpoint(NamedArtifact):
    id: str


class ErasureReply(BaseModel):
    """What is gone, and what was made of it: datasets to build again, checkpoints to train again."""

    id: str
    subject: str
    by: str
    counts: dict[str, int]
    datasets: list[MadeDataset]
    checkpoints: list[MadeCheckpoint]
    unknown: list[UnknownCheckpoint]


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody, "description": "refused"} for status in statuses}


def _options(
    status: int, answer: Any, *errors: int, body: Any = None, kinds: tuple[str, ...] = ()
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "response_model": None,
        "status_code": status,
        "responses": {status: {"model": answer, "description": "done"}, **_errors(*errors)},
    }
    if body is not None:
        content = {kind: {"schema": body if kind == JSON else {"type": "string"}} for kind in (JSON, *kinds)}
        found["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return found


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema that stands by itself: what it refers to is put where it is referred to."""
    parts = schema.pop("$defs", {})

    def put(value: Any) -> Any:
        if isinstance(value, dict):
            if isinstance(ref := value.get("$ref"), str):
                return put(parts[ref.rsplit("/", 1)[1]]) | {k: v for k, v in value.items() if k != "$ref"}
            return {key: put(item) for key, item in value.items() if key != "discriminator"}
        return [put(item) for item in value] if isinstance(value, list) else value

    return put(schema)


JSON = "application/json"
LINES = ("application/jsonl", "application/x-ndjson")
_COMMON = (400, 401, 403, 408, 413, 415, 429, 500, 503)
_FORM = _inline(FORM.json_schema())
_BATCH = {"oneOf": [_FORM, {"type": "array", "items": _FORM, "minItems": 1}]}
_CALL = _inline(ExternalInteraction.model_json_schema())
SAY = _options(202, IntakeReply | IntakeBatchReply, *_COMMON, 409, 410, body=_BATCH)
SAY_BY_TOKEN = _options(202, IntakeReply, *_COMMON, 409, 410, body={"type": "object"})
SAID = _options(200, EventsReply, 401, 403, 422, 429, 500, 503)
WITHDRAW = _options(200, EventReply, 400, 401, 403, 404, 410, 422, 429, 500, 503)
_CALLS = {"oneOf": [_CALL, {"type": "array", "items": _CALL}]}
IMPORT = _options(200, ImportReply, *_COMMON, body=_CALLS, kinds=LINES)
ERASE = _options(200, ErasureReply, 401, 403, 422, 429, 500, 503)

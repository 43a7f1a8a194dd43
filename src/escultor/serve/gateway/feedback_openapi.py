"""The OpenAPI schemas of feedback, imports and erasure; a test checks the responses against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from escultor.data.importers.interactions import ExternalInteraction
from escultor.serve.gateway.openapi import errors
from escultor.serve.intake.forms import FORM
from escultor.serve.intake.intake import IntakeResult


class IntakeBatchReply(BaseModel):
    """The outcomes of the events of a batch, in their order."""

    accepted: int
    refused: int
    results: list[IntakeResult]


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
    """The events about an answer, in the order recorded; `live` are those in force, of all pages."""

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
    """How many calls of an import were kept; the first hundred problems."""

    accepted: int
    refused: int
    problems: list[LineProblem]


class DerivedDataset(BaseModel):
    name: str
    hash: str
    rows: int


class NamedCheckpoint(BaseModel):
    name: str
    id: str


class DerivedCheckpoint(NamedCheckpoint):
    how: str


class ErasureReply(BaseModel):
    """What was erased, and what was derived from it: datasets to rebuild, checkpoints to retrain."""

    id: str
    subject: str
    by: str
    counts: dict[str, int]
    datasets: list[DerivedDataset]
    checkpoints: list[DerivedCheckpoint]
    unknown: list[NamedCheckpoint]


def _route(
    status: int,
    reply: Any,
    error_statuses: tuple[int, ...],
    body: Any = None,
    media_types: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Options of a route with a JSON reply; `body` is its request's schema, `media_types` others it takes."""
    success = {"model": reply, "description": "done"}
    options: dict[str, Any] = {
        "response_model": None,
        "status_code": status,
        "responses": {status: success, **errors(*error_statuses)},
    }
    if body is not None:
        text = {"schema": {"type": "string"}}
        content = {"application/json": {"schema": body}, **dict.fromkeys(media_types, text)}
        options["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return options


def _inline(schema: dict[str, Any]) -> dict[str, Any]:
    """A self-contained schema: each `$ref` is replaced by what it refers to."""
    definitions = schema.pop("$defs", {})

    def resolve(value: Any) -> Any:
        if isinstance(value, dict):
            if isinstance(ref := value.get("$ref"), str):
                return resolve(definitions[ref.rsplit("/", 1)[1]]) | {
                    k: v for k, v in value.items() if k != "$ref"
                }
            return {key: resolve(item) for key, item in value.items() if key != "discriminator"}
        return [resolve(item) for item in value] if isinstance(value, list) else value

    return resolve(schema)


JSON_LINES = ("application/jsonl", "application/x-ndjson")
_COMMON = (400, 401, 403, 408, 413, 415, 429, 500, 503)
_EVENT = _inline(FORM.json_schema())
_EVENTS = {"oneOf": [_EVENT, {"type": "array", "items": _EVENT, "minItems": 1}]}
_CALL = _inline(ExternalInteraction.model_json_schema())
_CALLS = {"oneOf": [_CALL, {"type": "array", "items": _CALL}]}
FEEDBACK_ROUTE = _route(202, IntakeResult | IntakeBatchReply, (*_COMMON, 409, 410), body=_EVENTS)
TOKEN_FEEDBACK_ROUTE = _route(202, IntakeResult, (*_COMMON, 409, 410), body={"type": "object"})
FEEDBACK_LIST_ROUTE = _route(200, EventsReply, (401, 403, 422, 429, 500, 503))
WITHDRAW_ROUTE = _route(200, EventReply, (400, 401, 403, 404, 410, 422, 429, 500, 503))
IMPORT_ROUTE = _route(200, ImportReply, _COMMON, body=_CALLS, media_types=JSON_LINES)
ERASE_ROUTE = _route(200, ErasureReply, (401, 403, 422, 429, 500, 503))

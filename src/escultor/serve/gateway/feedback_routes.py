"""The routes of feedback, imports and erasure, over `intake` and the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import cache, partial
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from starlette.responses import Response

from escultor.data.importers.interactions import parse_interaction
from escultor.data.importers.json_values import Splitter
from escultor.data.jsonl_rows import Fault, decode
from escultor.datasets.erasure import erase_everywhere
from escultor.errors import EscultorError, InputError
from escultor.serve.auth import Caller
from escultor.serve.gateway.bodies import media_type, read_body, read_json, read_pieces
from escultor.serve.gateway.gateway import Gateway, admit
from escultor.serve.gateway.middleware import error_response, json_response
from escultor.serve.gateway.openapi import (
    ErasureReply,
    EventReply,
    EventsReply,
    ImportReply,
    IntakeBatchReply,
    one_or_many,
    route,
)
from escultor.serve.intake.intake import HTTP_STATUS, MAX_PAGE, EventReader, IntakeResult
from escultor.serve.intake.parse import FeedbackAuthor, ParsedEvent
from escultor.serve.intake.tenants import shown_id
from escultor.serve.wire.errors import ApiError, to_api_error
from escultor.store.feedback import event_name, event_target
from escultor.types import Choice, Feedback, Interaction, Scope

router = APIRouter()

IMPORT_BATCH = 200  # imported calls written at a time
MAX_PROBLEMS = 100  # of an import that are listed
JSON_LINES = ("application/jsonl", "application/x-ndjson")
_ERRORS = 400, 401, 403, 408, 413, 415, 429, 500, 503
_EVENT_ERRORS = *_ERRORS, 409, 410
_ERROR_CODES = {"conflict": "id_conflict", "erased": "erased", "refused": "invalid_value"}
_CORS = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "content-type",
    "access-control-max-age": "86400",
}


@router.post(
    "/v1/feedback",
    **route(
        IntakeResult | IntakeBatchReply,
        _EVENT_ERRORS,
        status=202,
        body=one_or_many("EventBody", "events", minItems=1),
    ),
)
async def add_feedback(request: Request) -> Response:
    """Keep feedback on answers: one event, a list of events, or {"events": [...]}."""
    gateway, caller = admit(request, Scope.FEEDBACK)
    hash_subject = partial(gateway.subjects.subject, tenant=caller.tenant)
    author = FeedbackAuthor(
        hash_subject(f"key:{caller.key}"),
        hash_subject,
        may_import=caller.has_scope(Scope.ADMIN),
        tenant=caller.tenant,
        keys=caller.keys,
        may_rate=caller.has_scope(Scope.RATER),
    )
    is_batch, outcomes = await read_body(request, partial(_read_events, gateway.intake.reader(author)))
    results = await gateway.intake.add(outcomes, author)
    if not is_batch:
        return _result(*results)
    accepted = sum(result.status == "accepted" for result in results)
    bodies = [result.model_dump(exclude_defaults=True) for result in results]
    counts = {"accepted": accepted, "refused": len(results) - accepted}
    return json_response({**counts, "results": bodies}, status=202)


@router.post(
    "/v1/feedback/t/{token}",
    **route(IntakeResult, _EVENT_ERRORS, status=202, body={"type": "object"}),
)
async def add_feedback_by_token(request: Request, token: str) -> Response:
    """Keep one event from a browser; the token determines its answer and its author."""
    gateway: Gateway = request.app.state.gateway
    try:
        grant = gateway.tokens.read(token, gateway.intake.now())
        gateway.limit_rate(None, grant.subject)  # many browsers share the address of one proxy
        author = FeedbackAuthor(grant.subject, gateway.subjects.subject, grant)
        reader = partial(_read_event_of, gateway.intake.reader(author), grant.target)
        response = _result(*await gateway.intake.add(await read_body(request, reader), author))
    except (ApiError, EscultorError) as error:
        response = error_response(to_api_error(error), request.url.path)
    response.headers.update(_cors_headers(gateway))
    return response


@router.options("/v1/feedback/t/{token}", include_in_schema=False)
async def preflight(request: Request) -> Response:
    """The CORS preflight of a browser on another page."""
    return Response(status_code=204, headers=_cors_headers(request.app.state.gateway))


@router.get("/v1/feedback", **route(EventsReply, (401, 403, 422, 429, 500, 503)))
async def list_feedback(
    request: Request,
    target: Annotated[str, Query(pattern="^[!-~]{1,200}$")],
    after: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> Response:
    """The feedback on an answer, page by page, and the events in force."""
    gateway, caller = admit(request, Scope.READ)
    page = await gateway.intake.page(target, after, limit, caller.tenant, caller.keys)
    return json_response(
        {
            "target": target,
            "known": page.known,
            "data": [_event_json(event, caller.tenant) for _, event in page.events],
            "has_more": page.more,
            "next": page.next,
            "live": [_event_json(event, caller.tenant) for event in page.live],
            "live_count": page.live_count,
        }
    )


@router.delete("/v1/feedback/{id}", **route(EventReply, (400, 401, 403, 404, 410, 422, 429, 500, 503)))
async def withdraw_feedback(request: Request, id: Annotated[str, Path(pattern="^[!-~]{1,200}$")]) -> Response:
    """Withdraw an event; the log keeps it and the revocation."""
    gateway, caller = admit(request, Scope.FEEDBACK)
    revocation = await gateway.intake.withdraw(id, caller.tenant, caller.keys)
    if revocation is None:
        raise ApiError(404, f"there is no feedback {id!r}", "not_found", param="id")
    return json_response(_event_json(revocation, caller.tenant))


@router.post(
    "/v1/interactions",
    **route(ImportReply, _ERRORS, body=one_or_many("ExternalInteraction"), text_bodies=JSON_LINES),
)
async def import_interactions(request: Request) -> Response:
    """Keep calls that another program served: a list as JSON, or JSON Lines, read as they arrive."""
    gateway, caller = admit(request, Scope.ADMIN)
    total, problems = 0, []
    batch: list[tuple[int, Any]] = []
    rows, is_single = await _rows(request)
    async for numbered_row in rows:
        batch.append(numbered_row)
        total += 1
        if len(batch) == IMPORT_BATCH:
            problems += await _import_batch(batch, gateway, caller)
            batch = []
    problems += await _import_batch(batch, gateway, caller)
    if problems and is_single:
        raise ApiError(400, problems[0]["error"], "invalid_value")
    counts = {"accepted": total - len(problems), "refused": len(problems)}
    return json_response({**counts, "problems": problems[:MAX_PROBLEMS]})


@router.delete("/v1/subjects/{hash}", **route(ErasureReply, (401, 403, 404, 422, 429, 500, 503)))
async def erase_subject(request: Request, hash: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Response:
    """Erase a person's requests and feedback for ever; lists what was derived from them."""
    gateway, caller = admit(request, Scope.ADMIN)
    by = "the machine itself" if caller.key is None else f"key {caller.key}"
    if not await asyncio.to_thread(gateway.intake.owns_subject, hash, caller.tenant, caller.keys):
        raise ApiError(404, "this subject has no records of this key's tenant", "not_found", param="hash")
    return json_response(await asyncio.to_thread(_erase, gateway, hash, by))


@router.get("/static/thumbs.js", include_in_schema=False)
async def thumbs_script() -> Response:
    """The script with which any chat page can send feedback."""
    headers = {"cache-control": "public, max-age=3600", "cross-origin-resource-policy": "cross-origin"}
    return Response(_script(), headers=headers, media_type="text/javascript; charset=utf-8")


def _read_events(reader: EventReader, body: Any) -> tuple[bool, list[ParsedEvent | IntakeResult]]:
    """Whether a body is a batch, and its events. Raises ApiError for an empty one."""
    events = body["events"] if isinstance(body, dict) and body.keys() == {"events"} else body
    if events == []:
        raise ApiError(400, "a batch needs at least one event", "invalid_value")
    is_batch = isinstance(events, list)
    return is_batch, reader.read(events if is_batch else [events])


def _read_event_of(reader: EventReader, target: str, body: Any) -> list[ParsedEvent | IntakeResult]:
    """The event in a body, about an answer that it need not name."""
    if isinstance(body, dict):
        body = {("target" if "kind" in body else "id"): target, **body}
    return reader.read([body])


def _result(result: IntakeResult) -> Response:
    status = result.status
    if status != "accepted":
        raise ApiError(HTTP_STATUS[status], result.error or status, _ERROR_CODES[status])
    return json_response(result.model_dump(exclude_defaults=True), status=202)


def _erase(gateway: Gateway, subject: str, by: str) -> dict[str, Any]:
    erasure, derived = erase_everywhere(gateway.store, subject, by)
    return {"id": erasure.id, "subject": subject, "by": by, "counts": erasure.counts, **derived.summary()}


async def _import_batch(
    batch: list[tuple[int, Any]], gateway: Gateway, caller: Caller
) -> list[dict[str, Any]]:
    """Write numbered rows together; the refused ones. Raises what is not the fault of a row."""
    calls = await asyncio.to_thread(lambda: [_imported_call(row, gateway, caller) for _, row in batch])
    writes = (gateway.writer.write(call) for call in calls if isinstance(call, Interaction))
    written = iter(await asyncio.gather(*writes, return_exceptions=True))
    results = [next(written) if isinstance(call, Interaction) else call for call in calls]
    if caller.keys is not None:
        ids = [call.id for call in calls if isinstance(call, Interaction)]
        own = set(ids) - await asyncio.to_thread(gateway.intake.ownership.foreign, ids, caller.keys)
        await gateway.intake.withdraw_foreign(sorted(own), caller.tenant, caller.keys)
    problems = []
    for (line, _), result in zip(batch, results, strict=True):
        if isinstance(result, BaseException):
            error = to_api_error(result)
            if error.status in (500, 503):
                raise result
            problems.append({"line": line, "error": error.message})
    return problems


def _imported_call(row: Any, gateway: Gateway, caller: Caller) -> Interaction | ApiError:
    """The record of one call, given as JSON value or as the bytes of a line, or what is wrong with it."""
    try:
        value = decode(row) if isinstance(row, bytes) else row
        if not isinstance(value, dict):
            raise Fault("the row is no object")
        call = parse_interaction(value, partial(gateway.subjects.subject, tenant=caller.tenant))
    except (Fault, InputError) as fault:
        return ApiError(400, str(fault))
    call = call if caller.keys is None else replace(call, tenant=caller.key or "")
    return call if gateway.settings.keep_text else gateway.request_log.redacted(call)


async def _rows(request: Request) -> tuple[AsyncIterator[tuple[int, Any]], bool]:
    """The numbered rows of a JSON body, or the lines of JSON Lines as bytes; whether it is one row."""
    if media_type(request) in JSON_LINES:
        return _lines(request), False
    body = await read_json(request)
    rows = body if isinstance(body, list) else [body]
    return _numbered(rows), rows is not body


async def _numbered(rows: list[Any]) -> AsyncIterator[tuple[int, Any]]:
    for numbered_row in enumerate(rows, 1):
        yield numbered_row


async def _lines(request: Request) -> AsyncIterator[tuple[int, bytes]]:
    splitter = Splitter("the body", 1 << 20)
    async for piece in read_pieces(request):
        for numbered_line in splitter.feed(piece):
            yield numbered_line
    for numbered_line in splitter.end():
        yield numbered_line


def _event_json(event: Feedback, tenant: str) -> dict[str, Any]:
    body = {name: getattr(event, name) for name in ("time", "subject", "source")}
    body["id"] = shown_id(event.id, tenant)
    body |= {"kind": type(event).__name__.lower(), "target": event_target(event), "name": event_name(event)}
    fields = ("shown_order", "winner") if isinstance(event, Choice) else ("value", "text")
    return body | {name: getattr(event, name) for name in fields if hasattr(event, name)}


def _cors_headers(gateway: Gateway) -> dict[str, str]:
    """Any page may use its token; with `serve.cors_origins`, the middleware allows those pages alone."""
    return {} if gateway.settings.cors_origins else _CORS


@cache
def _script() -> bytes:
    return files("escultor.serve").joinpath("static/thumbs.js").read_bytes()

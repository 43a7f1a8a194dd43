"""Paths of feedback, imports and erasure: thin, over `intake` and the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import cache
from importlib.resources import files
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from pydantic_core import to_json
from starlette.responses import Response

from escultor.data.importers.interactions import served
from escultor.data.importers.json_values import Splitter
from escultor.data.jsonl_rows import Fault, decode
from escultor.datasets.provenance import derived_from
from escultor.errors import EscultorError, InputError
from escultor.serve.auth import Caller
from escultor.serve.gateway.feedback_openapi import ERASE, IMPORT, LINES, SAID, SAY, SAY_BY_TOKEN, WITHDRAW
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.gateway.middleware import JSON, json_body
from escultor.serve.intake.intake import HTTP_STATUS, MAX_PAGE, IntakeResult
from escultor.serve.intake.parse import FeedbackAuthor
from escultor.serve.wire.errors import ApiError, to_api_error
from escultor.store.feedback import name_of, target_of
from escultor.types import Choice, Erasure, Feedback, Interaction, Scope

router = APIRouter()

Id = Annotated[str, Path(pattern="^[!-~]{1,200}$")]
BATCH = 500  # imported calls under way at a time
MOST_PROBLEMS = 100  # of an import that are told
_MEANING = {"conflict": "id_conflict", "erased": "erased", "refused": "invalid_value"}
_OPEN = {
    "access-control-allow-origin": "*",
    "access-control-allow-methods": "POST",
    "access-control-allow-headers": "content-type",
    "access-control-max-age": "86400",
}


@router.post("/v1/feedback", **SAY)
async def say(request: Request) -> Response:
    """Take in what people make of an answer: one event, a list of them, or {"events": [...]}."""
    gateway, caller = _enter(request, Scope.FEEDBACK)
    body = json_body(request)
    subject = gateway.subjects.subject(f"key:{caller.key}")
    speaker = FeedbackAuthor(subject, gateway.subjects.subject)
    if isinstance(body, dict) and body.keys() == {"events"}:
        body = body["events"]
    if not isinstance(body, list):
        (taken,) = await gateway.intake.add([body], speaker)
        return _one(taken)
    if not body:
        raise ApiError(400, "a batch needs an event at least", "invalid_value")
    results = await gateway.intake.add(body, speaker)
    accepted = sum(taken.status == "accepted" for taken in results)
    shown = [taken.to_json() for taken in results]
    return _json({"accepted": accepted, "refused": len(results) - accepted, "results": shown}, 202)


@router.post("/v1/feedback/t/{token}", **SAY_BY_TOKEN)
async def say_by_token(request: Request, token: str) -> Response:
    """Take in one event from a browser: the token says about which answer and for whom."""
    gateway: Gateway = request.app.state.gateway
    try:
        grant = gateway.tokens.read(token, gateway.intake.now())
        gateway.limit_rate(request.client.host if request.client else "", grant.subject)
        body = json_body(request)
        if isinstance(body, dict):
            body = {("target" if "kind" in body else "id"): grant.target, **body}
        speaker = FeedbackAuthor(grant.subject, gateway.subjects.subject, grant)
        (taken,) = await gateway.intake.add([body], speaker)
        answer = _one(taken)
    except (ApiError, EscultorError) as error:
        refusal = to_api_error(error)
        answer = _json(refusal.body(), refusal.status, refusal.headers)
    answer.headers.update(_cors(gateway))
    return answer


@router.options("/v1/feedback/t/{token}", include_in_schema=False)
async def may_say_by_token(request: Request, token: str) -> Response:
    """What a browser asks before it sends JSON from another page."""
    return Response(status_code=204, headers=_cors(request.app.state.gateway))


@router.get("/v1/feedback", **SAID)
async def said(
    request: Request,
    target: Annotated[str, Query(pattern="^[!-~]{1,200}$")],
    after: Annotated[int, Query(ge=0, lt=1 << 62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> Response:
    """What was said about an answer, page by page, and what holds now."""
    gateway, _ = _enter(request, Scope.READ)
    page = await gateway.intake.page(target, after, limit)
    return _json(
        {
            "target": target,
            "known": page.known,
            "data": [_shown(event) for _, event in page.events],
            "has_more": page.more,
            "next": page.events[-1][0] if page.more else None,
            "live": [_shown(event) for event in page.live],
            "live_count": page.live_count,
        }
    )


@router.delete("/v1/feedback/{id}", **WITHDRAW)
async def withdraw(request: Request, id: Id) -> Response:
    """Record that an event holds no longer; the log keeps both."""
    gateway, _ = _enter(request, Scope.FEEDBACK)
    revocation = await gateway.intake.withdraw(id)
    if revocation is None:
        raise ApiError(404, f"there is no feedback {id!r}", "not_found", param="id")
    return _json(_shown(revocation))


@router.post("/v1/interactions", **IMPORT)
async def bring(request: Request) -> Response:
    """Take in calls that were served elsewhere: a list as JSON, or JSON Lines, read as it comes."""
    gateway, _ = _enter(request, Scope.ADMIN)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    rows = _lines(request) if kind in LINES else _elements(json_body(request))
    accepted, refused, problems = 0, 0, []
    under_way: list[tuple[int, Any]] = []

    async def settle() -> None:
        nonlocal accepted, refused
        outcomes = await asyncio.gather(*(each for _, each in under_way), return_exceptions=True)
        for (line, _), outcome in zip(under_way, outcomes, strict=True):
            if not isinstance(outcome, BaseException):
                accepted += 1
                continue
            error = to_api_error(outcome)
            if error.status in (500, 503):
                raise outcome
            refused += 1
            problems.append({"line": line, "error": error.message})
        under_way.clear()

    async for line, row in rows:
        noun = row if isinstance(row, ApiError) else _call(row, gateway)
        under_way.append((line, _fail(noun) if isinstance(noun, ApiError) else gateway.writer.write(noun)))
        if len(under_way) >= BATCH:
            await settle()
    await settle()
    return _json({"accepted": accepted, "refused": refused, "problems": problems[:MOST_PROBLEMS]})


@router.delete("/v1/subjects/{hash}", **ERASE)
async def erase(request: Request, hash: Annotated[str, Path(pattern="^[0-9a-f]{32}$")]) -> Response:
    """Remove what a person asked and said, for ever; what was made of it is listed."""
    gateway, caller = _enter(request, Scope.ADMIN)
    by = "the machine itself" if caller.key is None else f"key {caller.key}"
    return _json(await asyncio.to_thread(_erase, gateway, hash, by))


@router.get("/static/thumbs.js", include_in_schema=False)
async def thumbs() -> Response:
    """The script that lets any chat page send feedback."""
    headers = {"cache-control": "public, max-age=3600", "cross-origin-resource-policy": "cross-origin"}
    return Response(_script(), headers=headers, media_type="text/javascript; charset=utf-8")


def _enter(request: Request, scope: Scope) -> tuple[Gateway, Caller]:
    gateway: Gateway = request.app.state.gateway
    caller = gateway.authenticate(request.scope["headers"], scope)
    gateway.limit_rate(caller.key or (request.client.host if request.client else ""), None)
    return gateway, caller


def _one(taken: IntakeResult) -> Response:
    if taken.status != "accepted":
        raise ApiError(HTTP_STATUS[taken.status], taken.problem or taken.status, _MEANING[taken.status])
    return _json(taken.to_json(), 202)


def _erase(gateway: Gateway, subject: str, by: str) -> dict[str, Any]:
    store = gateway.store
    erasure = store.log.erase(subject, by)
    made = derived_from(store, [e.id for _, e in store.log.read(Erasure, target=subject)])
    return {"id": erasure.id, "subject": subject, "by": by, "counts": erasure.counts, **made.summary()}


def _call(row: Any, gateway: Gateway) -> Interaction | ApiError:
    try:
        if not isinstance(row, dict):
            raise Fault("the row is no object")
        call = served(row, gateway.subjects.subject)
        return call if gateway.settings.keep_text else gateway.request_log.redacted(call)
    except (Fault, InputError) as fault:
        return ApiError(400, str(fault))


async def _fail(refusal: ApiError) -> None:
    raise refusal


async def _elements(body: Any) -> AsyncIterator[tuple[int, Any]]:
    rows: Sequence[Any] = body if isinstance(body, list) else [body]
    for number, row in enumerate(rows, 1):
        yield number, row


async def _lines(request: Request) -> AsyncIterator[tuple[int, Any]]:
    splitter = Splitter("the body", 1 << 20)
    async for piece in request.stream():
        for line, value in splitter.feed(piece):
            yield line, _decoded(value)
    for line, value in splitter.end():
        yield line, _decoded(value)


def _decoded(value: bytes) -> Any:
    try:
        return decode(value)
    except Fault as fault:
        return ApiError(400, str(fault))


def _shown(event: Feedback) -> dict[str, Any]:
    found = {name: getattr(event, name) for name in ("id", "time", "subject", "source")}
    found |= {"kind": type(event).__name__.lower(), "target": target_of(event), "name": name_of(event)}
    more = ("shown_order", "winner") if isinstance(event, Choice) else ("value", "text")
    return found | {name: getattr(event, name) for name in more if hasattr(event, name)}


def _cors(gateway: Gateway) -> dict[str, str]:
    """Any page may use a token that it has; where the setting names pages, it is these alone."""
    return {} if gateway.settings.cors_origins else _OPEN


@cache
def _script() -> bytes:
    return files("escultor.serve").joinpath("static/thumbs.js").read_bytes()


def _json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(data), status, headers, JSON.decode())

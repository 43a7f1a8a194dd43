"""The routes of the gateway itself: completions, models, health."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from escultor.ids import new_id
from escultor.serve.deployments import EnginePick
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.gateway.middleware import json_body, json_response, unless_disconnected
from escultor.serve.gateway.openapi import (
    CHAT_ROUTE,
    COMPLETION_ROUTE,
    HEALTH_ROUTE,
    MODEL_ROUTE,
    MODELS_ROUTE,
)
from escultor.serve.gateway.request_metadata import RequestMetadata, parse_metadata
from escultor.serve.gateway.sse import EventStream
from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.wire import responses
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import ParsedRequest, parse_chat, parse_completion
from escultor.serve.wire.responses import CHAT, COMPLETION, ResponseStyle
from escultor.types import Consent, Scope

router = APIRouter()
OWNER = "escultor"


@router.post("/v1/chat/completions", **CHAT_ROUTE)
async def chat(request: Request) -> Response:
    """An answer to a conversation; filed under `serve.skill`, with the consent `train` by default."""
    gateway, parsed = _parse(request, parse_chat)
    return await _respond(request, parsed, CHAT, gateway.settings.skill, Consent.TRAIN)


@router.post("/v1/completions", **COMPLETION_ROUTE)
async def completions(request: Request) -> Response:
    """Text that continues a raw prompt; with `echo` and `logprobs` the prompt is scored.

    Filed under the skill `completion` with the consent `eval_only` by default: it is not a conversation, and
    evaluation harnesses use this endpoint.
    """
    _, parsed = _parse(request, parse_completion)
    return await _respond(request, parsed, COMPLETION, "completion", Consent.EVAL_ONLY)


@router.get("/v1/models", **MODELS_ROUTE)
async def models(request: Request) -> Response:
    """Every model name that a request may give, and the version it means now."""
    gateway: Gateway = request.app.state.gateway
    gateway.authenticate(request.scope["headers"], Scope.INFER)
    data = [_model(gateway, name, version) for name, version in gateway.deployments.models().items()]
    return json_response({"object": "list", "data": data})


@router.get("/v1/models/{model:path}", **MODEL_ROUTE)
async def model(request: Request, model: str) -> Response:
    """One model name, and the version it means now."""
    gateway: Gateway = request.app.state.gateway
    gateway.authenticate(request.scope["headers"], Scope.INFER)
    version = gateway.deployments.models().get(model)
    if version is None:
        message = f"the model {model[:100]!r} does not exist"
        raise ApiError(404, message, "model_not_found", param="model")
    return json_response(_model(gateway, model, version))


@router.get("/health", **HEALTH_ROUTE)
async def health(request: Request) -> Response:
    """Whether the gateway works, what it serves, what waits, and what could not be recorded.

    A problem may name files and servers: its text is shown to callers with the scope `read`.
    """
    gateway: Gateway = request.app.state.gateway
    deployments = gateway.deployments
    active = deployments.active
    problems = [*active.problems, *([deployments.problem] if deployments.problem else [])]
    problem = "; ".join(problems) or None
    may_read = gateway.is_allowed(request.scope["headers"], Scope.READ)
    is_well = problem is None and not gateway.request_log.unlogged and not gateway.writer.failed
    return json_response(
        {
            "status": "ok" if is_well else "degraded",
            "deployment": active.deployment.id,
            "champion": active.champion.version,
            "versions": sorted(active.engines),
            "in_flight": sum(handle.in_flight for handle in active.engines.values()),
            "waiting_writes": gateway.writer.waiting,
            "failed_writes": gateway.writer.failed,
            "unlogged_answers": gateway.request_log.unlogged,
            "shadows_left_out": gateway.shadows_left_out,
            "engines_died": deployments.restarts.died,
            "engines_reopened": deployments.restarts.restarted,
            "problem": problem if problem is None or may_read else "the server's log has the details",
        }
    )


def _parse(request: Request, parse: Any) -> tuple[Gateway, ParsedRequest]:
    gateway: Gateway = request.app.state.gateway
    caller = gateway.authenticate(request.scope["headers"], Scope.INFER)
    request.state.caller = caller
    gateway.limit_rate(caller.key or (request.client.host if request.client else ""), None)
    return gateway, parse(json_body(request), gateway.settings)


async def _respond(
    request: Request, parsed: ParsedRequest, style: ResponseStyle, skill: str, consent: Consent
) -> Response:
    gateway: Gateway = request.app.state.gateway
    settings, headers, caller = gateway.settings, request.scope["headers"], request.state.caller
    metadata = parse_metadata(headers, parsed, caller, gateway.subjects, skill=skill, consent=consent)
    if metadata.named:
        gateway.limit_rate(None, metadata.subject)
    pick = gateway.pick(parsed, metadata)
    id = new_id(style.prefix)
    # Each answer is a row of its own; the first has the id of the response.
    completions = [
        InFlightCompletion(generation, metadata.draft(f"{id}-{k}" if k else id, generation, pick))
        for k, generation in enumerate(parsed.generations)
    ]
    kind = style.chunk if parsed.stream else style.whole
    head = responses.head(id, kind, int(time.time()), pick.handle.version)
    response_headers = _headers(gateway, id, pick, metadata)
    with ExitStack() as lease:
        lease.enter_context(pick.handle.in_use())  # the engine is not closed under the request
        if parsed.stream:
            return EventStream(
                gateway.stream(parsed, completions, pick, head, style),
                response_headers,
                lease.pop_all(),
                answer_timeout_s=settings.answer_timeout_s,
                send_timeout_s=settings.send_timeout_s,
            )
        await unless_disconnected(request.receive, gateway.complete(completions, pick))
    choices = [style.choice(k, completion) for k, completion in enumerate(completions)]
    if len(choices) > 1:
        for choice, completion in zip(choices, completions, strict=True):
            token = gateway.feedback_token(completion.id, metadata.subject)
            choice[OWNER] = {"id": completion.id, "feedback_token": token}
    usage = responses.usage(completions, parsed.per_prompt)
    return json_response({**head, "choices": choices, "usage": usage}, response_headers)


def _headers(gateway: Gateway, id: str, pick: EnginePick, metadata: RequestMetadata) -> dict[str, str]:
    headers = {
        "x-escultor-version": pick.handle.version,
        "x-escultor-arm": pick.arm,
        "x-escultor-feedback-token": gateway.feedback_token(id, metadata.subject),
    }
    if metadata.ignored:
        # A metadata key may hold any character; a header may not.
        names = ", ".join(metadata.ignored).encode("ascii", "backslashreplace").decode()
        headers["x-escultor-ignored"] = "".join(c if c.isprintable() else "?" for c in names)[:1000]
    return headers


def _model(gateway: Gateway, name: str, version: str) -> dict[str, Any]:
    created = int(gateway.deployments.active.deployment.time)
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER, "root": version}

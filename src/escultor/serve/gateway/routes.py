"""The gateway's own paths: answers, models, health."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

from fastapi import APIRouter, Request
from pydantic_core import to_json
from starlette.responses import Response

from escultor.ids import new_id
from escultor.serve.deployments import EnginePick
from escultor.serve.gateway.gateway import Gateway
from escultor.serve.gateway.middleware import parsed, unless_gone
from escultor.serve.gateway.openapi import CHATS, COMPLETIONS, HEALTH, MODEL, MODELS
from escultor.serve.gateway.request_metadata import RequestMetadata, read_terms
from escultor.serve.gateway.sse import EventStream
from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.wire import responses
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.requests import ParsedRequest, read_chat, read_completion
from escultor.serve.wire.responses import CHAT, COMPLETION, ResponseStyle
from escultor.types import Consent, Scope

router = APIRouter()
OWNER = "escultor"


@router.post("/v1/chat/completions", **CHATS)
async def chat(request: Request) -> Response:
    """An answer to a conversation; filed under the setting's skill, to be learnt from unless told not to."""
    gateway, call = _call(request, read_chat)
    return await _answer(request, gateway, call, CHAT, gateway.settings.skill, Consent.TRAIN)


@router.post("/v1/completions", **COMPLETIONS)
async def completions(request: Request) -> Response:
    """Text that goes on from a prompt as it stands; with `echo` and `logprobs` the prompt is scored.

    Filed under the skill `completion` and not learnt from unless told to: it is no conversation, and
    evaluation harnesses ask this way.
    """
    gateway, call = _call(request, read_completion)
    return await _answer(request, gateway, call, COMPLETION, "completion", Consent.EVAL_ONLY)


@router.get("/v1/models", **MODELS)
async def models(request: Request) -> Response:
    """Every name that may be asked for, and the version it stands for now."""
    gateway: Gateway = request.app.state.gateway
    gateway.caller(request.scope["headers"], Scope.INFER)
    found = [_model(gateway, name, root) for name, root in gateway.deployments.models().items()]
    return _json({"object": "list", "data": found})


@router.get("/v1/models/{model:path}", **MODEL)
async def model(request: Request, model: str) -> Response:
    """One of them."""
    gateway: Gateway = request.app.state.gateway
    gateway.caller(request.scope["headers"], Scope.INFER)
    root = gateway.deployments.models().get(model)
    if root is None:
        message = f"the model {model[:100]!r} does not exist"
        raise ApiError(404, message, "model_not_found", param="model")
    return _json(_model(gateway, model, root))


@router.get("/health", **HEALTH)
async def health(request: Request) -> Response:
    """Whether all is well, what answers, what waits, and what could not be logged.

    What is wrong may name files and servers: it is told to who may read the store.
    """
    gateway: Gateway = request.app.state.gateway
    standing = gateway.deployments.standing
    found = [*standing.problems, *([gateway.deployments.problem] if gateway.deployments.problem else [])]
    problem = "; ".join(found) or None
    told = gateway.may(request.scope["headers"], Scope.READ)
    well = problem is None and not gateway.ledger.unlogged and not gateway.writer.failed
    return _json(
        {
            "status": "ok" if well else "degraded",
            "deployment": standing.deployment.id,
            "champion": standing.champion.version,
            "versions": sorted(standing.engines),
            "in_flight": sum(held.users for held in standing.engines.values()),
            "waiting_writes": gateway.writer.waiting,
            "failed_writes": gateway.writer.failed,
            "unlogged_answers": gateway.ledger.unlogged,
            "shadows_left_out": gateway.shadows_left_out,
            "engines_died": gateway.deployments.reopening.died,
            "engines_reopened": gateway.deployments.reopening.reopened,
            "problem": problem if problem is None or told else "the server's log says what",
        }
    )


def _call(request: Request, read: Any) -> tuple[Gateway, ParsedRequest]:
    gateway: Gateway = request.app.state.gateway
    caller = gateway.caller(request.scope["headers"], Scope.INFER)
    request.state.caller = caller
    gateway.admit(caller.key or (request.client.host if request.client else ""), None)
    return gateway, read(parsed(request), gateway.settings)


async def _answer(
    request: Request,
    gateway: Gateway,
    call: ParsedRequest,
    style: ResponseStyle,
    skill: str,
    consent: Consent,
) -> Response:
    headers, caller = request.scope["headers"], request.state.caller
    terms = read_terms(headers, call, caller, gateway.subjects, skill=skill, consent=consent)
    if terms.named:
        gateway.admit(None, terms.subject)
    pick = gateway.pick(call, terms)
    id = new_id(style.prefix)
    # Each answer is a row of its own; the first has the id of the whole.
    makings = [InFlightCompletion(ask, f"{id}-{k}" if k else id) for k, ask in enumerate(call.asks)]
    said, settings = _headers(gateway, id, pick, terms), gateway.settings
    head = responses.head(
        id, style.piece if call.stream else style.whole, int(time.time()), pick.held.version
    )
    with ExitStack() as held:
        held.enter_context(pick.held.used())  # from now on this engine is not closed under the request
        if call.stream:
            return EventStream(
                gateway.stream(call, makings, pick, terms, head, style),
                said,
                held.pop_all(),
                answer_timeout_s=settings.answer_timeout_s,
                send_timeout_s=settings.send_timeout_s,
            )
        await unless_gone(request.receive, gateway.whole(makings, pick, terms))
    choices = [style.choice(k, making) for k, making in enumerate(makings)]
    if len(makings) > 1:
        for choice, making in zip(choices, makings, strict=True):
            choice[OWNER] = {"id": making.id, "feedback_token": gateway.token(making.id, terms)}
    return _json({**head, "choices": choices, "usage": responses.usage(makings, call.per_prompt)}, said)


def _headers(gateway: Gateway, id: str, pick: EnginePick, terms: RequestMetadata) -> dict[str, str]:
    said = {
        "x-escultor-version": pick.held.version,
        "x-escultor-arm": pick.arm,
        "x-escultor-feedback-token": gateway.token(id, terms),
    }
    if terms.ignored:
        # What a client calls its metadata may hold anything; a header may not.
        names = ", ".join(terms.ignored).encode("ascii", "backslashreplace").decode()
        said["x-escultor-ignored"] = "".join(c if c.isprintable() else "?" for c in names)[:1000]
    return said


def _model(gateway: Gateway, name: str, root: str) -> dict[str, Any]:
    created = int(gateway.deployments.standing.deployment.time)
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER, "root": root}


def _json(data: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(to_json(data), headers=headers, media_type="application/json")

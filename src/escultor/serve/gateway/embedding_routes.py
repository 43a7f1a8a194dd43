"""The route of embeddings, which an upstream computes; the log has their figures, and no text."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from escultor.errors import UpstreamFault
from escultor.ids import hash_value, new_id
from escultor.serve.engines.upstream.engine import UpstreamEngine
from escultor.serve.engines.upstream.fallback import FallbackEngine
from escultor.serve.engines.upstream.replies import LARGE, PARSE_S
from escultor.serve.engines.upstream.reply_json import parse_json, parse_usage
from escultor.serve.gateway.bodies import JSON, read_body
from escultor.serve.gateway.gateway import Gateway, admit
from escultor.serve.gateway.openapi import EmbeddingsReply, route
from escultor.serve.gateway.request_metadata import parse_metadata
from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.protocol import End, ServedBy
from escultor.serve.side_process import SIDE
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.forwarded import parse_embedding
from escultor.serve.wire.requests import ParsedRequest
from escultor.types import Consent, Scope

router = APIRouter()
PATH = "/v1/embeddings"
SKILL = "embedding"
_ERRORS = 400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504
_TOKENS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_INPUTS = {"type": "array", "minItems": 1, "items": {"anyOf": [{"type": "string"}, _TOKENS]}}
_INPUT = {"anyOf": [{"type": "string"}, _TOKENS, _INPUTS]}
_BODY = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {"model": {"type": "string"}, "input": _INPUT},
}


@router.post(PATH, **route(EmbeddingsReply, _ERRORS, body=_BODY))
async def embeddings(request: Request) -> Response:
    """Embeddings of an upstream, passed through. Their rows have the consent `none`."""
    gateway, caller = admit(request, Scope.INFER)
    parsed, input_hash = await read_body(request, _read)
    left = await gateway.check_limits(caller, parsed.model)
    pick = gateway.routes.pick(parsed.model)
    headers, subjects = request.scope["headers"], gateway.subjects
    metadata = parse_metadata(headers, parsed, caller, subjects, skill=SKILL, consent=Consent.NONE)
    metadata = replace(metadata, consent=Consent.NONE, task=metadata.task or SKILL)
    if metadata.named:
        gateway.limit_rate(None, metadata.subject)
    pick = pick or gateway.pick(parsed, metadata)
    engine = pick.handle.engine
    if not isinstance(engine, UpstreamEngine | FallbackEngine):
        message = "no upstream makes embeddings under this name; `serve.models` can name one that does"
        raise ApiError(404, message, "model_not_found", param="model")
    (generation,) = parsed.generations
    draft = metadata.draft(new_id("embd"), generation, pick)
    keyed = gateway.subjects.subject(input_hash)  # equal inputs can be told, and not guessed
    completion = InFlightCompletion(generation, replace(draft, prompt_hash=keyed))
    with pick.handle.in_use():
        # To its end, even where the client leaves: what was computed is counted.
        reply = await _embed(gateway, engine, completion)
    own = {"x-escultor-version": completion.draft.version, **left}
    return Response(reply, headers=own, media_type=JSON)


def _read(body: Any) -> tuple[ParsedRequest, str]:
    """The request in a body, and the hash of its inputs."""
    return parse_embedding(body), hash_value(body["input"])


async def _embed(
    gateway: Gateway, engine: UpstreamEngine | FallbackEngine, completion: InFlightCompletion
) -> bytes:
    """The upstream's reply, whose row is on disk. Raises what the engine raises, and StoreError."""
    body = completion.request.body
    assert body is not None
    async with asyncio.timeout(gateway.settings.answer_timeout_s):
        reply, version = await engine.ask_json("/embeddings", body)
    if len(reply) <= LARGE:
        given = _usage_in(reply)
    else:
        given = await SIDE.call(partial(_usage_in, reply), PARSE_S)
    counted = {"completion_tokens": 0, **given} if isinstance(given, dict) else None
    usage = parse_usage(counted) or completion.estimated_usage()
    completion.apply(ServedBy(version))
    completion.apply(End("stop", usage, 0.0, given))
    await gateway.request_log.record([completion])
    return reply


def _usage_in(reply: bytes) -> Any:
    """The upstream's counts in a reply. Raises UpstreamFault for one that holds no embeddings."""
    data = parse_json(reply)
    if not isinstance(data, dict) or not isinstance(data.get("data"), list):
        raise UpstreamFault("the upstream's reply holds no embeddings", None, "an object with `data`")
    return data.get("usage")

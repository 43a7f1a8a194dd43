"""The routes of the gateway itself: completions, models, health."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import ExitStack, aclosing, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from escultor.ids import new_id
from escultor.serve.auth import Caller
from escultor.serve.deployments import EnginePick
from escultor.serve.gateway.bodies import compute, read_body
from escultor.serve.gateway.gateway import Gateway, admit
from escultor.serve.gateway.middleware import ClientGone, json_response, unless_disconnected
from escultor.serve.gateway.openapi import (
    ChatCompletion,
    Completion,
    HealthReply,
    ModelReply,
    ModelsReply,
    route,
)
from escultor.serve.gateway.request_metadata import RequestMetadata, parse_metadata
from escultor.serve.in_flight import InFlightCompletion
from escultor.serve.wire import responses
from escultor.serve.wire.body_reading import Converter, Parser, as_given, read_request
from escultor.serve.wire.errors import ApiError, to_api_error
from escultor.serve.wire.forwarded import parse_forwarded_chat, parse_forwarded_completion
from escultor.serve.wire.requests import ParsedRequest, parse_chat, parse_completion
from escultor.serve.wire.responses import CHAT, COMPLETION, ResponseHead, ResponseStyle
from escultor.types import Consent, Scope

logger = logging.getLogger(__name__)
router = APIRouter()
OWNER = "escultor"
BEGIN_S = 2.0  # after which a stream begins with a comment: what fails earlier has a status
KEEP_ALIVE_S = 10.0  # of silence, after which a stream sends a comment
CHAT_PARSERS: tuple[Parser, Parser] = (parse_chat, parse_forwarded_chat)
_ERRORS = 400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504


@router.post(
    "/v1/chat/completions", **route(ChatCompletion, (*_ERRORS, 422), body="ChatRequest", is_streamed=True)
)
async def chat(request: Request) -> Response:
    """An answer to a conversation; filed under `serve.skill`, with the consent `train` by default."""
    return await respond(request, CHAT_PARSERS, CHAT, Consent.TRAIN)


@router.post("/v1/completions", **route(Completion, _ERRORS, body="CompletionRequest", is_streamed=True))
async def completions(request: Request) -> Response:
    """Text that continues a raw prompt; with `echo` and `logprobs` the prompt is scored. Filed under the
    skill `completion` with the consent `eval_only` by default: it is not a conversation, and evaluation
    harnesses use this endpoint."""
    parsers = parse_completion, parse_forwarded_completion
    return await respond(request, parsers, COMPLETION, Consent.EVAL_ONLY, skill="completion")


@router.get("/v1/models", **route(ModelsReply, (401, 403)))
async def models(request: Request) -> Response:
    """Every model name that a request may give, and the version it means now."""
    gateway: Gateway = request.app.state.gateway
    caller = gateway.authenticate(request.scope["headers"], Scope.INFER)
    data = [_model(gateway, name, version) for name, version in gateway.models(caller).items()]
    return json_response({"object": "list", "data": data})


@router.get("/v1/models/{model:path}", **route(ModelReply, (401, 403, 404)))
async def model(request: Request, model: str) -> Response:
    """One model name, and the version it means now."""
    gateway: Gateway = request.app.state.gateway
    caller = gateway.authenticate(request.scope["headers"], Scope.INFER)
    version = gateway.models(caller).get(model)
    if version is None:
        message = f"the model {model[:100]!r} does not exist"
        raise ApiError(404, message, "model_not_found", param="model")
    return json_response(_model(gateway, model, version))


@router.get("/health", **route(HealthReply))
async def health(request: Request) -> Response:
    """Whether the gateway works, what it serves, what waits, and what could not be recorded. A problem may
    name files and servers: its text is shown to callers with the scope `read`."""
    gateway: Gateway = request.app.state.gateway
    deployments = gateway.deployments
    active = deployments.active
    troubles = {each.version: each.trouble for each in gateway.upstreams}
    problems = [*active.problems, *([deployments.problem] if deployments.problem else [])]
    problems += [f"the upstream {version}: {why}" for version, why in troubles.items() if why is not None]
    problem = "; ".join(problems) or None
    may_read = gateway.is_allowed(request.scope["headers"], Scope.READ)
    is_well = problem is None and not gateway.writer.is_failing
    return json_response(
        {
            "status": "ok" if is_well else "degraded",
            "deployment": active.deployment.id,
            "champion": active.champion.version,
            "versions": sorted(active.engines),
            "upstreams": {version: "ok" if why is None else "failing" for version, why in troubles.items()},
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


async def respond(
    request: Request,
    parsers: tuple[Parser, Parser],
    style: ResponseStyle,
    consent: Consent,
    *,
    skill: str | None = None,
    convert: Converter = as_given,
    admitted: tuple[Gateway, Caller] | None = None,
) -> Response:
    """The response to a request for answers, of a caller who is `admitted` here or was before. `parsers` read
    the body for our own models and for an upstream; `convert` makes of it a body that they read, and the
    names of parameters without effect."""
    gateway, caller = admitted or admit(request, Scope.INFER)
    settings, headers = gateway.settings, request.scope["headers"]
    parsed, ignored, route = await _parsed(request, parsers, convert)
    left = await gateway.check_limits(caller, parsed.model)
    skill = skill or caller.skill or settings.skill
    metadata = parse_metadata(headers, parsed, caller, gateway.subjects, skill=skill, consent=consent)
    if metadata.named:
        gateway.limit_rate(None, metadata.subject)
    if metadata.lineage is not None:
        await _refuse_foreign(gateway, caller, metadata.lineage.parent)
    pick, id = route or gateway.pick(parsed, metadata), new_id(style.prefix)
    version = pick.handle.version
    head = ResponseHead(id, int(time.time()), version, parsed.per_prompt, parsed.include_usage)

    def response_headers() -> dict[str, str]:  # once it is known who answers
        return _headers(gateway, completions[0], metadata, ignored) | left

    with ExitStack() as lease:
        lease.enter_context(pick.handle.in_use())  # the engine is not closed under the request
        draft = partial(_completions, parsed, metadata, pick, id)
        completions = await compute(request, draft)
        if parsed.stream:
            return EventStream(
                gateway.stream(completions, pick, style, head),
                response_headers,
                lease.pop_all(),
                error_event=style.error,
                answer_timeout_s=settings.answer_timeout_s,
                send_timeout_s=settings.send_timeout_s,
            )
        await unless_disconnected(request.receive, gateway.complete(completions, pick))
    body = style.whole(replace(head, model=completions[0].draft.version), completions)
    _identify(body, completions, gateway, metadata)
    return json_response(body, response_headers())


def _identify(
    body: dict[str, Any],
    completions: Sequence[InFlightCompletion],
    gateway: Gateway,
    metadata: RequestMetadata,
) -> None:
    """Give each of several choices its id in the log, and a token for feedback on it."""
    if len(completions) > 1:
        for choice, completion in zip(body["choices"], completions, strict=True):
            token = gateway.feedback_token(completion.id, metadata.subject)
            choice[OWNER] = {"id": completion.id, "feedback_token": token}


async def _refuse_foreign(gateway: Gateway, caller: Caller, parent: str) -> None:
    """Raise ApiError (404) for a parent that is another tenant's answer: to ask again is an opinion on it."""
    if await asyncio.to_thread(gateway.intake.ownership.foreign, [parent], caller.keys):
        raise ApiError(404, "the `parent` is an answer of another tenant", "not_found", param="parent")


async def _parsed(
    request: Request, parsers: tuple[Parser, Parser], convert: Converter
) -> tuple[ParsedRequest, tuple[str, ...], EnginePick | None]:
    """The request in a body, the names of parameters without effect, and the upstream that the name of the
    model goes to."""
    gateway: Gateway = request.app.state.gateway
    reader = partial(read_request, settings=gateway.settings, parsers=parsers, convert=convert)
    parsed, ignored, model = await read_body(request, reader)
    return parsed, ignored, gateway.routes.pick(model)


def _completions(
    parsed: ParsedRequest, metadata: RequestMetadata, pick: EnginePick, id: str
) -> list[InFlightCompletion]:
    """The answers of a request, each with a row of its own; the first has the id of the response."""
    ids = [f"{id}-{k}" if k else id for k in range(len(parsed.generations))]
    shared = (*((parsed.tools,) if parsed.tools else ()), *parsed.media)
    return [
        InFlightCompletion(generation, metadata.draft(own_id, generation, pick), shared)
        for own_id, generation in zip(ids, parsed.generations, strict=True)
    ]


def _headers(
    gateway: Gateway, first: InFlightCompletion, metadata: RequestMetadata, ignored: tuple[str, ...]
) -> dict[str, str]:
    headers = {
        "x-escultor-version": first.draft.version,
        "x-escultor-arm": first.draft.arm,
        "x-escultor-feedback-token": gateway.feedback_token(first.id, metadata.subject),
    }
    if ignored := (*ignored, *metadata.ignored):
        # A metadata key may hold any character; a header may not.
        names = ", ".join(ignored).encode("ascii", "backslashreplace").decode()
        headers["x-escultor-ignored"] = "".join(c if c.isprintable() else "?" for c in names)[:1000]
    return headers


def _model(gateway: Gateway, name: str, version: str) -> dict[str, Any]:
    created = int(gateway.deployments.active.deployment.time)
    return {"id": name, "object": "model", "created": created, "owned_by": OWNER, "root": version}


class EventStream(Response):
    """A response whose body is computed while it is sent. An exception before anything was sent becomes the
    response's status; after it, a last event that holds the error. While nothing comes, a comment is sent
    after `BEGIN_S`, then every `KEEP_ALIVE_S`, so that neither the client nor a proxy takes the stream for
    dead. A client that disconnects, or reads a piece too slowly, cancels the work."""

    media_type = "text/event-stream"

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        headers: Callable[[], Mapping[str, str]],
        lease: ExitStack,
        *,
        error_event: Callable[[ApiError], bytes],
        answer_timeout_s: float,
        send_timeout_s: float,
    ):
        """`headers` are asked for when the response begins, `lease` is closed after its last piece."""
        super().__init__(headers={"X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._more_headers = headers
        self._pieces, self._lease, self._error_event = pieces, lease, error_event
        self._answer_timeout_s, self._send_timeout_s = answer_timeout_s, send_timeout_s
        self._has_begun = False
        self._sending, self._last_sent = asyncio.Lock(), time.monotonic()

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        with self._lease:
            await unless_disconnected(receive, self._deliver(send))

    async def _deliver(self, send: Send) -> None:
        keeper = asyncio.create_task(self._keep_alive(send))
        try:
            await self._deliver_pieces(send)
        finally:
            keeper.cancel()

    async def _keep_alive(self, send: Send) -> None:
        with suppress(ClientGone):  # the next piece finds out as well
            while True:
                silent_s = time.monotonic() - self._last_sent
                allowed_s = KEEP_ALIVE_S if self._has_begun else min(BEGIN_S, KEEP_ALIVE_S)
                if silent_s >= allowed_s:
                    await self._send(send, responses.KEEP_ALIVE)
                else:
                    await asyncio.sleep(allowed_s - silent_s)

    async def _deliver_pieces(self, send: Send) -> None:
        try:
            async with asyncio.timeout(self._answer_timeout_s), aclosing(self._pieces) as pieces:
                async for piece in pieces:
                    await self._send(send, piece)
        except ClientGone:
            raise
        except Exception as error:
            if not self._has_begun:
                raise
            logger.warning("a stream was broken off: %s", error)
            await self._send(send, self._error_event(to_api_error(error)))
        await self._send(send, b"", is_last=True)

    async def _send(self, send: Send, piece: bytes, is_last: bool = False) -> None:
        try:
            async with asyncio.timeout(self._send_timeout_s), self._sending:
                self._last_sent = time.monotonic()
                if not self._has_begun:
                    self._has_begun = True
                    self.headers.update(self._more_headers())
                    start: dict[str, Any] = {"type": "http.response.start", "status": 200}
                    await send({**start, "headers": self.raw_headers})
                await send({"type": "http.response.body", "body": piece, "more_body": not is_last})
        except TimeoutError:
            raise ClientGone from None

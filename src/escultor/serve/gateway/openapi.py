"""The OpenAPI schemas of the gateway's responses; a test checks the responses against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel

from escultor.serve.wire.errors import ErrorBody
from escultor.serve.wire.requests import ChatRequest, CompletionRequest

COMPONENTS = "#/components/schemas/{model}"
_ERROR_STATUSES = 400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504


class TokenTop(BaseModel):
    token: str
    logprob: float | None
    bytes: list[int]


class TokenLogprobs(TokenTop):
    top_logprobs: list[TokenTop]


class ChatLogprobs(BaseModel):
    content: list[TokenLogprobs]
    refusal: str | None


class ChatAnswer(BaseModel):
    role: Literal["assistant"]
    content: str
    refusal: str | None


class ChoiceIdentity(BaseModel):
    """The id of a choice in the log, and the token for feedback on it, where there are several choices."""

    id: str
    feedback_token: str


class ChatCompletionChoice(BaseModel):
    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length"]
    escultor: ChoiceIdentity | None = None  # where there are several


class UsageCounts(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class _CompletionBase(BaseModel):
    id: str
    created: int
    model: str
    system_fingerprint: str
    usage: UsageCounts


class ChatCompletion(_CompletionBase):
    object: Literal["chat.completion"]
    choices: list[ChatCompletionChoice]


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length"]


class Completion(_CompletionBase):
    object: Literal["text_completion"]
    choices: list[CompletionChoice]


class ModelReply(BaseModel):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str


class ModelsReply(BaseModel):
    object: Literal["list"]
    data: list[ModelReply]


class HealthReply(BaseModel):
    status: Literal["ok", "degraded"]
    deployment: str
    champion: str
    versions: list[str]
    in_flight: int
    waiting_writes: int
    failed_writes: int
    unlogged_answers: int
    shadows_left_out: int
    engines_died: int
    engines_reopened: int
    problem: str | None


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorBody, "description": "an error"} for status in statuses}


def _completion_route(request: type[BaseModel], reply: type[BaseModel], *more: int) -> dict[str, Any]:
    """Options of a route with a JSON body and a response that may be streamed."""
    schema = {"$ref": COMPONENTS.format(model=request.__name__)}
    events = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
    content = {"text/event-stream": {"schema": events}}
    success = {"model": reply, "description": "the answer, whole or streamed", "content": content}
    body = {"required": True, "content": {"application/json": {"schema": schema}}}
    return {
        "response_model": None,
        "responses": {200: success, **errors(*_ERROR_STATUSES, *more)},
        "openapi_extra": {"requestBody": body},
    }


def _json_route(reply: type[BaseModel], *statuses: int) -> dict[str, Any]:
    success = {"model": reply, "description": "the requested object"}
    return {"response_model": None, "responses": {200: success, **errors(*statuses)}}


REQUESTS = ChatRequest, CompletionRequest
CHAT_ROUTE = _completion_route(ChatRequest, ChatCompletion, 422)
COMPLETION_ROUTE = _completion_route(CompletionRequest, Completion)
MODELS_ROUTE = _json_route(ModelsReply, 401, 403)
MODEL_ROUTE = _json_route(ModelReply, 401, 403, 404)
HEALTH_ROUTE = _json_route(HealthReply)

"""The routes of Anthropic's Messages API, over the same engines and log as OpenAI's."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from escultor.serve.gateway.bodies import read_body
from escultor.serve.gateway.gateway import admit
from escultor.serve.gateway.middleware import json_response
from escultor.serve.gateway.openapi import AnthropicErrorBody, AnthropicMessage, TokenCountReply, route
from escultor.serve.gateway.routes import CHAT_PARSERS, respond
from escultor.serve.wire import anthropic
from escultor.serve.wire.requests import MAX_TOKENS_VALUE
from escultor.types import Consent, Scope

router = APIRouter()
_ERRORS = 400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504
_TEXT = {
    "type": "object",
    "required": ["type", "text"],
    "properties": {"type": {"const": "text"}, "text": {"type": "string"}},
}
_TURN = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "role": {"enum": ["user", "assistant"]},
        "content": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": _TEXT}]},
    },
}
_PROMPT = {
    "model": {"type": "string", "minLength": 1},
    "messages": {"type": "array", "minItems": 1, "items": _TURN},
}
_COUNTED_BODY = {"type": "object", "required": ["model", "messages"], "properties": _PROMPT}
_BODY = {
    "type": "object",
    "required": ["model", "max_tokens", "messages"],
    "properties": _PROMPT | {"max_tokens": {"type": "integer", "minimum": 1, "maximum": MAX_TOKENS_VALUE}},
}


@router.post(
    anthropic.PATH,
    **route(AnthropicMessage, _ERRORS, body=_BODY, is_streamed=True, error_body=AnthropicErrorBody),
)
async def messages(request: Request) -> Response:
    """An answer to a conversation, in the form of Anthropic's Messages API."""
    style, convert = anthropic.MESSAGES, anthropic.chat_body
    return await respond(request, CHAT_PARSERS, style, Consent.TRAIN, convert=convert)


@router.post(
    f"{anthropic.PATH}/count_tokens",
    **route(TokenCountReply, _ERRORS, body=_COUNTED_BODY, error_body=AnthropicErrorBody),
)
async def count_tokens(request: Request) -> Response:
    """The tokens of a prompt, estimated at four bytes a token."""
    admit(request, Scope.INFER)
    return json_response({"input_tokens": await read_body(request, anthropic.estimated_tokens)})

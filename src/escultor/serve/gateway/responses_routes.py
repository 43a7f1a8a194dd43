"""The route of OpenAI's Responses API, over the same engines and log as chat completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from escultor.data.row_messages import message_row
from escultor.serve.gateway.bodies import read_body
from escultor.serve.gateway.gateway import Gateway, admit
from escultor.serve.gateway.openapi import ResponseReply, route
from escultor.serve.gateway.routes import CHAT_PARSERS, respond
from escultor.serve.wire import responses_api
from escultor.serve.wire.errors import ApiError
from escultor.serve.wire.media import restored
from escultor.serve.wire.responses_tools import ClientTools, client_tools
from escultor.types import Consent, Interaction, Media, Message, Role, Scope

router = APIRouter()
_ERRORS = 400, 401, 403, 404, 408, 413, 415, 429, 500, 502, 503, 504
_TURN = {
    "type": "object",
    "required": ["role", "content"],
    "properties": {
        "type": {"const": "message"},
        "role": {"enum": ["user", "assistant", "system", "developer"]},
        "content": {"type": "string"},
    },
}
_BODY = {
    "type": "object",
    "required": ["model", "input"],
    "properties": {
        "model": {"type": "string", "minLength": 1},
        "input": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "items": _TURN}]},
    },
}


@router.post(responses_api.PATH, **route(ResponseReply, _ERRORS, body=_BODY, is_streamed=True))
async def responses(request: Request) -> Response:
    """An answer in the form of OpenAI's Responses API; `previous_response_id` continues a logged one."""
    gateway, caller = admitted = admit(request, Scope.INFER)
    previous, tools = await read_body(request, _previous_and_tools)
    convert = partial(responses_api.chat_body, tools=tools)
    if previous is not None:
        earlier = await asyncio.to_thread(_conversation, gateway, str(previous), caller.keys)
        convert = partial(convert, earlier=earlier, parent=str(previous))
    style = responses_api.ResponsesStyle(tools)
    return await respond(request, CHAT_PARSERS, style, Consent.TRAIN, convert=convert, admitted=admitted)


def _previous_and_tools(body: Any) -> tuple[Any, ClientTools]:
    return body.get("previous_response_id") if isinstance(body, dict) else None, client_tools(body)


def _conversation(gateway: Gateway, id: str, keys: Collection[str] | None) -> list[dict[str, Any]]:
    """The messages of a logged answer of this tenant, and the answer; without its instructions, which do not
    carry over. Raises ApiError (404) where there is none."""
    row = gateway.store.log.get(Interaction, id)
    if row is None or (keys is not None and row.tenant not in keys):
        message = f"no response {id[:100]!r} is in the log"
        raise ApiError(404, message, "previous_response_not_found", param="previous_response_id")
    if row.consent is Consent.NONE and not gateway.settings.keep_text:
        message = "this gateway keeps no text, so it cannot continue a response; send the conversation"
        raise ApiError(400, message, "previous_response_not_found", param="previous_response_id")
    spoken = [m for m in row.messages if m.role not in (Role.SYSTEM, Role.DEVELOPER)]
    last = Message(Role.ASSISTANT, row.answer, reasoning=row.reasoning, tool_calls=row.tool_calls)
    ids = [id for message in spoken for id in message.media]
    media = {id: body["text"] for id, body in gateway.store.log.raw_by_id(Media, ids).items()} if ids else {}
    return [_as_sent(message, media) for message in (*spoken, last)]


def _as_sent(message: Message, media: Mapping[str, str]) -> dict[str, Any]:
    sent = {key: value for key, value in message_row(message).items() if key != "weight"}
    if message.parts:
        sent["content"] = restored(json.loads(message.parts), media)
    elif not message.content and message.tool_calls:
        sent["content"] = None
    return sent

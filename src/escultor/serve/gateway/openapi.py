"""The OpenAPI schemas of requests and responses; a test checks the responses against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, RootModel
from pydantic.json_schema import models_json_schema

from escultor.data.importers.interactions import ExternalInteraction
from escultor.serve.intake.forms import Form
from escultor.serve.intake.intake import IntakeResult
from escultor.serve.wire.errors import ErrorBody
from escultor.serve.wire.requests import ChatRequest, CompletionRequest

_COMPONENTS = "#/components/schemas/{model}"
_ID = "$response.body#/id"
_ANSWERS = ("chat", "completions", "messages", "responses")
# A link's name: the operations after which, and the operation that may be next, with what.
_LINKS: dict[str, tuple[tuple[str, ...], str, dict[str, Any]]] = {
    "feedback": (_ANSWERS, "list_feedback", {"parameters": {"query.target": _ID}}),
    "rate": (_ANSWERS, "add_feedback", {"requestBody": {"id": _ID, "value": True}}),
    "withdraw": (("add_feedback",), "withdraw_feedback", {"parameters": {"path.id": _ID}}),
    "model": (("models",), "model", {"parameters": {"path.model": "$response.body#/data/0/id"}}),
    "erase": (
        ("list_feedback",),
        "erase_subject",
        {"parameters": {"path.hash": "$response.body#/live/0/subject"}},
    ),
}


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
    """The answer; what an upstream sends beside the text (calls of tools, reasoning) is passed on."""

    model_config = ConfigDict(extra="allow")

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[Any] | None = None
    reasoning_content: str | None = None


class ChoiceIdentity(BaseModel):
    """The id of a choice in the log, and the token for feedback on it, where there are several choices."""

    id: str
    feedback_token: str


class ChatCompletionChoice(BaseModel):
    index: int
    message: ChatAnswer
    logprobs: ChatLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "function_call", "content_filter"]
    escultor: ChoiceIdentity | None = None  # where there are several


class UsageCounts(BaseModel):
    model_config = ConfigDict(extra="allow")

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


class AnthropicMessage(BaseModel):
    """A message of Anthropic's API."""

    model_config = ConfigDict(extra="allow")

    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "tool_use", "refusal"] | None
    usage: dict[str, int]


class AnthropicErrorBody(BaseModel):
    """The body of an error response of Anthropic's API."""

    type: Literal["error"]
    error: dict[str, str]


class ResponseReply(BaseModel):
    """A response of OpenAI's Responses API."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"]
    created_at: int
    model: str
    status: Literal["completed", "incomplete"]
    output: list[dict[str, Any]]


class TokenCountReply(BaseModel):
    input_tokens: int


class CompletionLogprobs(BaseModel):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(BaseModel):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


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
    upstreams: dict[str, Literal["ok", "failing"]]
    in_flight: int
    waiting_writes: int
    failed_writes: int
    unlogged_answers: int
    shadows_left_out: int
    engines_died: int
    engines_reopened: int
    problem: str | None


class EmbeddingsReply(BaseModel):
    """Embeddings, as the upstream sent them."""

    model_config = ConfigDict(extra="allow")

    object: Literal["list"]
    data: list[dict[str, Any]]


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


class NamedDataset(BaseModel):
    name: str
    hash: str


class DerivedDataset(NamedDataset):
    rows: int


class NamedCheckpoint(BaseModel):
    name: str
    id: str


class DerivedCheckpoint(NamedCheckpoint):
    how: str


class ErasureReply(BaseModel):
    """What was erased, and what was derived from it: datasets (without those rows now), checkpoints to
    retrain, and datasets that could not be looked into."""

    id: str
    subject: str
    by: str
    counts: dict[str, int]
    datasets: list[DerivedDataset]
    checkpoints: list[DerivedCheckpoint]
    unknown: list[NamedCheckpoint]
    unreadable: list[NamedDataset]
    suites: list[str]
    files: list[str]


class EventBody(RootModel[Form]):
    """A feedback event as it is sent."""


def component_schemas() -> dict[str, Any]:
    """The schemas of request bodies, by the names that `route` refers to."""
    models = (ChatRequest, CompletionRequest, EventBody, ExternalInteraction)
    _, schemas = models_json_schema([(m, "validation") for m in models], ref_template=_COMPONENTS)
    return schemas["$defs"]


def one_or_many(model: str, key: str = "", **limits: int) -> dict[str, Any]:
    """The schema of a request body that is one object or a list of them (also as {key: list}), each refused
    by itself: a list is accepted whatever its items are."""
    item = {"$ref": _COMPONENTS.format(model=model)}
    many = {"type": "array", "items": {"anyOf": [item, {}]}, **limits}
    named = {"type": "object", "required": [key], "properties": {key: many}, "additionalProperties": False}
    return {"oneOf": [item, many, *([named] if key else [])]}


def links(operation: str) -> dict[str, Any]:
    """What may be asked next with the response of an operation, as OpenAPI's links."""
    return {
        name: {"operationId": next_operation, **given}
        for name, (operations, next_operation, given) in _LINKS.items()
        if operation in operations
    }


def route(
    reply: Any,
    error_statuses: tuple[int, ...] = (),
    status: int = 200,
    body: str | dict[str, Any] | None = None,
    text_bodies: tuple[str, ...] = (),
    is_streamed: bool = False,
    error_body: type[BaseModel] = ErrorBody,
) -> dict[str, Any]:
    """Options of a route with a JSON reply, which may be streamed instead. `body` is the schema of its
    request, or a component's name; `text_bodies` are further media types."""
    responses: dict[int, Any] = {
        code: {"model": error_body, "description": "an error"} for code in error_statuses
    }
    if is_streamed:
        events = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}
        responses[status] = {"content": {"text/event-stream": {"schema": events}}}
    options: dict[str, Any] = {"response_model": reply, "status_code": status, "responses": responses}
    if body is not None:
        schema = {"$ref": _COMPONENTS.format(model=body)} if isinstance(body, str) else body
        text = {"schema": {"type": "string"}}
        content = {"application/json": {"schema": schema}, **dict.fromkeys(text_bodies, text)}
        options["openapi_extra"] = {"requestBody": {"required": True, "content": content}}
    return options

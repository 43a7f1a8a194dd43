"""Requests in OpenAI's format, parsed once into generation requests. Unknown parameters are refused.

A parameter that is not implemented is accepted with a value that has no effect, and refused with any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from secrets import randbits
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from escultor.config import Serve
from escultor.serve.protocol import GenerationRequest
from escultor.serve.tool_calls import call_schema
from escultor.serve.wire import request_schemas
from escultor.serve.wire.chat_messages import ChatMessage, RequestBody, UnimplementedParameter
from escultor.serve.wire.errors import ApiError, listed_problems, validation_error
from escultor.serve.wire.tools import tool_definitions
from escultor.strict_json import whole_numbers
from escultor.text.tool_calls import CALL_END
from escultor.types import Media, Messages, Sampling, ToolDefinitions

T = TypeVar("T", bound=BaseModel)

MAX_TOOLS = 1024  # of one request
MAX_CHOICES = 128  # answers of one request
MAX_TOKENS_VALUE = 1 << 20
COMPLETION_TOKENS = 16  # OpenAI's default where a completion does not say
_SEEDS = 1 << 63

ReasoningEffort = Literal["none", "auto", "minimal", "low", "medium", "high", "xhigh"]
EndUser = Annotated[str, Field(json_schema_extra={"maxLength": 256})]
TopP = Annotated[float, Field(gt=0, le=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
MaxTokens = Annotated[int, Field(ge=1, le=MAX_TOKENS_VALUE)]
Top = Annotated[int, Field(ge=0, le=20)]
Seed = Annotated[int, Field(ge=-_SEEDS, lt=_SEEDS)]
TokenId = Annotated[int, Field(ge=0, lt=1 << 31)]
Stop = Annotated[str, Field(min_length=1)]
Stops = Annotated[list[Stop], Field(max_length=16)]


class FunctionDefinition(BaseModel):
    """A function that the model may call; what else is given goes to the chat template."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1)]


class ToolDefinition(RequestBody):
    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(RequestBody):
    name: str


class NamedTool(RequestBody):
    type: Literal["function"]
    function: NamedFunction


class TextFormat(RequestBody):
    type: Literal["text"]


class JsonObjectFormat(RequestBody):
    type: Literal["json_object"]


class JsonSchemaSpec(RequestBody):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
    description: str | None = None
    json_schema: dict[str, Any] = Field(default_factory=dict, alias="schema")
    strict: bool | None = None  # either way the schema is followed


class JsonSchemaFormat(RequestBody):
    type: Literal["json_schema"]
    json_schema: JsonSchemaSpec


class StreamOptions(RequestBody):
    include_usage: bool | None = None
    include_obfuscation: Annotated[Any, UnimplementedParameter(False)] = None


class CommonParameters(RequestBody):
    """The parameters of both endpoints."""

    model: Annotated[str, Field(min_length=1)]
    temperature: Temperature | None = None
    top_p: TopP | None = None
    max_tokens: MaxTokens | None = None
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] | None = None
    stop: Stop | Stops | None = None
    seed: Seed | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: EndUser | None = Field(default=None, description="the end user; stored as a salted hash")
    frequency_penalty: Annotated[Any, UnimplementedParameter(0)] = None
    presence_penalty: Annotated[Any, UnimplementedParameter(0)] = None
    logit_bias: Annotated[Any, UnimplementedParameter({})] = None
    top_k: Annotated[Any, UnimplementedParameter(0, -1)] = None
    min_p: Annotated[Any, UnimplementedParameter(0)] = None
    repetition_penalty: Annotated[Any, UnimplementedParameter(1)] = None

    @model_validator(mode="after")
    def _stream_options_need_a_stream(self) -> Any:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options has an effect only with stream: true")
        return self


class ChatRequest(CommonParameters):
    model_config = ConfigDict(json_schema_extra=request_schemas.CHAT)

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: MaxTokens | None = None
    logprobs: bool | None = None
    top_logprobs: Top | None = None
    response_format: (
        Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")] | None
    ) = None
    safety_identifier: EndUser | None = Field(default=None, description="as `user`, which it overrides")
    metadata: Annotated[dict[str, str], Field(max_length=16)] | None = Field(
        default=None,
        description="escultor_subject, _skill, _parent, _relation, _consent, _retain_days have an effect; "
        "others are listed in the header x-escultor-ignored",
    )
    store: bool | None = Field(default=None, description="false: the row has the consent `none`")
    tools: Annotated[list[ToolDefinition], Field(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = Field(
        default=None, description="false: the answer ends with its first `<tool_call>`"
    )
    functions: Annotated[Any, UnimplementedParameter([])] = None
    function_call: Annotated[Any, UnimplementedParameter("none", "auto")] = None
    modalities: Annotated[Any, UnimplementedParameter(["text"])] = None
    audio: Annotated[Any, UnimplementedParameter()] = None
    prediction: Annotated[Any, UnimplementedParameter()] = None
    reasoning_effort: ReasoningEffort | None = None
    chat_template_kwargs: (
        Annotated[dict[Literal["enable_thinking", "thinking"], bool], Field(max_length=1)] | None
    ) = Field(default=None, description="reasoning on or off, in place of `reasoning_effort`")
    service_tier: Annotated[Any, UnimplementedParameter("auto", "default")] = None
    verbosity: Annotated[Any, UnimplementedParameter("medium")] = None
    web_search_options: Annotated[Any, UnimplementedParameter()] = None
    prompt_cache_key: Annotated[Any, UnimplementedParameter()] = None

    @model_validator(mode="after")
    def _no_parameter_is_without_effect(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs has an effect only with logprobs: true")
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise ValueError("max_tokens and max_completion_tokens differ; give one of them")
        if self.reasoning_effort and self.chat_template_kwargs is not None:
            raise ValueError("reasoning_effort and chat_template_kwargs ask for the same; give one of them")
        return self


_Ids = Annotated[list[TokenId], Field(min_length=1, fail_fast=True)]
PromptBody = (
    str
    | Annotated[list[str], Field(min_length=1, max_length=MAX_CHOICES)]
    | _Ids
    | Annotated[list[_Ids], Field(min_length=1, max_length=MAX_CHOICES)]
)


class CompletionRequest(CommonParameters):
    model_config = ConfigDict(json_schema_extra=request_schemas.COMPLETION)

    prompt: PromptBody
    max_tokens: Annotated[int, Field(ge=0, le=MAX_TOKENS_VALUE)] | None = Field(
        default=None, description="0 with echo: only the prompt is scored"
    )
    echo: bool | None = None
    logprobs: Top | None = None
    best_of: Annotated[Any, UnimplementedParameter(1)] = None
    suffix: Annotated[Any, UnimplementedParameter("")] = None

    @model_validator(mode="after")
    def _something_is_computed(self) -> CompletionRequest:
        if self.max_tokens == 0 and not self.echo:
            raise ValueError("max_tokens of 0 has an effect only with echo: true")
        return self


@dataclass(frozen=True, slots=True)
class ParsedRequest:
    """A client's request. `generations` are ordered by prompt: the k-th answer to prompt p is p * n + k."""

    model: str
    generations: tuple[GenerationRequest, ...]
    per_prompt: int  # n
    stream: bool
    include_usage: bool
    user: str | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    store: bool = True
    tools: ToolDefinitions | None = None
    parameters: str = ""  # JSON of what was asked for beside messages and tools, where it is sent on as given
    media: tuple[Media, ...] = ()  # data of pictures, audio and files in the messages
    ignored: tuple[str, ...] = ()  # what is not kept of the request


def parse_chat(body: Any, settings: Serve) -> ParsedRequest:
    """The request in a body of /v1/chat/completions. Raises ApiError for one that is not valid."""
    request = _validated(ChatRequest, body)
    messages = tuple(message.to_message() for message in request.messages)
    tools, schema = _tools(request)
    if isinstance(request.response_format, JsonSchemaFormat):
        schema = request.response_format.json_schema.json_schema
    elif isinstance(request.response_format, JsonObjectFormat):
        schema = {}
    max_tokens = request.max_completion_tokens or request.max_tokens or settings.max_new_tokens
    top_logprobs = (request.top_logprobs or 0) if request.logprobs else None
    options = {"max_tokens": max_tokens, "schema": schema, "top_logprobs": top_logprobs}
    options |= {"tools": tools.text if tools else "", "reasoning": _reasoning(request)}
    if tools and request.parallel_tool_calls is False:
        options["stop"] = (CALL_END,)
    return replace(
        _parsed(request, [messages], settings, **options),
        user=request.safety_identifier or request.user,
        metadata=request.metadata or {},
        store=request.store is not False,
        tools=tools,
    )


def _tools(request: ChatRequest) -> tuple[ToolDefinitions | None, dict[str, Any] | None]:
    """The tools that the model may call, and the schema of a call where it has to call one."""
    if not request.tools or request.tool_choice == "none":
        return None, None
    tools = [tool.model_dump() for tool in request.tools]
    schema = None
    if request.tool_choice == "required":
        schema = call_schema(tools, None)
    elif isinstance(request.tool_choice, NamedTool):
        schema = call_schema(tools, request.tool_choice.function.name)
    if schema is not None and request.response_format is not None:
        raise ApiError(400, "a call that is required follows its tool; leave out response_format")
    return tool_definitions(tools), schema


def _reasoning(request: ChatRequest) -> str:
    """The effort that is asked for, as `GenerationRequest` has it."""
    for is_on in (request.chat_template_kwargs or {}).values():
        return "on" if is_on else "none"
    return request.reasoning_effort or ""


def parse_completion(body: Any, settings: Serve) -> ParsedRequest:
    """The request in a body of /v1/completions. Raises ApiError for one that is not valid."""
    request = _validated(CompletionRequest, body)
    if request.echo and request.stream:
        raise ApiError(400, "echo is not implemented for streams; leave out one of both", param="echo")
    max_tokens = COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
    options = {"max_tokens": max_tokens, "top_logprobs": request.logprobs, "echo": bool(request.echo)}
    return _parsed(request, _prompts(request.prompt), settings, **options)


def _validated(kind: type[T], body: Any) -> T:
    try:
        return kind.model_validate(whole_numbers(body))
    except ValidationError as error:
        raise validation_error(listed_problems(error), kind.model_fields) from None


def _prompts(prompt: Any) -> list[Messages | str | tuple[int, ...]]:
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], int):
        return [tuple(prompt)]
    return [each if isinstance(each, str) else tuple(each) for each in prompt]


def _parsed(
    request: CommonParameters,
    prompts: list[Any],
    settings: Serve,
    *,
    max_tokens: int,
    stop: tuple[str, ...] = (),
    **options: Any,
) -> ParsedRequest:
    """What both endpoints read alike; `options` go to every generation, `stop` beside the request's own."""
    count = request.n or 1
    if len(prompts) * count > MAX_CHOICES:
        message = f"{len(prompts)} prompts times n = {count} are too many answers; allowed: {MAX_CHOICES}"
        raise ApiError(400, message, "invalid_value", param="n")
    temperature = settings.temperature if request.temperature is None else request.temperature
    # Without a seed one is drawn and recorded, so that every answer can be reproduced.
    seed = (randbits(31) if temperature else 0) if request.seed is None else request.seed
    stop += (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    generations = tuple(
        GenerationRequest(
            prompt,
            Sampling(temperature, request.top_p or 1.0, max_tokens, (seed + k) % _SEEDS),
            stop,
            streamed=bool(request.stream),
            **options,
        )
        for prompt in prompts
        for k in range(count)
    )
    return ParsedRequest(
        model=request.model,
        generations=generations,
        per_prompt=count,
        stream=bool(request.stream),
        include_usage=bool(request.stream_options and request.stream_options.include_usage),
        user=request.user,
    )

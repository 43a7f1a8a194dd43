"""The messages of a chat completion, as our own models read them, and what parameters have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, field_validator, model_validator
from pydantic_core import CoreSchema, core_schema

from escultor.serve.wire import request_schemas
from escultor.types import Message, Role, ToolCall


class UnimplementedParameter:
    """Marks a parameter that is not implemented: it may be null, or a value that has no effect."""

    def __init__(self, *values: Any):
        self.values = values

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: Any) -> dict[str, Any]:
        return {"enum": [None, *self.values]}

    def _check(self, value: Any) -> Any:
        if value is None or any(
            value == v and isinstance(value, bool) == isinstance(v, bool) for v in self.values
        ):
            return value
        allowed = ", ".join(repr(value) for value in self.values) or "to leave it out"
        raise ValueError(f"is not implemented; allowed: {allowed}")


class RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class TextPart(RequestBody):
    type: Literal["text"]
    text: str


class CalledFunction(RequestBody):
    name: Annotated[str, Field(min_length=1)]
    arguments: str


class CallOfTool(RequestBody):
    id: str
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(RequestBody):
    model_config = ConfigDict(json_schema_extra=request_schemas.MESSAGE)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[TextPart], Field(min_length=1, fail_fast=True)] | None = None
    name: str | None = None
    tool_calls: list[CallOfTool] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: Annotated[Any, UnimplementedParameter()] = None
    annotations: Annotated[Any, UnimplementedParameter([])] = None
    function_call: Annotated[Any, UnimplementedParameter()] = None
    audio: Annotated[Any, UnimplementedParameter()] = None
    # What client libraries add to the message of an answer, and send back with it: no model reads it.
    provider_specific_fields: Any = None
    reasoning_details: Any = None
    thinking_blocks: Any = None
    parsed: Any = None

    @field_validator("content", mode="before")
    @classmethod
    def _it_is_text(cls, content: Any) -> Any:
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if isinstance(kind, str) and kind != "text":
                raise ValueError(f"this model reads text only; got a part of the type {kind[:40]!r}")
        return content

    @model_validator(mode="after")
    def _it_says_something(self) -> ChatMessage:
        if self.content is None and not self.tool_calls:
            raise ValueError("a message has `content`, or `tool_calls`")
        if self.tool_calls and self.role != "assistant":
            raise ValueError("calls of tools are the assistant's")
        return self

    def to_message(self) -> Message:
        parts = self.content if isinstance(self.content, list) else []
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in parts)
        calls = [ToolCall(c.id, c.function.name, c.function.arguments) for c in self.tool_calls or ()]
        return Message(
            Role.SYSTEM if self.role == "developer" else Role(self.role),
            text,
            reasoning=self.reasoning_content or self.reasoning or "",
            tool_calls=tuple(calls),
            tool_call_id=self.tool_call_id or "",
            name=self.name or "",
        )

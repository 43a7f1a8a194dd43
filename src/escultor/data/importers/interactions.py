"""Requests that were served elsewhere, as interactions: one JSON object each.

    {"id": …, "time": …, "messages": […], "answer": TEXT, "version": "the model", "user": "who asked"}

and, where known, the other fields of an Interaction; `subject` (a hash of this store) may take the place of
`user`. An exported interaction is imported as it was.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from escultor.data.jsonl_rows import Fault
from escultor.ids import hash_value
from escultor.types import (
    Consent,
    FinishReason,
    Interaction,
    Lineage,
    Message,
    Relation,
    Role,
    Sampling,
    ToolCall,
    Usage,
)

_Loose = Field(strict=False)  # enums are text in JSON
# Sums of many must stay finite, and sums of tokens integers.
TokenCount = Annotated[int, Field(ge=0, le=1 << 40)]
Figure = Annotated[float, Field(ge=0, le=1e12)]
Text = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
    variant: str = Field(default="", alias="_")  # exported records name their type


class _ToolCall(_Body):
    id: str
    name: str
    arguments: str


class _Message(_Body):
    role: Annotated[Role, _Loose]
    content: str
    reasoning: str = ""
    tool_calls: list[_ToolCall] = []
    tool_call_id: str = ""
    name: str = ""
    learnt: bool = False
    parts: str = ""
    media: list[Text] = []

    def to_message(self) -> Message:
        fields = self.model_dump(exclude={"variant", "tool_calls", "media"})
        return Message(**fields, tool_calls=_calls(self.tool_calls), media=tuple(self.media))


def _calls(calls: list[_ToolCall]) -> tuple[ToolCall, ...]:
    return tuple(ToolCall(call.id, call.name, call.arguments) for call in calls)


class _Sampling(_Body):
    temperature: Annotated[float, Field(ge=0)] = 0.0
    top_p: Annotated[float, Field(ge=0, le=1)] = 1.0
    max_new_tokens: TokenCount = 256
    seed: Annotated[int, Field(ge=-(1 << 63), lt=1 << 63)] = 0


class _Usage(_Body):
    prompt_tokens: TokenCount = 0
    completion_tokens: TokenCount = 0
    estimated: bool = False


class _Lineage(_Body):
    parent: Text
    relation: Annotated[Relation, _Loose]


def _asked_by(name: str) -> dict[str, Any]:
    """The JSON schema of a row that says by this key alone who asked."""
    return {"properties": {name: {"type": "string"}}, "required": [name]}


class ExternalInteraction(_Body):
    """A row, as it is sent. Unknown keys are refused."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [_asked_by("user"), _asked_by("subject")]})

    id: Annotated[str, Field(pattern=r"^[!-~]{1,128}$")]
    time: Annotated[float, Field(gt=0, lt=1e11)]
    messages: Annotated[list[_Message], Field(min_length=1)]
    answer: str
    version: Text
    user: Text | None = None
    subject: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    skill: Text = "chat"
    arm: Text = "imported"
    propensity: Annotated[float, Field(gt=0, le=1)] = 1.0
    finish_reason: FinishReason = "stop"
    sampling: _Sampling = _Sampling()
    usage: _Usage = _Usage()
    latency_ms: Figure = 0.0
    ttft_ms: Figure | None = None
    cost_usd: Figure = 0.0
    prompt_hash: str | None = None
    lineage: _Lineage | None = None
    consent: Annotated[Consent, _Loose] = Consent.TRAIN
    retain_until: float | None = None
    tenant: Annotated[str, Field(max_length=256)] = ""
    reasoning: str = ""
    tool_calls: list[_ToolCall] = []
    tools: str = ""
    parameters: str = ""
    usage_details: str = ""
    token_ids: str = ""
    extras: str = ""
    message: Annotated[str, Field(max_length=256)] = ""
    task: Annotated[str, Field(max_length=256)] = ""


_SAME_FIELDS = {field.name for field in fields(Interaction)} - {
    *("subject", "messages", "prompt_hash", "sampling", "usage", "lineage", "tool_calls")
}


def parse_interaction(row: dict[str, Any], subject_of: Callable[[str], str]) -> Interaction:
    """The interaction of a row. Raises Fault for a row that cannot be used."""
    try:
        body = ExternalInteraction.model_validate(row)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in problem["loc"])
        raise Fault(f"`{key}`: {problem['msg']}", None, ", ".join(ExternalInteraction.model_fields)) from None
    if (body.user is None) == (body.subject is None):
        raise Fault("who asked is not stated, or stated twice", None, "`user`, or `subject`")
    messages = tuple(message.to_message() for message in body.messages)
    prompt_hash = hash_value(messages)
    if body.prompt_hash not in (None, prompt_hash):
        raise Fault("`prompt_hash` is not that of the messages", body.prompt_hash, prompt_hash)
    return Interaction(
        **{name: getattr(body, name) for name in _SAME_FIELDS},
        subject=body.subject or subject_of(body.user or ""),
        messages=messages,
        tool_calls=_calls(body.tool_calls),
        prompt_hash=prompt_hash,
        sampling=Sampling(**body.sampling.model_dump(exclude={"variant"})),
        usage=Usage(**body.usage.model_dump(exclude={"variant"})),
        lineage=None if body.lineage is None else Lineage(body.lineage.parent, body.lineage.relation),
    )

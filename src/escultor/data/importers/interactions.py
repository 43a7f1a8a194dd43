"""Calls that were served elsewhere, as interactions: one JSON object each.

    {"id": …, "time": …, "messages": […], "answer": TEXT, "version": "the model", "user": "who asked"}

and, where known, skill, arm, propensity, finish_reason, sampling, usage, latency_ms, ttft_ms, cost_usd,
lineage, consent, retain_until as an Interaction has them; `subject` (a hash of this store) instead of
`user`. What an interaction is written as when it is exported comes back as it was.
"""

from __future__ import annotations

from collections.abc import Callable
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
    Usage,
)

_Loose = Field(strict=False)  # enums are text in JSON
# Sums of many have to stay numbers, and those of tokens whole ones.
TokenCount = Annotated[int, Field(ge=0, le=1 << 40)]
Figure = Annotated[float, Field(ge=0, le=1e12)]
Text = Annotated[str, Field(min_length=1, max_length=256)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)
    variant: str = Field(default="", alias="_")  # exported nouns name what they are


class _Message(_Body):
    role: Annotated[Role, _Loose]
    content: str


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


class ExternalInteraction(_Body):
    """One call, as it is sent. Unknown keys are refused."""

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


def served(row: dict[str, Any], subject_of: Callable[[str], str]) -> Interaction:
    """The interaction that a row says. Raises Fault for a row that cannot be used."""
    try:
        said = ExternalInteraction.model_validate(row)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        at = ".".join(str(part) for part in problem["loc"])
        raise Fault(f"`{at}`: {problem['msg']}", None, ", ".join(ExternalInteraction.model_fields)) from None
    if (said.user is None) == (said.subject is None):
        raise Fault("who asked is not said, or said twice", None, "`user`, or `subject`")
    messages = tuple(Message(m.role, m.content) for m in said.messages)
    prompt_hash = hash_value(messages)
    if said.prompt_hash not in (None, prompt_hash):
        raise Fault("`prompt_hash` is not that of the messages", said.prompt_hash, prompt_hash)
    return Interaction(
        id=said.id,
        time=said.time,
        skill=said.skill,
        subject=said.subject or subject_of(said.user or ""),
        version=said.version,
        arm=said.arm,
        propensity=said.propensity,
        messages=messages,
        answer=said.answer,
        finish_reason=said.finish_reason,
        sampling=Sampling(**said.sampling.model_dump(exclude={"variant"})),
        usage=Usage(**said.usage.model_dump(exclude={"variant"})),
        latency_ms=said.latency_ms,
        ttft_ms=said.ttft_ms,
        cost_usd=said.cost_usd,
        prompt_hash=prompt_hash,
        lineage=None if said.lineage is None else Lineage(said.lineage.parent, said.lineage.relation),
        consent=said.consent,
        retain_until=said.retain_until,
        tenant=said.tenant,
    )

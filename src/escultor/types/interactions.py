"""Messages, sampling parameters, and one request with its answer as the gateway records it."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from escultor.ids import OMIT_DEFAULT


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"
    DEVELOPER = "developer"


LEFT_OUT = Field(exclude_if=operator.not_)  # of the JSON of a record, while the value is empty
NONE_LEFT_OUT = Field(exclude_if=lambda value: value is None)  # likewise, where 0 is a value like others


def optional(default: Any) -> Any:
    """A field that the content id of a record leaves out while it has its default, which is empty."""
    return field(default=default, metadata=OMIT_DEFAULT)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a tool by the assistant; `arguments` is the JSON text that the model wrote."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. `content` is its text; `parts` is the whole content as JSON where it has
    more than text (pictures, audio, files), with their data replaced by `media:` and the id of the `Media`
    that holds it; `media` are those ids. `reasoning` and `tool_calls` are the assistant's, `tool_call_id`
    and `name` those of a tool's result. `learnt` marks an assistant's message within a prompt whose tokens
    are labelled too, as the turns of a conversation given whole are (SFT). `token_ids` are those of an answer
    as they were served (see `escultor.text.served_ids`)."""

    role: Role
    content: str
    reasoning: Annotated[str, LEFT_OUT] = optional("")
    tool_calls: Annotated[tuple[ToolCall, ...], LEFT_OUT] = optional(())
    tool_call_id: Annotated[str, LEFT_OUT] = optional("")
    name: Annotated[str, LEFT_OUT] = optional("")
    learnt: Annotated[bool, LEFT_OUT] = optional(False)
    parts: Annotated[str, LEFT_OUT] = optional("")
    token_ids: Annotated[str, LEFT_OUT] = optional("")
    media: Annotated[tuple[str, ...], LEFT_OUT] = optional(())


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters; temperature 0 is greedy decoding."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a prompt and its answer; `estimated` where the upstream server did not report them."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False


class Relation(StrEnum):
    """How an interaction continues its parent."""

    REGENERATE = "regenerate"
    EDIT_PROMPT = "edit_prompt"
    CONTINUE = "continue"


class Consent(StrEnum):
    TRAIN = "train"
    EVAL_ONLY = "eval_only"
    NONE = "none"


# How an answer ended: complete, with calls of tools, at its length limit, by the server's content filter,
# cancelled by the client, by an error, or interrupted by the end of the process that streamed it, when it is
# unknown how much was delivered.
FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "cancelled", "error", "interrupted"]
FAILED: frozenset[FinishReason] = frozenset(("error", "interrupted"))  # not caused by the client


@dataclass(frozen=True, slots=True)
class Lineage:
    parent: str
    relation: Relation


@dataclass(frozen=True, slots=True)
class ToolDefinitions:
    """The definitions of the tools that requests carried, as JSON. Writer: `serve`. Many requests carry the
    same ones, so that an interaction names them by their hash."""

    id: str  # hash of the text
    text: str


@dataclass(frozen=True, slots=True)
class Media:
    """The data of a picture, a sound or a file in a message, as it was sent: base64, or a data URL. Writer:
    `serve`. Messages name it by its hash, and it leaves the log with the last of them."""

    id: str  # hash of the text
    text: str


@dataclass(frozen=True, slots=True)
class Interaction:
    """One request and its answer. Writer: `serve`. Durable before the answer is delivered.

    `answer` is the text alone; `reasoning` and `tool_calls` are what the model gave beside it. `parameters`
    is the JSON of what the request asked for beside its messages and tools, as it was given, and
    `usage_details` the JSON of the counts as the upstream reported them. `extras` is the JSON of what else
    its reply held: fields of the whole (citations, search results), and under `message` the message's.
    """

    id: str
    time: float
    skill: str
    subject: str  # salted hash of the person or system that asked
    version: str  # checkpoint id
    arm: str  # alias under which it answered: champion, candidate, shadow
    propensity: float  # probability with which this arm was chosen
    messages: Messages
    answer: str
    finish_reason: FinishReason
    sampling: Sampling
    usage: Usage
    latency_ms: float
    ttft_ms: float | None
    cost_usd: float
    prompt_hash: str
    lineage: Lineage | None = None
    consent: Consent = Consent.TRAIN
    retain_until: float | None = None
    tenant: str = ""  # the application, where one store serves several
    reasoning: Annotated[str, LEFT_OUT] = optional("")
    tool_calls: Annotated[tuple[ToolCall, ...], LEFT_OUT] = optional(())
    tools: Annotated[str, LEFT_OUT] = optional("")  # id of the `ToolDefinitions`
    parameters: Annotated[str, LEFT_OUT] = optional("")
    usage_details: Annotated[str, LEFT_OUT] = optional("")
    message: Annotated[str, LEFT_OUT] = optional("")  # the application's own id of the answer
    token_ids: Annotated[str, LEFT_OUT] = optional("")  # of the answer, where our engine computed it
    extras: Annotated[str, LEFT_OUT] = optional("")
    task: Annotated[str, LEFT_OUT] = optional("")  # what an application asked for on its own behalf


@dataclass(frozen=True, slots=True)
class PendingInteraction:
    """An answer that is about to be streamed, with the row recorded if its process ends first.

    Writer: `serve`. Law: durable before the first piece is delivered, so that an interrupted stream is not
    lost: once `owner` is gone or `until` has passed, `interaction`, marked `interrupted`, is recorded.
    """

    owner: str  # the process that streams the answer
    until: float  # time after which the stream must have ended
    interaction: Interaction

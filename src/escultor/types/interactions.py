"""One request and its answer, as the gateway records it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from escultor.types.messages import Messages, Sampling, Usage


class Relation(StrEnum):
    """How an interaction continues its parent."""

    REGENERATE = "regenerate"
    EDIT_PROMPT = "edit_prompt"
    CONTINUE = "continue"


class Consent(StrEnum):
    TRAIN = "train"
    EVAL_ONLY = "eval_only"
    NONE = "none"


# How an answer ended: by itself, at its length limit, cancelled by the client, by a fault, or with the
# process that streamed it, when it is unknown how much was delivered.
FinishReason = Literal["stop", "length", "cancelled", "error", "interrupted"]
FAILED: frozenset[FinishReason] = frozenset(("error", "interrupted"))  # not caused by the client


@dataclass(frozen=True, slots=True)
class Lineage:
    parent: str
    relation: Relation


@dataclass(frozen=True, slots=True)
class Interaction:
    """One request and its answer. Writer: `serve`. Durable before the answer is delivered."""

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
    tenant: str = ""  # whose application asked, where one store serves several


@dataclass(frozen=True, slots=True)
class PendingInteraction:
    """An answer that is about to be streamed, with the row recorded if its process ends first.

    Writer: `serve`. Law: durable before the first piece is delivered, so that a stream cut by the death
    of its process is known: once `owner` is gone or `until` is over, `interaction`, which says
    `interrupted`, is recorded as it is.
    """

    owner: str  # the process that streams it
    until: float  # by then the answer has its row, or its process is gone
    interaction: Interaction

"""Deployments, monitoring, steps of a cycle, API keys of the gateway and erasures."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Literal

from escultor.ids import OMIT_DEFAULT
from escultor.types.interactions import LEFT_OUT, NONE_LEFT_OUT, optional

AlertState = Literal["ok", "warn", "firing", "resolved"]


@dataclass(frozen=True, slots=True)
class Deployment:
    """Which checkpoints answer. Writer: the registry. Law: shares sum to 1; a rollback is a deployment."""

    id: str
    time: float
    shares: dict[str, float]  # checkpoint id -> share of traffic
    aliases: dict[str, str]  # champion, candidate, previous -> checkpoint id
    because: str  # id of the verdict's comparison, or a person's reason


@dataclass(frozen=True, slots=True)
class Estimate:
    """A windowed figure with its 95 % interval and sample size."""

    name: str
    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True, slots=True)
class Health:
    """Windowed estimates for one version, or for what it answered under one skill and arm. Writer: `monitor`.
    Law: folds merge."""

    version: str
    since: float
    until: float
    estimates: tuple[Estimate, ...]
    skill: Annotated[str, LEFT_OUT] = optional("")  # with `arm`; empty: of all skills and arms
    arm: Annotated[str, LEFT_OUT] = optional("")


@dataclass(frozen=True, slots=True)
class Alert:
    """A change of an alert rule's state. Writer: `monitor`."""

    id: str
    time: float
    rule: str
    state: AlertState
    estimate: Estimate
    limit: float
    message: str
    version: Annotated[str, LEFT_OUT] = optional("")  # empty: the rule is about the whole service


@dataclass(frozen=True, slots=True)
class AlertDelivery:
    """An alert that a receiver has taken, so that it is not sent again. Writer: `monitor`."""

    id: str
    time: float
    alert: str
    receiver: str  # hash of its address


@dataclass(frozen=True, slots=True)
class AlertAcknowledged:
    """A person has seen an alert and takes care of it. Writer: `escultor monitor`."""

    id: str
    time: float
    alert: str
    by: str
    note: str


@dataclass(frozen=True, slots=True)
class CountedCalls:
    """Counts of the calls of one version, skill and arm that began within five minutes
    (`monitor.buckets.CallCounts`)."""

    version: str
    number: int  # of the five minutes since the epoch
    calls: int
    failed: int
    prompt_tokens: int
    completion_tokens: int
    cost_nano_usd: int
    cost_nano_usd_squared: int
    latencies: tuple[tuple[int, int], ...]  # step of 1 % and number of calls
    first_tokens: Annotated[tuple[tuple[int, int], ...], LEFT_OUT] = optional(())  # likewise
    skill: Annotated[str, LEFT_OUT] = optional("")  # with `arm`; empty: from before they were told apart
    arm: Annotated[str, LEFT_OUT] = optional("")


@dataclass(frozen=True, slots=True)
class AnswerTraits:
    """Categories of one sampled answer and its prompt (`monitor.traits`), without any of their text. Writer:
    `monitor`, within a tally. `person` tells the people of a sample apart: 32 bits of a salted hash."""

    time: float
    version: str
    draw: int  # at random; the sample of an hour are the answers with the smallest
    person: int
    traits: dict[str, str]  # category by trait
    skill: Annotated[str, LEFT_OUT] = optional("")  # as in `CountedCalls`
    arm: Annotated[str, LEFT_OUT] = optional("")


@dataclass(frozen=True, slots=True)
class CallTally:
    """Counts of calls by version, skill, arm and five minutes over a stretch of the log. Writer: `monitor`.
    Law: the stretches follow each other without gap or overlap, since the id names where one begins."""

    id: str
    time: float
    upto: int  # last log entry that is counted
    counts: tuple[CountedCalls, ...]
    sample: Annotated[tuple[AnswerTraits, ...], LEFT_OUT] = optional(())


@dataclass(frozen=True, slots=True)
class Plan:
    """A cycle to run, with its reason. Writer: `monitor`. Law: no plan without a reason."""

    id: str
    time: float
    stages: tuple[str, ...]
    because: str  # alert id
    reason: str
    skill: Annotated[str, LEFT_OUT] = optional("")  # that has most to learn from; empty: none is configured


@dataclass(frozen=True, slots=True)
class Step:
    """A finished step of a cycle, with its result. Writer: `cycle`. Law: `key`, the hash of its inputs, is
    unique: a step whose key is in the log is not run again."""

    key: str
    time: float
    name: str
    seconds: float
    result: dict[str, object]


CycleState = Literal[
    "refused", "running", "waiting", "approved", "trial", "promoted", "not_promoted", "rejected",
    "rolled_back", "superseded", "cancelled", "failed",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class CycleEvent:
    """A change of a cycle's state, or a fault after which it goes on in its state. Writer: `cycle`. Law: `id`
    names the cycle and the number of the change, which the log takes once, and so what is recorded in one
    transaction with it."""

    id: str
    time: float
    cycle: str
    skill: str  # empty: all feedback
    state: CycleState
    reason: str
    by: Annotated[str, LEFT_OUT] = optional("")  # the person who began, approved, rejected or cancelled it
    champion: Annotated[str, LEFT_OUT] = optional("")  # running: the model that is trained
    suite: Annotated[str, LEFT_OUT] = optional("")  # running: id of the suite it is measured on
    since: Annotated[float | None, NONE_LEFT_OUT] = optional(None)  # running: feedback since then
    candidate: Annotated[str, LEFT_OUT] = optional("")  # waiting, not_promoted: the model that was made
    verdict: Annotated[str, LEFT_OUT] = optional("")  # and what the gate said of it


@dataclass(frozen=True, slots=True)
class CycleSchedule:
    """When cycles of a skill begin by themselves, from now on. Writer: `escultor cycle schedule`."""

    id: str
    time: float
    skill: str
    when: str  # five fields of cron, in UTC; empty: never


class Scope(StrEnum):
    INFER = "infer"  # request completions
    FEEDBACK = "feedback"  # send feedback of end users
    RATER = "rater"  # send feedback of raters, judges and programs, which no rule against abuse watches
    READ = "read"  # read the records
    APPROVE = "approve"  # approve promotions
    ADMIN = "admin"  # all of these, imports and erasure


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """What a key may ask for; empty or None: as much as there is. Days and months are UTC."""

    models: tuple[str, ...] = ()  # model names, in which one `*` stands for any text
    tokens_per_day: int | None = None
    tokens_per_month: int | None = None
    usd_per_day: float | None = None
    usd_per_month: float | None = None
    expires: float | None = None  # seconds since the epoch


@dataclass(frozen=True, slots=True)
class KeyCreated:
    """A key of the gateway, of which only the digest is stored. Writer: `escultor keys`."""

    id: str
    time: float
    name: str
    scopes: tuple[Scope, ...]
    digest: str  # SHA-256 of the key, which is 256 random bits
    limits: Annotated[KeyLimits | None, LEFT_OUT] = field(default=None, metadata=OMIT_DEFAULT)
    # Keys of one tenant share rows, feedback and subjects; empty: from before there were tenants.
    tenant: Annotated[str, LEFT_OUT] = optional("")
    skill: Annotated[str, LEFT_OUT] = optional("")  # of requests that name none; empty: `serve.skill`


@dataclass(frozen=True, slots=True)
class KeyRevoked:
    """The end of a key. Writer: `escultor keys`."""

    id: str
    time: float
    key: str


@dataclass(frozen=True, slots=True)
class KeyRotated:
    """A new secret of a key, whose id, scopes, limits and rows stay. Writer: `escultor keys`."""

    id: str
    time: float
    key: str
    digest: str
    old_until: float  # until when the secrets before it are valid


KeyEvent = KeyCreated | KeyRevoked | KeyRotated


@dataclass(frozen=True, slots=True)
class Erasure:
    """The trace of an erasure: whose records, who requested it, when, how many. Writer: the store. Only
    hashes of the erased ids are kept, so that the records cannot be appended again and what was trained on
    them can be found."""

    id: str
    time: float
    subject: str  # salted hash of the person; empty where retention had expired at `time`
    by: str  # who requested it, or `retention`
    counts: dict[str, int]  # removed records, by kind

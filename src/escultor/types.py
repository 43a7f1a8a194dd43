"""The nouns of the loop: frozen, slotted, without behaviour. Relations are types, never positions.

Each noun has one writer, named in its docstring. Times are seconds since the epoch (UTC); hashes and
ids are made by `escultor.ids`. Validation happens at the borders (files, HTTP, YAML), not here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


class Role(StrEnum):
    SYSTEM = "system"
    USER = "user"
    ASSISTANT = "assistant"


@dataclass(frozen=True, slots=True)
class Message:
    role: Role
    content: str


Messages = tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn; temperature 0 is greedy decoding."""

    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int


class Relation(StrEnum):
    """How an interaction continues its parent."""

    REGENERATE = "regenerate"
    EDIT_PROMPT = "edit_prompt"
    CONTINUE = "continue"


class Consent(StrEnum):
    TRAIN = "train"
    EVAL_ONLY = "eval_only"
    NONE = "none"


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
    finish_reason: Literal["stop", "length", "cancelled", "error"]
    sampling: Sampling
    usage: Usage
    latency_ms: float
    ttft_ms: float | None
    cost_usd: float
    prompt_hash: str
    lineage: Lineage | None = None
    consent: Consent = Consent.TRAIN
    retain_until: float | None = None


class ImplicitEvent(StrEnum):
    COPY = "copy"
    INSERT_ACCEPT = "insert_accept"
    REGENERATE = "regenerate"
    EDIT = "edit"
    ABANDON = "abandon"
    DWELL_MS = "dwell_ms"
    FOLLOW_UP_REPHRASE = "follow_up_rephrase"
    SHARE = "share"
    ESCALATE_TO_HUMAN = "escalate_to_human"
    UNDO = "undo"


class SourceKind(StrEnum):
    END_USER = "end_user"
    RATER = "rater"
    LLM_JUDGE = "llm_judge"
    CODE = "code"
    SIMULATED = "simulated"  # a rater played by the program; always stated where it is shown


@dataclass(frozen=True, slots=True)
class _About:
    """What every word about one answer says of itself. Writer of them all: `serve` intake."""

    id: str
    time: float
    target: str  # the interaction
    subject: str
    source: SourceKind = field(default=SourceKind.END_USER, kw_only=True)


@dataclass(frozen=True, slots=True)
class Rating(_About):
    """A verdict on one answer: a thumb (boolean) or a score (float)."""

    name: str
    value: bool | float


@dataclass(frozen=True, slots=True)
class Correction(_About):
    """The answer a person would have wanted."""

    text: str


@dataclass(frozen=True, slots=True)
class Remark(_About):
    """A comment; read by people, never trained on."""

    text: str


@dataclass(frozen=True, slots=True)
class Implicit(_About):
    """What a person did with an answer, from a closed list; `value` is for events that measure."""

    event: ImplicitEvent
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Revocation(_About):
    """Withdraws what the same subject said under `name` about `target`."""

    name: str


@dataclass(frozen=True, slots=True)
class Choice:
    """One answer picked out of several to the same prompt; `winner` is None for a tie."""

    id: str
    time: float
    subject: str
    name: str
    shown_order: tuple[str, ...]
    winner: str | None
    source: SourceKind = field(default=SourceKind.END_USER, kw_only=True)


Feedback = Rating | Choice | Correction | Remark | Implicit | Revocation


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a training item came from: the ids it was made of and the rule that made it."""

    parents: tuple[str, ...]
    rule: str
    consent: Consent = Consent.TRAIN


@dataclass(frozen=True, slots=True)
class Document:
    """Text to pre-train on. Writer: `data`."""

    id: str
    text: str
    origin: Origin


@dataclass(frozen=True, slots=True)
class Example:
    """A prompt and the response to learn (SFT, distillation). Writer: `data`."""

    id: str
    prompt: Messages
    response: str
    origin: Origin
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two responses to one prompt, one preferred. Law: chosen != rejected. Writer: `data`."""

    id: str
    prompt: Messages
    chosen: str
    rejected: str
    origin: Origin
    weight: float = 1.0
    flip_rate: float = 0.0  # probability that the label is the wrong way round


@dataclass(frozen=True, slots=True)
class Judged:
    """One response with a verdict (KTO). Writer: `data`."""

    id: str
    prompt: Messages
    response: str
    desirable: bool
    origin: Origin
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class DatasetVersion:
    """A set of items by content hash. Law: same inputs and rules, same hash. Writer: `data`."""

    hash: str
    name: str
    kind: Literal["document", "example", "pair", "judged"]
    rows: int
    counts: dict[str, int]  # by source, and by reason for what was left out
    blob: str  # the rows, as JSONL


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights and tokenizer by content hash. Writer: `train`."""

    id: str  # hash of the files
    name: str
    phase: Literal["import", "pretrain", "sft", "dpo", "kto", "distill"]
    parents: tuple[str, ...]
    config_hash: str
    dataset_hash: str
    code_version: str
    seed: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Scores:
    """One number per item and metric, for one checkpoint and one suite. Writer: `evaluate`.

    Law: only Scores with the same `suite` hash compare. `items` fixes the order; `clusters` names the
    family each item belongs to; metrics hold one float per item. `summary` holds figures that are not
    per item (latency, speed, cost).
    """

    id: str
    checkpoint: str
    suite: str
    items: tuple[str, ...]
    clusters: tuple[str, ...]
    metrics: dict[str, tuple[float, ...]]
    summary: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Effect:
    """Candidate minus champion on one metric: mean paired difference with its interval."""

    metric: str
    role: Literal["primary", "guard", "info"]
    n: int
    clusters: int
    champion: float
    candidate: float
    difference: float  # in the direction in which more is better
    low: float
    high: float
    p_value: float  # one-sided: the candidate is not better (primary) / not within the margin (guard)
    margin: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """What every verdict rests on."""

    id: str
    champion: str  # checkpoint ids
    candidate: str
    champion_scores: str
    candidate_scores: str
    suite: str
    policy: str  # hash of the policy
    effects: tuple[Effect, ...]
    reason: str
    n: int


@dataclass(frozen=True, slots=True)
class Promote:
    """Better on a primary metric and no worse on any guard. Writer: the gate, pure."""

    because: Comparison


@dataclass(frozen=True, slots=True)
class Hold:
    """Not enough evidence; `n_needed` items would be enough at 80 % power (None: no n would)."""

    because: Comparison
    n_needed: int | None


@dataclass(frozen=True, slots=True)
class Reject:
    """Worse, or a guard is broken."""

    because: Comparison


Verdict = Promote | Hold | Reject


@dataclass(frozen=True, slots=True)
class Deployment:
    """Who answers. Writer: the registry. Law: shares sum to 1; a rollback is one like any other."""

    id: str
    time: float
    shares: dict[str, float]  # checkpoint id -> share of traffic
    aliases: dict[str, str]  # champion, candidate, previous -> checkpoint id
    because: str  # id of the verdict's comparison, or the words of the person who ordered it


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
    """Windowed estimates for one version. Writer: `monitor`. Law: folds merge."""

    version: str
    since: float
    until: float
    estimates: tuple[Estimate, ...]


@dataclass(frozen=True, slots=True)
class Alert:
    """A rule that fires. Writer: `monitor`."""

    id: str
    time: float
    rule: str
    state: Literal["ok", "warn", "firing"]
    estimate: Estimate
    limit: float
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run and why. Writer: `monitor`. Law: none without a reason."""

    id: str
    time: float
    stages: tuple[str, ...]
    because: str  # alert id
    reason: str


@dataclass(frozen=True, slots=True)
class Step:
    """One arrow of a cycle that is done: what went in (by hash), what came out. Writer: `cycle`.

    The key names the inputs; a step whose key is in the log is not run again.
    """

    key: str
    time: float
    name: str
    seconds: float
    result: dict[str, object]

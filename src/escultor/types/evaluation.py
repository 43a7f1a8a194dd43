"""Suites, scores on them, and the verdict between two models' scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from escultor.types.interactions import LEFT_OUT, NONE_LEFT_OUT, Messages, Sampling, optional


@dataclass(frozen=True, slots=True)
class Scale:
    """The meaning of a metric's numbers: which direction is better, and their range. `neither`: informative
    only (a length), neither direction is better. `binary`: 0 or 1. `least` and `most` are None where nothing
    bounds the number."""

    better: Literal["higher", "lower", "neither"] = "higher"
    kind: Literal["binary", "continuous"] = "continuous"
    least: float | None = 0.0
    most: float | None = 1.0


@dataclass(frozen=True, slots=True)
class SuiteItem:
    """One item of a suite, with its reference answers.

    `cluster` names the family it belongs to (a conversation, a document, a template): items inside one
    may depend on each other. `references` are right answers, any of which counts; `choices` the options
    of a multiple choice, of which number `right` is right. `pressed` asks the same under pressure: the user
    states a wrong belief. `refuse` says whether the request must be refused. `document` is a text to be
    scored, not answered. `labels` give the slices that it belongs to. `tools` is the JSON text of the tools
    that the prompt offers; a reference is then JSON too, the right call or the list of calls. `parents` are
    the ids of the log's entries that it was drawn from.
    """

    id: str
    prompt: Messages
    cluster: str
    references: tuple[str, ...] = ()
    choices: tuple[str, ...] = ()
    right: int | None = None
    pressed: Messages = ()
    refuse: bool | None = None
    document: str | None = None
    labels: dict[str, str] = field(default_factory=dict)
    tools: Annotated[str, LEFT_OUT] = optional("")
    parents: Annotated[tuple[str, ...], LEFT_OUT] = optional(())


@dataclass(frozen=True, slots=True)
class Suite:
    """Held-out items with what is measured on them. Writer: `evaluate`. Law: the id is the hash of all that
    decides a score, so equal ids mean the same suite. Prompts of registered suites are kept out of training.
    The items are a JSONL blob, read by `escultor.skills.suites`."""

    id: str
    name: str
    skill: str
    metrics: dict[str, Scale]
    decoding: Sampling
    seeds: tuple[int, ...]  # every item is answered once with each; the metric is their mean
    schema: str | None  # JSON schema of the answers, as JSON
    items: int
    clusters: int
    blob: str
    definitions: Annotated[str, LEFT_OUT] = optional("")  # JSON of the metrics that it or its skill defines
    stop: Annotated[tuple[str, ...], LEFT_OUT] = optional(())  # texts before which an answer ends
    extract: Annotated[str, LEFT_OUT] = optional("")  # pattern of the part of an answer that is scored


@dataclass(frozen=True, slots=True)
class Scores:
    """One number per item and metric, for one checkpoint and one suite. Writer: `evaluate`.

    Law: only Scores with the same `suite` hash compare. `items` fixes the order; `clusters` names the
    family each item belongs to; metrics hold one float per item, `scales` what they mean. `summary` holds
    figures that are not per item (latency, speed, cost); `slices` one label per item for each way of
    slicing. `answers` is the blob of the answers (see `escultor.evaluate.predictions.Predictions`).
    """

    id: str
    checkpoint: str
    suite: str
    items: tuple[str, ...]
    clusters: tuple[str, ...]
    metrics: dict[str, tuple[float, ...]]
    summary: dict[str, float] = field(default_factory=dict)
    scales: dict[str, Scale] = field(default_factory=dict)
    slices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    answers: str | None = None


@dataclass(frozen=True, slots=True)
class GateContext:
    """The inputs of a verdict besides scores and policy. Writer: the caller of the gate.

    `look`: the number of this interim analysis of the suite's items, from 1 on (see
    `evaluate.gate.alpha_spending`). `card`: figures of the candidate's dataset card, from 0 to 1; None: no
    card. `signed_by`: the person who signs off the promotion. `void`: reason by item id, of items erased or
    leaked since the suite was created. `is_remembered`: whether a store would know of an earlier analysis;
    otherwise the first one is the first by assumption. `promotions`: how many analyses directly before this
    one ended in a promotion. `asked`: the blob with what the items ask, where no suite is registered.
    """

    look: int = 1
    card: Mapping[str, float] | None = None
    signed_by: str | None = None
    void: Mapping[str, str] = field(default_factory=dict)
    is_remembered: bool = False
    promotions: int = 0
    asked: Annotated[str, LEFT_OUT] = optional("")


# A primary is better or worse, a guard kept or broken, or either open; told: a metric that decides nothing.
EffectState = Literal["better", "worse", "kept", "broken", "open", "told"]


@dataclass(frozen=True, slots=True)
class Effect:
    """Candidate minus champion on one metric: mean paired difference over clusters with its 95 % interval."""

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
    level: float = 0.05  # significance level of the p-value
    bound: float | None = None  # distribution-free, on the worse side; None for a primary of 0/1 scores
    state: EffectState = "open"
    lower_is_better: bool = False
    # What is shown of the mean over clusters holds for that over items too where no cluster has more items;
    # 0: it is not shown over items; None: not estimated, or for any size.
    largest_cluster: Annotated[int | None, NONE_LEFT_OUT] = optional(None)


@dataclass(frozen=True, slots=True)
class Veto:
    """A limit that no gain can offset, with the value measured; None: the value is missing."""

    name: str
    seen: float | None
    limit: str  # in words
    state: Literal["kept", "broken", "missing"]


@dataclass(frozen=True, slots=True)
class Slice:
    """A primary metric on one part of the suite, with a 95 % interval; it decides nothing."""

    way: str  # of slicing: language, source, …
    name: str
    metric: str
    n: int
    champion: float
    candidate: float
    difference: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """The evidence of a verdict: two models' scores compared under a policy."""

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
    look: int = 1
    vetoes: tuple[Veto, ...] = ()
    slices: tuple[Slice, ...] = ()
    # Hashes of the champion's and the candidate's numbers on the suite: what an analysis is counted by.
    answer_sets: Annotated[tuple[str, ...], LEFT_OUT] = optional(())
    asked: Annotated[str, LEFT_OUT] = optional("")  # blob: the texts of the items, as a JSON list


@dataclass(frozen=True, slots=True)
class Promote:
    """Better on a primary metric, no worse on any guard, and no veto. Writer: the gate, pure."""

    because: Comparison


@dataclass(frozen=True, slots=True)
class Hold:
    """Not enough evidence; `n_needed` items would be enough at 80 % power (None: no n would)."""

    because: Comparison
    n_needed: int | None


@dataclass(frozen=True, slots=True)
class Reject:
    """Worse, or a guard or veto is broken."""

    because: Comparison


Verdict = Promote | Hold | Reject

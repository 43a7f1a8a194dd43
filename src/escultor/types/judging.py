"""Scores, and the verdict between two of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


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

"""Evaluation, the gate's policy, and the canary."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from escultor.config.section import Count, Natural, Positive, Section, Share


class Evaluation(Section):
    items: Count = Field(default=400, description="maximum items when the suite trinity is created")
    batch_size: Count = Field(default=64, description="answers generated per batch")
    max_new_tokens: Count = Field(default=160, description="maximum tokens of an answer")
    speed_requests: Count | None = Field(
        default=None,
        description="single requests timed for latency; null: one per item, at most 100 or 10 seconds",
    )
    n_raters: Count = Field(default=5, description="raters per item of a blind comparison")
    seed: Natural = Field(default=0, description="seed of item samples, raters' orders and their bootstrap")


class Limit(Section):
    """A veto: a limit on one metric or figure of the candidate, without regard to its uncertainty."""

    at_least: float | None = Field(default=None, description="minimum of the mean")
    at_most: float | None = Field(default=None, description="maximum of the mean")
    worse_by: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="maximum by which the mean may be worse than the champion's"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Limit:
        if self.at_least is None and self.at_most is None and self.worse_by is None:
            raise ValueError("a veto needs at_least, at_most or worse_by")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is above at_most {self.at_most}")
        return self


class AcceptanceTargets(Section):
    """What a smaller candidate (a student) should keep, gain and save, relative to its teacher."""

    quality_kept: Positive = Field(default=0.8, description="minimum share of the teacher's primary metric")
    speed: Positive = Field(default=5.0, description="minimum multiple of the teacher's tokens per second")
    cost: Positive = Field(default=0.02, description="maximum share of the teacher's cost per request")


class Gate(Section):
    """Promote: superior on a primary metric, non-inferior on every guard, and no veto."""

    name: str = Field(default="default", description="name of the policy in verdicts")
    primary: tuple[str, ...] = Field(
        default=("quality",), description="metrics, at least one of which must be better"
    )
    guards: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"valid": 0.02, "bits_per_byte": 0.05},
        description="non-inferiority margin per metric",
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="one-sided error rate over all promotions on a suite (Holm), and of each guard",
    )
    power: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.8, description="power at which a hold states the number of items needed"
    )
    min_items: Count = Field(
        default=50, description="fewer: hold; narrow guards need more (see `escultor compare`)"
    )
    alpha_spending: Literal["shared", "full"] = Field(
        default="shared",
        description="shared: the k-th analysis of a suite is tested at alpha / (k (k + 1)); full: at alpha",
    )
    max_analyses: Count = Field(default=20, description="maximum analyses of a suite; after that: hold")
    vetoes: dict[str, Limit] = Field(
        default_factory=dict, description="limits that no gain offsets, by metric"
    )
    card: dict[str, Share] = Field(default_factory=dict, description="maximum per figure of the dataset card")
    sign_off: bool = Field(default=False, description="whether a person must sign off a promotion")
    acceptance_targets: AcceptanceTargets = Field(
        default=AcceptanceTargets(), description="what a smaller candidate should keep, gain and save"
    )

    @model_validator(mode="after")
    def _one_role_per_metric(self) -> Gate:
        if both := sorted(set(self.primary) & set(self.guards)):
            raise ValueError(f"{', '.join(both)}: a metric is either a primary or a guard")
        return self


LiveGuard = Literal["thumbs_down", "error", "slow", "cost_usd"]


class Canary(Section):
    """A candidate on live traffic: shadow, then a growing share of subjects, each always given one model."""

    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.01, 0.05, 0.25, 0.5, 1.0), description="share of the subjects per stage; the last is 1"
    )
    guards: dict[LiveGuard, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"thumbs_down": 0.0, "error": 0.0, "slow": 0.0},
        description="margin per metric; significantly worse than the champion by more: rollback",
    )
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05,
        description="probability that a harmless candidate is rolled back, over all guards and analyses",
    )
    tuned_ratings: Count = Field(
        default=3000, description="observations per arm at which bounds are tightest"
    )
    sla_ms: Positive = Field(default=5000.0, description="a slower answer counts as slow")
    shadow_requests: Natural = Field(
        default=200, description="shadow answers before the first stage; 0: none"
    )
    stage_requests: Count = Field(default=200, description="minimum answers of the candidate per stage")
    stage_hours: Annotated[float, Field(ge=0)] = Field(default=6.0, description="minimum length of a stage")
    min_ratings: Natural = Field(default=100, description="minimum ratings of the candidate before promotion")
    min_hours: Annotated[float, Field(ge=0)] = Field(
        default=168.0, description="minimum length of the trial; a week includes quiet days"
    )
    split_two_sided_alpha: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.001, description="probability that a correct split raises a sample ratio alarm"
    )
    window_s: Positive = Field(default=300.0, description="window of the hard limits")
    breach_windows: Count = Field(default=2, description="consecutive windows beyond a hard limit: rollback")
    max_error_share: Share = Field(default=0.1, description="hard limit: share of failed answers")
    max_slow_share: Share = Field(default=0.2, description="hard limit: share of slow answers")

    @model_validator(mode="after")
    def _shares_grow(self) -> Canary:
        if not self.shares or self.shares[-1] != 1.0 or list(self.shares) != sorted(set(self.shares)):
            raise ValueError(f"shares {self.shares} must grow and end with 1.0")
        if not self.guards:
            raise ValueError("a canary needs at least one guard")
        return self

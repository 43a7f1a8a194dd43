"""Evaluation, the gate's policy, and the canary."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from escultor.config.section import (
    BelowHalf,
    Count,
    Natural,
    NonNegative,
    Positive,
    PositiveShare,
    Section,
    Share,
    setting,
)


class Evaluation(Section):
    items: Count = setting(400, help="maximum items of a suite that is made of documents")
    batch_size: Count = setting(64, help="answers generated per batch")
    max_new_tokens: Count = setting(160, help="maximum tokens of an answer")
    speed_requests: Count | None = setting(
        None, help="requests timed for latency, speed and cost; null: none, unless a policy limits these"
    )
    n_raters: Count = setting(5, help="raters per item of a blind comparison")
    seed: Natural = setting(0, help="seed of item samples, raters' orders and their bootstrap")


class Limit(Section):
    """A veto: a limit on one metric or figure of the candidate, without regard to its uncertainty."""

    at_least: float | None = setting(None, help="minimum of the mean")
    at_most: float | None = setting(None, help="maximum of the mean")
    worse_by: NonNegative | None = setting(
        None, help="the mean may be worse than the champion's by at most this"
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

    quality_kept: Positive = setting(0.8, help="minimum share of the teacher's primary metric")
    speed: Positive = setting(5.0, help="minimum multiple of the teacher's tokens per second")
    cost: Positive = setting(0.02, help="maximum share of the teacher's cost per request")


OF_THE_SKILL = ("primary", "guards", "vetoes")  # keys of `gate` that a skill declares where nobody else does


class Gate(Section):
    """Promote: superior on a primary metric, non-inferior on every guard, and no veto."""

    name: str = setting("default", help="name of the policy in verdicts")
    primary: tuple[str, ...] = setting(
        (), help="metrics, at least one of which must be better; null: the skill's, else the suite's first"
    )
    guards: dict[str, NonNegative] = setting({}, help="margin per metric; null: the skill's")
    other_skills: NonNegative = setting(
        0.05, help="margin of the primary metrics of each other skill that the model serves"
    )
    alpha: BelowHalf = setting(0.05, help="one-sided error: all promotions on a suite (Holm), each guard")
    power: Annotated[float, Field(gt=0, lt=1)] = setting(
        0.8, help="power of the number of items a hold states"
    )
    min_items: Count = setting(50, help="fewer: hold; narrow guards need more (see `escultor compare`)")
    alpha_spending: Literal["shared", "full"] = setting(
        "shared", help="shared: all analyses of a suite together are tested at alpha; full: each of them"
    )
    max_analyses: Count = setting(20, help="maximum analyses of a suite; after that: hold")
    largest_cluster: Count | None = setting(
        None, help="items of the largest cluster with which guards must hold for the mean over items as well"
    )
    vetoes: dict[str, Limit] = setting({}, help="limits that no gain offsets, by metric; null: the skill's")
    card: dict[str, Share] = setting({}, help="maximum per figure of the dataset card")
    sign_off: bool = setting(False, help="whether a person must sign off a promotion")
    acceptance_targets: AcceptanceTargets = setting(
        AcceptanceTargets(), help="what a student should keep and gain"
    )

    @model_validator(mode="before")
    @classmethod
    def _null_is_not_given(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {key: value for key, value in data.items() if value is not None or key not in OF_THE_SKILL}

    @model_validator(mode="after")
    def _one_role_per_metric(self) -> Gate:
        if both := sorted(set(self.primary) & set(self.guards)):
            raise ValueError(f"{', '.join(both)}: a metric is either a primary or a guard")
        return self


LiveGuard = Literal["thumbs_down", "error", "slow", "cost_usd"]


class Canary(Section):
    """A candidate on live traffic: shadow, then a growing share of subjects, each always given one model."""

    shares: tuple[PositiveShare, ...] = setting(
        (0.01, 0.05, 0.25, 0.5, 1.0), help="share of the subjects per stage; the last is 1"
    )
    guards: dict[LiveGuard, NonNegative] = setting(
        {"thumbs_down": 0.0, "error": 0.0, "slow": 0.0},
        help="margin per metric; significantly worse than the champion by more: rollback",
    )
    alpha: BelowHalf = setting(0.05, help="probability that a harmless candidate is ever rolled back")
    tuned_ratings: Count = setting(3000, help="observations per arm at which bounds are tightest")
    sla_ms: Positive = setting(5000.0, help="a slower answer counts as slow")
    shadow_requests: Natural = setting(200, help="shadow answers before the first stage; 0: none")
    stage_requests: Count = setting(200, help="minimum answers of the candidate per stage")
    stage_hours: NonNegative = setting(6.0, help="minimum length of a stage")
    min_ratings: Natural = setting(100, help="minimum ratings of the candidate before promotion")
    min_hours: NonNegative = setting(168.0, help="minimum length of the trial; a week includes quiet days")
    split_two_sided_alpha: BelowHalf = setting(0.001, help="false alarms of the sample ratio check")
    window_s: Positive = setting(300.0, help="window of the hard limits")
    breach_windows: Count = setting(2, help="consecutive windows beyond a hard limit: rollback")
    max_error_share: Share = setting(0.1, help="hard limit: share of failed answers")
    max_slow_share: Share = setting(0.2, help="hard limit: share of slow answers")

    @model_validator(mode="after")
    def _shares_grow(self) -> Canary:
        if not self.shares or self.shares[-1] != 1.0 or list(self.shares) != sorted(set(self.shares)):
            raise ValueError(f"shares {self.shares} must grow and end with 1.0")
        if not self.guards:
            raise ValueError("a canary needs at least one guard")
        return self

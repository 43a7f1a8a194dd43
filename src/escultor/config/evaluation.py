"""What is measured and what is promoted."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from escultor.config.section import Count, Natural, Positive, Section, Share


class Evaluation(Section):
    items: Count = Field(default=400, description="held-out items at most")
    batch_size: Count = Field(default=64, description="answers generated at a time")
    max_new_tokens: Count = Field(default=160, description="an answer is cut here")
    speed_requests: Count = Field(default=40, description="single requests timed for latency")
    n_raters: Count = Field(default=5, description="people who rate each item of a blind comparison")
    seed: Natural = Field(default=0, description="which items, raters' orders, their bootstrap's draws")


class Limit(Section):
    """A veto on one metric or figure of the candidate, read as it was seen: no interval softens it."""

    at_least: float | None = Field(default=None, description="the mean must not be lower")
    at_most: float | None = Field(default=None, description="the mean must not be higher")
    worse_by: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="the mean must not be worse than the champion's by more"
    )

    @model_validator(mode="after")
    def _limits_something(self) -> Limit:
        if self.at_least is None and self.at_most is None and self.worse_by is None:
            raise ValueError("a veto needs at_least, at_most or worse_by")
        if self.at_least is not None and self.at_most is not None and self.at_least > self.at_most:
            raise ValueError(f"at_least {self.at_least} is above at_most {self.at_most}")
        return self


class AcceptanceTargets(Section):
    """What a student should keep, gain and save, beside its teacher."""

    quality_kept: Positive = Field(default=0.8, description="of the teacher's primary metric, at least")
    speed: Positive = Field(default=5.0, description="times the teacher's tokens per second, at least")
    cost: Positive = Field(default=0.02, description="of the teacher's cost per request, at most")


class Gate(Section):
    """Promote: superior on a primary metric, non-inferior on every guard, and no veto."""

    name: str = Field(default="default", description="how the policy is called in verdicts")
    primary: tuple[str, ...] = Field(default=("quality",), description="metrics of which one must be better")
    guards: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"valid": 0.02, "bits_per_byte": 0.05},
        description="metrics that may not be worse by more than the margin",
    )
    level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="one-sided error: of a suite's promotions, Holm over primaries; of a guard"
    )
    power: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.8, description="with which the items named by a hold would be enough"
    )
    min_items: Count = Field(default=50, description="fewer items: hold")
    looks: Literal["spend", "free"] = Field(
        default="spend", description="the k-th look at a suite has level / (k (k + 1)); free: has all of it"
    )
    most_looks: Count = Field(default=20, description="after so many the suite is used up: hold")
    vetoes: dict[str, Limit] = Field(
        default_factory=dict, description="limits on metrics that nothing makes up for"
    )
    card: dict[str, Share] = Field(
        default_factory=dict, description="figures of the dataset card, and the most each may be"
    )
    sign_off: bool = Field(default=False, description="whether a person has to sign a promotion")
    hopes: AcceptanceTargets = Field(
        default=AcceptanceTargets(), description="of a student, beside its teacher"
    )

    @model_validator(mode="after")
    def _roles_do_not_meet(self) -> Gate:
        if both := sorted(set(self.primary) & set(self.guards)):
            raise ValueError(f"{', '.join(both)}: a metric is a primary or a guard, not both")
        return self


LiveGuard = Literal["thumbs_down", "error", "slow", "cost_usd"]


class Canary(Section):
    """A candidate among people: shadow, then a growing share of subjects, each of whom keeps their model."""

    shares: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        default=(0.01, 0.05, 0.25, 0.5, 1.0), description="of the subjects, step by step; the last is all"
    )
    guards: dict[LiveGuard, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"thumbs_down": 0.0, "error": 0.0, "slow": 0.0},
        description="how much worse than the champion may be; shown to be worse by more: rollback",
    )
    level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="chance that a harmless candidate is ever rolled back, all guards together"
    )
    tuned_rated: Count = Field(default=3000, description="per arm; harm is seen soonest if this many tell it")
    sla_ms: Positive = Field(default=5000.0, description="a slower answer counts as slow")
    shadow_requests: Natural = Field(
        default=200, description="answers unseen by anyone before the first share; 0: no shadow"
    )
    step_requests: Count = Field(default=200, description="answers of the candidate in a step, at least")
    step_hours: Annotated[float, Field(ge=0)] = Field(default=6.0, description="length of a step, at least")
    least_rated: Natural = Field(default=100, description="ratings of the candidate before it takes over")
    least_hours: Annotated[float, Field(ge=0)] = Field(
        default=168.0, description="of the whole trial before it takes over: a week has quiet days"
    )
    ratio_level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.001, description="chance of ever doubting a split that is as ordered"
    )
    window_s: Positive = Field(default=300.0, description="length of a window of the hard limits")
    breaches: Count = Field(default=2, description="windows in a row beyond a hard limit: rollback")
    most_errors: Share = Field(default=0.1, description="hard limit on the share of failed answers")
    most_slow: Share = Field(default=0.2, description="hard limit on the share of slow answers")

    @model_validator(mode="after")
    def _steps_grow(self) -> Canary:
        if not self.shares or self.shares[-1] != 1.0 or list(self.shares) != sorted(set(self.shares)):
            raise ValueError(f"shares {self.shares} must grow and end with 1.0")
        if not self.guards:
            raise ValueError("a canary without guards watches nothing")
        return self

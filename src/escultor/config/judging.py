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
    seed: Natural = Field(default=0, description="which items, and the bootstrap's draws")


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


class Hopes(Section):
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
    hopes: Hopes = Hopes()

    @model_validator(mode="after")
    def _roles_do_not_meet(self) -> Gate:
        if both := sorted(set(self.primary) & set(self.guards)):
            raise ValueError(f"{', '.join(both)}: a metric is a primary or a guard, not both")
        return self

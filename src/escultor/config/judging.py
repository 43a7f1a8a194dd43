"""What is measured and what is promoted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from escultor.config.section import Count, Natural, Section


class Evaluation(Section):
    items: Count = Field(default=400, description="held-out items at most")
    batch_size: Count = Field(default=64, description="answers generated at a time")
    max_new_tokens: Count = Field(default=160, description="an answer is cut here")
    speed_requests: Count = Field(default=40, description="single requests timed for latency")
    seed: Natural = Field(default=0, description="which items, and the bootstrap's draws")


class Gate(Section):
    """Promote: superior on a primary metric and non-inferior on every guard."""

    primary: tuple[str, ...] = Field(default=("quality",), description="metrics of which one must be better")
    guards: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=lambda: {"valid": 0.02, "bits_per_byte": 0.05},
        description="metrics that may not be worse by more than the margin",
    )
    level: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.05, description="one-sided error, Holm over primaries"
    )
    min_items: Count = Field(default=50, description="fewer items: hold")

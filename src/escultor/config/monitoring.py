"""Alert limits of the monitor."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from escultor.config.section import Count, Positive, Section, Share


class Monitor(Section):
    thumbs_down_limit: Share = Field(default=0.10, description="alert when the share is significantly higher")
    min_rated: Count = Field(default=30, description="minimum ratings before an alert may fire")
    latency_p99_ms: Positive = Field(default=5000.0, description="alert when higher")
    daily_cost_usd: Positive = Field(default=10.0, description="alert when higher")
    cooldown_s: Annotated[float, Field(ge=0)] = Field(
        default=3600.0, description="minimum time between plans"
    )

"""How answers are given."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from escultor.config.section import Count, Positive, Section


class Serve(Section):
    hourly_price_usd: Positive = Field(default=0.10, description="what an hour of this machine costs")
    batch_size: Count = Field(default=32, description="answers generated at a time")
    temperature: Annotated[float, Field(ge=0)] = Field(default=0.0, description="0: greedy")
    max_new_tokens: Count = Field(default=256, description="an answer is cut here")

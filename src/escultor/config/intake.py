"""Limits of feedback over HTTP: size, age, and how long a browser may send it."""

from __future__ import annotations

from pydantic import Field

from escultor.config.section import Count, Natural, Positive, Section


class FeedbackIntake(Section):
    batch: Count = Field(default=1000, description="events in one request at most")
    text_characters: Count = Field(default=65_536, description="of a correction or remark at most")
    clock_skew_s: Natural = Field(
        default=300, description="a client's clock may be ahead by so much; its events count as sent now"
    )
    max_age_days: Positive = Field(default=31.0, description="an event of an earlier time is refused")
    token_days: Positive = Field(default=7.0, description="how long a browser may send feedback on an answer")

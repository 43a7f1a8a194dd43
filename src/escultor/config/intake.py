"""Limits of feedback over HTTP: size, age, and how long a browser may send it."""

from __future__ import annotations

from pydantic import Field

from escultor.config.section import Count, Natural, Positive, Section


class FeedbackIntake(Section):
    batch: Count = Field(default=1000, description="maximum events per request")
    text_characters: Count = Field(default=65_536, description="maximum length of a correction or remark")
    clock_skew_s: Natural = Field(default=300, description="tolerated advance of a client's clock")
    max_age_days: Positive = Field(default=31.0, description="older events are refused")
    token_days: Positive = Field(default=7.0, description="how long a browser may send feedback on an answer")

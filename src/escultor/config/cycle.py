"""Cycles that run by themselves: what begins them, what limits them, who approves, what they may use."""

from __future__ import annotations

import shlex
from typing import Annotated

from pydantic import Field, field_validator, model_validator

from escultor.config.section import Count, Natural, NonNegative, Positive, Section, setting

COMMAND = "{command}"


class Cycle(Section):
    new_rows: Count | None = setting(None, help="begin when feedback gives so many new rows; null: never")
    cooldown_s: NonNegative = setting(86_400.0, help="minimum time between cycles of a skill")
    per_day: Count = setting(4, help="cycles that may begin by themselves in 24 hours, of all skills")
    compute_hours: Positive | None = setting(None, help="of steps in 30 days; null: no limit")
    usd: Positive | None = setting(None, help="price of the steps of 30 days; null: no limit")
    hourly_price_usd: Positive = setting(0.10, help="of the machine that trains, for usd")
    auto_approve: tuple[str, ...] = setting(
        (), help="skills whose candidates need no person's approval; '*': all"
    )
    approvers: dict[str, str] = setting(
        {}, help="where each of them gets a link to approve by: receiver (as in monitor.notify) by key name"
    )
    public_url: str | None = setting(None, help="address of the gateway, for these links")
    canary: bool = setting(True, help="try an approved candidate among people; false: deploy it at once")
    # --- the process that trains
    launcher: Annotated[str, Field(pattern=r"\{command\}")] = setting(
        COMMAND, help="how it is started, waiting for its end: srun --gpus=1 {command}"
    )
    nice: Annotated[Natural, Field(le=19)] = setting(10, help="lower priority than serving; not on Windows")
    threads: Count | None = setting(None, help="CPU threads; null: all")
    memory_gb: Positive | None = setting(None, help="limit of its memory; null: none; not on Windows")

    @field_validator("launcher")
    @classmethod
    def _is_readable(cls, launcher: str) -> str:
        try:
            words = shlex.split(launcher)
        except ValueError as error:
            raise ValueError(f"cycle.launcher is read as a shell's words: {error}") from error
        if not any(COMMAND in word for word in words):
            raise ValueError("cycle.launcher names {command} in a comment or in pieces")
        return launcher

    @model_validator(mode="after")
    def _links_lead_somewhere(self) -> Cycle:
        if self.approvers and self.public_url is None:
            raise ValueError("cycle.approvers needs cycle.public_url, the address of the gateway")
        return self

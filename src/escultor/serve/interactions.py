"""The row of an answer: an `Interaction`, drafted when the request is read and completed by its answer."""

from __future__ import annotations

from typing import Any

from escultor.ids import hash_value
from escultor.types import Interaction, Messages, Sampling, Usage


def draft_interaction(
    messages: Messages,
    *,
    id: str,
    subject: str,
    version: str,
    sampling: Sampling,
    skill: str = "trinity",
    arm: str = "champion",
    **fields: Any,
) -> Interaction:
    """The row of a request that has no answer yet: empty, and `interrupted` until an answer completes it
    (`dataclasses.replace`). `fields` are further fields of `Interaction`: propensity (default 1), lineage,
    consent, retain_until, tenant."""
    return Interaction(
        id=id,
        time=0.0,
        skill=skill,
        subject=subject,
        version=version,
        arm=arm,
        propensity=fields.pop("propensity", 1.0),
        messages=messages,
        answer="",
        finish_reason="interrupted",
        sampling=sampling,
        usage=Usage(0, 0),
        latency_ms=0.0,
        ttft_ms=None,
        cost_usd=0.0,
        prompt_hash=hash_value(messages),
        **fields,
    )


def machine_cost_usd(compute_s: float, hourly_price_usd: float) -> float:
    """Cost in USD of `compute_s` seconds of a machine that costs `hourly_price_usd` an hour."""
    return compute_s * hourly_price_usd / 3600

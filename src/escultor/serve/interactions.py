"""How an answer becomes a row of the log: the one place where an Interaction of our own serving is made."""

from __future__ import annotations

from dataclasses import dataclass

from escultor.ids import hash_value, new_id
from escultor.types import Consent, FinishReason, Interaction, Lineage, Messages, Sampling, Usage


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked, by whom, and what may become of it. `subject` is a salted hash, never a name."""

    messages: Messages
    subject: str
    skill: str = "trinity"
    lineage: Lineage | None = None
    consent: Consent = Consent.TRAIN
    retain_until: float | None = None  # seconds since the epoch
    id: str | None = None  # given by a caller that may ask again; drawn otherwise
    tenant: str = ""  # whose application asked


@dataclass(frozen=True, slots=True)
class Placement:
    """Which version answers, under which alias, and the probability with which that was drawn."""

    version: str
    arm: str = "champion"
    propensity: float = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a request: one choice. `ttft_ms` is None where no piece was sent ahead of the rest."""

    answer: str
    finish_reason: FinishReason
    usage: Usage
    latency_ms: float
    ttft_ms: float | None
    cost_usd: float


def interaction(
    request: Request, placement: Placement, sampling: Sampling, outcome: Outcome, time: float
) -> Interaction:
    """The row of one answer. Pure but for the id, which is drawn where the request has none."""
    return Interaction(
        id=request.id or new_id("chatcmpl"),
        time=time,
        skill=request.skill,
        subject=request.subject,
        version=placement.version,
        arm=placement.arm,
        propensity=placement.propensity,
        messages=request.messages,
        answer=outcome.answer,
        finish_reason=outcome.finish_reason,
        sampling=sampling,
        usage=outcome.usage,
        latency_ms=outcome.latency_ms,
        ttft_ms=outcome.ttft_ms,
        cost_usd=outcome.cost_usd,
        prompt_hash=hash_value(request.messages),
        lineage=request.lineage,
        consent=request.consent,
        retain_until=request.retain_until,
        tenant=request.tenant,
    )


def machine_cost_usd(compute_s: float, hourly_price_usd: float) -> float:
    """What seconds of a machine cost at the price of its hour."""
    return compute_s * hourly_price_usd / 3600

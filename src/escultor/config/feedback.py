"""How feedback becomes training data, and what is held back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from escultor.config.section import Count, Positive, Section, Share


class Resampling(Section):
    """New answers to prompts whose answers displeased, ranked by a judge (`resampled/1`)."""

    judge: str = Field(min_length=1, description="a model folder; with `url` the model's name there")
    url: str | None = Field(default=None, description="an OpenAI-compatible server, up to /v1")
    key_env: str = Field(default="OPENAI_API_KEY", description="the variable that holds the server's key")
    samples: Annotated[int, Field(ge=2, le=16)] = Field(
        default=4, description="new answers to each prompt; the judge sees every two of them twice"
    )
    prompts: Count = Field(default=200, description="prompts that are answered anew at most")
    least_gap: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.5, description="between the best and the worst, in mean verdicts from -1 to 1"
    )
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.2, description="how often the judge is wrong about two answers"
    )


class FeedbackRules(Section):
    """From feedback to training data: how much makes a training run, weights, and abuse."""

    min_pairs: Count = Field(default=100, description="pairs that are worth a run of DPO")
    min_examples: Count = Field(default=100, description="written answers that are worth a run of SFT")
    min_judged: Count = Field(default=500, description="single verdicts that are worth a run of KTO")
    min_judged_side: Count = Field(default=50, description="of those, good ones and bad ones at least")
    pairs_per_prompt: Count = Field(default=4, description="pairs of one route from one prompt at most")
    max_flip_rate: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.4, description="what is wrong more often than this is left out"
    )
    propensity_clip: Annotated[float, Field(ge=1)] = Field(
        default=10.0, description="an item weighs one over the chance of its arm, this at most"
    )
    length_ratio: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="pairs whose sides differ in length by more are left out; null: none"
    )
    gold_items: Count = Field(
        default=200, description="answers judged by raters too, from which on events are measured by them"
    )
    subject_share: Share = Field(default=0.01, description="of the items may rest on one end user, or")
    subject_items: Count = Field(default=20, description="this many items, whichever is more")
    tenant_share: Share = Field(
        default=0.2, description="of the items may come from one tenant, from six tenants on"
    )
    probation_votes: Annotated[int, Field(ge=0)] = Field(
        default=5, description="an end user with fewer verdicts, or younger than a day, counts half"
    )
    probation_items: Count = Field(default=5, description="that may rest on an end user on probation")
    burst_factor: Annotated[float, Field(ge=1)] = Field(
        default=5.0, description="times what is usual in an hour, a day, a month: held back"
    )
    burst_floor: Count = Field(default=30, description="verdicts below which no one is held back for haste")
    dictated_share: Positive = Field(
        default=0.5, description="of an answer standing in its prompt: held back; above 1: never"
    )
    resampling: Resampling | None = Field(
        default=None, description="new answers to prompts that displeased; null: none are drawn"
    )

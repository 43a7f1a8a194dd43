"""Rules that turn feedback into training data, and limits against abuse."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from escultor.config.section import Count, Positive, Section, Share


class Resampling(Section):
    """New answers to prompts with rejected answers, ranked by a judge (`resampled/1`)."""

    judge: str = Field(min_length=1, description="a model folder, or with `url` the name of a model there")
    url: str | None = Field(default=None, description="an OpenAI-compatible server, up to /v1")
    key_env: str = Field(default="OPENAI_API_KEY", description="environment variable of the server's API key")
    samples: Annotated[int, Field(ge=2, le=16)] = Field(
        default=4, description="new answers per prompt; the judge compares every pair in both orders"
    )
    prompts: Count = Field(default=200, description="maximum prompts that are answered again")
    least_gap: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.5, description="minimum gap of the best to the worst, in mean verdicts from -1 to 1"
    )
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.2, description="share of pairs that the judge labels the wrong way round"
    )

    @model_validator(mode="after")
    def _every_key_acts(self) -> Resampling:
        if self.url is None and self.key_env != "OPENAI_API_KEY":
            raise ValueError(f"key_env {self.key_env} has no effect without url; give url, or leave it out")
        return self


class FeedbackRules(Section):
    """From feedback to training data: minimum amounts for a training run, weights, and abuse."""

    min_pairs: Count = Field(default=100, description="minimum pairs for a DPO run")
    min_examples: Count = Field(default=100, description="minimum written answers for an SFT run")
    min_unpaired: Count = Field(default=500, description="minimum unpaired examples for a KTO run")
    min_unpaired_side: Count = Field(default=50, description="minimum per label")
    pairs_per_prompt: Count = Field(default=4, description="maximum pairs per prompt and rule")
    max_flip_rate: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.4, description="items with a higher estimated label flip rate are dropped"
    )
    propensity_clip: Annotated[float, Field(ge=1)] = Field(
        default=10.0, description="maximum weight of an item (1 / probability of its arm)"
    )
    length_ratio: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="pairs with a larger ratio of lengths are dropped; null: none"
    )
    gold_items: Count = Field(
        default=200, description="rated answers that events are calibrated on, at least"
    )
    subject_share: Share = Field(default=0.01, description="maximum share of items from one end user")
    subject_items: Count = Field(default=20, description="or this many items, if that is more")
    tenant_share: Share = Field(
        default=0.2, description="maximum share of items per tenant, from six tenants on"
    )
    probation_votes: Annotated[int, Field(ge=0)] = Field(
        default=5, description="end users with fewer events, or seen for under a day, have half weight"
    )
    probation_items: Count = Field(default=5, description="maximum items from an end user on probation")
    rate_anomaly_factor: Annotated[float, Field(ge=1)] = Field(
        default=5.0, description="quarantine above this multiple of the usual hourly, daily or monthly rate"
    )
    rate_anomaly_floor: Count = Field(default=30, description="no rate anomaly up to this many events")
    prompt_echo_share: Positive = Field(
        default=0.5, description="quarantine answers that repeat more of their prompt; above 1: never"
    )
    resampling: Resampling | None = Field(
        default=None, description="new answers to disliked prompts; null: none"
    )

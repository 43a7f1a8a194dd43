"""Rules that turn feedback into training data, and limits against abuse."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from escultor.config.section import (
    AtLeastOne,
    BelowHalf,
    Count,
    FlipRate,
    Natural,
    Positive,
    Section,
    Share,
    setting,
)


class Resampling(Section):
    """New answers to prompts with rejected answers, ranked by a judge (`resampled/1`)."""

    judge: str = Field(min_length=1, description="a model folder, or with `url` the name of a model there")
    url: str | None = setting(None, help="an OpenAI-compatible server, up to /v1")
    key_env: str = setting("OPENAI_API_KEY", help="environment variable of the server's API key")
    samples: Annotated[int, Field(ge=2, le=16)] = setting(4, help="new answers per prompt, compared in pairs")
    prompts: Count = setting(200, help="maximum prompts that are answered again")
    least_gap: Annotated[float, Field(ge=0, le=2)] = setting(0.5, help="gap of best to worst in mean verdict")
    flip_rate: FlipRate = setting(0.2, help="share of pairs that the judge labels the wrong way round")

    @model_validator(mode="after")
    def _every_key_acts(self) -> Resampling:
        if self.url is None and self.key_env != "OPENAI_API_KEY":
            raise ValueError(f"key_env {self.key_env} has no effect without url; give url, or leave it out")
        return self


class FeedbackRules(Section):
    """From feedback to training data: minimum amounts for a training run, weights, and abuse."""

    min_pairs: Count = setting(100, help="minimum pairs for a DPO run")
    min_examples: Count = setting(100, help="minimum written answers for an SFT run")
    min_unpaired: Count = setting(500, help="minimum unpaired examples for a KTO run")
    min_unpaired_side: Count = setting(50, help="minimum per label")
    pairs_per_prompt: Count = setting(4, help="maximum pairs per prompt and rule")
    max_flip_rate: BelowHalf = setting(0.4, help="items with a higher estimated label flip rate are dropped")
    min_edit: Share = setting(0.0, help="corrections that change less of the text make no item")
    max_edit: Share = setting(0.6, help="corrections that change more make an example, and no pair")
    propensity_clip: AtLeastOne = setting(10.0, help="maximum weight of an item (1 / probability of its arm)")
    length_ratio: AtLeastOne | None = setting(None, help="pairs with a larger length ratio are dropped")
    gold_items: Count = setting(200, help="rated answers that events are calibrated on, at least")
    subject_share: Share = setting(0.01, help="maximum share of items from one end user")
    subject_items: Count = setting(20, help="or this many items, if that is more")
    tenant_share: Share = setting(0.2, help="maximum share of items per tenant, from six tenants on")
    probation_votes: Natural = setting(5, help="half weight: end users with fewer events, or under a day old")
    probation_items: Count = setting(5, help="maximum items from an end user on probation")
    rate_anomaly_factor: AtLeastOne = setting(5.0, help="quarantine above this multiple of the usual rate")
    rate_anomaly_floor: Count = setting(30, help="no rate anomaly up to this many events")
    prompt_echo_share: Positive = setting(0.5, help="quarantine answers that repeat more of their prompt")
    resampling: Resampling | None = setting(None, help="new answers to disliked prompts; null: none")

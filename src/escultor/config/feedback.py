"""How feedback becomes training data, and what is held back."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from escultor.config.section import Count, Positive, Section, Share


class Resampling(Section):
    """New answers to prompts whose answers displeased, ranked by a judge (`resampled/1`)."""

    judge: str = Field(min_length=1, description="a model folder; with `url` the name of a model there")
    url: str | None = Field(default=None, description="an OpenAI-compatible server, up to /v1")
    key_env: str = Field(default="OPENAI_API_KEY", description="the variable that holds the server's key")
    samples: Annotated[int, Field(ge=2, le=16)] = Field(
        default=4, description="new answers to each prompt; the judge sees every two of them twice"
    )
    prompts: Count = Field(default=200, description="prompts that are answered again at most")
    least_gap: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.5, description="between the best and the worst, in mean verdicts from -1 to 1"
    )
    flip_rate: Annotated[float, Field(ge=0, lt=0.5)] = Field(
        default=0.2, description="how often the judge is wrong about two answers"
    )

    @model_validator(mode="after")
    def _every_key_acts(self) -> Resampling:
        if self.url is None and self.key_env != "OPENAI_API_KEY":
            raise ValueError(f"key_env {self.key_env} has no effect without url; give url, or leave it out")
        return self


class FeedbackRules(Section):
    """From feedback to training data: how much is worth a training run, weights, and abuse."""

    min_pairs: Count = Field(default=100, description="pairs that are worth a run of DPO")
    min_examples: Count = Field(default=100, description="written answers that are worth a run of SFT")
    min_unpaired: Count = Field(default=500, description="single verdicts that are worth a run of KTO")
    min_unpaired_side: Count = Field(default=50, description="of those, good ones and bad ones at least")
    pairs_per_prompt: Count = Field(default=4, description="pairs of one prompt by one rule at most")
    max_flip_rate: Annotated[float, Field(gt=0, lt=0.5)] = Field(
        default=0.4, description="items that are wrong more often are left out"
    )
    propensity_clip: Annotated[float, Field(ge=1)] = Field(
        default=10.0, description="the largest weight of an item: one over the probability of its arm"
    )
    length_ratio: Annotated[float, Field(ge=1)] | None = Field(
        default=None, description="pairs whose sides differ more in length are left out; null: none"
    )
    gold_items: Count = Field(
        default=200, description="answers that raters judged, from which on events are measured on them"
    )
    subject_share: Share = Field(default=0.01, description="of the items may rest on one end user, or")
    subject_items: Count = Field(default=20, description="this many items, whichever is more")
    tenant_share: Share = Field(
        default=0.2, description="of the items may come from one tenant, where there are six or more"
    )
    probation_votes: Annotated[int, Field(ge=0)] = Field(
        default=5, description="an end user with fewer events, or younger than a day, counts half"
    )
    probation_items: Count = Field(default=5, description="may rest on an end user on probation")
    rate_anomaly_factor: Annotated[float, Field(ge=1)] = Field(
        default=5.0, description="times what is usual in an hour, a day or a month is held back"
    )
    rate_anomaly_floor: Count = Field(default=30, description="events up to which no rate is an anomaly")
    prompt_echo_share: Positive = Field(
        default=0.5, description="of an answer repeats its prompt: held back; above 1: never"
    )
    resampling: Resampling | None = Field(
        default=None, description="new answers to prompts that displeased; null: none are drawn"
    )

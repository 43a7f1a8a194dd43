"""How answers are given."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from escultor.config.feedback import FeedbackIntake
from escultor.config.section import Count, Natural, Positive, Section


class Upstream(Section):
    """A server behind that speaks OpenAI's protocol: vLLM, llama.cpp's server, Ollama, a hosted one."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]")] = Field(
        description="what its paths begin with, such as http://127.0.0.1:8000/v1"
    )
    model: Annotated[str, Field(min_length=1)] = Field(description="its name for the model to ask")
    key_env: str | None = Field(
        default=None, description="the environment variable that holds its API key; none: no key is sent"
    )
    connect_timeout_s: Positive = Field(default=5.0, description="to reach it, or get a free connection")
    idle_timeout_s: Positive = Field(
        default=60.0, description="silence of a streamed answer, the first byte included"
    )
    deadline_s: Positive = Field(default=600.0, description="for a whole answer, retries included")
    retries: Natural = Field(
        default=2, description="further attempts, before the first byte of an answer alone"
    )
    max_connections: Count = Field(default=128, description="answers asked of it at a time")


class Serve(Section):
    hourly_price_usd: Positive = Field(default=0.10, description="what an hour of this machine costs")
    batch_size: Count = Field(default=32, description="answers generated at a time")
    temperature: Annotated[float, Field(ge=0)] = Field(default=0.0, description="0: greedy")
    max_new_tokens: Count = Field(default=256, description="an answer is cut here")
    upstream: Upstream | None = Field(default=None, description="a server behind that computes the answers")
    feedback: FeedbackIntake = Field(default=FeedbackIntake(), description="what people may say of answers")

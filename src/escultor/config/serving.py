"""How answers are given."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from escultor.config.intake import FeedbackIntake
from escultor.config.section import Count, Natural, Positive, Section, Share

Price = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]  # USD per 1,000 tokens


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
    prices: dict[str, Price] = Field(
        default_factory=dict,
        description="version or upstream's model: [USD per 1,000 tokens in, out], instead of the hour's",
    )
    engine: Literal["transformers", "ctranslate2"] = Field(
        default="transformers",
        description="ctranslate2: greedy answers by a converted copy, faster on CPUs; Llama-like models",
    )
    batch_size: Count = Field(default=32, description="answers generated at a time")
    prefill_tokens: Count = Field(
        default=512,
        description="of new prompts computed between two tokens of answers under way; bounds their pause",
    )
    temperature: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="where a request gives none; 0: greedy"
    )
    max_new_tokens: Count = Field(
        default=256, description="an answer is cut here where a request does not say where"
    )
    queue: Count = Field(default=256, description="answers that may wait for their turn; more are refused")
    upstream: Upstream | None = Field(default=None, description="a server behind that computes the answers")
    intake: FeedbackIntake = Field(default=FeedbackIntake(), description="limits of feedback over HTTP")
    skill: str = Field(default="chat", description="what answers are filed under; a header may say another")
    names: tuple[str, ...] = Field(
        default=("escultor",), description="model names that mean the champion; '*': any name does"
    )
    # --- what is kept
    keep_text: bool = Field(
        default=True, description="false: prompts and answers are not kept, nor learnt from; figures are"
    )
    on_store_failure: Literal["refuse", "answer"] = Field(
        default="refuse", description="answer: deliver what could not be logged, and count it"
    )
    store_timeout_s: Positive = Field(default=10.0, description="a write that takes longer has failed")
    # --- deployments
    shadow: Share = Field(
        default=1.0, description="of requests: also answered by a candidate without a share of traffic"
    )
    shadow_in_flight: Natural = Field(default=4, description="shadow answers at a time; more are left out")
    follow_s: Positive = Field(default=1.0, description="between two looks for a new deployment or key")
    reopen_attempts: Natural = Field(
        default=5, description="to open an engine again that has died, each after twice the pause; 0: none"
    )
    reopen_quiet_s: Positive = Field(
        default=60.0, description="an engine that dies again this soon after it was opened again stays down"
    )
    # --- guards
    rate_per_key: Positive | None = Field(
        default=None, description="requests per second of each process; null: no limit"
    )
    rate_per_subject: Positive | None = Field(
        default=None, description="requests per second of each process; null: no limit"
    )
    burst: Count = Field(default=20, description="requests at once before a rate counts")
    max_body_mb: Positive = Field(default=8.0, description="a request's body")
    max_depth: Count = Field(default=64, description="of brackets within brackets in a request")
    max_connections: Count = Field(
        default=1000, description="one more, and the connection that has waited longest for a request goes"
    )
    header_timeout_s: Positive = Field(default=10.0, description="for a request's whole header")
    body_timeout_s: Positive = Field(default=30.0, description="for its whole body; of lines, for each piece")
    keep_alive_s: Count = Field(default=30, description="an idle connection is kept this long")
    answer_timeout_s: Positive = Field(default=600.0, description="for a whole answer")
    send_timeout_s: Positive = Field(default=30.0, description="for a client to take a piece")
    drain_s: Count = Field(default=30, description="answers under way may take this long when it stops")
    cors_origins: tuple[str, ...] = Field(
        default=(), description="web pages that may call, such as https://chat.example; '*': any"
    )

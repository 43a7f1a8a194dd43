"""Serving: engine, upstream, logging, deployments and limits."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from escultor.config.intake import FeedbackIntake
from escultor.config.section import Count, Natural, Positive, Section, Share

Price = tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]  # USD per 1,000 tokens


class Upstream(Section):
    """An upstream server with OpenAI's API: vLLM, llama.cpp's server, Ollama, a hosted one."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]")] = Field(
        description="such as http://127.0.0.1:8000/v1"
    )
    model: Annotated[str, Field(min_length=1)] = Field(description="model name on that server")
    key_env: str | None = Field(default=None, description="environment variable of its API key; null: none")
    connect_timeout_s: Positive = Field(default=5.0, description="time limit for a connection")
    idle_timeout_s: Positive = Field(default=60.0, description="for each piece of a streamed answer")
    deadline_s: Positive = Field(default=600.0, description="time limit for a whole answer, retries included")
    retries: Natural = Field(default=2, description="further attempts before the first byte of an answer")
    max_connections: Count = Field(default=128, description="maximum concurrent requests to it")


class Serve(Section):
    hourly_price_usd: Positive = Field(default=0.10, description="cost of this machine per hour")
    prices: dict[str, Price] = Field(
        default_factory=dict, description="by version or upstream model: [USD per 1,000 tokens in, out]"
    )
    engine: Literal["transformers", "ctranslate2"] = Field(
        default="transformers",
        description="ctranslate2: greedy decoding with a converted copy, faster on CPUs; Llama-like models",
    )
    batch_size: Count = Field(default=32, description="maximum answers generated together")
    prefill_tokens: Count = Field(
        default=512, description="prompt tokens between decoding steps (chunked prefill)"
    )
    temperature: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="if a request has none; 0: greedy"
    )
    max_new_tokens: Count = Field(default=256, description="default of requests")
    queue: Count = Field(default=256, description="maximum waiting requests; more are refused")
    upstream: Upstream | None = Field(default=None, description="the server that computes the answers")
    intake: FeedbackIntake = Field(default=FeedbackIntake(), description="limits of feedback over HTTP")
    skill: str = Field(default="chat", description="default skill of a request; a header may name another")
    names: tuple[str, ...] = Field(default=("escultor",), description="model names of the champion; '*': any")
    # --- logging
    keep_text: bool = Field(
        default=True,
        description="false: prompts and answers are neither stored nor trained on; figures are stored",
    )
    on_store_failure: Literal["refuse", "answer"] = Field(
        default="refuse", description="answer: deliver an answer that could not be logged, and count it"
    )
    store_timeout_s: Positive = Field(default=10.0, description="time limit of a write to the log")
    # --- deployments
    shadow: Share = Field(default=1.0, description="share of requests also answered by a shadow candidate")
    shadow_in_flight: Natural = Field(default=4, description="concurrent shadow answers; more are skipped")
    follow_s: Positive = Field(default=1.0, description="polling interval for new deployments and keys")
    reopen_attempts: Natural = Field(
        default=5, description="restarts of a dead engine, with exponential back-off"
    )
    reopen_quiet_s: Positive = Field(
        default=60.0, description="an engine that dies sooner after a restart stays down"
    )
    # --- limits
    rate_per_key: Positive | None = Field(
        default=None, description="requests per second and process; null: any"
    )
    rate_per_subject: Positive | None = Field(
        default=None, description="requests per second and process; null: any"
    )
    burst: Count = Field(default=20, description="requests above the rate allowed at once")
    max_body_mb: Positive = Field(default=8.0, description="maximum body of a request")
    max_depth: Count = Field(default=64, description="maximum nesting of brackets in a request")
    max_connections: Count = Field(default=1000, description="open connections; more close the longest idle")
    header_timeout_s: Positive = Field(default=10.0, description="time limit for a request's headers")
    body_timeout_s: Positive = Field(
        default=30.0, description="time limit for its body, or per chunk of lines"
    )
    keep_alive_s: Count = Field(default=30, description="idle connections are closed after this time")
    answer_timeout_s: Positive = Field(default=600.0, description="time limit for a whole answer")
    send_timeout_s: Positive = Field(default=30.0, description="time limit for a client to receive a chunk")
    drain_s: Count = Field(default=30, description="time that running answers may take at shutdown")
    cors_origins: tuple[str, ...] = Field(
        default=(), description="web origins: https://chat.example; '*': any"
    )

"""Serving: engine, upstream, logging, deployments and limits; limits of feedback; alerts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from escultor.config.section import Count, Natural, NonNegative, Positive, Section, Share, setting

Price = tuple[NonNegative, NonNegative]  # USD per 1,000 tokens
ANY_MODEL = "*"
UpstreamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
ModelPattern = Annotated[str, Field(pattern=r"^[^*]+$|^[^*]*\*[^*]*$", max_length=200)]


class Upstream(Section):
    """An upstream server with OpenAI's API: vLLM, llama.cpp's server, Ollama, a hosted one."""

    url: Annotated[str, Field(pattern=r"^https?://[^/]")] = Field(description="e.g. http://127.0.0.1:8000/v1")
    model: Annotated[str, Field(min_length=1)] = Field(description="model name on that server")
    key_env: str | None = setting(None, help="environment variable of its API key; null: none")
    connect_timeout_s: Positive = setting(5.0, help="time limit for a connection")
    idle_timeout_s: Positive = setting(60.0, help="for each piece of a streamed answer")
    deadline_s: Positive = setting(600.0, help="time limit for a whole answer, retries included")
    retries: Natural = setting(2, help="further attempts before the first byte of an answer")
    max_connections: Count = setting(128, help="maximum concurrent requests to it")
    price: Price | None = setting(None, help="USD per 1,000 tokens in, out; null: as in serve.prices")


class FeedbackIntake(Section):
    """Limits of feedback over HTTP: size, age, and how long a browser may send it."""

    batch: Count = setting(1000, help="maximum events per request")
    text_characters: Count = setting(65_536, help="maximum length of a correction or remark")
    clock_skew_s: Natural = setting(300, help="tolerated advance of a client's clock")
    max_age_days: Positive = setting(31.0, help="older events are refused")
    token_days: Positive = setting(7.0, help="how long a browser may send feedback on an answer")


class Serve(Section):
    hourly_price_usd: Positive = setting(0.10, help="cost of this machine per hour")
    prices: dict[str, Price] = setting(
        {}, help="per version or upstream model: [USD per 1,000 tokens in, out]"
    )
    engine: Literal["transformers", "ctranslate2"] = setting(
        "transformers",
        help="ctranslate2: greedy decoding with a converted copy, faster on CPUs; Llama-like models",
    )
    batch_size: Count = setting(32, help="maximum answers generated together")
    prefill_tokens: Count = setting(512, help="prompt tokens between decoding steps (chunked prefill)")
    temperature: NonNegative = setting(0.0, help="if a request has none; 0: greedy")
    max_new_tokens: Count = setting(256, help="default of requests")
    queue: Count = setting(256, help="maximum waiting requests; more are refused")
    upstream: Upstream | None = setting(None, help="the server that computes the answers")
    upstreams: dict[UpstreamName, Upstream] = setting({}, help="servers by name, for serve.models")
    models: dict[ModelPattern, Annotated[tuple[str, ...], Field(min_length=1)]] = setting(
        {}, help="names of serve.upstreams by model name of a request ('*': any text): the first that answers"
    )
    strict: bool = setting(False, help="true: what is not implemented is refused, not sent on to an upstream")
    intake: FeedbackIntake = setting(FeedbackIntake(), help="limits of feedback over HTTP")
    skill: str = setting("chat", help="default skill of a request; a header may name another")
    names: tuple[str, ...] = setting(("escultor",), help="model names of the champion; '*': any")
    # --- logging
    keep_text: bool = setting(True, help="false: no prompt or answer is stored or trained on")
    media_mb: NonNegative = setting(8.0, help="pictures, audio and files kept per request; 0: none")
    on_store_failure: Literal["refuse", "answer"] = setting(
        "refuse", help="answer: deliver an answer that could not be logged, and count it"
    )
    store_timeout_s: Positive = setting(10.0, help="time limit of a write to the log")
    # --- deployments
    shadow: Share = setting(1.0, help="share of requests also answered by a shadow candidate")
    shadow_in_flight: Natural = setting(4, help="concurrent shadow answers; more are skipped")
    follow_s: Positive = setting(1.0, help="polling interval for new deployments and keys")
    reopen_attempts: Natural = setting(5, help="restarts of a dead engine, with exponential back-off")
    reopen_quiet_s: Positive = setting(60.0, help="an engine that dies sooner after a restart stays down")
    # --- limits
    rate_per_key: Positive | None = setting(None, help="requests per second and process; null: any")
    rate_per_subject: Positive | None = setting(None, help="requests per second and process; null: any")
    burst: Count = setting(20, help="requests above the rate allowed at once")
    max_body_mb: Positive = setting(8.0, help="maximum body of a request")
    max_depth: Count = setting(64, help="maximum nesting of brackets in a request")
    max_messages: Count = setting(4096, help="maximum messages of a conversation")
    body_budget_mb: Positive = setting(64.0, help="large bodies held at a time, all requests together")
    max_connections: Count = setting(1000, help="open connections; more close the longest idle")
    header_timeout_s: Positive = setting(10.0, help="time limit for a request's headers")
    body_timeout_s: Positive = setting(30.0, help="time limit for its body, or per chunk of lines")
    keep_alive_s: Count = setting(30, help="idle connections are closed after this time")
    prepare_timeout_s: Positive = setting(30.0, help="time limit for reading a prompt into tokens")
    load_timeout_s: Positive = setting(600.0, help="time limit for loading a model")
    answer_timeout_s: Positive = setting(600.0, help="time limit for a whole answer")
    send_timeout_s: Positive = setting(30.0, help="time limit for a client to receive a chunk")
    drain_s: Count = setting(30, help="time that running answers may take at shutdown")
    cors_origins: tuple[str, ...] = setting((), help="web origins: https://chat.example; '*': any")

    @property
    def upstream_versions(self) -> dict[str, Upstream]:
        """Every upstream by the version that its answers are logged under."""
        sole = {self.upstream.model: self.upstream} if self.upstream else {}
        return sole | {upstream_version(name, each): each for name, each in self.upstreams.items()}

    def pattern_of(self, model: str) -> str | None:
        """The entry of `models` for a model name: the name itself, or the first that it matches."""
        if model in self.models:
            return model
        return next((pattern for pattern in self.models if matches(pattern, model)), None)

    @model_validator(mode="after")
    def _every_upstream_can_be_asked(self) -> Serve:
        named = {name for names in self.models.values() for name in names}
        if unknown := sorted(named - self.upstreams.keys()):
            raise ValueError(f"`models` names {', '.join(unknown)}, which `upstreams` does not have")
        if unused := sorted(self.upstreams.keys() - named):
            raise ValueError(f"`upstreams` has {', '.join(unused)}, which no entry of `models` names")
        if self.upstream is not None and ANY_MODEL in self.models:
            raise ValueError("`upstream` would never be asked: `models` sends every name ('*') elsewhere")
        return self


def matches(pattern: str, name: str) -> bool:
    """Whether a name is the pattern, in which one `*` stands for any text."""
    before, star, after = pattern.partition("*")
    if not star:
        return name == pattern
    return len(name) >= len(before) + len(after) and name.startswith(before) and name.endswith(after)


def upstream_version(name: str, upstream: Upstream) -> str:
    """The version that the answers of an upstream with a name are logged under: its name and its model."""
    return f"{name}/{upstream.model}"


class Monitor(Section):
    thumbs_down_limit: Share = setting(0.10, help="alert when the share is significantly higher")
    min_rated: Count = setting(30, help="minimum ratings before an alert may fire")
    error_budget: Share = setting(0.01, help="share of calls that may fail; alert when used up too fast")
    latency_p99_ms: Positive = setting(5000.0, help="one call in a hundred may take longer")
    ttft_p99_ms: Positive | None = setting(None, help="likewise for the first token; null: any time")
    quality_floor: Share = setting(0.8, help="alert when judges call significantly fewer answers good")
    daily_cost_usd: Positive = setting(10.0, help="budget of a UTC day")
    cooldown_s: NonNegative = setting(3600.0, help="minimum time between plans")
    otlp: Annotated[str, Field(pattern=r"^https?://[^/]")] | None = setting(
        None, help="OpenTelemetry collector that gets traces, e.g. http://127.0.0.1:4318"
    )
    notify: tuple[str, ...] = setting((), help="receivers of alerts: a webhook's URL, or one of apprise")

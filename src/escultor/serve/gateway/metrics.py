"""Counts of recorded answers for Prometheus: OpenTelemetry's names and buckets for generative AI (semantic
conventions, `gen_ai.*`), and the project's own beside them.

Counted is what this process recorded since it started; figures over time windows, with intervals, are the
monitor's. A label is a version, an arm, a skill or a reason to finish: no text and no person.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram

from escultor.types import FAILED, Interaction

DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS = tuple(4.0**k for k in range(14))
MAX_SKILLS = 100  # a client names its skill: further ones count as `other`


class AnswerMetrics:
    """Counts the rows of answers as they are recorded."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        model = ("gen_ai_operation_name", "gen_ai_response_model")
        self._duration = self._histogram(
            "gen_ai_server_request_duration_seconds",
            "Time of a request to the model",
            (*model, "error_type"),
            DURATION_S,
        )
        self._first_token = self._histogram(
            "gen_ai_server_time_to_first_token_seconds", "Time to the first token", model, FIRST_TOKEN_S
        )
        self._tokens = self._histogram(
            "gen_ai_client_token_usage", "Tokens of a request", (*model, "gen_ai_token_type"), TOKENS
        )
        self._answers = Counter(
            "escultor_answers",
            "Answers recorded",
            ("version", "arm", "skill", "finish_reason"),
            registry=self.registry,
        )
        self._cost = Counter(
            "escultor_cost_usd", "Cost of the answers recorded", ("version",), registry=self.registry
        )
        self._skills: set[str] = set()

    def _histogram(
        self, name: str, text: str, labels: Iterable[str], buckets: tuple[float, ...]
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def count(self, row: Interaction) -> None:
        """Count one answer."""
        skill = self._skill(row.skill)
        operation = "text_completion" if skill == "completion" else "chat"
        has_failed = row.finish_reason in FAILED
        error = row.finish_reason if has_failed else ""
        self._duration.labels(operation, row.version, error).observe(row.latency_ms / 1000)
        if row.ttft_ms is not None:
            self._first_token.labels(operation, row.version).observe(row.ttft_ms / 1000)
        for kind, n in (("input", row.usage.prompt_tokens), ("output", row.usage.completion_tokens)):
            self._tokens.labels(operation, row.version, kind).observe(n)
        self._answers.labels(row.version, row.arm, skill, row.finish_reason).inc()
        self._cost.labels(row.version).inc(row.cost_usd)

    def _skill(self, name: str) -> str:
        if name not in self._skills and len(self._skills) >= MAX_SKILLS:
            return "other"
        self._skills.add(name)
        return name

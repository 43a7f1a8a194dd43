"""How fast a model answers, and what that costs on this machine."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from escultor.config import Evaluation
from escultor.evaluate.stats import quantile
from escultor.model.generate import generate
from escultor.model.load import Loaded, count_parameters
from escultor.types import Sampling

SPEED_TOKENS = 32  # a request is timed to this many tokens: models that say less are not faster


def measure_speed(
    loaded: Loaded,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    settings: Evaluation,
    hourly_price_usd: float,
) -> dict[str, float]:
    """Latency of single requests, and tokens/s with `settings.batch_size` at a time.

    latency_p50_ms, latency_p99_ms (of `settings.speed_requests` requests: with fewer than 1,000 the p99
    is close to the slowest one seen), tokens_per_s, cost_usd_per_1k_tokens = price of an hour
    / 3600 / tokens_per_s * 1000.
    """
    short = replace(sampling, max_new_tokens=min(SPEED_TOKENS, sampling.max_new_tokens))
    asked = [prompts[i % len(prompts)] for i in range(settings.speed_requests)]
    generate(loaded, asked[:1], short, 1)  # the first call prepares kernels
    latencies = []
    for prompt in asked:
        began = time.perf_counter()
        generate(loaded, [prompt], short, 1)
        latencies.append(1000 * (time.perf_counter() - began))
    batch = [prompts[i % len(prompts)] for i in range(settings.batch_size)]
    speeds = []
    for _ in range(2):
        began = time.perf_counter()
        tokens = sum(len(a.tokens) for a in generate(loaded, batch, short, settings.batch_size))
        speeds.append(tokens / (time.perf_counter() - began))
    best = max(speeds)
    return {
        "parameters": float(count_parameters(loaded.model)),
        "latency_p50_ms": quantile(latencies, 0.5).value,
        "latency_p99_ms": quantile(latencies, 0.99).value,
        "tokens_per_s": best,
        "cost_usd_per_1k_tokens": hourly_price_usd / 3600 / best * 1000,
    }

"""How fast models answer, and what that costs on this machine: measured in turns, A B B A, in one run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from escultor.errors import DataError
from escultor.model.generate import generate
from escultor.model.loaded import Loaded, count_parameters
from escultor.stats import quantile
from escultor.types import Sampling

SPEED_TOKENS = 32  # a request is timed to this many tokens at most: models that say less are not faster
ENOUGH_FOR_P99 = 1000  # requests: with fewer the 99th percentile is close to the slowest one seen
FEWEST_FOR_P99 = 100  # requests: with fewer the 99th percentile is the slowest one seen
UNASKED_REQUESTS = 100  # at most, and at most as many as items, where no number of requests is asked for
UNASKED_BUDGET_S = 10.0  # of each model: then it is left at the requests timed so far
BATCH_RUNS = 2
TOLD_EVERY = 100  # requests


@dataclass(frozen=True, slots=True)
class Timing:
    """One request, asked alone. TTFT is the time of an answer of one token, asked for by itself."""

    ttft_ms: float
    latency_ms: float
    tokens: int

    @property
    def per_token_ms(self) -> float:
        """Time of each token after the first; that of the first where there is no other."""
        if self.tokens < 2:
            return self.ttft_ms
        return max(0.0, self.latency_ms - self.ttft_ms) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Speed:
    """What was measured of one model: single requests, and batches."""

    parameters: int
    requests: tuple[Timing, ...]
    batch_size: int
    tokens_per_s: float  # of the answers, `batch_size` at a time
    requests_per_s: float

    def figures(self, hourly_price_usd: float) -> dict[str, float]:
        """By name: p50 and p99 of ttft_ms, latency_ms and per_token_ms, with distribution-free 95 %
        bounds (`…_low`, `…_high`; a bound that so few requests cannot give is left out), speed_requests,
        speed_batch_size, tokens_per_s, and the cost of 1,000 tokens and of a request at the price of an
        hour, answered `batch_size` at a time.
        """
        found: dict[str, float] = {
            "parameters": float(self.parameters),
            "speed_requests": float(len(self.requests)),
            "speed_batch_size": float(self.batch_size),
            "tokens_per_s": self.tokens_per_s,
            "cost_usd_per_1k_tokens": hourly_price_usd / 3600 / self.tokens_per_s * 1000,
            "cost_usd_per_request": hourly_price_usd / 3600 / self.requests_per_s,
            "hourly_price_usd": hourly_price_usd,
        }
        for name in ("ttft", "latency", "per_token"):
            values = [getattr(timing, f"{name}_ms") for timing in self.requests]
            for q in (50, 99):
                at = quantile(values, q / 100)
                key = f"{name}_p{q}_ms"
                found[key] = at.value
                bounds = {f"{key}_low": at.low, f"{key}_high": at.high}
                found |= {bound: value for bound, value in bounds.items() if value is not None}
        return found


def is_speed(figure: str) -> bool:
    """Whether a figure of this name is one of `Speed.figures`."""
    return figure in ("parameters", "tokens_per_s", "hourly_price_usd") or any(
        part in figure for part in ("_ms", "cost_usd", "speed_")
    )


def doubt_about_p99(requests: float) -> str | None:
    """What is to be said of a p99 from so few requests; None where they are enough."""
    if requests >= ENOUGH_FOR_P99:
        return None
    return (
        f"p99 from {requests:.0f} requests: close to the slowest one seen; {ENOUGH_FOR_P99:,} tell it "
        "(evaluation.speed_requests)"
    )


def measure_speeds(
    models: Sequence[Loaded],
    prompts: Sequence[Sequence[Sequence[int]]],
    sampling: Sampling,
    requests: int,
    batch_size: int,
    progress: Callable[[str], None] = lambda text: None,
    budget_s: float = math.inf,
) -> list[Speed]:
    """Time every model on the same requests alternately, A B then B A, so that a machine whose speed drifts
    favours none; then on batches.

    prompts: `prompts[m]` are the requests in the tokens of model m. budget_s: seconds of each model after
    which no more single requests are timed (two are always), and no second batch. Raises DataError where
    there is nothing to ask, or where a model answers nothing.
    """
    asked = {len(each) for each in prompts}
    if not models or len(prompts) != len(models) or len(asked) != 1 or asked == {0}:
        got = f"{len(models)} models, prompts {[len(each) for each in prompts]}"
        raise DataError("speed cannot be measured", got, "the same requests for every model, at least one")
    short = replace(sampling, max_new_tokens=min(SPEED_TOKENS, sampling.max_new_tokens))
    timings: list[list[Timing]] = [[] for _ in models]
    for loaded, own in zip(models, prompts, strict=True):
        _ask(loaded, own[0], short)  # the first call prepares kernels
    began = time.perf_counter()
    for at in range(requests):
        spent = time.perf_counter() - began
        if at >= 2 and at % 2 == 0 and spent > budget_s * len(models):  # even: no model was first more often
            progress(f"timed {at} of {requests} requests in {spent:.0f} s (evaluation.speed_requests)")
            break
        if at % TOLD_EVERY == 0:
            progress(f"timing: {at:,} of {requests:,} requests")
        for m in _turn(len(models), at):
            timings[m].append(_ask(models[m], prompts[m][at % len(prompts[m])], short))
    batches: list[list[tuple[float, int]]] = [[] for _ in models]
    began = time.perf_counter()
    for at in range(BATCH_RUNS):
        if at and time.perf_counter() - began > budget_s * len(models):
            break
        for m in _turn(len(models), at):
            batches[m].append(_batch(models[m], prompts[m], short, batch_size))
    return [_speed(loaded, timings[m], batches[m], batch_size) for m, loaded in enumerate(models)]


def _turn(models: int, at: int) -> Sequence[int]:
    """Whose turn it is: forwards and backwards by turns."""
    order = range(models)
    return order if at % 2 == 0 else order[::-1]


def _ask(loaded: Loaded, prompt: Sequence[int], sampling: Sampling) -> Timing:
    began = time.perf_counter()
    generate(loaded, [prompt], replace(sampling, max_new_tokens=1), 1)
    first = time.perf_counter()
    answer = generate(loaded, [prompt], sampling, 1)[0]
    done = time.perf_counter()
    return Timing(1000 * (first - began), 1000 * (done - first), len(answer.tokens))


def _batch(
    loaded: Loaded, prompts: Sequence[Sequence[int]], sampling: Sampling, size: int
) -> tuple[float, int]:
    """Seconds and tokens of one batch."""
    asked = list(islice(cycle(prompts), size))
    began = time.perf_counter()
    tokens = sum(len(a.tokens) for a in generate(loaded, asked, sampling, size))
    return time.perf_counter() - began, tokens


def _speed(
    loaded: Loaded, timings: Sequence[Timing], batches: Sequence[tuple[float, int]], size: int
) -> Speed:
    """The faster of the batches counts: nothing makes a machine faster than it is."""
    seconds, tokens = min(batches, key=lambda batch: batch[0])
    if not tokens:
        raise DataError("speed cannot be measured", "no token in any answer", "a model that answers")
    return Speed(count_parameters(loaded.model), tuple(timings), size, tokens / seconds, size / seconds)

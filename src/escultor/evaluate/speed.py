"""Speed and cost of models on this machine, measured alternately (A B B A), and their comparison."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import cycle, islice
from typing import NamedTuple

from escultor.errors import DataError
from escultor.ids import plain
from escultor.model.generate import generate
from escultor.model.loaded import Loaded, count_parameters
from escultor.rng import derive_seed
from escultor.stats import bootstrap_ratio, cluster_sums, quantile
from escultor.types import Sampling

SPEED_TOKENS = 32  # of a timed answer at most, so that a model with shorter answers is not faster
ENOUGH_FOR_P99 = 1000  # requests: with fewer the 99th percentile is close to the slowest one
BATCH_RUNS = 2
PROGRESS_EVERY = 100  # requests
FORMAT = "escultor-speed/1"
ALPHA = 0.025  # one-sided: 95 % intervals


@dataclass(frozen=True, slots=True)
class Timing:
    """One request by itself. TTFT (time to first token) is that of a separate request for one token."""

    ttft_ms: float
    latency_ms: float
    tokens: int

    @property
    def per_token_ms(self) -> float:
        """The mean time of the tokens after the first; that of the first where there is no other."""
        if self.tokens < 2:
            return self.ttft_ms
        return max(0.0, self.latency_ms - self.ttft_ms) / (self.tokens - 1)


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of one model: single requests, and throughput in batches."""

    parameters: int
    requests: tuple[Timing, ...]
    batch_size: int
    tokens_per_s: float  # of the answers, `batch_size` at a time
    requests_per_s: float

    def figures(self, hourly_price_usd: float) -> dict[str, float]:
        """By name: p50 and p99 of ttft_ms, latency_ms and per_token_ms with distribution-free 95 % bounds
        (`…_low`, `…_high`; left out where there are too few requests), speed_requests, speed_batch_size,
        tokens_per_s, and the cost of 1,000 tokens and of a request in batches at that hourly price."""
        figures: dict[str, float] = {
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
                value, low, high, _ = quantile(values, q / 100)
                key = f"{name}_p{q}_ms"
                bounds = {key: value, f"{key}_low": low, f"{key}_high": high}
                figures |= {bound: value for bound, value in bounds.items() if value is not None}
        return figures


def is_speed(figure: str) -> bool:
    """Whether a figure of this name is one of `Speed.figures`."""
    return figure in ("parameters", "tokens_per_s", "hourly_price_usd") or any(
        part in figure for part in ("_ms", "cost_usd", "speed_")
    )


def doubt_about_p99(requests: float) -> str | None:
    """A caveat about a p99 from so few requests; None where they are enough."""
    if requests >= ENOUGH_FOR_P99:
        return None
    return (
        f"p99 from {requests:.0f} requests: close to the slowest one; {ENOUGH_FOR_P99:,} are enough "
        "(evaluation.speed_requests)"
    )


def measure_speeds(
    models: Sequence[Loaded],
    prompts: Sequence[Sequence[Sequence[int]]],
    sampling: Sampling,
    requests: int,
    batch_size: int,
    progress: Callable[[str], None] = lambda text: None,
) -> list[Speed]:
    """Time every model on the same requests alternately (A B, then B A), so that a drift of the machine's
    speed favours none; then on batches.

    `prompts[m]` are the requests in the tokens of model m. Raises DataError where there are no prompts, or
    where a model generates no token.
    """
    sizes = {len(each) for each in prompts}
    if not models or len(prompts) != len(models) or len(sizes) != 1 or sizes == {0}:
        got = f"{len(models)} models, prompts {[len(each) for each in prompts]}"
        raise DataError("speed cannot be measured", got, "the same requests for every model, at least one")
    short = replace(sampling, max_new_tokens=min(SPEED_TOKENS, sampling.max_new_tokens))
    timings: list[list[Timing]] = [[] for _ in models]
    for loaded, own in zip(models, prompts, strict=True):
        _time_request(loaded, own[0], short)  # the first call prepares kernels
    forward = range(len(models))
    for n in range(requests):
        if n % PROGRESS_EVERY == 0:
            progress(f"timing: {n:,} of {requests:,} requests")
        for m in forward if n % 2 == 0 else forward[::-1]:
            timings[m].append(_time_request(models[m], prompts[m][n % len(prompts[m])], short))
    batches: list[list[tuple[float, int]]] = [[] for _ in models]
    for n in range(BATCH_RUNS):
        for m in forward if n % 2 == 0 else forward[::-1]:
            batches[m].append(_time_batch(models[m], prompts[m], short, batch_size))
    return [_speed(loaded, timings[m], batches[m], batch_size) for m, loaded in enumerate(models)]


def _time_request(loaded: Loaded, prompt: Sequence[int], sampling: Sampling) -> Timing:
    start = time.perf_counter()
    generate(loaded, [prompt], replace(sampling, max_new_tokens=1), 1)
    first = time.perf_counter()
    answer = generate(loaded, [prompt], sampling, 1)[0]
    end = time.perf_counter()
    return Timing(1000 * (first - start), 1000 * (end - first), len(answer.tokens))


def _time_batch(
    loaded: Loaded, prompts: Sequence[Sequence[int]], sampling: Sampling, size: int
) -> tuple[float, int]:
    """Seconds and tokens of one batch."""
    batch = list(islice(cycle(prompts), size))
    start = time.perf_counter()
    tokens = sum(len(answer.tokens) for answer in generate(loaded, batch, sampling, size))
    return time.perf_counter() - start, tokens


def _speed(
    loaded: Loaded, timings: Sequence[Timing], batches: Sequence[tuple[float, int]], size: int
) -> Speed:
    """The speed from the fastest batch: interruptions only ever make a batch slower."""
    seconds, tokens = min(batches, key=lambda batch: batch[0])
    if not tokens:
        raise DataError("speed cannot be measured", "no token in any answer", "a model that answers")
    return Speed(count_parameters(loaded.model), tuple(timings), size, tokens / seconds, size / seconds)


# --- comparison -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LatencyBenchmark:
    """Speeds of models, by checkpoint, measured together on one suite's prompts at one hourly price."""

    suite: str
    prompts: int  # repeated from the first when there are more requests
    hourly_price_usd: float
    speeds: dict[str, Speed] = field(default_factory=dict)

    def to_json(self) -> str:
        """The benchmark as `read_benchmark` reads it."""
        return json.dumps({"format": FORMAT, **plain(self)}, indent=1, allow_nan=False) + "\n"


def read_benchmark(text: str) -> LatencyBenchmark:
    """The benchmark in a file. Raises DataError for any other text."""
    from pydantic import TypeAdapter, ValidationError

    try:
        fields = json.loads(text)
        if fields.pop("format") != FORMAT:
            raise ValueError("another format")
        benchmark = TypeAdapter(LatencyBenchmark).validate_python(fields)
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason, remedy = str(error).splitlines()[0], "write it: escultor speed MODEL MODEL --out FILE"
        raise DataError("this is no measurement of speed", reason, FORMAT, remedy) from error
    speeds = benchmark.speeds.values()
    times = [time_ms for s in speeds for r in s.requests for time_ms in (r.ttft_ms, r.latency_ms)]
    rates = [rate for s in speeds for rate in (s.tokens_per_s, s.requests_per_s)]
    if not times or not all(0 < value < math.inf for value in (*times, *rates, benchmark.hourly_price_usd)):
        raise DataError("this is no measurement of speed", "a figure that is not positive", "numbers above 0")
    return benchmark


class TimeRatio(NamedTuple):
    """Time of one model over that of another, for the same requests; None: no bound can be given."""

    value: float
    low: float | None
    high: float | None


def time_ratio(baseline: Speed, other: Speed, prompts: int, seed: int = 0) -> TimeRatio:
    """Mean latency of `other` over that of `baseline` on the same requests, with a 95 % interval (studentised
    bootstrap of a ratio) whose sampling unit is the prompt, of which there are `prompts`, in turn."""
    clusters = [str(number % prompts) for number in range(len(baseline.requests))]
    sums, sizes = (
        cluster_sums([r.latency_ms for r in speed.requests], clusters)[0] for speed in (other, baseline)
    )
    seed, n = derive_seed(seed, "race"), len(set(clusters))  # the name of the draws, as in stored results
    ratio = bootstrap_ratio(sums, sizes, ALPHA, seed, floor=0.0, ceiling=math.inf, n=n)
    return TimeRatio(ratio.value, *(b if 0 < b < math.inf else None for b in (ratio.low, ratio.high)))

"""Models timed in turns: the ratio of their times, and the file of it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escultor.errors import DataError
from escultor.evaluate.speed import FORMAT, LatencyBenchmark, Speed, Timing, read_benchmark, time_ratio


def timed(latencies) -> Speed:
    return Speed(10, tuple(Timing(1.0, float(ms), 5) for ms in latencies), 4, 100.0, 20.0)


BENCHMARK = LatencyBenchmark("suite", 3, 0.5, {"a": timed([10, 20, 30]), "b": timed([5, 10, 15])})


def test_the_file_of_a_measurement_gives_it_back():
    assert read_benchmark(BENCHMARK.to_json()) == BENCHMARK


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "not JSON",
        BENCHMARK.to_json().replace(FORMAT, "escultor-speed/0"),
        BENCHMARK.to_json().replace('"latency_ms": 5.0', '"latency_ms": -5.0'),
        BENCHMARK.to_json().replace('"latency_ms": 5.0', '"latency_ms": NaN'),
        BENCHMARK.to_json().replace('"tokens_per_s": 100.0', '"tokens_per_s": 0.0'),
        json.dumps({"format": FORMAT, "suite": "s", "prompts": 1, "hourly_price_usd": 1.0, "speeds": {}}),
    ],
)
def test_a_text_that_is_no_measurement_is_refused(text):
    with pytest.raises(DataError, match="no measurement of speed"):
        read_benchmark(text)


@given(st.floats(0.1, 10), st.integers(12, 40))
def test_a_constant_ratio_is_found_whatever_the_requests_take(factor, n):
    times = np.linspace(1, 9, n)
    found = time_ratio(timed(times), timed(times * factor), n)
    assert found.value == pytest.approx(factor)


def test_the_interval_holds_the_ratio_that_is_and_draws_prompts_not_requests():
    """Each prompt's own ratio varies, and asking it ten times more tells nothing more of other prompts."""
    hits, runs, rng = 0, 200, np.random.default_rng(0)
    for _ in range(runs):
        length, own = rng.uniform(10, 50, 40), rng.lognormal(0, 0.3, 40) / np.exp(0.045)
        found = time_ratio(timed(np.tile(length, 10)), timed(np.tile(2 * length * own, 10)), 40)
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 2 <= found.high
    assert 0.90 <= hits / runs <= 0.99  # 95 % aimed at, four standard errors on 200 runs: 0.89


def test_one_prompt_tells_next_to_nothing_of_others():
    found = time_ratio(timed([10, 10]), timed([5, 5]), 1)
    assert (found.value, found.high) == (0.5, None)
    assert found.low is not None
    assert found.low < 0.05

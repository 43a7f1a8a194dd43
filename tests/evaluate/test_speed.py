"""Speed: measured in turns, its intervals by order statistics, its cost by stated arithmetic."""

import pytest
from tiny import llama

from escultor.errors import DataError
from escultor.evaluate import speed
from escultor.evaluate.speed import Speed, Timing, measure_speeds
from escultor.types import Sampling

PROMPTS = [[7, 8, 9], [10, 11]]


def test_models_take_turns_forwards_and_backwards(monkeypatch):
    asked = []
    models = [llama(), llama(1)]
    real = speed.generate

    def noted(loaded, prompts, sampling, batch):
        asked.append((models.index(loaded), sampling.max_new_tokens, len(prompts)))
        return real(loaded, prompts, sampling, batch)

    monkeypatch.setattr(speed, "generate", noted)
    one, other = measure_speeds(models, [PROMPTS, PROMPTS], Sampling(max_new_tokens=3), 4, 5)
    single = [m for m, tokens, count in asked if tokens == 3 and count == 1]
    assert single == [0, 1, 0, 1, 1, 0, 0, 1, 1, 0]  # both once to warm up, then A B B A A B B A
    assert [m for m, _, count in asked if count == 5] == [0, 1, 1, 0]
    assert len(one.requests) == len(other.requests) == 4
    assert all(t.tokens <= 3 and t.latency_ms > 0 and t.ttft_ms > 0 for t in one.requests)


def test_figures_follow_from_what_was_timed():
    timings = tuple(Timing(1.0 + n, 11.0 + 2 * n, 11) for n in range(1000))
    figures = Speed(500, timings, 8, 200.0, 10.0).figures(3.6)
    assert figures["cost_usd_per_1k_tokens"] == pytest.approx(3.6 / 3600 / 200 * 1000)
    assert figures["cost_usd_per_request"] == pytest.approx(3.6 / 3600 / 10)
    assert figures["ttft_p50_ms"] == 500.0
    assert figures["latency_p99_ms"] == 11.0 + 2 * 989
    assert figures["latency_p99_ms_low"] < figures["latency_p99_ms"] < figures["latency_p99_ms_high"]
    assert figures["per_token_p50_ms"] == pytest.approx((10 + 499) / 10)
    assert speed.doubt_about_p99(figures["speed_requests"]) is None


def test_few_requests_have_no_upper_bound_of_a_p99_and_say_so():
    few = Speed(1, (Timing(1, 2, 3),) * 20, 1, 1.0, 1.0).figures(1.0)
    assert "latency_p99_ms_high" not in few
    assert "20 requests" in str(speed.doubt_about_p99(few["speed_requests"]))


def test_as_many_requests_are_timed_as_are_asked_for():
    speeds = measure_speeds([llama(), llama(seed=1)], [PROMPTS, PROMPTS], Sampling(max_new_tokens=2), 5, 1)
    assert [len(each.requests) for each in speeds] == [5, 5]


def test_an_answer_of_one_token_takes_as_long_as_its_first():
    assert Timing(4.0, 5.0, 1).per_token_ms == 4.0


def test_speed_of_nothing_is_refused():
    for models, prompts in (([], []), ([llama()], [[]]), ([llama()], [PROMPTS, PROMPTS])):
        with pytest.raises(DataError, match="speed cannot be measured"):
            measure_speeds(models, prompts, Sampling(), 1, 1)
